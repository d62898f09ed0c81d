"""Rows for handwritten digits: near for one digit, for digits never seen too."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

from jaxml import activations, losses, mining
from jaxml.sweep import Point, Task
from jaxml.tasks._digits import PIXELS
from jaxml.tasks._network import as_columns, as_rows, he, product

SEEN, EXAMINED, NEIGHBOURS = 7, 256, 5

LOSSES = {
    function.__name__: function
    for function in (
        losses.nt_xent,
        losses.supcon_loss,
        losses.multi_similarity_loss,
        losses.batch_contrastive_loss,
        losses.margin_loss,
        losses.batch_hard_triplet_loss,
        losses.batch_semihard_triplet_loss,
        losses.batch_all_triplet_loss,
        losses.nca_loss,
    )
}
"""Losses of this task, from rows of length 1 and labels."""


def digits_embedding(*, hidden: int = 32, features: int = 16) -> Task:
    """Digits as rows of length 1, learned from seven digits and judged by the others.

        row = l2_normalize(W₂ f(W₁ x + b₁))

    Its point has two functions: `activation`, f of one number, and `loss`,
    (rows, labels) -> one loss for each row. It reports `loss`; `recall_at_1`, how often
    the nearest other row has the same digit; and `knn_accuracy`, how often the vote of
    the five nearest is right. Digits 0 to 6 are for training, and 7 to 9, unseen, for
    validation.

    Args:
        hidden: The number of hidden units.
        features: The length of a row.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits_embedding().valid
        >>> x.shape, jnp.unique(y)
        ((533, 64), Array([7, 8, 9], dtype=int32))
    """
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x = jnp.asarray(images[order] / 16, jnp.float32)
    y = jnp.asarray(labels[order], jnp.int32)
    seen = labels[order] < SEEN

    def init(key: Array, point: Point) -> dict[str, Array]:
        first, second = jax.random.split(key)
        return {
            "w1": he(first, PIXELS, hidden),
            "b1": jnp.zeros((hidden, 1), jnp.float32),
            "w2": he(second, hidden, features),
        }

    def rows(params: dict[str, Array], x: Array, point: Point) -> Array:
        h = point["activation"](as_columns(params["w1"], x) + params["b1"])
        return activations.l2_normalize(as_rows(product(params["w2"], h)))

    def loss(params: dict[str, Array], batch: tuple, point: Point) -> Array:
        x, y = batch
        return losses.mean(point["loss"](rows(params, x, point), y))

    def metrics(
        params: dict[str, Array], data: tuple, point: Point
    ) -> dict[str, Array]:
        x, y = (part[:EXAMINED] for part in data)
        e = rows(params, x, point)
        s = jnp.where(jnp.eye(len(y), dtype=bool), -jnp.inf, mining.dot_product(e, e))
        nearest = _nearest(s)
        votes = jax.nn.one_hot(y[nearest], 10, dtype=jnp.float32).sum(0)
        elected = jnp.argmax(votes, -1).astype(y.dtype)
        return {
            "loss": losses.mean(point["loss"](e, y)),
            "recall_at_1": jnp.mean(y[nearest[0]] == y, dtype=jnp.float32),
            "knn_accuracy": jnp.mean(elected == y, dtype=jnp.float32),
        }

    return Task(init, loss, metrics, (x[seen], y[seen]), (x[~seen], y[~seen]))


def _nearest(s: Array) -> Array:
    """The columns of the greatest similarities of each row, one after another."""

    def take(s: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmax(s, -1)
        taken = jnp.arange(s.shape[-1])[None] == best[:, None]
        return jnp.where(taken, -jnp.inf, s), best

    return jax.lax.scan(take, s, length=NEIGHBOURS)[1]
