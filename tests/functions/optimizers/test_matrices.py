"""Muon and SOAP: leaves of all shapes, precision, and the size of the program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers

OPTIMIZERS = {"muon": optimizers.muon, "soap": optimizers.soap}
all_optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
SHAPES = {"tall": (4, 3), "wide": (3, 4), "heads": (4, 3, 4), "deep": (2, 2, 4, 3)}
"""So that no eigenvalue of SOAP's covariances is degenerate."""


@pytest.fixture(autouse=True)
def standard_promotion() -> Any:
    """optax's own arithmetic mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def gradients(shape: tuple[int, ...], num_steps: int = 4, dtype: Any = float) -> Any:
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray(rng.normal(size=(num_steps, *shape)), dtype)


def all_updates(optimizer: Any, grads: Any) -> Any:
    """The update of each gradient, at parameters that are 0."""

    @jax.jit
    def run(grads: Any) -> Any:
        params = jax.tree.map(lambda g: jnp.zeros_like(g[0]), grads)

        def step(state: Any, g: Any) -> Any:
            updates, state = optimizer.update(g, state, params)
            return state, updates

        return jax.lax.scan(step, optimizer.init(params), grads)[1]

    return run(grads)


@pytest.mark.slow
@all_optimizers
def test_each_matrix_is_updated_as_if_it_were_the_only_leaf(make) -> None:
    grads = {name: gradients(shape) for name, shape in SHAPES.items()}
    grads |= {"tall again": 2 * grads["tall"][::-1], "bias": gradients((3,))}
    together = all_updates(make(0.1), grads)
    for name, g in grads.items():
        alone = all_updates(make(0.1), g)
        np.testing.assert_allclose(together[name], alone, rtol=1e-9, atol=1e-12)
    for head in range(4):
        alone = all_updates(make(0.1), grads["heads"][:, head])
        np.testing.assert_allclose(together["heads"][:, head], alone, atol=1e-10)


@all_optimizers
def test_a_leaf_without_matrices_gets_adamw(make) -> None:
    grads = {"bias": gradients((3,)), "scalar": gradients(())}
    b2 = {"muon": 0.999, "soap": 0.95}[make.__name__]
    adamw = optimizers.adamw(0.1, b1={0.999: 0.9}.get(b2, b2), b2=b2)
    expected = all_updates(adamw, grads)
    for name, updates in all_updates(make(0.1), grads).items():
        np.testing.assert_allclose(updates, expected[name], rtol=1e-12)


@all_optimizers
def test_a_transposed_matrix_gets_the_transposed_update(make) -> None:
    grads = gradients((4, 3))
    updates = all_updates(make(0.1), grads)
    transposed = all_updates(make(0.1), jnp.matrix_transpose(grads))
    np.testing.assert_allclose(jnp.matrix_transpose(transposed), updates, atol=1e-9)


@all_optimizers
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_float32_gradients_of_any_scale(make, scale) -> None:
    grads = gradients((4, 3), dtype=jnp.float32)
    expected = all_updates(make(0.1), grads)
    if make is optimizers.muon:
        updates = all_updates(make(0.1), grads * jnp.float32(scale))
        np.testing.assert_allclose(updates, expected, rtol=1e-3, atol=1e-5)
    zero = all_updates(make(0.1), 0 * grads)
    assert not np.any(zero)


@all_optimizers
def test_bfloat16_parameters_have_float32_accumulators(make) -> None:
    params = {"w": jnp.ones((8, 4), jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
    optimizer = make(0.1)
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype.itemsize for x in jax.tree.leaves(state)} == {4}


def num_products(make: Any, shapes: list[tuple[int, ...]]) -> int:
    params = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    optimizer = make(0.1)
    state = jax.eval_shape(optimizer.init, params)
    jaxpr = str(jax.make_jaxpr(optimizer.update)(params, state, params))
    return jaxpr.count("dot_general")


@all_optimizers
def test_the_program_grows_with_the_shapes_instead_of_the_leaves(make) -> None:
    one_shape = num_products(make, [(8, 4)])
    assert num_products(make, [(8, 4)] * 20 + [(3, 8, 4), (4,)]) == one_shape > 0
    two_shapes = num_products(make, [(8, 4), (8, 6)] * 5)
    assert one_shape < two_shapes <= 2 * one_shape


@pytest.mark.slow
def test_temporaries_of_muon_are_at_most_half_of_those_of_optax() -> None:
    """No stack has more than a fixed number of elements."""

    def temporaries(optimizer: Any) -> int:
        params = [jax.ShapeDtypeStruct((2048, 4096), jnp.float32)] * 8
        state = jax.eval_shape(optimizer.init, params)
        update = jax.jit(optimizer.update, donate_argnums=(0, 1))
        compiled = update.lower(params, state, params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    ours, peer = optimizers.muon(0.1), optax.contrib.muon(0.1)
    assert temporaries(ours) < temporaries(peer) / 2


def test_singular_values_of_muon_are_near_1() -> None:
    """At learning rate 1 / (0.2 √max(m, n)), whatever those of the gradient are."""
    u, _, v_t = np.linalg.svd(np.random.default_rng(0).normal(size=(20, 30)), False)
    g = jnp.asarray(u * np.geomspace(1, 1e-2, 20) @ v_t)
    optimizer = optimizers.muon(5 / np.sqrt(30))
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    values = np.linalg.svd(updates, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    assert np.all(np.diag(u.T @ updates @ v_t.T) < -0.6)


def test_complex_matrices_of_muon_rotate_with_the_gradient() -> None:
    grads = gradients((3, 4)) + 1j * gradients((3, 4))[::-1]
    phase = np.exp(0.7j)
    updates = all_updates(optimizers.muon(0.1), grads)
    rotated = all_updates(optimizers.muon(0.1), phase * grads)
    np.testing.assert_allclose(rotated, phase * updates, rtol=1e-10)


@all_optimizers
def test_vmap_over_hyperparameters_is_the_loop(make) -> None:
    grads = {"w": gradients((3, 4)), "b": gradients((4,))}
    rates, decays = jnp.array([0.1, 0.3]), jnp.array([0.0, 0.2])

    def updates(rate: Any, weight_decay: Any) -> Any:
        return all_updates(make(rate, weight_decay=weight_decay), grads)

    got = jax.vmap(updates)(rates, decays)
    for i in range(2):
        expected = updates(float(rates[i]), float(decays[i]))
        for name in grads:
            np.testing.assert_allclose(got[name][i], expected[name], rtol=1e-9)


@all_optimizers
def test_partition_gives_the_head_another_optimizer(make) -> None:
    """The line of the README."""
    params = {"body": jnp.ones((4, 4)), "head": jnp.ones((4, 9))}
    optimizer = optax.partition(
        {"matrix": make(0.02), "rest": optimizers.adamw(3e-4)},
        {"body": "matrix", "head": "rest"},
    )
    grads = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    adamw = optimizers.adamw(3e-4)
    head = params["head"]
    expected = adamw.update(grads["head"], adamw.init(head), head)[0]
    np.testing.assert_allclose(updates["head"], expected, rtol=1e-6)


@all_optimizers
def test_state_is_mapped_by_optax(make) -> None:
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
    state = make(0.1).init(params)
    doubled = optax.tree.map_params(make(0.1), functools.partial(jnp.add, 1.0), state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    np.testing.assert_array_equal(doubled.mu["w"], 1.0)


GRADIENTS = {
    "regular": lambda x: x,
    "graded": lambda x: x * 10.0 ** -np.linspace(0, 10, x.shape[1]),
    "rank 3": lambda x: x[:, :3] @ x[:3],
    "zero rows": lambda x: x * (np.arange(len(x)) % 2)[:, None],
    "zero": np.zeros_like,
    "complex": lambda x: x + 1j * x[::-1],
}


@functools.cache
def soap_step_on_a_tpu(shape: tuple[int, int], dtype: Any) -> Any:
    optimizer, g = optimizers.soap(0.1, precondition_every=1), jnp.zeros(shape, dtype)
    any_platform = [jax.export.DisabledSafetyCheck.platform()]
    export = jax.export.export(
        jax.jit(optimizer.update), platforms=["tpu"], disabled_checks=any_platform
    )
    return jax.jit(export(g, optimizer.init(g), g).call)


@pytest.mark.xdist_group("soap on a TPU")
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("regular", "rank 3")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in GRADIENTS
    ],
)
def test_the_bases_of_soap_on_a_tpu(name: str) -> None:
    """They come from power iterations, and from QR in a loop over panels."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(GRADIENTS[name](rng.normal(size=(260, 300))))
    state = optimizers.soap(0.1).init(g)
    for _ in range(2):
        _, state = soap_step_on_a_tpu(g.shape, g.dtype)(g, state, g)
        for side in state.sides:
            q, identity = side.basis, np.eye(len(side.basis))
            np.testing.assert_allclose(q.conj().T @ q, identity, atol=1e-12)
            diagonalized = q.conj().T @ side.covariance @ q
            off_diagonal = diagonalized - jnp.diag(jnp.diag(diagonalized))
            norm = jnp.linalg.norm(side.covariance)
            assert jnp.linalg.norm(off_diagonal) <= 0.03 * norm


def test_soap_of_different_long_matrices_on_each_device() -> None:
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    g = gradients((300, 3), num_steps=2)

    def update(g: jax.Array) -> jax.Array:
        optimizer = optimizers.soap(0.1)
        _, state = optimizer.update(g, optimizer.init(g), g)
        return optimizer.update(g, state, g)[0]

    rows = jax.sharding.PartitionSpec("data")
    each = jax.shard_map(update, mesh=mesh, in_specs=rows, out_specs=rows)
    np.testing.assert_allclose(jax.jit(each)(g), jax.jit(jax.vmap(update))(g))
