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


def trajectory(
    optimizer: Callable[..., Any], rate: Any = 0.1
) -> Callable[..., jax.Array]:
    @jax.jit
    def updates(gradients: jax.Array, **numbers: Any) -> jax.Array:
        gradients = jnp.asarray(gradients)
        transformation = optimizer(numbers.pop("learning_rate", rate), **numbers)
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


def lion(t, g, m, b1=0.9, b2=0.99, weight_decay=0.0):
    direction = np.sign(b1 * m + (1 - b1) * g)
    return direction + weight_decay * 1.0, b2 * m + (1 - b2) * g


def adagrad(t, g, total, initial_accumulator_value=0.0, eps=1e-10):
    total = total + g**2 + (initial_accumulator_value if t == 1 else 0)
    return g / (np.sqrt(total) + eps), total


def adadelta(t, g, v, w, decay=0.9, eps=1e-6):
    v = decay * v + (1 - decay) * g**2
    delta = np.sqrt(w + eps) / np.sqrt(v + eps) * g
    return delta, v, decay * w + (1 - decay) * delta**2


def rmsprop(t, g, v, b, decay=0.9, eps=1e-8, eps_root=0.0, momentum=None):
    v = decay * v + (1 - decay) * g**2
    direction = g / (np.sqrt(v + eps_root) + eps)
    b = (momentum or 0.0) * b + direction
    return b, v, b


def centered_rmsprop(t, g, m, v, b, decay=0.9, eps=1e-8, eps_root=0.0, momentum=None):
    m, v = decay * m + (1 - decay) * g, decay * v + (1 - decay) * g**2
    variance = v - m**2 if decay else 0 * v
    direction = g / (np.sqrt(variance + eps_root) + eps)
    b = (momentum or 0.0) * b + direction
    return b, m, v, b


def adam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adam_l2(t, g, m, v, l2=1e-2, **numbers):
    return adam(t, g + l2 * 1.0, m, v, **numbers)


def adamw(t, g, m, v, weight_decay=1e-2, **numbers):
    direction, m, v = adam(t, g, m, v, **numbers)
    return direction + weight_decay * 1.0, m, v


def amsgrad(t, g, m, v, largest, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    largest = np.maximum(largest, v)
    return m / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps), m, v, largest


def nadam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    mean = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return mean / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adamax(t, g, m, u, b1=0.9, b2=0.999, eps=1e-8):
    m, u = b1 * m + (1 - b1) * g, np.maximum(b2 * u, abs(g) + eps)
    return m / (1 - b1**t) / u, m, u


def radam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8, threshold=5.0):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    b2 = np.longdouble(b2)  # for the difference of two numbers in the thousands
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    if length <= threshold:
        return m / (1 - b1**t), m, v
    r = (length - 4) * (length - 2) * longest
    r = float(np.sqrt(r / ((longest - 4) * (longest - 2) * length)))
    return r * m / (1 - b1**t) / (np.sqrt(v / float(1 - b2**t)) + eps), m, v


