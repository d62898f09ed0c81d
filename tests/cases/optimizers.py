"""Optimizers: the recurrence of each paper over 60 steps, in float64 NumPy.

A row turns the pair of functions into one: gradients [steps, n] in, updates out,
with parameters that stay at 1 where weight decay looks at them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case, Extreme
from jaxml import optimizers, schedules

STEPS = 60


def trajectory(optimizer: Callable[..., Any]) -> Callable[..., jax.Array]:
    def updates(gradients: jax.Array, **numbers: Any) -> jax.Array:
        gradients = jnp.asarray(gradients)
        transformation = optimizer(numbers.pop("learning_rate", 0.1), **numbers)
        params = jnp.ones_like(gradients[0])

        def step(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
            update, state = transformation.update(g, state, params)
            return state, update

        return jax.lax.scan(step, transformation.init(params), gradients)[1]

    return updates


def recurrence(start: int, step: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The updates of `step(t, g, *memory, **numbers) -> update, *memory`."""

    def updates(gradients: np.ndarray, learning_rate: Any = 0.1, **numbers: Any):
        memory, result = [0.0] * start, []
        for t, g in enumerate(gradients, 1):
            rate = learning_rate(t - 1) if callable(learning_rate) else learning_rate
            update, *memory = step(t, g, *memory, **numbers)
            result.append(-rate * update)
        return np.array(result)

    return updates


def momentum(t, g, b, decay=0.9, dampening=0.0):
    b = g if t == 1 else decay * b + (1 - dampening) * g
    return b, b


def nesterov(t, g, b, decay=0.9):
    b = decay * b + g
    return g + decay * b, b


def adagrad(t, g, total, initial_accumulator=0.0, eps=1e-10):
    total = total + g**2 + (initial_accumulator if t == 1 else 0)
    return g / (np.sqrt(total) + eps), total


def rmsprop(t, g, v, b, decay=0.9, eps=1e-8, momentum=None):
    v = decay * v + (1 - decay) * g**2
    direction = g / (np.sqrt(v) + eps)
    b = (momentum or 0.0) * b + direction
    return b, v, b


def adam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adamw(t, g, m, v, weight_decay=1e-2, **numbers):
    direction, m, v = adam(t, g, m, v, **numbers)
    return direction + weight_decay * 1.0, m, v


def gradients(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(size=(STEPS, 3)),)


def row(
    function: Callable[..., Any], truth: Any, still: Any = 0.0, **numbers: Any
) -> Case:
    return Case(
        function,
        gradients,
        truth,
        numbers={"learning_rate": (0.01, 0.0), **numbers},
        call=trajectory(function),
        rtol=1e-11,  # rounding adds up over the steps
        ulps=100,
        cancels=True,
        extremes=(
            Extreme((np.zeros((3, 2)),), still),
            Extreme((np.full((2, 1), 1e15),), None),
        ),
    )


def scheduled(function: Callable[..., Any], truth: Any) -> Case:
    """The same optimizer with a rate that falls."""

    def falling(step: Any) -> Any:
        return 0.05 * (1 + np.cos(np.pi * np.minimum(step / 50, 1)))

    return Case(
        function,
        gradients,
        lambda g, **numbers: truth(g, learning_rate=falling, **numbers),
        call=lambda g, **numbers: trajectory(function)(
            g, learning_rate=schedules.cosine(0.1, 50), **numbers
        ),
        rtol=1e-11,
        ulps=100,
        cancels=True,
        label="scheduled",
    )


UNIT = (0.0, 0.5, 0.99)
RECURRENCES = [
    (optimizers.sgd, recurrence(0, lambda t, g: (g,)), {}),
    (optimizers.momentum, recurrence(1, momentum), {"decay": UNIT, "dampening": UNIT}),
    (optimizers.nesterov, recurrence(1, nesterov), {"decay": UNIT}),
    (
        optimizers.adagrad,
        recurrence(1, adagrad),
        {"initial_accumulator": (0.1, 1.0), "eps": (1e-7, 0.1)},
    ),
    (
        optimizers.rmsprop,
        recurrence(2, rmsprop),
        {"decay": UNIT, "eps": (1e-3, 0.1), "momentum": UNIT},
    ),
    (
        optimizers.adam,
        recurrence(2, adam),
        {"b1": UNIT, "b2": (0.5, 0.9999), "eps": (1e-3, 0.1)},
    ),
    (
        optimizers.adamw,
        recurrence(2, adamw),
        {"b1": UNIT, "b2": (0.5, 0.9999), "weight_decay": (0.0, 0.3)},
    ),
]
STILL = {optimizers.adamw: -1e-3}  # what weight decay does to parameters of 1

CASES = [
    *(row(f, truth, STILL.get(f, 0.0), **numbers) for f, truth, numbers in RECURRENCES),
    *(scheduled(f, truth) for f, truth, _ in RECURRENCES),
]
