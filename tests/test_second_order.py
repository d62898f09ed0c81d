"""Second order: what the paths in the table of cases cannot say."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from minimize import descend, descent

from jaxml import optimizers

HESSIAN = jnp.array([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 20.0]])
METHODS = {
    "newton": (optimizers.newton, "value_fn"),
    "newton_cg": (optimizers.newton_cg, "value_fn"),
    "gauss_newton": (optimizers.gauss_newton, "residual_fn"),
    "levenberg_marquardt": (optimizers.levenberg_marquardt, "residual_fn"),
}
every = pytest.mark.parametrize(("make", "role"), METHODS.values(), ids=METHODS)
pytestmark = pytest.mark.usefixtures("no_xla_optimizations")


def lines(x: Any, shift: Any = 0.0) -> Any:
    """Residuals of a tree of parameters, in a tree; they are least at the shift."""
    v = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(x)])
    return {"all": HESSIAN.astype(v.dtype) @ (v - shift), "first": v[:1] - shift}


def half_square(x: Any, shift: Any = 0.0) -> jax.Array:
    return sum(jnp.sum(r**2) for r in jax.tree.leaves(lines(x, shift))) / 2


FUNCTIONS = {"value_fn": half_square, "residual_fn": lines}


# One step


@every
def test_one_step_is_all_on_a_quadratic_of_a_tree(make, role) -> None:
    """Of mixed shapes; Levenberg and Marquardt's is as short as its damping says."""
    x = {"w": jnp.array([[3.0, -1.0]]), "b": jnp.array(2.0)}
    numbers = {
        "newton_cg": {"radius": 9.0, "forcing": 0.0},
        "levenberg_marquardt": {"damping": 1e-15},
    }
    optimizer = make(**numbers.get(make.__name__, {}))
    x, state = descend(optimizer, half_square, x, 1, **{role: FUNCTIONS[role]})
    for leaf in jax.tree.leaves(x):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-11)
    np.testing.assert_allclose(state.gain_ratio, 1.0, rtol=1e-9)
    assert state.products[0] >= 3


@every
def test_where_nothing_is_a_number_nothing_moves(make, role) -> None:
    def rough(x: jax.Array) -> jax.Array:
        return jnp.log(x) if role == "residual_fn" else jnp.sum(jnp.log(x))

    x = jnp.array([-1.0, 2.0])
    optimizer = make()
    state = optimizer.init(x)
    for slope in (jnp.ones(2), jnp.full(2, jnp.nan), jnp.zeros(2)):
        updates, state = optimizer.update(slope, state, x, **{role: rough})
        np.testing.assert_array_equal(updates, 0.0)


def test_a_rejected_step_is_zero_and_shrinks_the_region() -> None:
    def wall(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] < 0.7, jnp.nan, x[0] ** 2)

    x = jnp.array([1.0])
    for optimizer, functions in [
        (optimizers.newton_cg(radius=2.0), {"value_fn": wall}),
        (optimizers.levenberg_marquardt(), {"residual_fn": lambda x: wall(x)[None]}),
    ]:
        state = optimizer.init(x)
        updates, after = optimizer.update(2 * x, state, x, **functions)
        assert not updates.any() and after.gain_ratio == -jnp.inf
        again, later = optimizer.update(2 * x, after, x, **functions)
        if hasattr(after, "radius"):
            assert after.radius == 0.25 and again == -0.25
        else:
            assert later.damping == 4 * after.damping


def test_many_parameters_need_no_matrix() -> None:
    """As many residuals as make J too large: conjugate gradients find the same step."""
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

    step = jax.jit(functools.partial(optimizers.newton_cg().update, value_fn=rough))
    x = jnp.ones(10_000)
    state = optimizers.newton_cg().init(x)
    held = step.lower(x, state, x).compile().memory_analysis().temp_size_in_bytes
    assert held < 30 * x.nbytes


def rough(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.cos(x) * jnp.roll(x, 1) ** 2)


# The interface


@every
def test_data_goes_by_name_also_in_a_chain(make, role) -> None:
    chain = optax.chain(
        optax.clip_by_global_norm(1e9),
        make(),
        optax.scale_by_learning_rate(1.0, flip_sign=False),
    )
    run = descent(chain, half_square_of, 9, **{role: FUNCTIONS[role]})
    x, _ = run(jnp.array([3.0, -1.0, 2.0]), shift=2.0, unknown=1.0)
    np.testing.assert_allclose(x, 2.0, rtol=1e-6)


def half_square_of(x: Any, shift: Any, unknown: Any) -> jax.Array:
    return half_square(x, shift)


