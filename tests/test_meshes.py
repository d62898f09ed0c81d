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
from cases.axes import Names, axis_names
from compilation import jit_without_fusion_emitters
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from test_contract import (
    FIRST_ROWS,
    Case,
    differentiated,
    for_rows,
    is_first_row,
    replaced,
    samples,
)

from jaxml import activations, losses, schedules

DEVICES = 8
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
    losses.linear_log_prob: CLASSES,
    losses.linear_kl_divergence: CLASSES,
    losses.linear_js_divergence: CLASSES,
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
    losses.load_balance_loss: BATCH,
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
    losses.lovasz_hinge_loss: IMAGES,
    losses.lovasz_softmax_loss: IMAGES,
    losses.present: IMAGES,
    activations.softmax: SCORES,
    activations.log_softmax: SCORES,
}
"""For each function with `axis_name`: what is sharded, other arguments, the result."""


DRAWS_NOISE = activations.rrelu, activations.stochastic_gelu
"""A device that does not split its key draws the noise of the first one."""


def make_mesh(shape: tuple[int, ...], axis_type: AxisType = AxisType.Auto) -> Mesh:
    axes = ("data", "model")[: len(shape)]
    return jax.make_mesh(shape, axes, axis_types=(axis_type,) * len(shape))


def long_arrays(
    case: Case, samples: list[tuple[np.ndarray, ...]]
) -> tuple[list[Array], Names]:
    """Eight samples, concatenated along the first axis and repeated along the last."""
    names = axis_names(case, samples[0])
    first, last = names[0][0], names[0][-1]
    shapes = [np.shape(array) for array in samples[0]]
    size = {n: k for shape, row in zip(shapes, names) for k, n in zip(shape, row)}
    has_references = case.name.startswith("mining.") and names[-1][0] == "m"
    rows = {first} if has_references or ["n", "m"] in names else {first, "m"}
    repeated = {last, "classes"} | (set() if has_references else {"m"})
    repeats = {n: DEVICES if n in repeated - rows else 1 for n in size}

    def lengthen(i: int) -> Array:
        parts = [sample[i] for sample in samples]
        array = np.concatenate(parts) if names[i][0] in rows else parts[0]
        is_label = "classes" in size and jnp.issubdtype(array.dtype, jnp.integer)
        if is_label:  # labels of all classes
            array = array * (DEVICES - 1) % (DEVICES * size["classes"])
        return jnp.asarray(np.tile(array, [repeats[name] for name in names[i]]))

    return [lengthen(i) for i in range(len(names))], names


def specs_of(names: Names, **mesh_axes: str | None) -> tuple[P, ...]:
    """The sharding of each array, from the mesh axis of each axis so named.

    `first` and `last` are the first and the last axis of the first array.
    """
    first, last = mesh_axes.pop("first", None), mesh_axes.pop("last", None)
    by_name = {names[0][-1]: last, names[0][0]: first} | mesh_axes
    return tuple(P(*map(by_name.get, row)) for row in names)


def place(arrays: list[Array], specs: tuple[P, ...], mesh: Mesh) -> list[Array]:
    """The arrays on the devices of a mesh."""
    return [
        jax.device_put(array, NamedSharding(mesh, spec))
        for array, spec in zip(arrays, specs, strict=True)
    ]


def is_of_arrays(case: Case) -> bool:
    is_optimizer = case.name.startswith("optimizers.")
    return not is_optimizer and case.function is not activations.prelu_init


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
    has_axis_name = "axis_name" in inspect.signature(case.function).parameters
    return is_of_arrays(case) and has_axis_name and is_2d


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
    layouts = [((2, 4), AxisType.Auto), ((2, 4), AxisType.Explicit)]
    if is_first_row(case):
        layouts.append(((8, 1), AxisType.Explicit))
    for shape, axis_type in layouts:
        mesh = make_mesh(shape, axis_type)
        with jax.set_mesh(mesh):
            got = value_and_gradients(case, case, place(arrays, specs, mesh))
        assert_equal(got, expected)
        is_sharded = has_batch(case) and case.function is not schedules.constant
        if axis_type == AxisType.Explicit and is_sharded:
            assert got[0].sharding.spec[0] == "data"


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


def mean_loss(
    w: Array, x: Array, labels: Array, rows: Any = None, classes: Any = None
) -> Array:
    loss = losses.linear_cross_entropy(x, w, labels, axis_name=classes)
    return losses.mean(loss, axis_name=rows)


