"""Rows of numbers with a label or a number each, and a network of one hidden layer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxml import losses
from jaxml.sweep import Point, Task

Layers = dict[str, Array]


def shuffled(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """The examples in one random order for all runs; four fifths are for training."""
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], y[order], int(0.8 * len(y))


def standardised(x: np.ndarray, train: int) -> np.ndarray:
    """Columns of mean 0 and variance 1 over the examples for training."""
    return (x - x[:train].mean(0)) / x[:train].std(0)


def classifier(
    x: np.ndarray, y: np.ndarray, train: int, *, hidden: int, classes: int
) -> Task:
    """logits = W₂ f(W₁ x + b₁) + b₂, judged by `accuracy`."""

    def metrics(logits: Array, y: Array) -> dict[str, Array]:
        guesses = jnp.argmax(logits, -1).astype(y.dtype)
        return {"accuracy": jnp.mean(guesses == y, dtype=jnp.float32)}

    return _task(x, jnp.asarray(y, jnp.int32), train, hidden, classes, metrics)


def regressor(x: np.ndarray, y: np.ndarray, train: int, *, hidden: int) -> Task:
    """prediction = W₂ f(W₁ x + b₁) + b₂, judged by `r2`, the variance explained."""

    def metrics(predicted: Array, y: Array) -> dict[str, Array]:
        missed = jnp.mean((predicted[:, 0] - y) ** 2)
        return {"r2": 1 - missed / jnp.var(y)}

    def of_column(loss: Callable[..., Array]) -> Callable[..., Array]:
        return lambda predicted, y: loss(predicted[:, 0], y)

    return _task(x, jnp.asarray(y, jnp.float32), train, hidden, 1, metrics, of_column)


def he(key: Array, inputs: int, outputs: int) -> Array:
    """Weights of variance 2 / inputs, which keep the scale of rectified units."""
    scale = float(np.sqrt(2 / inputs))
    return scale * jax.random.normal(key, (outputs, inputs), jnp.float32)


def as_columns(weights: Array, x: Array) -> Array:
    """W xᵀ: a column for each example."""
    return weights @ x.T


@jax.custom_vjp
def product(weights: Array, h: Array) -> Array:
    """W h, of columns.

    XLA:CPU takes a batch of small products at a fraction of the speed when one of them
    is read against its order. So what has to be transposed is small, and is transposed
    as a step of its own, here and in `as_rows`.
    """
    return weights @ h


def _forward(weights: Array, h: Array) -> tuple[Array, tuple[Array, Array]]:
    return weights @ h, (weights, h)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    weights, h = saved
    return g @ h.T, _apart(weights.T) @ g


product.defvjp(_forward, _backward)


def as_rows(columns: Array) -> Array:
    """A row for each example, from a column for each."""
    return _apart(columns).T


def _apart(x: Array) -> Array:
    """x as a step of its own: XLA would join a transposition to the product."""
    return lax.optimization_barrier(x)


def _task(
    x: np.ndarray,
    y: Array,
    train: int,
    hidden: int,
    outputs: int,
    judge: Callable[[Array, Array], dict[str, Array]],
    adapted: Callable[[Any], Any] = lambda loss: loss,
) -> Task:
    rows = jnp.asarray(x, jnp.float32)

    def init(key: Array, point: Point) -> Layers:
        first, second = jax.random.split(key)
        return {
            "w1": he(first, rows.shape[1], hidden),
            "b1": jnp.zeros((hidden, 1), jnp.float32),
            "w2": he(second, hidden, outputs),
            "b2": jnp.zeros((outputs, 1), jnp.float32),
        }

    def predicted(params: Layers, x: Array, point: Point) -> Array:
        h = point["activation"](as_columns(params["w1"], x) + params["b1"])
        return as_rows(product(params["w2"], h) + params["b2"])

    def loss(params: Layers, batch: tuple, point: Point) -> Array:
        x, y = batch
        return losses.mean(adapted(point["loss"])(predicted(params, x, point), y))

    def metrics(params: Layers, data: tuple, point: Point) -> dict[str, Array]:
        x, y = data
        out = predicted(params, x, point)
        return {"loss": losses.mean(adapted(point["loss"])(out, y)), **judge(out, y)}

    seen, unseen = (rows[:train], y[:train]), (rows[train:], y[train:])
    return Task(init, loss, metrics, seen, unseen)
