"""Optimizers on eight devices: the steps of one device, with state that is sharded.

A first-order optimizer gets sharded parameters, whose state is sharded like them. A
second-order one gets a sharded batch as the data of its objective.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilation import jit_without_fusion_emitters
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxml import losses, optimizers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("no_xla_optimizations"),
]
MESH_SHAPES = (8, 1), (2, 4)
on_mesh_types = pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, AxisType.Explicit], ids=lambda t: t.name
)


def make_mesh(shape: tuple[int, int], axis_type: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh(shape, ("data", "model"), axis_types=(axis_type,) * 2)


def place(tree: Any, specs: Any, mesh: Mesh) -> Any:
    def put(spec: P, x: Array) -> Array:
        return jax.device_put(x, NamedSharding(mesh, spec))

    return jax.tree.map(put, specs, tree)


def assert_equal(got: Any, expected: Any, rtol: float = 1e-9) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol, atol=1e-12)


# First order

SPECS = {"w": P("data", "model"), "b": P("model")}
SHAPES = {"w": (16, 8), "b": (8,)}
RNG = np.random.default_rng(0)
PARAMS = {name: jnp.asarray(RNG.normal(size=s)) for name, s in SHAPES.items()}
GRADS = {name: jnp.asarray(RNG.normal(size=(3, *s))) for name, s in SHAPES.items()}
GRAD_SPECS = {name: P(None, *spec) for name, spec in SPECS.items()}
FIRST_ORDER = {
    name: make(0.1)
    for name, make in vars(optimizers).items()
    if callable(make) and "state_dtype" in inspect.signature(make).parameters
}
FIRST_ORDER["shadow_weights"] = optimizers.shadow_weights(optimizers.adam(0.1))
FIRST_ORDER["soap"] = optimizers.soap(0.1, precondition_every=1, max_dim=8)
"""Without the basis of 16 rows, of which rounding errors decide the last 8 vectors."""
OF_MATRICES = "muon", "soap"
for_first_order = pytest.mark.parametrize("name", FIRST_ORDER)
for_elementwise = pytest.mark.parametrize(
    "name", [name for name in FIRST_ORDER if name not in OF_MATRICES]
)


def three_steps(optimizer: Any, params: Any, grads: Any) -> tuple[Any, Any]:
    """The updates, and the state after them."""

    def step(carry: tuple, g: Any) -> tuple:
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    carry, updates = jax.lax.scan(step, (params, optimizer.init(params)), grads)
    return updates, carry[1]


@functools.cache
def three_steps_on_one_device(name: str) -> tuple[Any, Any]:
    steps = functools.partial(three_steps, FIRST_ORDER[name])
    return jit_without_fusion_emitters(steps)(PARAMS, GRADS)


def state_specs(state: Any) -> Any:
    """Those of the parameter of the same shape."""
    by_shape = {SHAPES[name]: spec for name, spec in SPECS.items()}
    return jax.tree.map(lambda leaf: by_shape.get(leaf.shape, P()), state)


def assert_sharded_like_the_parameters(state: Any, mesh: Mesh) -> None:
    for leaf, spec in zip(jax.tree.leaves(state), jax.tree.leaves(state_specs(state))):
        if leaf.shape in SHAPES.values():
            expected = NamedSharding(mesh, spec)
            assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)


@on_mesh_types
@for_first_order
def test_state_is_sharded_like_the_parameters(name: str, axis_type: AxisType) -> None:
    optimizer = FIRST_ORDER[name]
    steps = jit_without_fusion_emitters(functools.partial(three_steps, optimizer))
    for shape in MESH_SHAPES:
        mesh = make_mesh(shape, axis_type)
        with jax.set_mesh(mesh):
            params = place(PARAMS, SPECS, mesh)
            assert_sharded_like_the_parameters(optimizer.init(params), mesh)
            init = jit_without_fusion_emitters(optimizer.init)
            assert_sharded_like_the_parameters(init(params), mesh)
            updates, state = steps(params, place(GRADS, GRAD_SPECS, mesh))
        assert_sharded_like_the_parameters(state, mesh)
        assert_equal((updates, state), three_steps_on_one_device(name))


@for_elementwise
def test_shards_of_parameters_in_shard_map(name: str) -> None:
    """An update is elementwise, so that of a shard is a shard of the update."""
    optimizer = FIRST_ORDER[name]
    specs = state_specs(jax.eval_shape(optimizer.init, PARAMS))
    mesh = make_mesh((2, 4))
    steps = jax.shard_map(
        functools.partial(three_steps, optimizer),
        mesh=mesh,
        in_specs=(SPECS, GRAD_SPECS),
        out_specs=(GRAD_SPECS, specs),
    )
    got = jit_without_fusion_emitters(steps)(PARAMS, GRADS)
    assert_equal(got, three_steps_on_one_device(name))


@pytest.mark.parametrize("name", OF_MATRICES)
def test_stacks_of_matrices_in_shard_map(name: str) -> None:
    """Each device has some of the matrices of a stack."""
    optimizer = FIRST_ORDER[name]
    grads = jnp.asarray(RNG.normal(size=(3, 8, 4, 2)))
    params = grads[0]
    state = jax.eval_shape(optimizer.init, params)
    specs = jax.tree.map(lambda leaf: P(*("data",)[: leaf.ndim]), state)
    steps = functools.partial(three_steps, optimizer)
    sharded = jax.shard_map(
        steps,
        mesh=make_mesh((8, 1)),
        in_specs=(P("data"), P(None, "data")),
        out_specs=(P(None, "data"), specs),
    )
    got = jit_without_fusion_emitters(sharded)(params, grads)
    assert_equal(got, jit_without_fusion_emitters(steps)(params, grads))


def test_state_sharded_over_devices_that_hold_all_parameters() -> None:
    """The recipe of the README (ZeRO): each device holds an eighth of the state."""
    mesh = make_mesh((8, 1))
    sharded, replicated = (NamedSharding(mesh, spec) for spec in (P("data"), P()))
    optimizer = optimizers.adam(0.1)
    state = jax.jit(optimizer.init)(jax.device_put(PARAMS, sharded))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    update = jax.jit(optimizer.update, out_shardings=(replicated, shardings))
    params = jax.device_put(PARAMS, replicated)
    for i in range(3):
        grads = jax.tree.map(lambda g, i=i: g[i], GRADS)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        expected = three_steps_on_one_device("adam")[0]
        assert_equal(updates, jax.tree.map(lambda u, i=i: u[i], expected))
    assert_equal(state, three_steps_on_one_device("adam")[1])
    assert state.mu["w"].addressable_shards[0].data.shape == (2, 8)
    assert updates["w"].sharding.is_fully_replicated


# Second order

SECOND_ORDER = {
    "newton": "value_fn",
    "newton_cg": "value_fn",
    "gauss_newton": "residual_fn",
    "levenberg_marquardt": "residual_fn",
}
for_second_order = pytest.mark.parametrize("name", SECOND_ORDER)
MANY, FEW = (64, 8), (16, 20)
"""Batches: all devices together have more residuals than parameters, or fewer."""
LARGE = 16, 1100
"""A batch whose Jacobian is too large to materialize."""
BATCH_SPECS = P("data"), P("data")


def make_problem(shape: tuple[int, int]) -> tuple[dict, Array, Array]:
    """Parameters and a batch for a regression that is not linear."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape)
    y = np.sin(x @ rng.normal(size=shape[1])) + 0.1 * rng.normal(size=shape[0])
    params = {"w": rng.normal(size=shape[1]) / shape[1], "b": np.zeros(1)}
    return jax.tree.map(jnp.asarray, (params, x, y))


