"""Gradients of in-batch losses whose batch is encoded in chunks."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from bench import measure
from jaxml import losses, mining

pytestmark = pytest.mark.slow


def encode(params: Any, batch: Any, key: Any = None) -> jax.Array:
    """Two layers, with dropout between them if there is a key."""
    x, _ = batch
    hidden = jnp.tanh(x @ params["first"])
    if key is not None:
        mask = jax.random.bernoulli(key, 0.5, hidden.shape)
        hidden = jnp.where(mask, 2 * hidden, 0)
    return hidden @ params["second"]


def loss(params: Any, embeddings: jax.Array, batch: Any, axis_name: Any = None) -> Any:
    temperature = jnp.exp(params["log_temperature"])
    values = losses.supcon_loss(
        embeddings, batch[1], temperature=temperature, axis_name=axis_name
    )
    return losses.mean(values, axis_name=axis_name)


def problem(n: int, dtype: Any = jnp.float64, width: int = 16) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "first": jax.random.normal(keys[0], (6, width), dtype) / 3,
        "second": jax.random.normal(keys[1], (width, 4), dtype) / 4,
        "log_temperature": jnp.zeros((), dtype),
    }
    x = jax.random.normal(keys[2], (n, 6), dtype)
    return params, (x, jnp.arange(n, dtype=jnp.int32) % 5)


@pytest.mark.parametrize("chunk", [1, 3, 8, 24, 100])
def test_chunks_do_not_change_the_gradient(chunk: int) -> None:
    params, batch = problem(24)
    step = jax.jit(mining.grad_cache(encode, loss, chunk))
    expected = jax.value_and_grad(lambda p: loss(p, encode(p, batch), batch))(params)
    chex.assert_trees_all_close(step(params, batch), expected, rtol=1e-10)


def dropout_keys(key: jax.Array, n: int, chunk: int) -> Iterator[tuple[slice, Any]]:
    for start in range(0, n, chunk):
        yield slice(start, start + chunk), jax.random.fold_in(key, start)


def gradient_with_dropout(params: Any, batch: Any, key: Any, chunk: int) -> Any:
    """Of all chunks at once, each with its key."""

    def objective(params: Any) -> jax.Array:
        parts = [
            encode(params, jax.tree.map(lambda x, at=at: x[at], batch), chunk_key)
            for at, chunk_key in dropout_keys(key, len(batch[0]), chunk)
        ]
        return loss(params, jnp.concatenate(parts), batch)

    return jax.value_and_grad(objective)(params)


@pytest.mark.parametrize("chunk", [5, 6])
def test_both_passes_have_the_same_dropout(chunk: int) -> None:
    (params, batch), key = problem(24), jax.random.key(3)
    step = jax.jit(mining.grad_cache(encode, loss, chunk))
    result = step(params, batch, key=key)
    expected = gradient_with_dropout(params, batch, key, chunk)
    chex.assert_trees_all_close(result, expected, rtol=1e-10)
    # a second pass with other keys is off by far
    other = two_passes(params, batch, key, jax.random.key(4), chunk)
    error = jnp.linalg.norm(other["first"] - expected[1]["first"])
    assert error > 0.1 * jnp.linalg.norm(expected[1]["first"])
    same = two_passes(params, batch, key, key, chunk)
    np.testing.assert_allclose(same["first"], expected[1]["first"], rtol=1e-10)


def two_passes(params: Any, batch: Any, key: Any, second_key: Any, chunk: int) -> Any:
    """The published algorithm, whose second pass has different keys."""
    n = len(batch[0])
    parts = [
        encode(params, jax.tree.map(lambda x, at=at: x[at], batch), chunk_key)
        for at, chunk_key in dropout_keys(key, n, chunk)
    ]
    cotangent = jax.grad(loss, 1)(params, jnp.concatenate(parts), batch)
    gradient = jax.tree.map(jnp.zeros_like, params)
    for at, chunk_key in dropout_keys(second_key, n, chunk):
        part = jax.tree.map(lambda x, at=at: x[at], batch)
        pullback = jax.vjp(partial(encode, batch=part, key=chunk_key), params)[1]
        gradient = jax.tree.map(jnp.add, gradient, pullback(cotangent[at])[0])
    return gradient


def test_the_activations_of_one_chunk_are_held() -> None:
    n, width = 256, 16384
    params, batch = problem(n, jnp.float32, width)
    with jax.enable_x64(False):
        whole = jax.value_and_grad(lambda p, b: loss(p, encode(p, b), b))
        whole_bytes = measure.temporaries(whole, params, batch)
        step = mining.grad_cache(encode, loss, n // 16)
        chunk_bytes = measure.temporaries(step, params, batch)
    hidden_bytes = 4 * n * width
    assert whole_bytes > hidden_bytes
    assert chunk_bytes < hidden_bytes / 4


def test_two_towers_are_encoded_in_chunks() -> None:
    params = {"image": jnp.eye(3) + 0.1, "text": jnp.eye(3) - 0.2}
    batch = tuple(jax.random.normal(jax.random.key(0), (2, 10, 3)))

    def towers(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        images, texts = batch
        return jnp.sin(images @ params["image"]), jnp.sin(texts @ params["text"])

    def clip(params: Any, embeddings: Any, batch: Any) -> jax.Array:
        return losses.mean(losses.clip_loss(*embeddings, temperature=0.5))

    result = mining.grad_cache(towers, clip, 4)(params, batch)
    expected = jax.value_and_grad(lambda p: clip(p, towers(p, batch), batch))(params)
    chex.assert_trees_all_close(result, expected, rtol=1e-10)


def test_gradients_of_16_bit_parameters_are_summed_in_float32() -> None:
    """256 equal terms of one chunk each, of which bfloat16 would lose most."""
    step = mining.grad_cache(lambda w, x: w * x, lambda w, e, x: jnp.sum(e), 1)
    terms = jnp.full(1024, 1.0, jnp.bfloat16)
    _, gradient = step(jnp.ones((), jnp.bfloat16), terms)
    assert gradient.dtype == jnp.bfloat16 and gradient == 1024


def primitives(jaxpr: Any, inside_loop: bool = False) -> Iterator[tuple[str, bool]]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield name, inside_loop
        for inner in jax.tree.leaves(
            [*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner, inside_loop or name == "scan")


def test_in_shard_map_the_gradient_is_that_of_the_global_batch() -> None:
    """With one sum over the devices, after the last chunk."""
    params, batch = problem(64)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = mining.grad_cache(encode, partial(loss, axis_name="data"), 4)
    sharded = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=True
    )
    expected = jax.value_and_grad(lambda p: loss(p, encode(p, batch), batch))(params)
    chex.assert_trees_all_close(jax.jit(sharded)(params, batch), expected, rtol=1e-10)

    sums = [
        inside
        for name, inside in primitives(jax.make_jaxpr(sharded)(params, batch).jaxpr)
        if name.startswith("psum")
    ]
    assert sums and not any(sums)


def test_in_shard_map_each_device_may_have_a_key_of_its_own() -> None:
    (params, batch), key, chunk = problem(64), jax.random.key(3), 4
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    step = mining.grad_cache(encode, partial(loss, axis_name="data"), chunk)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P()), out_specs=P())
    def sharded(params: Any, batch: Any, key: Any) -> Any:
        return step(
            params, batch, key=jax.random.fold_in(key, jax.lax.axis_index("data"))
        )

    def objective(params: Any) -> jax.Array:
        parts = [
            encode(
                params,
                jax.tree.map(lambda x, at=8 * i + start: x[at : at + chunk], batch),
                jax.random.fold_in(jax.random.fold_in(key, i), start),
            )
            for i in range(8)
            for start in (0, chunk)
        ]
        return loss(params, jnp.concatenate(parts), batch)

    result = sharded(params, batch, key)
    expected = jax.value_and_grad(objective)(params)
    chex.assert_trees_all_close(result, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: mining.grad_cache(lambda w, x: x, lambda w, e, x: e, 0),
            "grad_cache: chunk must be at least 1, got 0",
        ),
        (
            lambda: mining.grad_cache(lambda w, x: x, lambda w, e, x: e, 2)(
                jnp.ones(2), (jnp.ones(3), jnp.ones(4))
            ),
            "grad_cache: batch must be arrays with one length along their first axes",
        ),
    ],
)
def test_an_invalid_argument_is_named(call: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
