"""Distance maps against SciPy, and on the paths of other platforms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases.losses.distance_map import distance_map
from scipy import ndimage

from jaxml import losses


def by_scipy(region: np.ndarray, **keywords: Any) -> np.ndarray:
    outside = ndimage.distance_transform_edt(~region, **keywords)
    return outside - ndimage.distance_transform_edt(region, **keywords)


def regions(side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, : side + 7]
    noise = ndimage.gaussian_filter(rng.normal(size=x.shape), side / 20)
    corner = np.zeros(x.shape, bool)
    corner[0, 0] = True
    return {
        "blobs": noise > 0.3 * noise.std(),
        "disk": (y - side / 2) ** 2 + (x - side / 3) ** 2 < (side / 8) ** 2,
        "noise": rng.random(x.shape) < 0.5,
        "corner": corner,
        "opposite corner": corner[::-1, ::-1],
        "hole": ~corner,
        "line": y == side // 3,
    }


@pytest.mark.parametrize("name", regions(8))
@pytest.mark.parametrize("spacing", [1.0, (0.7, 2.0), (3.0, 0.25)])
def test_distances_are_those_of_scipy(name: str, spacing: Any) -> None:
    """To the last bits of float32, in one batch with an image without a contour."""
    region = regions(150)[name]
    batch = jnp.asarray(np.stack([region, np.ones_like(region)])[..., None])
    got = losses.distance_map(batch, spacing=jnp.array(spacing))[..., 0]
    expected = by_scipy(region, sampling=spacing)
    np.testing.assert_allclose(got[0], expected, rtol=4e-7)
    assert not got[1].any()


def test_whole_distances_are_exact() -> None:
    """Squares up to 2²⁴ are whole numbers, whose root is rounded once."""
    region = regions(150)["disk"]
    got = losses.distance_map(jnp.asarray(region[..., None]))[..., 0]
    np.testing.assert_array_equal(got, by_scipy(region).astype(np.float32))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "bfloat16", "float64"])
def test_regions_of_any_dtype(dtype: str) -> None:
    region = regions(20)["blobs"][..., None]
    phi = losses.distance_map(jnp.asarray(region, dtype))
    assert phi.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
    np.testing.assert_allclose(phi, distance_map(region[None])[0], rtol=1e-6)


def test_lines_and_volumes() -> None:
    rng = np.random.default_rng(1)
    for shape, axis in (((2, 90, 3), (-2,)), ((6, 5, 7, 4, 2), (1, 2, 3))):
        region = rng.random(shape) < 0.2
        phi = losses.distance_map(jnp.asarray(region), axis=axis)
        np.testing.assert_allclose(phi, distance_map(region, axis), rtol=1e-6)
    empty = losses.distance_map(jnp.zeros((2, 0, 3, 1)))
    assert empty.shape == (2, 0, 3, 1)


def test_boundary_loss_needs_nothing_from_the_host() -> None:
    region = jnp.asarray(regions(20)["blobs"])[None, ..., None]

    @jax.jit
    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        phi = losses.distance_map(targets)
        return losses.mean(losses.boundary_loss(jax.nn.sigmoid(logits), phi))

    logits = jnp.zeros(region.shape)
    gradient = jax.grad(loss)(logits, region)
    np.testing.assert_array_equal(jnp.sign(gradient), jnp.where(region, -1, 1))
    expected = np.mean(by_scipy(np.asarray(region[0, ..., 0]))) / 2
    np.testing.assert_allclose(loss(logits, region), expected, rtol=1e-6)


def test_a_map_of_predictions_carries_no_gradient() -> None:
    p = jnp.asarray(np.random.default_rng(0).random((1, 5, 6, 1)))
    gradient = jax.grad(lambda p: jnp.sum(losses.distance_map(p)))(p)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("spacing", "sentence"),
    [
        (0.0, "distance_map: spacing must be positive, got 0.0"),
        (jnp.ones(3), r"spacing must be a number or have shape \[2\], one for each"),
        ("1", "distance_map: spacing must be a number, got '1'"),
    ],
)
def test_an_invalid_spacing_is_named(spacing: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        losses.distance_map(jnp.zeros((4, 5, 1)), spacing=spacing)