def predict(params: dict, x: Array) -> Array:
    return jnp.tanh(jnp.sum(x * params["w"][None], -1) + params["b"])


def residuals(params: dict, x: Array, y: Array) -> Array:
    return predict(params, x) - y


def mean_loss(params: dict, x: Array, y: Array, axis_name: str | None = None) -> Array:
    errors = losses.squared_error(predict(params, x), y)
    return losses.mean(errors, axis_name=axis_name)


def half_sum_of_squares(
    params: dict, x: Array, y: Array, axis_name: str | None = None
) -> Array:
    value = jnp.sum(residuals(params, x, y) ** 2) / 2
    return value if axis_name is None else jax.lax.psum(value, axis_name)


def second_order_steps(
    name: str, axis_name: str | None = None, **hyperparams: Any
) -> Callable[..., Any]:
    """(params, x, y) -> the updates of three steps, and the states after them."""
    function_arg = SECOND_ORDER[name]
    is_least_squares = function_arg == "residual_fn"
    loss = half_sum_of_squares if is_least_squares else mean_loss
    value_fn = functools.partial(loss, axis_name=axis_name)
    function = residuals if is_least_squares else value_fn
    if is_least_squares:
        hyperparams["axis_name"] = axis_name
    optimizer = getattr(optimizers, name)(**hyperparams)

    def steps(params: dict, x: Array, y: Array) -> Any:
        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            grads = jax.grad(value_fn)(params, x, y)
            functions = {function_arg: function}
            updates, state = optimizer.update(
                grads, state, params, x=x, y=y, **functions
            )
            return (optax.apply_updates(params, updates), state), (updates, state)

        return jax.lax.scan(step, (params, optimizer.init(params)), length=3)[1]

    return steps


