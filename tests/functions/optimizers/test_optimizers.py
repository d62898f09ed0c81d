"""Optimizers inside optax, and where other libraries lose precision or fail.

Tests of values run without jit, and tests of shapes and dtypes only trace.
"""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxml import optimizers

WRAPPERS = ("shadow_weights", "averaged_params", "compressed")
SECOND_ORDER = ("newton", "newton_cg", "gauss_newton", "levenberg_marquardt")
FIRST_ORDER = {
    name: function
    for name, function in vars(optimizers).items()
    if inspect.isfunction(function) and name not in WRAPPERS + SECOND_ORDER
}


def adamw_with_shadow_weights(learning_rate: Any, **hyperparams: Any) -> Any:
    return optimizers.shadow_weights(optimizers.adamw(learning_rate, **hyperparams))


OPTIMIZERS = FIRST_ORDER | {
    "rmsprop_momentum": functools.partial(optimizers.rmsprop, momentum=0.9),
    "shadow_weights": adamw_with_shadow_weights,
}
WITH_WEIGHT_DECAY = ("adamw", "adam_l2", "lion", "muon", "soap")
PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
GRADS = [
    jax.tree.map(lambda x, scale=scale: scale * jnp.cos(x), PARAMS)
    for scale in (1.0, -0.3, 0.0, 2.0)
]

all_optimizers = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
all_first_order = pytest.mark.parametrize("make", FIRST_ORDER.values(), ids=FIRST_ORDER)
assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-12)


