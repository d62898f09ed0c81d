"""Metric learning: embeddings of handwritten digits, tested on unseen digits."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

from jaxml import activations, losses, mining
from jaxml._core.matmul import columns_to_rows, matmul_columns
from jaxml.sweep import Point, Task
from jaxml.tasks._digits import MAX_PIXEL, NUM_CLASSES, NUM_PIXELS
from jaxml.tasks._network import Params, he_normal

NUM_TRAIN_CLASSES, NUM_EVAL, NUM_NEIGHBORS = 7, 256, 5


def digits_embedding(*, hidden: int = 32, features: int = 16) -> Task:
    """Metric learning on handwritten digits, validated on digits not seen in training.

        embedding = l2_normalize(W₂ f(W₁ x + b₁))

    The point of a model holds two functions: `activation`, f, applied elementwise, and
    `loss`, (embeddings, labels) -> one loss per embedding. Digits 0 to 6 are for
    training, 7 to 9 for validation. The metrics, over the first 256 images, are `loss`;
    `recall_at_1`, how often the nearest neighbor is the same digit; and `knn_accuracy`,
    how often the majority of the five nearest neighbors is.

    Args:
        hidden: Number of hidden units.
        features: Dimension of the embeddings.

    Reference:
        Alpaydin and Kaynak, Optical recognition of handwritten digits, UCI Machine
        Learning Repository, 1998, https://doi.org/10.24432/C50P49

    Example:
        >>> x, y = digits_embedding().valid
        >>> x.shape, jnp.unique(y)
        ((533, 64), Array([7, 8, 9], dtype=int32))
    """
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(labels))
    x = jnp.asarray(images[order] / MAX_PIXEL, jnp.float32)
    y = jnp.asarray(labels[order], jnp.int32)
    is_train = labels[order] < NUM_TRAIN_CLASSES

    def init(key: Array, point: Point) -> Params:
        w1_key, w2_key = jax.random.split(key)
        return {
            "w1": he_normal(w1_key, NUM_PIXELS, hidden),
            "b1": jnp.zeros((hidden, 1), jnp.float32),
            "w2": he_normal(w2_key, hidden, features),
        }

    def embed(params: Params, x: Array, point: Point) -> Array:
        w1, b1, w2 = (params[name] for name in ("w1", "b1", "w2"))
        h = point["activation"](w1 @ x.T + b1)
        return activations.l2_normalize(columns_to_rows(matmul_columns(w2, h)))

    def loss(params: Params, batch: tuple, point: Point) -> Array:
        x, y = batch
        return losses.mean(point["loss"](embed(params, x, point), y))

    def metrics(params: Params, data: tuple, point: Point) -> dict[str, Array]:
        x, y = (array[:NUM_EVAL] for array in data)
        embeddings = embed(params, x, point)
        neighbors = _nearest_neighbors(embeddings)
        votes = jax.nn.one_hot(y[neighbors], NUM_CLASSES, dtype=jnp.float32).sum(0)
        majority = jnp.argmax(votes, -1).astype(y.dtype)
        return {
            "loss": losses.mean(point["loss"](embeddings, y)),
            "recall_at_1": jnp.mean(y[neighbors[0]] == y, dtype=jnp.float32),
            "knn_accuracy": jnp.mean(majority == y, dtype=jnp.float32),
        }

    train, valid = (x[is_train], y[is_train]), (x[~is_train], y[~is_train])
    return Task(init, loss, metrics, train, valid)


def _nearest_neighbors(embeddings: Array) -> Array:
    """Indices [k n] of the nearest neighbors of each embedding, nearest first."""
    is_self = jnp.eye(len(embeddings), dtype=bool)
    similarities = mining.dot_product(embeddings, embeddings)

    def take_nearest(similarities: Array, _: None) -> tuple[Array, Array]:
        nearest = jnp.argmax(similarities, -1)
        is_nearest = jnp.arange(similarities.shape[-1])[None] == nearest[:, None]
        return jnp.where(is_nearest, -jnp.inf, similarities), nearest

    others = jnp.where(is_self, -jnp.inf, similarities)
    return jax.lax.scan(take_nearest, others, length=NUM_NEIGHBORS)[1]