@pytest.mark.parametrize(
    ("rows", "classes"), [("data", None), ("data", "model"), (("data", "model"), None)]
)
def test_gradients_inside_shard_map_are_those_of_the_global_mean(
    rows: Any, classes: Any
) -> None:
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(16, 3))), jnp.asarray(rng.normal(size=(3, 12)))
    labels = jnp.asarray(rng.integers(0, 12, 16))
    w_spec, x_spec = P(None, classes), P(rows)
    sharded = jax.shard_map(
        jax.grad(partial(mean_loss, rows=rows, classes=classes), (0, 1)),
        mesh=make_mesh((2, 4)),
        in_specs=(w_spec, x_spec, x_spec),
        out_specs=(w_spec, x_spec),
    )
    expected = jax.grad(mean_loss, (0, 1))(w, x, labels)
    assert_equal(jax.jit(sharded)(w, x, labels), expected)


def test_masked_rows_and_weights_of_other_devices_count() -> None:
    values = jnp.arange(16.0).at[3].set(jnp.nan)
    weights = jnp.arange(16.0) ** 2
    sharded = jax.shard_map(
        lambda v, w: losses.mean(v, weights=w, where=v == v, axis_name="data"),
        mesh=make_mesh((DEVICES,)),
        in_specs=P("data"),
        out_specs=P(),
    )
    expected = losses.mean(values, weights=weights, where=values == values)
    np.testing.assert_allclose(sharded(values, weights), expected, rtol=1e-15)


def test_an_unbound_axis_name_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"mean: axis_name must name mesh axes of an enclosing jax.shard_map, "
        "got 'data'.",
    ):
        losses.mean(jnp.ones(2), axis_name="data")


def test_labels_that_are_not_sharded_like_the_rows_are_refused() -> None:
    call = jax.shard_map(
        lambda x, labels: losses.supcon_loss(x, labels, axis_name="data"),
        mesh=make_mesh((DEVICES,)),
        in_specs=(P("data"), P()),
        out_specs=P("data"),
    )
    sentence = r"labels must be an integer array of shape \[n\] where embeddings is"
    with pytest.raises(TypeError, match=sentence):
        call(jnp.ones((16, 3)), jnp.zeros(16, int))


COLLECTIVES = {"psum", "psum_invariant", "pmax", "all_gather", "all_to_all", "ppermute"}


@pytest.mark.parametrize(
    "loss",
    [
        losses.vicreg_loss,
        losses.barlow_twins_loss,
        losses.load_balance_loss,
        losses.dice_loss,
        losses.generalized_dice_loss,
        losses.tversky_loss,
        losses.focal_tversky_loss,
        losses.jaccard_loss,
        losses.sensitivity_specificity_loss,
        losses.matthews_loss,
    ],
    ids=lambda loss: loss.__name__,
)
def test_statistics_of_a_batch_take_one_round_of_sums(loss: Any) -> None:
    """No device waits twice for the others, in value and gradient."""
    (case,) = (c for c in FIRST_ROWS.values() if c.function is loss)
    arrays, names = long_arrays(case, samples(case, DEVICES))
    sharded, keywords, _ = SHARDED[loss]
    keywords = {**case.static_args, **keywords, "axis_name": "data"}

    def mean(*arrays: Array) -> Array:
        return jnp.mean(loss(*arrays, **keywords))

    program = jax.shard_map(
        jax.value_and_grad(mean),
        mesh=make_mesh((DEVICES,)),
        in_specs=specs_of(names, **sharded),
        out_specs=(P(), specs_of(names, **sharded)[0]),
    )
    jaxpr = jax.make_jaxpr(program)(*arrays).jaxpr
    assert max(communication_rounds(jaxpr, [0] * len(arrays))) == 1


def communication_rounds(jaxpr: Any, rounds: list[int]) -> list[int]:
    """How many collectives each result waits for, one after the other."""
    waits = dict(zip(jaxpr.invars, rounds))

    def wait(variable: Any) -> int:
        return 0 if hasattr(variable, "val") else waits.get(variable, 0)

    for equation in jaxpr.eqns:
        inputs = [wait(variable) for variable in equation.invars]
        bodies = [getattr(p, "jaxpr", p) for p in equation.params.values()]
        bodies = [body for body in bodies if hasattr(body, "eqns")]
        if len(bodies) == 1 and len(bodies[0].invars) == len(inputs):
            outputs = communication_rounds(bodies[0], inputs)
        else:
            assert not bodies, equation.primitive
            total = max(inputs, default=0) + (equation.primitive.name in COLLECTIVES)
            outputs = [total] * len(equation.outvars)
        waits |= zip(equation.outvars, outputs)
    return [wait(variable) for variable in jaxpr.outvars]
