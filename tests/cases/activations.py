"""Activations: the truth is NumPy and SciPy in float64."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import special

from bench.truths.activations import TRUTHS
from cases import Case, Extreme
from cases.activation_truths import (
    KEY,
    along_axis,
    clipped_swiglu,
    gated_linear_unit,
    l2_normalize,
    log_softmax,
    maxout,
    rrelu,
    softmax,
    sparsemax,
    stochastic_gelu,
)
from jaxml import activations

INF = np.inf


def sample_3x5(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (3 * rng.normal(size=(3, 5)),)


def sample_4x6(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (2 * rng.normal(size=(4, 6)),)


def sample_mask(rng: np.random.Generator) -> np.ndarray:
    """Three rows, of which the last is fully masked."""
    return np.concatenate([rng.random((2, 5)) < 0.7, np.zeros((1, 5), bool)])


def values_at(values: dict[float, float], **hyperparams: float) -> Extreme:
    """The value at each x."""
    x, y = (np.array([*v], float) for v in (values, values.values()))
    return Extreme((x,), y, hyperparams)


def elementwise(
    activation: Callable[..., Any],
    *extremes: Extreme,
    sample: Callable[..., Any] = sample_3x5,
    **fields: Any,
) -> Case:
    """A row whose truth is the one of the accuracy test."""
    truth = TRUTHS[activation.__name__].value
    return Case(activation, sample, truth, extremes=extremes, **fields)


RELU_LIKE = {-INF: 0, -1e30: 0, 0: 0, 1e30: 1e30, INF: INF}
TANH_LIKE = {-INF: -1, -1e30: -1, 0: 0, 1e-20: 1e-20, 1e30: 1, INF: 1}
SHRINK_LIKE = {-INF: -INF, -0.5: 0, 0: 0, 0.5: 0, 1e30: 1e30}
ELU_LIKE = {-INF: -1, -1e30: -1, -1e-20: -1e-20, 0: 0, 1e30: 1e30}
SELU_LIMIT = -1.7580993408473769
C2 = 49 * special.expit(7)
ROWS = np.array([[0.0, 0, 0], [1e30, 0, -1e30], [-500, 500, 500]])

CASES = [
    elementwise(
        activations.sigmoid,
        values_at({-INF: 0, -1e30: 0, 0: 0.5, 1e30: 1, INF: 1, -60: np.exp(-60)}),
    ),
    elementwise(
        activations.log_sigmoid,
        values_at({-INF: -INF, -1e30: -1e30, 0: -np.log(2), 60: -np.exp(-60)}),
    ),
    elementwise(
        activations.hard_sigmoid,
        values_at({-INF: 0, -1e30: 0, -3: 0, 0: 0.5, 3: 1, INF: 1}),
    ),
    elementwise(
        activations.logit,
        values_at({1e-30: np.log(1e-30), 0.5: 0, 0.5 + 2**-40: 2**-38}),
        values_at({0: -INF, 1: INF, -1: np.nan, 2: np.nan})._replace(check_grads_of=()),
        sample=lambda rng: (rng.uniform(0.02, 0.98, size=(3, 5)),),
    ),
    elementwise(activations.tanh, values_at(TANH_LIKE)),
    elementwise(
        activations.hard_tanh,
        values_at({-INF: -1, -1: -1, 0: 0, 1e-20: 1e-20, 1: 1, INF: 1}),
    ),
    elementwise(activations.softsign, values_at(TANH_LIKE)),
    elementwise(activations.relu, values_at(RELU_LIKE)),
    elementwise(
        activations.relu_squared,
        values_at({-INF: 0, -1e30: 0, 0: 0, 1e-20: 1e-40, 1e30: 1e60}),
    ),
    elementwise(
        activations.relu6,
        values_at({-INF: 0, -1e30: 0, 0: 0, 6: 6, 1e30: 6, INF: 6}),
    ),
    elementwise(
        activations.leaky_relu,
        values_at({-1e30: -1e28, 0: 0, 1e30: 1e30, INF: INF, -INF: -INF}),
        hyperparams={"negative_slope": (0.0, 0.25, 1.0)},
    ),
    elementwise(
        activations.elu,
        values_at(ELU_LIKE),
        hyperparams={"alpha": (0.0, 0.5, 2.0)},
    ),
    elementwise(
        activations.celu,
        values_at(ELU_LIKE),
        values_at({-1: -1e-10, -1e-20: -1e-20, 0: 0}, alpha=1e-10),
        hyperparams={"alpha": (0.5, 2.0)},
    ),
    elementwise(
        activations.selu,
        values_at({-INF: SELU_LIMIT, -1e30: SELU_LIMIT, 0: 0, INF: INF}),
    ),
    elementwise(
        activations.threshold,
        values_at({-INF: 0, 1: 0, INF: INF}, threshold=1.0, value=0.0),
        hyperparams={"threshold": (1.0, -1.0), "value": (0.0, 20.0)},
        adapter=lambda x, threshold=1.0, value=0.0: activations.threshold(
            x, threshold=threshold, value=value
        ),
    ),
    elementwise(
        activations.hard_shrink,
        values_at(SHRINK_LIKE),
        hyperparams={"threshold": (0.0, 1.0)},
    ),
    elementwise(
        activations.soft_shrink,
        values_at(SHRINK_LIKE),
        hyperparams={"threshold": (0.0, 1.0)},
    ),
    elementwise(
        activations.tanh_shrink,
        values_at({-INF: -INF, -1e30: -1e30, 1e-10: 1e-30 / 3, 0: 0, INF: INF}),
    ),
    elementwise(activations.gelu, values_at(RELU_LIKE)),
    elementwise(activations.gelu_tanh, values_at(RELU_LIKE)),
    elementwise(activations.quick_gelu, values_at(RELU_LIKE)),
    elementwise(
        activations.swish,
        values_at(RELU_LIKE),
        values_at({-1e30: 0, 0: 0, 1e30: 1e30}, beta=1e10),
        hyperparams={"beta": (0.0, -0.5, 1.7)},
    ),
    elementwise(activations.silu, values_at(RELU_LIKE)),
    elementwise(activations.mish, values_at(RELU_LIKE)),
    elementwise(
        activations.softplus,
        values_at(RELU_LIKE | {0: np.log(2), -60: np.exp(-60)}),
        values_at({-1: 0, 0: np.log(2) * 1e-10, 1: 1}, beta=1e10),
        hyperparams={"beta": (0.5, 2.0)},
    ),
    elementwise(
        activations.squareplus,
        values_at(RELU_LIKE | {0: 1, -1e12: 1e-12, -1e30: 1e-30}),
        values_at({-1: 0, 0: 0, 1e-30: 1e-30, 1e30: 1e30}, b=0.0),
        values_at({-1e200: 2.5e99, 0: 5e149, 1e200: 1e200}, b=1e300),
        hyperparams={"b": (0.25, 9.0)},
    ),
    elementwise(activations.hard_swish, values_at(RELU_LIKE | {-3: 0, 3: 3})),
    *(
        Case(
            activation,
            sample_4x6,
            gated_linear_unit(gate),
            static_args={"axis": axis},
            extremes=(Extreme((np.array([1.0, 0.0, 1e30, -1e30]),), value),)
            if axis == -1
            else (),
            id_suffix=f"axis {axis}",
        )
        for activation, gate, value in (
            (activations.glu, special.expit, (1, 0)),
            (activations.geglu, TRUTHS["gelu"].value, (1e30, 0)),
            (activations.swiglu, TRUTHS["silu"].value, (1e30, 0)),
            (activations.reglu, TRUTHS["relu"].value, (1e30, 0)),
        )
        for axis in (-1, 0)
    ),
    Case(
        activations.swiglu,
        sample_4x6,
        clipped_swiglu,
        hyperparams={"limit": (0.5, 2.0)},
        extremes=(
            Extreme((np.array([1e30, -INF, 1e30, INF]),), (C2, -C2), {"limit": 7.0}),
            Extreme((np.array([-1e30, 3, -INF, -0.0]),), (0, 0), {"limit": 7.0}),
        ),
        id_suffix="limit",
    ),
    Case(
        activations.softmax,
        sample_3x5,
        along_axis(softmax),
        mask=sample_mask,
        extremes=(Extreme((ROWS,), [[1 / 3] * 3, [1, 0, 0], [0, 0.5, 0.5]]),),
    ),
    Case(
        activations.softmax,
        sample_3x5,
        along_axis(softmax),
        static_args={"axis": 0},
        id_suffix="axis 0",
    ),
    Case(
        activations.log_softmax,
        sample_3x5,
        along_axis(log_softmax),
        extremes=(
            Extreme(
                (ROWS[::2],),
                [[-np.log(3)] * 3, [-1000 - np.log(2), -np.log(2), -np.log(2)]],
            ),
        ),
    ),
    Case(
        activations.sparsemax,
        sample_3x5,
        along_axis(sparsemax),
        mask=sample_mask,
        extremes=(Extreme((ROWS,), [[1 / 3] * 3, [1, 0, 0], [0, 0.5, 0.5]]),),
        tol_relative_to_max=True,
    ),
    Case(
        activations.l2_normalize,
        sample_3x5,
        l2_normalize,
        hyperparams={"eps": (1.0, 1e-4)},
        extremes=(
            Extreme(
                (ROWS,),
                [[0] * 3, [0.5**0.5, 0, -(0.5**0.5)], [-(3**-0.5), 3**-0.5, 3**-0.5]],
            ),
        ),
    ),
    Case(
        activations.l2_normalize,
        sample_3x5,
        l2_normalize,
        static_args={"axis": 0},
        id_suffix="axis 0",
    ),
    Case(
        activations.maxout,
        sample_4x6,
        maxout,
        static_args={"pieces": 3},
        extremes=(Extreme((np.array([0.0, 0, 0, -1e30, 1e30, 0]),), [0, 1e30]),),
    ),
    elementwise(
        activations.prelu,
        Extreme((np.array([-1e30, 0]), np.array([0.5, 3])), [-5e29, 0]),
        sample=lambda rng: (*sample_3x5(rng), rng.normal(size=5)),
        # a scalar slope is valid too, so any shape of x is
        adapter=lambda x, slope: activations.prelu(x, slope),
    ),
    Case(
        activations.prelu_init,
        lambda rng: (np.zeros(3),),
        lambda x: np.full(3, 0.25),
        adapter=lambda x: activations.prelu_init(3) + 0 * x.astype("float32"),
        dtypes=(),
    ),
    elementwise(
        activations.snake,
        Extreme((np.array([-1e30, 0]), np.array([0.5, 3])), [-1e30, 0]),
        sample=lambda rng: (*sample_3x5(rng), rng.uniform(0.5, 2, size=5)),
        adapter=lambda x, alpha: activations.snake(x, alpha),
    ),
    Case(
        activations.rrelu,
        sample_3x5,
        rrelu,
        hyperparams={"lower": (0.0, 0.2), "upper": (0.5, 1.0)},
        adapter=lambda x, **hyperparams: activations.rrelu(
            jax.random.key(KEY), x, **hyperparams
        ),
        extremes=(values_at({0: 0, 1e30: 1e30, INF: INF}),),
    ),
    Case(
        activations.stochastic_gelu,
        sample_3x5,
        stochastic_gelu,
        adapter=lambda x: activations.stochastic_gelu(jax.random.key(KEY), x),
        dtypes=(),
        extremes=(values_at(RELU_LIKE),),
    ),
]
