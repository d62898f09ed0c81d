"""Optimizers: the recurrence of each paper over 60 steps, in float64 NumPy.

A row makes a function of an optimizer: from gradients [steps, n] to updates [steps, n].
The parameters stay at 1, which matters for weight decay alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case, Extreme
from jaxml import optimizers, schedules

STEPS = 60


def all_updates(
    optimizer: Callable[..., Any],
    learning_rate: Any = 0.1,
    static_argnames: tuple[str, ...] = (),
) -> Callable[..., jax.Array]:
    """The updates of an optimizer as a function of the gradients."""

    @functools.partial(jax.jit, static_argnames=static_argnames)
    def updates(gradients: jax.Array, **hyperparams: Any) -> jax.Array:
        gradients = jnp.asarray(gradients)
        rate = hyperparams.pop("learning_rate", learning_rate)
        transformation = optimizer(rate, **hyperparams)
        params = jnp.ones_like(gradients[0])

        def step(state: Any, g: jax.Array) -> tuple[Any, jax.Array]:
            update, state = transformation.update(g, state, params)
            return state, update

        return jax.lax.scan(step, transformation.init(params), gradients)[1]

    return updates


def recurrence(
    num_accumulators: int, step: Callable[..., Any]
) -> Callable[..., np.ndarray]:
    """The updates of `step(t, g, *accumulators, **hyperparams)`.

    A step returns its direction, which -learning_rate multiplies, and the accumulators.
    """

    def updates(gradients: np.ndarray, learning_rate: Any = 0.1, **hyperparams: Any):
        accumulators, result = [0.0] * num_accumulators, []
        for t, g in enumerate(gradients, 1):
            rate = learning_rate(t - 1) if callable(learning_rate) else learning_rate
            direction, *accumulators = step(t, g, *accumulators, **hyperparams)
            result.append(-rate * direction)
        return np.array(result)

    return updates


def sgd(t, g):
    return (g,)


def momentum(t, g, b, decay=0.9, dampening=0.0):
    b = g if t == 1 else decay * b + (1 - dampening) * g
    return b, b


def nesterov(t, g, b, decay=0.9):
    b = decay * b + g
    return g + decay * b, b


def lion(t, g, m, b1=0.9, b2=0.99, weight_decay=0.0):
    direction = np.sign(b1 * m + (1 - b1) * g)
    return direction + weight_decay * 1.0, b2 * m + (1 - b2) * g


def adagrad(t, g, a, initial_accumulator_value=0.0, eps=1e-10):
    a = a + g**2 + (initial_accumulator_value if t == 1 else 0)
    return g / (np.sqrt(a) + eps), a


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


def adam_l2(t, g, m, v, l2=1e-2, **hyperparams):
    return adam(t, g + l2 * 1.0, m, v, **hyperparams)


def adamw(t, g, m, v, weight_decay=1e-2, **hyperparams):
    direction, m, v = adam(t, g, m, v, **hyperparams)
    return direction + weight_decay * 1.0, m, v


def amsgrad(t, g, m, v, w, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    w = np.maximum(w, v)
    return m / (1 - b1**t) / (np.sqrt(w / (1 - b2**t)) + eps), m, v, w


def nadam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    m_bar = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m_bar / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adamax(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8):
    m, v = b1 * m + (1 - b1) * g, np.maximum(b2 * v, abs(g) + eps)
    return m / (1 - b1**t) / v, m, v


def radam(t, g, m, v, b1=0.9, b2=0.999, eps=1e-8, threshold=5.0):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    b2 = np.longdouble(b2)  # because rho is a difference of numbers in the thousands
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    if rho <= threshold:
        return m / (1 - b1**t), m, v
    r2 = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    r = float(np.sqrt(r2))
    return r * m / (1 - b1**t) / (np.sqrt(v / float(1 - b2**t)) + eps), m, v


def yogi(t, g, m, v, b1=0.9, b2=0.999, eps=1e-3, initial_accumulator_value=1e-6):
    v = v + (initial_accumulator_value if t == 1 else 0)
    m, v = b1 * m + (1 - b1) * g, v - (1 - b2) * np.sign(v - g**2) * g**2
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def adabelief(t, g, m, v, b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * (g - m) ** 2 + eps_root
    return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), m, v


def averages(gradients, decay=0.999, debias=True):
    """The averages of parameters that start at 1, with steps of sgd(0.1)."""
    x, s, result = 1.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        x = x - 0.1 * g
        s = decay * s + (1 - decay) * x
        result.append(s / (1 - decay**t) if debias else s)
    return np.array(result)


@jax.jit
def all_averages(gradients: jax.Array, **hyperparams: Any) -> jax.Array:
    optimizer = optimizers.shadow_weights(optimizers.sgd(0.1), **hyperparams)
    float64 = jnp.asarray(gradients, float)  # 16-bit parameters would drop small steps

    def step(carry: Any, g: jax.Array) -> Any:
        x, state = carry
        update, state = optimizer.update(g, state, x)
        return (x + update, state), optimizers.averaged_params(state)

    x = jnp.ones_like(float64[0])
    result = jax.lax.scan(step, (x, optimizer.init(x)), float64)[1]
    return result.astype(jnp.result_type(gradients))


def sgd_with_shadow_weights(learning_rate: Any) -> Any:
    return optimizers.shadow_weights(optimizers.sgd(learning_rate))


def compressed_adam(learning_rate: Any) -> Any:
    return optimizers.compressed(optimizers.adam(learning_rate))


def normal_gradients(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(size=(STEPS, 3)),)


def optimizer_case(
    function: Callable[..., Any],
    truth: Any,
    hyperparams: Any,
    *,
    update_at_zero_grad: float = 0.0,
    adapter: Any = None,
    id_suffix: str = "",
) -> Case:
    return Case(
        function,
        normal_gradients,
        truth,
        hyperparams=hyperparams,
        adapter=adapter or all_updates(function),
        rtol=1e-11,  # rounding errors add up over the steps
        ulps=100,
        tol_relative_to_max=True,
        extremes=(
            Extreme((np.zeros((2, 1)),), update_at_zero_grad),
            Extreme((np.full((2, 1), 1e15),), None, check_grads_of=()),
        ),
        id_suffix=id_suffix,
    )


def cosine_decay(step: Any) -> Any:
    return 0.05 * (1 + np.cos(np.pi * np.minimum(step / 50, 1)))


def scheduled_case(function: Callable[..., Any], truth: Any) -> Case:
    """The same optimizer with a schedule."""
    return Case(
        function,
        normal_gradients,
        lambda gradients, **hyperparams: truth(gradients, cosine_decay, **hyperparams),
        adapter=all_updates(function, schedules.cosine(0.1, 50)),
        rtol=1e-11,
        dtypes=(),  # tested with the constant rate
        id_suffix="scheduled",
    )


RATE = {"learning_rate": (0.01, 0.0)}
UNIT = (0.0, 0.5, 0.99)
ADAM = {"b1": UNIT, "b2": (0.5, 0.9999), "eps": (1e-3, 0.1)}
RECURRENCES = [
    (optimizers.sgd, recurrence(0, sgd), {}),
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
UPDATE_AT_ZERO_GRAD = {  # weight decay of parameters that are 1
    optimizers.adam_l2: -0.1,
    optimizers.adamw: -1e-3,
}

CASES = [
    *(
        optimizer_case(
            function,
            truth,
            {**RATE, **hyperparams},
            update_at_zero_grad=UPDATE_AT_ZERO_GRAD.get(function, 0.0),
        )
        for function, truth, hyperparams in RECURRENCES
    ),
    *(scheduled_case(function, truth) for function, truth, _ in RECURRENCES),
    optimizer_case(
        optimizers.shadow_weights,
        recurrence(0, sgd),
        {},
        adapter=all_updates(sgd_with_shadow_weights),
    ),
    optimizer_case(  # small leaves are not compressed
        optimizers.compressed,
        recurrence(2, adam),
        {},
        adapter=all_updates(compressed_adam),
    ),
    optimizer_case(
        optimizers.averaged_params,
        averages,
        {"decay": (0.0, 0.5, 0.99)},
        update_at_zero_grad=1.0,
        adapter=all_averages,
    ),
    Case(
        optimizers.averaged_params,
        normal_gradients,
        averages,
        static_args={"debias": False},
        adapter=all_averages,
        dtypes=(),
        id_suffix="not-debiased",
    ),
]
