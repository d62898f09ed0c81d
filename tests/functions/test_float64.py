"""Values in float64 where XLA's own logarithms lose digits."""

from typing import Any

import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxml import activations, losses


@pytest.mark.parametrize(
    ("function", "truth"),
    [
        pytest.param(activations.logit, lambda p: mp.log(p / (1 - p)), id="logit"),
        pytest.param(activations.tanh_shrink, lambda x: x - mp.tanh(x), id="shrink"),
        pytest.param(
            lambda p: losses.binary_cross_entropy(p, jnp.zeros_like(p)),
            lambda p: -mp.log1p(-p),
            id="binary_cross_entropy",
        ),
        pytest.param(
            lambda p: losses.squared_log_error(-p, jnp.zeros_like(p)),
            lambda p: mp.log1p(-p) ** 2,
            id="squared_log_error",
        ),
    ],
)
def test_float64_to_4_ulp_where_log1p_and_differences_are_not(
    function: Any, truth: Any
) -> None:
    x = np.concatenate([np.logspace(-8, -1, 100), np.linspace(0.1, 0.9, 802)])
    with mp.workdps(40):
        expected = np.array([float(truth(mp.mpf(v))) for v in x])
    error = np.abs(function(jnp.asarray(x)) - expected)
    assert np.max(error / np.spacing(np.abs(expected))) <= 4


def test_float64_squared_log_error_to_4_ulp() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.99, 2.0, (2, 500))
    x = np.concatenate([x, np.exp(rng.uniform(-40, 300, 500)), y, [0.1, 1e300]])
    y = np.concatenate([y, np.exp(rng.uniform(-40, 300, 500)), y * (1 + 1e-12)])
    y = np.append(y, [np.nextafter(0.1, 1), -1 + 2.0**-53])
    with mp.workdps(60):
        logs = [mp.log1p(mp.mpf(a)) - mp.log1p(mp.mpf(b)) for a, b in zip(x, y)]
        expected = np.array([float(log**2) for log in logs])
    error = np.abs(losses.squared_log_error(x, y) - expected)
    assert np.max(error / np.spacing(expected)) <= 4
