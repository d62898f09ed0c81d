"""Scores of ensembles and normals, beyond the promises of all functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses


def ensemble(m: int = 9, d: int | None = None) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    event = () if d is None else (d,)
    return jnp.asarray(rng.normal(size=(m, *event))), jnp.asarray(
        rng.normal(size=event)
    )


@pytest.mark.parametrize("fair", [True, False])
def test_the_energy_score_of_numbers_is_the_crps(fair: bool) -> None:
    x, y = ensemble()
    crps = losses.crps_loss(x, y, fair=fair)
    energy = losses.energy_score(x[:, None], y[None], fair=fair)
    np.testing.assert_allclose(crps, energy, rtol=1e-13)


def test_the_crps_of_many_members_is_that_of_their_distribution() -> None:
    x = jax.scipy.stats.norm.ppf((jnp.arange(20_000.0) + 0.5) / 20_000)
    for y in (0.0, 0.7, 5.0):
        got = losses.crps_loss(3 * x + 1, jnp.array(y))
        one = jnp.array([1.0])
        expected = losses.gaussian_crps_loss(one, jnp.array([y]), scale=3.0)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-3)


@pytest.mark.parametrize("fair", [True, False])
def test_the_crps_keeps_its_digits_far_from_0(fair: bool) -> None:
    """Temperatures in kelvin: exact differences of float32 numbers."""
    x = jnp.asarray([280.0, 280.5, 281.0, 281.25], jnp.float32)
    got = losses.crps_loss(x, jnp.float32(280.75), fair=fair)
    expected = losses.crps_loss(x - 280, jnp.float32(0.75), fair=fair)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("fair", [True, False])
def test_equal_members_have_equal_gradients(fair: bool) -> None:
    x, y = jnp.array([1.0, 1.0, 1.0, 4.0]), jnp.array(0.0)
    gradient = jax.grad(lambda x: losses.crps_loss(x, y, fair=fair))(x)
    pairwise = jax.grad(lambda x: losses.energy_score(x[:, None], y[None], fair=fair))(
        x
    )
    np.testing.assert_allclose(gradient, pairwise, atol=1e-15)
    assert gradient[0] == gradient[1] == gradient[2] > 0


def test_members_of_the_energy_score_are_compared_tile_by_tile() -> None:
    def temporaries(m: int) -> int:
        x, y = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((m, 8), (8,)))
        program = jax.jit(jax.value_and_grad(losses.energy_score))
        return program.lower(x, y).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8192) < 0.6 * 8192**2 * 4
    assert temporaries(16384) < 2.5 * temporaries(8192)


def test_close_members_far_from_0_have_exact_gradients_of_the_energy_score() -> None:
    x, y = ensemble(6, 3)
    x, y = (280 + v.astype(jnp.float32) / 16 for v in (x, y))
    gradient = jax.grad(losses.energy_score)(x, y)
    expected = jax.grad(losses.energy_score)(x.astype(float), y.astype(float))
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_the_gaussian_crps_tends_to_the_absolute_error() -> None:
    mean, y = jnp.zeros(3), jnp.array([-2.0, 0.0, 3.0])
    for scale in (0.0, 1e-300, 1e-30):
        got = losses.gaussian_crps_loss(mean, y, scale=scale)
        np.testing.assert_allclose(got, [2.0, 0.0, 3.0], atol=1e-29)
    gradient = jax.grad(lambda s: losses.gaussian_crps_loss(mean, y, scale=s)[0])(0.0)
    np.testing.assert_allclose(gradient, -1 / np.sqrt(np.pi))
