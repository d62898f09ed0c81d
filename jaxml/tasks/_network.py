"""A network with one hidden layer, trained on feature vectors.

    output = W₂ f(W₁ x + b₁) + b₂

The data hold one example per row; inside the network an example is a column.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxml import losses
from jaxml._core.matmul import columns_to_rows, matmul_columns
from jaxml.sweep import Point, Task

Params = dict[str, Array]


def shuffle(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Examples in one fixed random order; the first 80% are for training."""
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], y[order], int(0.8 * len(y))


def standardize(x: np.ndarray, num_train: int) -> np.ndarray:
    """Scales columns to mean 0 and variance 1 over the training examples."""
    return (x - x[:num_train].mean(0)) / x[:num_train].std(0)


def he_normal(key: Array, inputs: int, outputs: int) -> Array:
    """Weights from N(0, 2 / inputs), which preserves the scale of ReLU units."""
    scale = float(np.sqrt(2 / inputs))
    return scale * jax.random.normal(key, (outputs, inputs), jnp.float32)


def classification_task(
    x: np.ndarray, y: np.ndarray, num_train: int, *, hidden: int, num_classes: int
) -> Task:
    """The output is a logit per class; the metric is `accuracy`."""

    def accuracy(logits: Array, y: Array) -> dict[str, Array]:
        predictions = jnp.argmax(logits, -1).astype(y.dtype)
        return {"accuracy": jnp.mean(predictions == y, dtype=jnp.float32)}

    return _network_task(
        x, jnp.asarray(y, jnp.int32), num_train, hidden, num_classes, accuracy
    )


def regression_task(
    x: np.ndarray, y: np.ndarray, num_train: int, *, hidden: int
) -> Task:
    """The output is one number; the metric is `r2`, the explained variance."""

    def r2(predicted: Array, y: Array) -> dict[str, Array]:
        mean_squared_error = jnp.mean((predicted - y) ** 2)
        return {"r2": 1 - mean_squared_error / jnp.var(y)}

    return _network_task(
        x, jnp.asarray(y, jnp.float32), num_train, hidden, 1, r2, _first_output
    )


def _first_output(outputs: Array) -> Array:
    return outputs[:, 0]


def _network_task(
    x: np.ndarray,
    y: Array,
    num_train: int,
    hidden: int,
    num_outputs: int,
    metric_fn: Callable[[Array, Array], dict[str, Array]],
    output_fn: Callable[[Array], Array] = lambda outputs: outputs,
) -> Task:
    rows = jnp.asarray(x, jnp.float32)

    def init(key: Array, point: Point) -> Params:
        w1_key, w2_key = jax.random.split(key)
        return {
            "w1": he_normal(w1_key, rows.shape[1], hidden),
            "b1": jnp.zeros((hidden, 1), jnp.float32),
            "w2": he_normal(w2_key, hidden, num_outputs),
            "b2": jnp.zeros((num_outputs, 1), jnp.float32),
        }

    def predict(params: Params, x: Array, point: Point) -> Array:
        w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
        h = point["activation"](w1 @ x.T + b1)
        return output_fn(columns_to_rows(matmul_columns(w2, h) + b2))

    def loss(params: Params, batch: tuple, point: Point) -> Array:
        x, y = batch
        return losses.mean(point["loss"](predict(params, x, point), y))

    def metrics(params: Params, data: tuple, point: Point) -> dict[str, Array]:
        x, y = data
        predicted = predict(params, x, point)
        mean_loss = losses.mean(point["loss"](predicted, y))
        return {"loss": mean_loss, **metric_fn(predicted, y)}

    train = rows[:num_train], y[:num_train]
    valid = rows[num_train:], y[num_train:]
    return Task(init, loss, metrics, train, valid)
