"""Activations: the truth is one number at a time, in NumPy and SciPy."""

import jax
import numpy as np
from scipy import special

from cases import Case, Extreme
from cases.activation_truths import (
    KEY,
    celu,
    elementwise,
    elu,
    gated,
    gelu,
    gelu_tanh,
    kept_softmax,
    kept_sparsemax,
    l2_normalize,
    maxout,
    of_kept,
    prelu,
    rrelu,
    selu,
    snake,
    soft_shrink,
    softplus,
    squareplus,
    stochastic_gelu,
    swish,
)
from jaxml import activations

INF = np.inf


def normal(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (3 * rng.normal(size=(3, 5)),)


def even(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (2 * rng.normal(size=(4, 6)),)


def mask(rng: np.random.Generator) -> np.ndarray:
    """Of three rows the last has nothing."""
    return np.concatenate([rng.random((2, 5)) < 0.7, np.zeros((1, 5), bool)])


def at(values: dict[float, float], **numbers: float) -> Extreme:
    """The value at each point."""
    points, results = (np.array([*v], float) for v in (values, values.values()))
    return Extreme((points,), results, numbers)


GATE = {-INF: 0, -1e30: 0, 0: 0, 1e30: 1e30, INF: INF}
ROWS = np.array([[0.0, 0, 0], [1e30, 0, -1e30], [-500, 500, 500]])

CASES = [
    Case(
        activations.sigmoid,
        normal,
        elementwise(special.expit),
        extremes=(at({-INF: 0, -1e30: 0, 0: 0.5, 1e30: 1, INF: 1, -60: np.exp(-60)}),),
    ),
    Case(
        activations.log_sigmoid,
        normal,
        elementwise(special.log_expit),
        extremes=(at({-INF: -INF, -1e30: -1e30, 0: -np.log(2), 60: -np.exp(-60)}),),
    ),
    Case(
        activations.hard_sigmoid,
        normal,
        elementwise(lambda x: min(max(x + 3, 0), 6) / 6),
        extremes=(at({-INF: 0, -1e30: 0, -3: 0, 0: 0.5, 3: 1, INF: 1}),),
    ),
    Case(
        activations.logit,
        lambda rng: (rng.uniform(0.02, 0.98, size=(3, 5)),),
        elementwise(lambda p: 2 * np.arctanh(2 * p - 1)),
        extremes=(
            at({1e-30: np.log(1e-30), 0.5: 0, 0.5 + 2**-40: 2**-38}),
            at({0: -INF, 1: INF, -1: np.nan, 2: np.nan})._replace(check_grads_of=()),
        ),
    ),
    Case(
        activations.tanh,
        normal,
        elementwise(np.tanh),
        extremes=(at({-INF: -1, -1e30: -1, 0: 0, 1e-20: 1e-20, 1e30: 1, INF: 1}),),
    ),
    Case(
        activations.hard_tanh,
        normal,
        elementwise(lambda x: min(max(x, -1), 1)),
        extremes=(at({-INF: -1, -1: -1, 0: 0, 1e-20: 1e-20, 1: 1, INF: 1}),),
    ),
    Case(
        activations.softsign,
        normal,
        elementwise(lambda x: x / (1 + abs(x))),
        extremes=(at({-INF: -1, -1e30: -1, 0: 0, 1e-20: 1e-20, 1e30: 1, INF: 1}),),
    ),
    Case(
        activations.relu,
        normal,
        elementwise(lambda x: max(x, 0.0)),
        extremes=(at(GATE),),
    ),
    Case(
        activations.relu6,
        normal,
        elementwise(lambda x: min(max(x, 0.0), 6.0)),
        extremes=(at({-INF: 0, -1e30: 0, 0: 0, 6: 6, 1e30: 6, INF: 6}),),
    ),
    Case(
        activations.leaky_relu,
        normal,
        elementwise(lambda x, negative_slope=0.01: x if x > 0 else negative_slope * x),
        hyperparams={"negative_slope": (0.0, 0.25, 1.0)},
        extremes=(at({-1e30: -1e28, 0: 0, 1e30: 1e30, INF: INF, -INF: -INF}),),
    ),
    Case(
        activations.elu,
        normal,
        elementwise(elu),
        hyperparams={"alpha": (0.0, 0.5, 2.0)},
        extremes=(at({-INF: -1, -1e30: -1, -1e-20: -1e-20, 0: 0, 1e30: 1e30}),),
    ),
    Case(
        activations.celu,
        normal,
        elementwise(celu),
        hyperparams={"alpha": (0.5, 2.0)},
        extremes=(
            at({-INF: -1, -1e30: -1, -1e-20: -1e-20, 0: 0, 1e30: 1e30}),
            at({-1: -1e-10, -1e-20: -1e-20, 0: 0}, alpha=1e-10),
        ),
    ),
    Case(
        activations.selu,
        normal,
        elementwise(selu),
        extremes=(at({-INF: selu(-INF), -1e30: selu(-INF), 0: 0, INF: INF}),),
    ),
    Case(
        activations.threshold,
        normal,
        elementwise(lambda x, threshold=1.0, value=0.0: x if x > threshold else value),
        hyperparams={"threshold": (1.0, -1.0), "value": (0.0, 20.0)},
        extremes=(at({-INF: 0, 1: 0, INF: INF}, threshold=1.0, value=0.0),),
        adapter=lambda x, threshold=1.0, value=0.0: activations.threshold(
            x, threshold=threshold, value=value
        ),
    ),
    Case(
        activations.hard_shrink,
        normal,
        elementwise(lambda x, threshold=0.5: x if abs(x) > threshold else 0),
        hyperparams={"threshold": (0.0, 1.0)},
        extremes=(at({-INF: -INF, -0.5: 0, 0: 0, 0.5: 0, 1e30: 1e30}),),
    ),
    Case(
        activations.soft_shrink,
        normal,
        elementwise(soft_shrink),
        hyperparams={"threshold": (0.0, 1.0)},
        extremes=(at({-INF: -INF, -0.5: 0, 0: 0, 0.5: 0, 1e30: 1e30}),),
    ),
    Case(
        activations.tanh_shrink,
        normal,
        elementwise(lambda x: x - np.tanh(x)),
        extremes=(at({-INF: -INF, -1e30: -1e30, 1e-10: 1e-30 / 3, 0: 0, INF: INF}),),
    ),
    Case(activations.gelu, normal, elementwise(gelu), extremes=(at(GATE),)),
    Case(activations.gelu_tanh, normal, elementwise(gelu_tanh), extremes=(at(GATE),)),
    Case(
        activations.quick_gelu,
        normal,
        elementwise(lambda x: swish(x, 1.702)),
        extremes=(at(GATE),),
    ),
    Case(
        activations.swish,
        normal,
        elementwise(swish),
        hyperparams={"beta": (0.0, -0.5, 1.7)},
        extremes=(at(GATE), at({-1e30: 0, 0: 0, 1e30: 1e30}, beta=1e10)),
    ),
    Case(activations.silu, normal, elementwise(swish), extremes=(at(GATE),)),
    Case(
        activations.mish,
        normal,
        elementwise(lambda x: x * np.tanh(np.logaddexp(0, x))),
        extremes=(at(GATE),),
    ),
    Case(
        activations.softplus,
        normal,
        elementwise(softplus),
        hyperparams={"beta": (0.5, 2.0)},
        extremes=(
            at(GATE | {0: np.log(2), -60: np.exp(-60)}),
            at({-1: 0, 0: np.log(2) * 1e-10, 1: 1}, beta=1e10),
        ),
    ),
    Case(
        activations.squareplus,
        normal,
        elementwise(squareplus),
        extremes=(at(GATE | {0: 1, -1e12: 1e-12, -1e30: 1e-30}),),
    ),
    Case(
        activations.hard_swish,
        normal,
        elementwise(lambda x: x * min(max(x + 3, 0), 6) / 6),
        extremes=(at(GATE | {-3: 0, 3: 3}),),
    ),
    *(
        Case(
            function,
            even,
            gated(gate),
            static_args={"axis": axis},
            extremes=(Extreme((np.array([1.0, 0.0, 1e30, -1e30]),), value, {}),)
            if axis == -1
            else (),
            id_suffix=f"axis {axis}",
        )
        for function, gate, value in (
            (activations.glu, special.expit, (1, 0)),
            (activations.geglu, gelu, (1e30, 0)),
            (activations.swiglu, swish, (1e30, 0)),
            (activations.reglu, lambda b: max(b, 0.0), (1e30, 0)),
        )
        for axis in (-1, 0)
    ),
    Case(
        activations.softmax,
        normal,
        of_kept(kept_softmax),
        mask=mask,
        extremes=(Extreme((ROWS,), [[1 / 3] * 3, [1, 0, 0], [0, 0.5, 0.5]]),),
    ),
    Case(
        activations.softmax,
        normal,
        of_kept(kept_softmax),
        static_args={"axis": 0},
        id_suffix="axis 0",
    ),
    Case(
        activations.log_softmax,
        normal,
        of_kept(lambda x, w: special.log_softmax(np.where(w, x, -INF))),
        extremes=(
            Extreme(
                (ROWS[::2],),
                [[-np.log(3)] * 3, [-1000 - np.log(2), -np.log(2), -np.log(2)]],
            ),
        ),
    ),
    Case(
        activations.sparsemax,
        normal,
        of_kept(kept_sparsemax),
        mask=mask,
        extremes=(Extreme((ROWS,), [[1 / 3] * 3, [1, 0, 0], [0, 0.5, 0.5]]),),
        tol_relative_to_max=True,
    ),
    Case(
        activations.l2_normalize,
        normal,
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
        normal,
        l2_normalize,
        static_args={"axis": 0},
        id_suffix="axis 0",
    ),
    Case(
        activations.maxout,
        even,
        maxout,
        static_args={"pieces": 3},
        extremes=(Extreme((np.array([0.0, 0, 0, -1e30, 1e30, 0]),), [0, 1e30]),),
    ),
    Case(
        activations.prelu,
        lambda rng: (*normal(rng), rng.normal(size=5)),
        prelu,
        adapter=lambda x, slope: activations.prelu(x, slope),
        extremes=(Extreme((np.array([-1e30, 0]), np.array([0.5, 3])), [-5e29, 0]),),
    ),
    Case(
        activations.prelu_init,
        lambda rng: (np.zeros(3),),
        lambda x: np.full(3, 0.25),
        adapter=lambda x: activations.prelu_init(3) + 0 * x.astype("float32"),
        dtypes=(),
    ),
    Case(
        activations.snake,
        lambda rng: (*normal(rng), rng.uniform(0.5, 2, size=5)),
        snake,
        adapter=lambda x, alpha: activations.snake(x, alpha),
        extremes=(Extreme((np.array([-1e30, 0]), np.array([0.5, 3])), [-1e30, 0]),),
    ),
    Case(
        activations.rrelu,
        normal,
        rrelu,
        hyperparams={"lower": (0.0, 0.2), "upper": (0.5, 1.0)},
        adapter=lambda x, **numbers: activations.rrelu(
            jax.random.key(KEY), x, **numbers
        ),
        extremes=(at({0: 0, 1e30: 1e30, INF: INF}),),
    ),
    Case(
        activations.stochastic_gelu,
        normal,
        stochastic_gelu,
        adapter=lambda x: activations.stochastic_gelu(jax.random.key(KEY), x),
        dtypes=(),
        extremes=(at(GATE),),
    ),
]
