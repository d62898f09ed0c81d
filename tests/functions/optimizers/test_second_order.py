"""Second-order optimizers: single steps, and the interface of `update`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from minimize import make_minimizer, minimize

from jaxml import optimizers

MATRIX = jnp.array([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 20.0]])
FUNCTION_ARGS = {
    optimizers.newton: "value_fn",
    optimizers.newton_cg: "value_fn",
    optimizers.gauss_newton: "residual_fn",
    optimizers.levenberg_marquardt: "residual_fn",
}
for_all_optimizers = pytest.mark.parametrize(
    ("make", "function_arg"),
    FUNCTION_ARGS.items(),
    ids=[make.__name__ for make in FUNCTION_ARGS],
)
pytestmark = pytest.mark.usefixtures("no_xla_optimizations")


def linear_residuals(x: Any, shift: Any = 0.0) -> Any:
    """A tree of residuals of a tree of parameters, all 0 where x equals the shift."""
    v = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(x)])
    return {"all": MATRIX.astype(v.dtype) @ (v - shift), "first": v[:1] - shift}


def half_sum_of_squares(x: Any, shift: Any = 0.0) -> jax.Array:
    return sum(jnp.sum(r**2) for r in jax.tree.leaves(linear_residuals(x, shift))) / 2


FUNCTIONS = {"value_fn": half_sum_of_squares, "residual_fn": linear_residuals}


# One step


@for_all_optimizers
def test_one_step_minimizes_a_quadratic(make, function_arg) -> None:
    """With parameters of several shapes. Levenberg-Marquardt needs a tiny damping."""
    x = {"w": jnp.array([[3.0, -1.0]]), "b": jnp.array(2.0)}
    hyperparams = {
        "newton_cg": {"radius": 9.0, "forcing": 0.0},
        "levenberg_marquardt": {"damping": 1e-15},
    }
    optimizer = make(**hyperparams.get(make.__name__, {}))
    functions = {function_arg: FUNCTIONS[function_arg]}
    x, state = minimize(optimizer, half_sum_of_squares, x, 1, **functions)
    for leaf in jax.tree.leaves(x):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-11)
    np.testing.assert_allclose(state.gain_ratio, 1.0, rtol=1e-9)
    assert state.products[0] >= 3


@for_all_optimizers
def test_the_update_is_zero_where_the_objective_is_nan(make, function_arg) -> None:
    def nan_at_x(x: jax.Array) -> jax.Array:
        return jnp.log(x) if function_arg == "residual_fn" else jnp.sum(jnp.log(x))

    x = jnp.array([-1.0, 2.0])
    optimizer = make()
    state = optimizer.init(x)
    for grads in (jnp.ones(2), jnp.full(2, jnp.nan), jnp.zeros(2)):
        updates, state = optimizer.update(grads, state, x, **{function_arg: nan_at_x})
        np.testing.assert_array_equal(updates, 0.0)


def test_a_rejected_step_is_zero_and_shrinks_the_next() -> None:
    """x² is NaN below 0.7, so the full step from 1 to 0 is rejected."""

    def f(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] < 0.7, jnp.nan, x[0] ** 2)

    x = jnp.array([1.0])
    for optimizer, functions in [
        (optimizers.newton_cg(radius=2.0), {"value_fn": f}),
        (optimizers.levenberg_marquardt(), {"residual_fn": lambda x: f(x)[None]}),
    ]:
        state = optimizer.init(x)
        first, state_1 = optimizer.update(2 * x, state, x, **functions)
        assert not first.any() and state_1.gain_ratio == -jnp.inf
        second, state_2 = optimizer.update(2 * x, state_1, x, **functions)
        if hasattr(state_1, "radius"):
            assert state_1.radius == 0.25 and second == -0.25
        else:
            assert state_2.damping == 4 * state_1.damping


def test_large_problems_need_no_matrix() -> None:
    """Gauss-Newton solves by CG where J is large; Newton-CG holds vectors only."""
    rng = np.random.default_rng(3)
    j, r, n = rng.normal(size=(4, 1100)), rng.normal(size=4), 1100
    jacobian, offset = jnp.asarray(j), jnp.asarray(r)

    def residuals(x):
        return jacobian @ x + offset

    x, g = jnp.zeros(n), jnp.asarray(j.T @ r)
    optimizer = optimizers.gauss_newton(damping=2.0)
    step, state = optimizer.update(g, optimizer.init(x), x, residual_fn=residuals)
    expected = -j.T @ np.linalg.solve(j @ j.T + 2 * np.eye(4), r)
    assert np.linalg.norm(step - expected) < 1e-4 * np.linalg.norm(expected)
    assert state.iterations <= 5

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.cos(x) * jnp.roll(x, 1) ** 2)

    update = jax.jit(functools.partial(optimizers.newton_cg().update, value_fn=f))
    x = jnp.ones(10_000)
    state = optimizers.newton_cg().init(x)
    memory = update.lower(x, state, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 30 * x.nbytes


# The interface


@for_all_optimizers
def test_data_is_passed_by_name_through_a_chain(make, function_arg) -> None:
    def f(x: Any, shift: Any, unknown: Any) -> jax.Array:
        return half_sum_of_squares(x, shift)

    chain = optax.chain(
        optax.clip_by_global_norm(1e9),
        make(),
        optax.scale_by_learning_rate(1.0, flip_sign=False),
    )
    run = make_minimizer(chain, f, 9, **{function_arg: FUNCTIONS[function_arg]})
    x, _ = run(jnp.array([3.0, -1.0, 2.0]), shift=2.0, unknown=1.0)
    np.testing.assert_allclose(x, 2.0, rtol=1e-6)


@for_all_optimizers
def test_weight_decay_and_clipping_are_part_of_the_objective(
    make, function_arg
) -> None:
    """A step that decreases the sum is accepted, even if it increases f."""
    chain = optax.chain(
        optax.add_decayed_weights(2.0), optax.clip_by_global_norm(50.0), make()
    )
    functions = {function_arg: FUNCTIONS[function_arg]}
    run = make_minimizer(chain, half_sum_of_squares, 60, **functions)
    x, _ = run(jnp.array([3.0, -1.0, 2.0]), shift=1.0)
    hessian = np.array(MATRIX).T @ np.array(MATRIX) + np.diag([1.0, 0.0, 0.0])
    ridge = np.linalg.solve(hessian + 2 * np.eye(3), hessian @ np.ones(3))
    np.testing.assert_allclose(x, ridge, rtol=1e-6)


def test_data_that_is_no_number_is_static() -> None:
    def f(x: jax.Array, power: int, mode: str, flag: bool) -> jax.Array:
        assert mode == "sum" and flag is True
        return jnp.sum(x**power) / 4

    x, optimizer = jnp.array([1.0, -2.0]), optimizers.newton()
    data = {"power": jnp.array(4), "mode": "sum", "flag": True}
    step, _ = optimizer.update(x**3, optimizer.init(x), x, value_fn=f, **data)
    np.testing.assert_allclose(step, -x / 3, rtol=1e-12)


def test_the_gauss_newton_matrix_of_a_linear_model_is_its_hessian() -> None:
    rng = np.random.default_rng(2)
    features, labels = jnp.asarray(rng.normal(size=(30, 4))), jnp.arange(30) % 2

    def predict(w: jax.Array, features: jax.Array) -> jax.Array:
        return features @ w

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(logits) - labels.astype(float) * logits)

    def f(w: jax.Array, features: jax.Array, labels: jax.Array) -> jax.Array:
        return loss(predict(w, features), labels)

    data, make = {"features": features, "labels": labels}, optimizers.newton_cg
    of_params = functools.partial(f, **data)
    hessian, _ = minimize(make(), of_params, jnp.ones(4), 4, value_fn=f, **data)
    functions = {"predict_fn": predict, "loss_fn": loss}
    gauss_newton, _ = minimize(make(), of_params, jnp.ones(4), 4, **functions, **data)
    np.testing.assert_allclose(gauss_newton, hessian, rtol=1e-9)


@for_all_optimizers
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes_are_preserved(make, function_arg, dtype) -> None:
    """Of updates and state, so that `lax.scan` accepts them. The state is not 16-bit.

    In bfloat16 the steps still decrease the objective.
    """
    x = {"w": jnp.array([[3.0, -1.0]], dtype), "b": jnp.array(2.0, dtype)}
    optimizer, functions = make(), {function_arg: FUNCTIONS[function_arg]}
    state = optimizer.init(x)
    update = functools.partial(optimizer.update, **functions)
    updates, next_state = jax.eval_shape(update, x, state, x)
    assert shapes_and_dtypes(updates) == shapes_and_dtypes(x)
    assert shapes_and_dtypes(next_state) == shapes_and_dtypes(state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    state_dtype = "float64" if dtype == "float64" else "float32"
    assert state.value.dtype == state.gain_ratio.dtype == state_dtype
    if dtype == "bfloat16":
        last, _ = minimize(optimizer, half_sum_of_squares, x, 8, **functions)
        assert half_sum_of_squares(last) < 0.01 * half_sum_of_squares(x)


def shapes_and_dtypes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@for_all_optimizers
def test_the_second_step_does_not_trace_without_jit(make, function_arg) -> None:
    num_traces = 0

    def function(x: jax.Array, shift: jax.Array) -> Any:
        nonlocal num_traces
        num_traces += 1
        return FUNCTIONS[function_arg](x, shift)

    optimizer, x = make(), jnp.array([3.0, -1.0, 2.0])
    state = optimizer.init(x)
    for shift in (0.0, 1.0):
        num_traces = 0
        grads = jax.grad(half_sum_of_squares)(x, shift)
        data = {"shift": jnp.asarray(shift)}
        updates, state = optimizer.update(
            grads, state, x, **data, **{function_arg: function}
        )
        x = x + updates
    assert num_traces == 0


@for_all_optimizers
def test_invalid_input_raises_one_sentence(make, function_arg) -> None:
    x, name = jnp.ones(2), make.__name__
    optimizer = make()
    state = optimizer.init(x)
    call = f"update(grads, state, params, {function_arg}=..., **data)"
    for invalid_call, sentence in [
        (
            lambda: optimizer.update(x, state, x),
            f"{function_arg} must be a function, as in {call}, got None.",
        ),
        (
            lambda: optimizer.update(x, state, x, **{function_arg: 1.0}),
            f"{function_arg} must be a function, as in {call}, got 1.0.",
        ),
        (
            lambda: optimizer.update(x, state, **{function_arg: linear_residuals}),
            "params must be given to update, got None.",
        ),
        (
            lambda: optimizer.init({"w": x, "n": jnp.arange(2)}),
            "params['n'] must be a float array, got int64[2].",
        ),
        (
            lambda: optimizer.init(x.astype(complex)),
            "params must be a float array, got complex128[2].",
        ),
        (lambda: optimizer.init({}), "params must hold a float array, got a dict."),
    ]:
        with pytest.raises(TypeError) as error:
            invalid_call()
        assert str(error.value) == f"{name}: {sentence}"