def yogi(t, g, m, v, b1=0.9, b2=0.999, eps=1e-3, initial_accumulator_value=1e-6):
    v = v + (initial_accumulator_value if t == 1 else 0)
    m, v = b1 * m + (1 - b1) * g, v - (1 - b2) * np.sign(v - g**2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adabelief(t, g, m, s, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    m = b1 * m + (1 - b1) * g
    s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
    return m / (1 - b1**t) / (np.sqrt(s / (1 - b2**t)) + eps), m, s


def averaged(gradients, decay=0.999, debias=True):
    """The averages of parameters that begin at 1 and descend at a rate of 0.1."""
    x, s, result = 1.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        x = x - 0.1 * g
        s = decay * s + (1 - decay) * x
        result.append(s / (1 - decay**t) if debias else s)
    return np.array(result)


@jax.jit
def averages(gradients: jax.Array, **numbers: Any) -> jax.Array:
    optimizer = optimizers.shadow_weights(optimizers.sgd(0.1), **numbers)
    wide = jnp.asarray(gradients, float)  # narrow parameters would lag themselves

    def step(carry: Any, g: jax.Array) -> Any:
        x, state = carry
        update, state = optimizer.update(g, state, x)
        return (x + update, state), optimizers.averaged_params(state)

    start = jnp.ones_like(wide[0])
    result = jax.lax.scan(step, (start, optimizer.init(start)), wide)[1]
    return result.astype(jnp.result_type(gradients))


def gradients(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(size=(STEPS, 3)),)


def row(
    function: Callable[..., Any],
    truth: Any,
    numbers: Any,
    still: Any = 0.0,
    adapter: Any = None,
    **others: Any,
) -> Case:
    return Case(
        function,
        gradients,
        truth,
        hyperparams=numbers,
        adapter=adapter or trajectory(function),
        rtol=1e-11,  # rounding adds up over the steps
        ulps=100,
        tol_relative_to_max=True,
        extremes=(
            Extreme((np.zeros((2, 1)),), still),
            Extreme((np.full((2, 1), 1e15),), None, check_grads_of=()),
        ),
        **others,
    )


def scheduled(function: Callable[..., Any], truth: Any) -> Case:
    """The same optimizer with a rate that falls."""

    def falling(step: Any) -> Any:
        return 0.05 * (1 + np.cos(np.pi * np.minimum(step / 50, 1)))

    return Case(
        function,
        gradients,
        lambda g, **numbers: truth(g, learning_rate=falling, **numbers),
        adapter=trajectory(function, schedules.cosine(0.1, 50)),
        rtol=1e-11,
        dtypes=(),  # the row of the constant rate shows the rest
        id_suffix="scheduled",
    )


RATE = {"learning_rate": (0.01, 0.0)}
UNIT = (0.0, 0.5, 0.99)
ADAM = {"b1": UNIT, "b2": (0.5, 0.9999), "eps": (1e-3, 0.1)}
RECURRENCES = [
    (optimizers.sgd, recurrence(0, lambda t, g: (g,)), {}),
    (optimizers.momentum, recurrence(1, momentum), {"decay": UNIT, "dampening": UNIT}),
    (optimizers.nesterov, recurrence(1, nesterov), {"decay": UNIT}),
    (
        optimizers.lion,
        recurrence(1, lion),
        {"b1": UNIT, "b2": (0.5, 0.9999), "weight_decay": (0.3,)},
    ),
    (
        optimizers.adagrad,
        recurrence(1, adagrad),
        {"initial_accumulator_value": (0.1, 1.0), "eps": (1e-7, 0.1)},
    ),
    (
        optimizers.adadelta,
        recurrence(2, adadelta),
        {"decay": UNIT, "eps": (1e-8, 0.1)},
    ),
    (
        optimizers.rmsprop,
        recurrence(2, rmsprop),
        {"decay": UNIT, "eps": (1e-3, 0.1), "eps_root": (1e-3, 0.1), "momentum": UNIT},
    ),
    (
        optimizers.centered_rmsprop,
        recurrence(3, centered_rmsprop),
        {
            "decay": (0.5, 0.99),
            "eps": (1e-3, 0.1),
            "eps_root": (0.1,),
            "momentum": UNIT,
        },
    ),
    (optimizers.adam, recurrence(2, adam), ADAM),
    (optimizers.adam_l2, recurrence(2, adam_l2), {**ADAM, "l2": (0.0, 0.3)}),
    (optimizers.adamw, recurrence(2, adamw), {**ADAM, "weight_decay": (0.0, 0.3)}),
    (optimizers.nadam, recurrence(2, nadam), ADAM),
    (optimizers.radam, recurrence(2, radam), {**ADAM, "threshold": (4.0, 6.0)}),
    (optimizers.amsgrad, recurrence(3, amsgrad), ADAM),
    (optimizers.adamax, recurrence(2, adamax), ADAM),
    (
        optimizers.yogi,
        recurrence(2, yogi),
        {**ADAM, "initial_accumulator_value": (0.0, 0.1)},
    ),
    (
        optimizers.adabelief,
        recurrence(2, adabelief),
        {**ADAM, "eps_root": (0.0, 1e-8, 0.1)},
    ),
]
STILL = {  # what weight decay does to parameters of 1 that have no gradient
    optimizers.adam_l2: -0.1,
    optimizers.adamw: -1e-3,
}

CASES = [
    *(
        row(f, truth, {**RATE, **numbers}, STILL.get(f, 0.0))
        for f, truth, numbers in RECURRENCES
    ),
    *(scheduled(f, truth) for f, truth, _ in RECURRENCES),
    row(
        optimizers.shadow_weights,
        recurrence(0, lambda t, g: (g,)),
        {},
        adapter=trajectory(
            lambda rate: optimizers.shadow_weights(optimizers.sgd(rate))
        ),
    ),
    row(
        optimizers.averaged_params,
        averaged,
        {"decay": (0.0, 0.5, 0.99)},
        still=1.0,
        adapter=averages,
    ),
    Case(
        optimizers.averaged_params,
        gradients,
        averaged,
        static_args={"debias": False},
        adapter=averages,
        dtypes=(),
        id_suffix="raw",
    ),
]
