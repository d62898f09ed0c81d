"""Optimizers: what the table of cases cannot say, above all where peers fail.

What is no more than a number is computed without compiling, and what is a matter of
shapes and dtypes without computing.
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

from jaxml import optimizers

AVERAGING = ("shadow_weights", "averaged_params")
SECOND_ORDER = ("newton", "newton_cg", "gauss_newton", "levenberg_marquardt")
DESCENTS = {
    name: function
    for name, function in vars(optimizers).items()
    if inspect.isfunction(function) and name not in AVERAGING + SECOND_ORDER
}
BUFFERED = {
    "rmsprop_momentum": functools.partial(optimizers.rmsprop, momentum=0.9),
    "shadow_weights": lambda rate, **numbers: optimizers.shadow_weights(
        optimizers.adamw(rate, **numbers)
    ),
}
EVERY = DESCENTS | BUFFERED
DECAYING = ("adamw", "adam_l2", "lion")
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADIENTS = [
    jax.tree.map(lambda x, scale=scale: scale * jnp.cos(x), PARAMS)
    for scale in (1.0, -0.3, 0.0, 2.0)
]

every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
every_descent = pytest.mark.parametrize("make", DESCENTS.values(), ids=DESCENTS)


@pytest.fixture(autouse=True)
def promotion() -> Any:
    """optax's own arithmetic mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def walk(optimizer: Any, gradients: list = GRADIENTS, params: Any = PARAMS) -> Any:
    """The parameters after these gradients, without a compiled step."""
    with jax.disable_jit():
        state = optimizer.init(params)
        for g in gradients:
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params


def updates_of(optimizer: Any, gradients: Any, params: Any = 1.0) -> np.ndarray:
    """The update of each gradient, at parameters that stay."""
    params = jnp.full_like(gradients[0], params)
    with jax.disable_jit():
        state, updates = optimizer.init(params), []
        for g in gradients:
            update, state = optimizer.update(g, state, params)
            updates.append(update)
        return np.stack(updates)


def equal(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=rtol), got, expected
    )


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


# In optax's hands


@every
def test_a_chain_changes_nothing(make) -> None:
    plain = walk(make(0.1))
    equal(walk(optax.chain(optax.identity(), make(0.1))), plain)
    equal(walk(optax.named_chain(("ours", make(0.1)))), plain)
    equal(walk(optax.apply_if_finite(make(0.1), 3)), plain)
    scaled = optax.chain(optax.clip_by_global_norm(1e9), make(0.1), optax.scale(1.0))
    equal(walk(scaled), plain)


@every
def test_masks_and_partitions_split_the_parameters(make) -> None:
    alone = {
        key: walk(make(0.1), [g[key] for g in GRADIENTS], PARAMS[key]) for key in "wb"
    }
    masked = walk(optax.masked(make(0.1), {"w": True, "b": False}))
    total = sum(g["b"] for g in GRADIENTS)  # optax lets through what it masks
    equal(masked, {"w": alone["w"], "b": PARAMS["b"] + total})
    parts = {"ours": make(0.1), "still": optax.set_to_zero()}
    split = walk(optax.partition(parts, {"w": "still", "b": "ours"}))
    equal(split, {"w": PARAMS["w"], "b": alone["b"]})


@every
def test_a_step_of_several_gradients_takes_their_mean(make) -> None:
    twice = [g for g in GRADIENTS for _ in range(2)]
    several = walk(optax.MultiSteps(make(0.1), 2), twice)
    equal(several, walk(make(0.1)), rtol=1e-6)  # optax's mean is float32


@every
def test_lookahead_and_non_finite_gradients(make) -> None:
    plain = walk(make(0.1))
    ahead = optax.LookaheadParams.init_synced(PARAMS)
    equal(walk(optax.lookahead(make(0.1), 2, 1.0), params=ahead).slow, plain)
    spoilt = jax.tree.map(lambda g: g * jnp.nan, GRADIENTS[0])
    holes = [*GRADIENTS[:2], spoilt, *GRADIENTS[2:]]
    equal(walk(optax.apply_if_finite(make(0.1), 3), holes), plain)


@every_descent
def test_injected_hyperparameters_are_the_numbers_given(make) -> None:
    injected = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float64)
    equal(walk(injected(learning_rate=0.1)), walk(make(0.1)))
    falling = optax.linear_schedule(0.1, 0.0, 4)
    equal(walk(injected(learning_rate=falling)), walk(make(falling)))