@pytest.fixture(autouse=True)
def standard_promotion() -> Any:
    """optax's own arithmetic mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def final_params(optimizer: Any, grads: list = GRADS, params: Any = PARAMS) -> Any:
    """The parameters after one step per gradient."""
    with jax.disable_jit():
        state = optimizer.init(params)
        for g in grads:
            updates, state = optimizer.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params


def stack_updates(optimizer: Any, grads: Any, params: Any = 1.0) -> np.ndarray:
    """The update of each gradient, all at the same parameters."""
    params = jnp.full_like(grads[0], params)
    with jax.disable_jit():
        state, updates = optimizer.init(params), []
        for g in grads:
            update, state = optimizer.update(g, state, params)
            updates.append(update)
        return np.stack(updates)


def avals(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


# Inside optax


@all_optimizers
def test_a_chain_does_not_change_the_result(make) -> None:
    expected = final_params(make(0.1))
    clip = optax.clip_by_global_norm(1e9)
    for optimizer in (
        optax.chain(optax.identity(), make(0.1)),
        optax.named_chain(("jaxml", make(0.1))),
        optax.apply_if_finite(make(0.1), 3),
        optax.chain(clip, make(0.1), optax.scale(1.0)),
    ):
        assert_close(final_params(optimizer), expected)


@all_optimizers
def test_masked_and_partition_split_the_parameters(make) -> None:
    separate = {
        key: final_params(make(0.1), [g[key] for g in GRADS], PARAMS[key])
        for key in PARAMS
    }
    masked = final_params(optax.masked(make(0.1), {"w": True, "b": False}))
    sum_of_grads = sum(g["b"] for g in GRADS)  # optax passes masked gradients on
    assert_close(masked, {"w": separate["w"], "b": PARAMS["b"] + sum_of_grads})
    parts = {"train": make(0.1), "freeze": optax.set_to_zero()}
    partition = optax.partition(parts, {"w": "freeze", "b": "train"})
    assert_close(final_params(partition), {"w": PARAMS["w"], "b": separate["b"]})


@all_first_order
def test_a_parameter_without_a_gradient_stays(make) -> None:
    """Its gradient is None, as from `equinox.filter_grad`."""
    optimizer, w = make(0.1), jnp.ones((2, 3))
    params = {"w": w, "frozen": w, "b": None}
    state, state_of_w = optimizer.init(params), optimizer.init(w)
    for _ in range(2):
        updates, state = optimizer.update({**params, "frozen": None}, state, params)
        expected, state_of_w = optimizer.update(w, state_of_w, w)
        assert updates["frozen"] is None
        assert_close(updates["w"], expected)


@all_optimizers
def test_multi_steps_averages_the_gradients(make) -> None:
    twice = [g for g in GRADS for _ in range(2)]
    result = final_params(optax.MultiSteps(make(0.1), 2), twice)
    assert_close(result, final_params(make(0.1)), rtol=1e-6)  # optax's mean is float32


@all_optimizers
def test_lookahead_and_apply_if_finite(make) -> None:
    expected = final_params(make(0.1))
    params = optax.LookaheadParams.init_synced(PARAMS)
    lookahead = optax.lookahead(make(0.1), 2, 1.0)
    assert_close(final_params(lookahead, params=params).slow, expected)
    nans = jax.tree.map(lambda g: g * jnp.nan, GRADS[0])
    with_nans = [*GRADS[:2], nans, *GRADS[2:]]
    assert_close(final_params(optax.apply_if_finite(make(0.1), 3), with_nans), expected)


@all_first_order
def test_inject_hyperparams_does_not_change_the_result(make) -> None:
    injected = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float64)
    schedule = optax.linear_schedule(0.1, 0.0, 4)
    for rate in (0.1, schedule):
        assert_close(
            final_params(injected(learning_rate=rate)), final_params(make(rate))
        )


@all_optimizers
def test_optax_tree_utilities_find_the_state(make) -> None:
    optimizer = optax.chain(optax.clip(1.0), make(0.1))
    state = optimizer.init(PARAMS)
    doubled = optax.tree.map_params(optimizer, lambda x: 2 * x, state)
    chex.assert_trees_all_equal_structs(doubled, state)
    for x, doubled_x in zip(jax.tree.leaves(state), jax.tree.leaves(doubled)):
        if x.shape and x.dtype != jnp.int32:
            assert_close(doubled_x, 2 * x)
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
        ("muon", "mu nu"),
        ("soap", "mu nu"),
        ("shadow_weights", "mu nu ema"),
    ],
)
def test_accumulators_have_optax_names(name, fields) -> None:
    state = optax.chain(optax.identity(), OPTIMIZERS[name](0.1)).init(PARAMS)
    for field in fields.split():
        chex.assert_trees_all_equal_structs(optax.tree.get(state, field), PARAMS)


# Shapes and dtypes


@all_optimizers
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "bfloat16", "float16", "complex64"]
)
def test_a_step_keeps_all_dtypes_and_accumulates_in_float32_or_wider(
    make, dtype
) -> None:
    """So the second step does not compile, and `scan` and `cond` accept the state."""
    optimizer = make(0.1)
    params = {
        "w": jax.ShapeDtypeStruct((2,), dtype),
        "b": jax.ShapeDtypeStruct((), dtype),
    }
    state = jax.eval_shape(optimizer.init, params)
    updates, new_state = jax.eval_shape(optimizer.update, params, state, params)
    assert avals(updates) == avals(params)
    assert avals(new_state) == avals(state)
    bits = 64 if dtype == "float64" else 32
    accumulators = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
    assert all(jnp.finfo(x.dtype).bits == bits for x in accumulators)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))

    def train(params: Any, state: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = jax.lax.cond(
                state.count < 2,
                lambda: optimizer.update(params, state, params),
                lambda: (jax.tree.map(jnp.zeros_like, params), state),
            )
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    assert avals(jax.eval_shape(train, params, state)) == avals((params, state))


@all_first_order
def test_state_dtype_is_the_dtype_of_the_accumulators(make) -> None:
    optimizer = make(0.1, state_dtype=jnp.bfloat16)
    params = jnp.ones(2, jnp.float32)
    state = optimizer.init(params)
    _, new_state = optimizer.update(params, state, params)
    for accumulators in (state[1:], new_state[1:]):
        assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(accumulators))


@all_first_order
@pytest.mark.parametrize("state_dtype", ["int32", "flat"])
def test_state_dtype_must_be_a_float_dtype(make, state_dtype) -> None:
    message = f"state_dtype must be a float dtype, got '{state_dtype}'"
    with pytest.raises(TypeError, match=message):
        make(0.1, state_dtype=state_dtype)


# Values


@all_optimizers
def test_the_learning_rate_scales_the_current_step_only(make) -> None:
    """No accumulator contains it, so a schedule does not change later steps."""
    grads = np.random.default_rng(0).normal(size=(6, 3))
    rates = np.array([1.0, 0.5, 0.0, 2.0, 0.25, 1.0])
    scheduled = stack_updates(make(lambda step: jnp.asarray(rates)[step]), grads)
    expected = rates[:, None] * stack_updates(make(1.0), grads)
    np.testing.assert_allclose(scheduled, expected, rtol=1e-12)


@all_optimizers
def test_complex_updates_rotate_with_the_gradients(make) -> None:
    """Squares are |g|², which does not depend on the phase."""
    rng = np.random.default_rng(1)
    grads = rng.normal(size=(5, 3)) + 1j * rng.normal(size=(5, 3))
    phase = np.exp(0.7j)
    updates = stack_updates(make(0.1), grads)
    rotated = stack_updates(make(0.1), phase * grads, phase)
    np.testing.assert_allclose(rotated, phase * updates, rtol=1e-11, atol=1e-13)
    real = stack_updates(make(0.1), grads.real)
    rotated_real = stack_updates(make(0.1), phase * grads.real, phase)
    np.testing.assert_allclose(rotated_real, phase * real, rtol=1e-11, atol=1e-13)


@all_optimizers
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_16_bit_updates_are_finite_and_0_for_zero_gradients(make, dtype) -> None:
    grads = jnp.array([[0.0], [1e-4], [0.0], [1.0], [0.0]], dtype)
    at_zero_grad = stack_updates(make(0.1), [grads[0]] * 3)
    decaying = [OPTIMIZERS[n] for n in (*WITH_WEIGHT_DECAY, "shadow_weights")]
    if make in decaying:
        assert np.isfinite(at_zero_grad).all()
    else:
        assert not at_zero_grad.any()
    assert np.isfinite(stack_updates(make(0.1), grads)).all()


def test_the_second_moment_of_bfloat16_does_not_stall() -> None:
    """Kept in bfloat16 it would stay at 0.049, because 0.999 v rounds back to v."""
    grads = np.where(np.arange(3000) < 50, 1.0, 0.01)
    optimizer, params = optimizers.adam(1e-3), jnp.ones(1, jnp.bfloat16)

    def step(state: Any, g: jax.Array) -> Any:
        return optimizer.update(g, state)[1], None

    grads = jnp.asarray(grads[:, None], jnp.bfloat16)
    state, _ = jax.lax.scan(step, optimizer.init(params), grads)
    nu = 0.0
    for g in np.asarray(grads, float)[:, 0]:
        nu = 0.999 * nu + 0.001 * g**2
    np.testing.assert_allclose(state.nu, nu, rtol=1e-4)
    assert 0.0026 < nu < 0.0027


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.999, 0.9999, 0.9999999])
def test_bias_corrections_are_accurate_in_float32(b) -> None:
    """1 - βᵗ evaluated as written has one correct digit at β = 0.9999999."""
    with jax.enable_x64(False):
        ones = jnp.ones((4, 1))
        for optimizer in (
            optimizers.adam(1.0, b2=b, eps=0.0),
            optimizers.adamax(1.0, b1=b, eps=0.0),
        ):
            np.testing.assert_allclose(stack_updates(optimizer, ones), -1.0, rtol=5e-7)
        shadow = optimizers.shadow_weights(optimizers.sgd(0.0), decay=b)
        state = shadow.init(ones[0])
        with jax.disable_jit():
            for x in ones:
                _, state = shadow.update(x, state, x)
                average = optimizers.averaged_params(state)
                np.testing.assert_allclose(average, 1.0, rtol=5e-7)


@pytest.mark.parametrize(
    ("make", "minimizer"), [(optimizers.adam, 1.0), (optimizers.amsgrad, -1.0)]
)
def test_amsgrad_converges_where_adam_does_not(make, minimizer) -> None:
    """Theorem 1 of Reddi et al.: gradients 3, -1, -1, 3, ... on [-1, 1], minimum -1."""
    optimizer = make(lambda t: 0.5 / jnp.sqrt(t + 1), b1=0.0, b2=0.1, eps=0.0)

    def step(carry: Any, t: jax.Array) -> Any:
        x, state = carry
        update, state = optimizer.update(jnp.where(t % 3 == 0, 3.0, -1.0), state)
        return (jnp.clip(x + update, -1.0, 1.0), state), None

    carry = jnp.zeros(()), optimizer.init(jnp.zeros(()))
    (x, _), _ = jax.lax.scan(step, carry, jnp.arange(3000))
    np.testing.assert_allclose(x, minimizer, atol=0.1)


@all_first_order
def test_training_is_differentiable_at_zero_gradients(make) -> None:
    """With respect to gradients and hyperparameters, twice; with ε = 0 too."""
    hyperparams = {"learning_rate": 0.1} | {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if isinstance(parameter.default, float) and name != "learning_rate"
    }
    may_be_zero = {"eps", "eps_root", "initial_accumulator_value"}
    zeros = dict.fromkeys(may_be_zero & hyperparams.keys(), 0.0)

    def trained_param(g: jax.Array, hyperparams: dict) -> jax.Array:
        optimizer = make(**hyperparams)
        x = jnp.ones(())
        state = optimizer.init(x)
        for _ in range(2):
            update, state = optimizer.update(g, state, x)
            x = x + update
        return x

    with jax.disable_jit():
        for values in (hyperparams, hyperparams | zeros):
            primals = jnp.zeros(()), jax.tree.map(jnp.asarray, values)
            tangents = jax.tree.map(jnp.ones_like, primals)
            grad = jax.grad(trained_param, argnums=(0, 1))
            chex.assert_tree_all_finite(jax.jvp(grad, primals, tangents))


@pytest.mark.parametrize("name", [*WITH_WEIGHT_DECAY, "shadow_weights"])
def test_weight_decay_and_averages_need_the_parameters(name) -> None:
    optimizer = OPTIMIZERS[name](0.1)
    with pytest.raises(TypeError, match="params must be given to update"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))


@pytest.mark.parametrize("name", WITH_WEIGHT_DECAY)
@pytest.mark.parametrize("as_function", [False, True])
def test_the_mask_selects_the_parameters_that_decay(name, as_function) -> None:
    coefficient = {"l2" if name == "adam_l2" else "weight_decay": 0.1}
    mask = {"w": True, "b": False}
    optimizer = OPTIMIZERS[name](
        0.1, mask=(lambda params: mask) if as_function else mask, **coefficient
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    params = final_params(optimizer, [zeros])
    assert (jnp.abs(params["w"]) < jnp.abs(PARAMS["w"])).all()
    assert params["b"] == PARAMS["b"]


def test_the_hessian_is_computed_in_blocks_of_rows() -> None:
    """Not with one copy of the objective's intermediates per parameter."""
    a = jax.ShapeDtypeStruct((20_000, 700), jnp.float32)

    def f(x: jax.Array, a: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(a @ x))

    x, optimizer = jnp.zeros(700, jnp.float32), optimizers.newton()
    step = jax.jit(functools.partial(optimizer.update, value_fn=f))
    compiled = step.lower(x, optimizer.init(x), x, a=a).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.6 * 4 * 20_000 * 700