def assert_equal_in_shard_map(name: str, shape: tuple[int, int]) -> None:
    problem = make_problem(shape)
    expected = jit_without_fusion_emitters(second_order_steps(name))(*problem)
    assert np.sum(expected[1].gain_ratio > 0.1) >= 2  # of three steps
    mesh = make_mesh((8, 1))
    sharded = jax.shard_map(
        second_order_steps(name, "data"),
        mesh=mesh,
        in_specs=(P(), *BATCH_SPECS),
        out_specs=P(),
    )
    got = jit_without_fusion_emitters(sharded)(*problem)
    assert_equal(got, expected, rtol=1e-8)


@on_mesh_types
@for_second_order
def test_sharded_batch_and_parameters(name: str, axis_type: AxisType) -> None:
    problem = make_problem(MANY)
    expected = jit_without_fusion_emitters(second_order_steps(name))(*problem)
    mesh = make_mesh((2, 4), axis_type)
    specs = {"w": P("model"), "b": P()}, *BATCH_SPECS
    with jax.set_mesh(mesh):
        steps = jit_without_fusion_emitters(second_order_steps(name))
        updates, states = steps(*place(problem, specs, mesh))
    assert_equal((updates, states), expected, rtol=1e-8)
    assert axis_type == AxisType.Auto or updates["w"].sharding.spec[1] == "model"


@for_second_order
def test_sharded_batch_in_shard_map(name: str) -> None:
    assert_equal_in_shard_map(name, MANY)


@pytest.mark.parametrize("shape", [FEW, LARGE], ids=["dense", "matrix_free"])
@pytest.mark.parametrize("name", ["gauss_newton", "levenberg_marquardt"])
def test_few_residuals_in_shard_map(name: str, shape: tuple[int, int]) -> None:
    assert_equal_in_shard_map(name, shape)


def test_gauss_newton_matrix_of_a_loss_in_shard_map() -> None:
    """Newton-CG, where only the function of the predictions sums over the devices."""
    params, x, y = make_problem(MANY)

    def step(params: dict, x: Array, y: Array, axis_name: str | None = None) -> Any:
        def loss_fn(predicted: Array) -> Array:
            return losses.mean(losses.squared_error(predicted, y), axis_name=axis_name)

        predict_fn = functools.partial(predict, x=x)
        grads = jax.grad(lambda params: loss_fn(predict_fn(params)))(params)
        optimizer = optimizers.newton_cg()
        return optimizer.update(
            grads,
            optimizer.init(params),
            params,
            predict_fn=predict_fn,
            loss_fn=loss_fn,
        )

    sharded = jax.shard_map(
        functools.partial(step, axis_name="data"),
        mesh=make_mesh((8, 1)),
        in_specs=(P(), *BATCH_SPECS),
        out_specs=P(),
    )
    got = jit_without_fusion_emitters(sharded)(params, x, y)
    assert_equal(got, jit_without_fusion_emitters(step)(params, x, y), rtol=1e-8)


@for_second_order
def test_a_problem_on_each_device(name: str) -> None:
    """Parameters that differ between devices, without communication."""
    params, x, y = make_problem(MANY)
    scales = jnp.linspace(0.5, 1.5, 8)
    steps = second_order_steps(name)

    def scaled(scale: Array) -> Any:
        start = jax.tree.map(lambda p: p * scale, params)
        return jax.tree.map(lambda a: a[None], steps(start, x, y))

    sharded = jax.shard_map(
        lambda scale: scaled(scale[0]),
        mesh=make_mesh((8, 1)),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    got = jit_without_fusion_emitters(sharded)(scales)
    first = jit_without_fusion_emitters(scaled)
    for i in (0, 7):
        assert_equal(
            jax.tree.map(lambda a, i=i: a[i : i + 1], got), first(scales[i]), 1e-8
        )


@pytest.mark.parametrize("name", ["gauss_newton", "levenberg_marquardt"])
def test_axis_name_outside_of_shard_map_is_refused(name: str) -> None:
    params, *batch = make_problem(MANY)
    optimizer = getattr(optimizers, name)(axis_name="data")
    message = f"{name}: axis_name must name mesh axes of an enclosing jax.shard_map"
    with pytest.raises(ValueError, match=message):
        optimizer.update(
            params,
            optimizer.init(params),
            params,
            residual_fn=lambda params: residuals(params, *batch),
        )