@every
def test_the_tools_for_trees_find_the_state(make) -> None:
    optimizer = optax.chain(optax.clip(1.0), make(0.1))
    state = optimizer.init(PARAMS)
    doubled = optax.tree.map_params(optimizer, lambda x: 2 * x, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    moments = [x for x in jax.tree.leaves(state) if x.dtype != jnp.int32 and x.shape]
    found = [x for x in jax.tree.leaves(doubled) if x.dtype != jnp.int32 and x.shape]
    equal(found, [2 * x for x in moments])
    counts = [v for _, v in optax.tree.get_all_with_path(state, "count")]
    assert counts and all(count == 0 for count in counts)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("momentum", "trace"),
        ("nesterov", "trace"),
        ("lion", "mu"),
        ("adagrad", "sum_of_squares"),
        ("adadelta", "e_g e_x"),
        ("rmsprop", "nu"),
        ("rmsprop_momentum", "nu trace"),
        ("centered_rmsprop", "mu nu"),
        ("adam", "mu nu"),
        ("amsgrad", "mu nu nu_max"),
        ("shadow_weights", "mu nu ema"),
    ],
)
def test_accumulators_have_optax_names(name, fields) -> None:
    state = optax.chain(optax.identity(), EVERY[name](0.1)).init(PARAMS)
    for field in fields.split():
        assert jax.tree.structure(optax.tree.get(state, field)) == jax.tree.structure(
            PARAMS
        )


# Shapes and dtypes


@every
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "bfloat16", "float16", "complex64"]
)
def test_a_step_keeps_all_types_and_holds_wide_numbers(make, dtype) -> None:
    """So that the second step does not compile, and no loop or branch objects."""
    optimizer = make(0.1)
    params = {
        "w": jax.ShapeDtypeStruct((2,), dtype),
        "b": jax.ShapeDtypeStruct((), dtype),
    }
    state = jax.eval_shape(optimizer.init, params)
    updates, after = jax.eval_shape(optimizer.update, params, state, params)
    assert types(updates) == types(params)
    assert types(after) == types(state)
    wide = 64 if dtype == "float64" else 32
    held = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
    assert all(jnp.finfo(x.dtype).bits == wide for x in held)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))

    def loop(params: Any, state: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = jax.lax.cond(
                state.count < 2,
                lambda: optimizer.update(params, state, params),
                lambda: (jax.tree.map(jnp.zeros_like, params), state),
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    assert types(jax.eval_shape(loop, params, state)) == types((params, state))


@every_descent
def test_the_state_has_the_dtype_asked_for(make) -> None:
    optimizer = make(0.1, state_dtype=jnp.bfloat16)
    params = jnp.ones(2, jnp.float32)
    state = optimizer.init(params)
    _, after = optimizer.update(params, state, params)
    for moments in (state[1:], after[1:]):
        assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(moments))
    for wrong in ("int32", "flat"):
        rule = f"state_dtype must be a float dtype, got '{wrong}'"
        with pytest.raises(TypeError, match=rule):
            make(0.1, state_dtype=wrong)


# Numbers


@every
def test_the_rate_multiplies_the_step_and_nothing_else(make) -> None:
    """No buffer holds it: a rate that changes changes this step alone."""
    gradients = np.random.default_rng(0).normal(size=(6, 3))
    rates = np.array([1.0, 0.5, 0.0, 2.0, 0.25, 1.0])
    scheduled = updates_of(make(lambda step: jnp.asarray(rates)[step]), gradients)
    np.testing.assert_allclose(
        scheduled, rates[:, None] * updates_of(make(1.0), gradients), rtol=1e-12
    )


@every
def test_complex_parameters_turn_with_their_gradients(make) -> None:
    """All that is squared is |g|², which has no direction."""
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))
    turn = np.exp(0.7j)
    straight = updates_of(make(0.1), gradients)
    turned = updates_of(make(0.1), turn * gradients, turn)
    np.testing.assert_allclose(turned, turn * straight, rtol=1e-11, atol=1e-13)
    real = updates_of(make(0.1), gradients.real)
    along = updates_of(make(0.1), turn * gradients.real, turn)
    np.testing.assert_allclose(along, turn * real, rtol=1e-11, atol=1e-13)


@every
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_has_a_step_for_every_gradient(make, dtype) -> None:
    gradients = jnp.array([[0.0], [1e-4], [0.0], [1.0], [0.0]], dtype)
    got = updates_of(make(0.1), [gradients[0]] * 3)
    if make in [DESCENTS[name] for name in DECAYING] + [BUFFERED["shadow_weights"]]:
        assert np.isfinite(got).all()
    else:
        assert not got.any()
    assert np.isfinite(updates_of(make(0.1), gradients)).all()


