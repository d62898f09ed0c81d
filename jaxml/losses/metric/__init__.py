"""Metric learning: losses of embeddings, by pairs, in batches or against proxies.

In-batch losses take a set of embeddings [n d] and return one value per anchor. Row i is
an anchor. Its positives are the other rows with its label, its negatives the rows with
another label. An anchor without pairs has loss 0 and gradient 0. Shared arguments:

    references, reference_labels: The candidates, if they come from a memory bank [m d].
    where: The pairs [n m] that take part.
    block: The number of anchors per tile. It bounds memory, not the result.
    axis_name: The mesh axes over which the rows are sharded, in `jax.shard_map`: the
        rows of all devices are candidates, and `where` has a column for each of them.
"""
