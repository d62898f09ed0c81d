"""Mining: pairwise distances, and the pairs or triplets that a loss should use.

Embeddings `[n d]`, the anchors, are compared with references `[m d]`, which are the
batch itself by default. Pairs are `[n m]`, triplets `[n m m]` (anchor, positive,
negative). An example is never its own positive. Masks and miners return booleans, to
be passed to a loss as `where`. `m_per_class`, `memory_bank` and `grad_cache` give a
loss the batch that it needs. Distances are differentiable; between equal embeddings
the distance and its derivative are 0.

Raises:
    ValueError: If a hyperparameter is out of its range.
"""

from jaxml.mining._distances import (
    squared_euclidean as squared_euclidean,
    euclidean as euclidean,
    lp as lp,
    cosine_similarity as cosine_similarity,
    dot_product as dot_product,
)
from jaxml.mining._masks import (
    positives as positives,
    negatives as negatives,
    has_positive as has_positive,
    has_negative as has_negative,
)
from jaxml.mining._miners import (
    hard_pairs as hard_pairs,
    pair_margin as pair_margin,
    multi_similarity_pairs as multi_similarity_pairs,
    distance_weighted as distance_weighted,
    easy_triplets as easy_triplets,
    semihard_triplets as semihard_triplets,
    hard_triplets as hard_triplets,
)
from jaxml.mining._sampling import (
    m_per_class as m_per_class,
)
from jaxml.mining._memory_bank import (
    memory_bank as memory_bank,
)
from jaxml.mining._grad_cache import (
    grad_cache as grad_cache,
)