def test_the_second_moment_of_bfloat16_does_not_stall() -> None:
    """Held in bfloat16 it stays at 0.049, for 0.999 v rounds back to v."""
    gradients = np.where(np.arange(3000) < 50, 1.0, 0.01)
    optimizer, params = optimizers.adam(1e-3), jnp.ones(1, jnp.bfloat16)

    def step(state: Any, g: jax.Array) -> Any:
        return optimizer.update(g, state)[1], None

    rows = jnp.asarray(gradients[:, None], jnp.bfloat16)
    state, _ = jax.lax.scan(step, optimizer.init(params), rows)
    nu = 0.0
    for g in np.asarray(rows, float)[:, 0]:
        nu = 0.999 * nu + 0.001 * g**2
    np.testing.assert_allclose(state.nu, nu, rtol=1e-4)
    assert 0.0026 < nu < 0.0027


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.999, 0.9999, 0.9999999])
def test_the_first_steps_of_float32_are_corrected_to_the_last_bits(b) -> None:
    """1 - βᵗ as written has one digit left of β = 0.9999999."""
    with jax.enable_x64(False):
        ones = jnp.ones((4, 1))
        for optimizer in (
            optimizers.adam(1.0, b2=b, eps=0.0),
            optimizers.adamax(1.0, b1=b, eps=0.0),
        ):
            np.testing.assert_allclose(updates_of(optimizer, ones), -1.0, rtol=5e-7)
        shadow = optimizers.shadow_weights(optimizers.sgd(0.0), decay=b)
        state = shadow.init(ones[0])
        with jax.disable_jit():
            for x in ones:
                _, state = shadow.update(x, state, x)
                average = optimizers.averaged_params(state)
                np.testing.assert_allclose(average, 1.0, rtol=5e-7)


def test_amsgrad_converges_where_adam_does_not() -> None:
    """Reddi's first theorem: 3x every third time, -x else; the best x is -1."""

    def last(make: Callable[..., Any]) -> float:
        optimizer = make(lambda t: 0.5 / jnp.sqrt(t + 1), b1=0.0, b2=0.1, eps=0.0)

        def step(carry: Any, t: jax.Array) -> Any:
            x, state = carry
            update, state = optimizer.update(jnp.where(t % 3 == 0, 3.0, -1.0), state)
            return (jnp.clip(x + update, -1.0, 1.0), state), None

        start = jnp.zeros(()), optimizer.init(jnp.zeros(()))
        return float(jax.lax.scan(step, start, jnp.arange(3000))[0][0])

    assert last(optimizers.adam) > 0.9
    assert last(optimizers.amsgrad) < -0.9


@every_descent
def test_training_has_a_derivative_where_gradients_are_zero(make) -> None:
    """For the gradients and for every number, twice; at ε = 0 too."""
    numbers = {"learning_rate": 0.1} | {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if isinstance(parameter.default, float) and name != "learning_rate"
    }
    zeros = {
        n: 0.0 for n in numbers if n in ("eps", "eps_root", "initial_accumulator_value")
    }

    def travelled(g: jax.Array, numbers: dict) -> jax.Array:
        optimizer = make(**numbers)
        x = jnp.ones(())
        state = optimizer.init(x)
        for _ in range(2):
            update, state = optimizer.update(g, state, x)
            x = x + update
        return x

    with jax.disable_jit():
        for given in (numbers, numbers | zeros):
            gradient = jax.grad(travelled, argnums=(0, 1))
            point = jnp.zeros(()), jax.tree.map(jnp.asarray, given)
            ones = jax.tree.map(jnp.ones_like, point)
            for tree in jax.jvp(gradient, point, ones):
                for path, slope in jax.tree.leaves_with_path(tree):
                    assert jnp.isfinite(slope), (path, given)


@pytest.mark.parametrize("name", [*DECAYING, "shadow_weights"])
def test_decay_and_averages_need_the_parameters(name) -> None:
    optimizer = EVERY[name](0.1)
    with pytest.raises(TypeError, match="params must be given to update"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))


@pytest.mark.parametrize("name", DECAYING)
def test_decay_shrinks_what_the_mask_says(name) -> None:
    number = {"l2" if name == "adam_l2" else "weight_decay": 0.1}
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for mask in ({"w": True, "b": False}, lambda params: {"w": True, "b": False}):
        after = walk(EVERY[name](0.1, mask=mask, **number), [zeros], PARAMS)
        assert (jnp.abs(after["w"]) < jnp.abs(PARAMS["w"])).all()
        assert after["b"] == PARAMS["b"]


def test_a_hessian_is_made_a_block_of_rows_at_a_time() -> None:
    """And not as many copies of what the objective holds as there are parameters."""
    rows = jax.ShapeDtypeStruct((20_000, 700), jnp.float32)

    def f(x: jax.Array, rows: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(rows @ x))

    x, optimizer = jnp.zeros(700, jnp.float32), optimizers.newton()
    step = jax.jit(functools.partial(optimizer.update, value_fn=f))
    lowered = step.lower(x, optimizer.init(x), x, rows=rows)
    held = lowered.compile().memory_analysis().temp_size_in_bytes
    assert held < 0.6 * 4 * 20_000 * 700
