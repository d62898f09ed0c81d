"""The QR factor of a TPU, whose loop over panels runs on any platform."""

import jax
import numpy as np
import pytest

from jaxml._core.qr import _q_factor_by_panels

RNG = np.random.default_rng(0)
SINGULAR = {
    "regular": lambda x: x,
    "graded": lambda x: x * 10.0 ** -np.linspace(0, 30, x.shape[1]),
    "rank 3": lambda x: x[:, :3] @ x[:3],
    "zero": np.zeros_like,
    "zero columns": lambda x: x * (np.arange(x.shape[1]) % 2),
    "complex": lambda x: x + 1j * x.T,
}


@pytest.mark.parametrize("n", [1, 5, 128, 200, 300])
@pytest.mark.parametrize("name", SINGULAR)
def test_q_is_orthogonal_and_r_is_triangular(n: int, name: str) -> None:
    x = SINGULAR[name](RNG.normal(size=(n, n)))
    q = np.asarray(jax.jit(_q_factor_by_panels)(x))
    np.testing.assert_allclose(q.conj().T @ q, np.eye(n), atol=1e-13)
    below = np.tril(q.conj().T @ x, -1)
    np.testing.assert_allclose(below, 0, atol=1e-13 * np.max(np.abs(x)))
    if name in ("regular", "complex"):  # unique but for the signs
        expected = np.linalg.qr(x)[0]
        phases = np.sum(expected.conj() * q, 0)
        np.testing.assert_allclose(q, expected * phases, atol=1e-11)
