"""On eight devices, values and gradients are those of one device.

`jax.jit` with automatic and with explicit axes takes arrays that are sharded over their
first and last axes. Inside `jax.shard_map`, a function takes a part of the batch or,
with `axis_name`, a part of what it reduces over.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import jit_without_fusion_emitters
from jax import Array
from jax.sharding import AxisType, PartitionSpec
from meshes import DEVICES, axis_names, long_arrays, make_mesh, place, specs_of
from test_contract import Case, differentiated, for_rows, replaced, samples

from jaxml import activations, losses

P = PartitionSpec
ROWS = {"first": "data", "m": "data"}, {}, P("data")
BATCH = {"first": "data"}, {}, P()
CLASSES = {"classes": "data"}, {}, P()
IMAGES = {"first": "data"}, {"axis": (0, 1, 2)}, P()
SCORES = {"last": "data"}, {}, P(None, "data")
SHARDED = {
    losses.mean: BATCH,
    losses.cross_entropy: CLASSES,
    losses.soft_cross_entropy: CLASSES,
    losses.linear_cross_entropy: CLASSES,
    losses.in_batch: ROWS,
    losses.info_nce: ROWS,
    losses.n_pair_loss: ROWS,
    losses.clip_loss: ROWS,
    losses.siglip_loss: ROWS,
    losses.nt_xent: ROWS,
    losses.supcon_loss: ROWS,
    losses.multi_similarity_loss: ROWS,
    losses.circle_loss: ROWS,
    losses.smooth_ap_loss: ROWS,
    losses.angular_loss: ROWS,
    losses.margin_loss: ROWS,
    losses.batch_contrastive_loss: ROWS,
    losses.lifted_structure_loss: ROWS,
    losses.nca_loss: ROWS,
    losses.batch_hard_triplet_loss: ROWS,
    losses.batch_semihard_triplet_loss: ROWS,
    losses.batch_all_triplet_loss: ROWS,
    losses.vicreg_loss: BATCH,
    losses.barlow_twins_loss: BATCH,
    losses.proxy_anchor_loss: BATCH,
    losses.normalized_softmax_loss: CLASSES,
    losses.cosface_loss: CLASSES,
    losses.arcface_loss: CLASSES,
    losses.proxy_nca_loss: CLASSES,
    losses.soft_triple_loss: CLASSES,
    losses.dice_loss: IMAGES,
    losses.generalized_dice_loss: IMAGES,
    losses.tversky_loss: IMAGES,
    losses.focal_tversky_loss: IMAGES,
    losses.jaccard_loss: IMAGES,
    losses.sensitivity_specificity_loss: IMAGES,
    losses.matthews_loss: IMAGES,
    losses.boundary_loss: IMAGES,
    losses.present: IMAGES,
    activations.softmax: SCORES,
    activations.log_softmax: SCORES,
}
"""For each function with `axis_name`: what is sharded, other arguments, the result."""

DRAWS_NOISE = activations.rrelu, activations.stochastic_gelu
"""A device that does not split its key draws the noise of the first one."""


def is_of_arrays(case: Case) -> bool:
    is_chapter = case.name.startswith(("losses.", "mining.", "activations."))
    return is_chapter and case.function is not activations.prelu_init


def has_batch(case: Case) -> bool:
    """Whether the rows of the first axis are independent of each other."""
    arrays = samples(case)[0]
    if case.name.startswith("mining."):  # the references are a second set
        return axis_names(case, arrays)[-1][0] == "m"
    event_axes = np.ravel(case.static_args.get("axis", -1)) % max(1, arrays[-1].ndim)
    is_event = 0 in event_axes and arrays[-1].ndim > 1
    is_event |= SHARDED.get(case.function) in (ROWS, BATCH)
    return is_of_arrays(case) and not is_event and case.function not in DRAWS_NOISE


def takes_axis_name(case: Case) -> bool:
    is_2d = "axis" not in case.static_args
    return "axis_name" in inspect.signature(case.function).parameters and is_2d


def value_and_gradients(
    function: Callable[..., Array], case: Case, arrays: list[Array]
) -> tuple[Array, Any]:
    """The value, and the gradients of the sum of its sines for the float arrays."""
    positions = differentiated(case, tuple(arrays)) if case.dtypes else []

    def call(arrays: list[Array]) -> tuple[Array, Any]:
        def of_floats(*floats: Array) -> Array:
            return function(*replaced(tuple(arrays), positions, floats))

        value, vjp = jax.vjp(of_floats, *(arrays[i] for i in positions))
        return value, vjp(jnp.cos(value)) if positions else ()

    return jit_without_fusion_emitters(call)(arrays)


def assert_equal(got: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-9, atol=1e-12 * (1 + np.max(np.abs(b)))
        )


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(is_of_arrays)
def test_jit_of_sharded_arrays(case: Case) -> None:
    arrays, names = long_arrays(case, samples(case, DEVICES))
    specs = specs_of(names, first="data", last="model")
    expected = value_and_gradients(case, case, arrays)
    for shape in (8, 1), (2, 4):
        for axis_type in AxisType.Auto, AxisType.Explicit:
            mesh = make_mesh(shape, axis_type)
            with jax.set_mesh(mesh):
                got = value_and_gradients(case, case, place(arrays, specs, mesh))
            assert_equal(got, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(has_batch)
def test_shard_map_of_a_sharded_batch(case: Case) -> None:
    arrays, names = long_arrays(case, samples(case, DEVICES))
    assert_equal_in_shard_map(
        case, case, arrays, specs_of(names, first="data"), P("data")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(takes_axis_name)
def test_shard_map_with_axis_name(case: Case) -> None:
    arrays, names = long_arrays(case, samples(case, DEVICES))
    mesh_axes, keywords, out_specs = SHARDED[case.function]
    function = partial(case, **keywords)
    in_specs = specs_of(names, **mesh_axes)
    assert_equal_in_shard_map(function, case, arrays, in_specs, out_specs, "data")


def assert_equal_in_shard_map(
    function: Callable[..., Array],
    case: Case,
    arrays: list[Array],
    in_specs: tuple[P, ...],
    out_specs: P,
    axis_name: str | None = None,
) -> None:
    sharded = jax.shard_map(
        partial(function, axis_name=axis_name) if axis_name else function,
        mesh=make_mesh((DEVICES,)),
        in_specs=in_specs,
        out_specs=out_specs,
    )
    got = value_and_gradients(sharded, case, arrays)
    assert_equal(got, value_and_gradients(function, case, arrays))