@every
def test_weight_decay_and_clipping_before_it_are_part_of_the_objective(
    make, role
) -> None:
    """A step that lowers what is minimised is taken, though it raises f alone."""
    before = optax.add_decayed_weights(2.0), optax.clip_by_global_norm(50.0)
    run = descent(
        optax.chain(*before, make()), half_square, 60, **{role: FUNCTIONS[role]}
    )
    start = jnp.array([3.0, -1.0, 2.0])
    got, _ = run(start, shift=1.0)
    curvature = np.array(HESSIAN).T @ np.array(HESSIAN) + np.diag([1.0, 0.0, 0.0])
    ridge = np.linalg.solve(curvature + 2 * np.eye(3), curvature @ np.ones(3))
    np.testing.assert_allclose(got, ridge, rtol=1e-6)


def test_structure_among_the_data_stays_structure() -> None:
    def f(x: jax.Array, power: int, mode: str, flag: bool) -> jax.Array:
        assert mode == "sum" and flag is True
        return jnp.sum(x**power) / 4

    x, optimizer = jnp.array([1.0, -2.0]), optimizers.newton()
    data = {"power": jnp.array(4), "mode": "sum", "flag": True}
    step, _ = optimizer.update(x**3, optimizer.init(x), x, value_fn=f, **data)
    np.testing.assert_allclose(step, -x / 3, rtol=1e-12)


def test_gauss_newton_products_are_the_hessians_of_a_linear_model() -> None:
    rng = np.random.default_rng(2)
    rows, labels = jnp.asarray(rng.normal(size=(30, 4))), jnp.arange(30) % 2

    def predict(w: jax.Array, rows: jax.Array) -> jax.Array:
        return rows @ w

    def loss(scores: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(scores) - labels.astype(float) * scores)

    def f(w: jax.Array, rows: jax.Array, labels: jax.Array) -> jax.Array:
        return loss(predict(w, rows), labels)

    data, make = {"rows": rows, "labels": labels}, optimizers.newton_cg
    total = functools.partial(f, **data)
    plain, _ = descend(make(), total, jnp.ones(4), 4, value_fn=f, **data)
    functions = {"predict_fn": predict, "loss_fn": loss}
    got, _ = descend(make(), total, jnp.ones(4), 4, **functions, **data)
    np.testing.assert_allclose(got, plain, rtol=1e-9)


@every
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_types_stay_and_a_step_leads_down(make, role, dtype) -> None:
    """So the second step does not compile, and a scan takes it; numbers are wide."""
    x = {"w": jnp.array([[3.0, -1.0]], dtype), "b": jnp.array(2.0, dtype)}
    optimizer, functions = make(), {role: FUNCTIONS[role]}
    state = optimizer.init(x)
    update = functools.partial(optimizer.update, **functions)
    updates, after = jax.eval_shape(update, x, state, x)
    assert types(updates) == types(x) and types(after) == types(state)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    wide = "float64" if dtype == "float64" else "float32"
    assert state.value.dtype == state.gain_ratio.dtype == wide
    if dtype == "bfloat16":
        reached, _ = descend(optimizer, half_square, x, 8, **functions)
        assert half_square(reached) < 0.01 * half_square(x)


def types(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@every
def test_the_second_step_does_not_trace_even_without_jit(make, role) -> None:
    traces = []

    def function(x: jax.Array, shift: jax.Array) -> Any:
        traces.append(1)
        return FUNCTIONS[role](x, shift)

    optimizer, x = make(), jnp.array([3.0, -1.0, 2.0])
    state = optimizer.init(x)
    for shift in (0.0, 1.0):
        gradient = jax.grad(half_square)(x, shift)
        updates, state = optimizer.update(
            gradient, state, x, shift=jnp.asarray(shift), **{role: function}
        )
        x, seen = x + updates, len(traces)
        traces.clear()
    assert seen == 0


@every
def test_bad_input_is_one_sentence(make, role) -> None:
    x, name = jnp.ones(2), make.__name__
    optimizer = make()
    state = optimizer.init(x)
    call = f"update(grads, state, params, {role}=..., **data)"
    for refused, sentence in [
        (
            lambda: optimizer.update(x, state, x),
            f"{role} must be a function, as in {call}, got None.",
        ),
        (
            lambda: optimizer.update(x, state, x, **{role: 1.0}),
            f"{role} must be a function, as in {call}, got 1.0.",
        ),
        (
            lambda: optimizer.update(x, state, **{role: lines}),
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
        with pytest.raises(TypeError) as refusal:
            refused()
        assert str(refusal.value) == f"{name}: {sentence}"
