"""Optimizers train the models of Equinox and Flax, in the idioms of these libraries."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from jaxml import optimizers

pytestmark = pytest.mark.parity
README = pathlib.Path(optimizers.__file__).with_name("README.md")
RECIPES = re.findall(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
FIRST_ORDER = [
    *("sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop"),
    *("centered_rmsprop", "adam", "adamw", "adam_l2", "amsgrad", "nadam", "adamax"),
    *("radam", "yogi", "adabelief", "lion", "muon", "soap"),
]
X, Y = jnp.ones((4, 3), jnp.float32), jnp.zeros(4, jnp.float32)


@pytest.fixture(autouse=True)
def default_jax_settings():
    """Other libraries rely on rank and dtype promotion and on 32-bit defaults."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.enable_x64(False),
    ):
        yield


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_runs(recipe: str) -> None:
    pytest.importorskip("equinox")
    pytest.importorskip("flax.nnx")
    exec(recipe, {})


def test_there_are_recipes() -> None:
    assert len(RECIPES) == 3


@functools.cache
def make_module() -> Any:
    """A module with leaves that are no parameters, and which can be called."""
    eqx = pytest.importorskip("equinox")

    class Module(eqx.Module):
        w: Array
        activation: Callable
        size: int
        flag: bool
        nothing: None
        steps: Array

        def __call__(self, x: Array) -> Array:
            return self.activation(x @ self.w)

    w = jnp.ones(3, jnp.float32)
    return Module(w, jax.nn.relu, 3, True, None, jnp.array(3))


def loss(module: Any, x: Array, y: Array) -> Array:
    return jnp.mean((module(x) - y) ** 2)


def two_steps(optimizer: optax.GradientTransformation) -> Any:
    eqx = pytest.importorskip("equinox")
    module = make_module()
    state = optimizer.init(eqx.filter(module, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(module: Any, state: Any) -> Any:
        grads = eqx.filter_grad(loss)(module, X, Y)
        updates, state = optimizer.update(grads, state, module)
        return eqx.apply_updates(module, updates), state

    return step(*step(module, state))[0]


def two_steps_of_an_array(optimizer: optax.GradientTransformation) -> Array:
    w = jnp.ones(3, jnp.float32)
    state = optimizer.init(w)
    for _ in range(2):
        grads = jax.grad(lambda w: jnp.mean((jax.nn.relu(X @ w) - Y) ** 2))(w)
        updates, state = optimizer.update(grads, state, w)
        w = optax.apply_updates(w, updates)
    return w


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_a_module_with_functions_and_integers(name: str) -> None:
    optimizer = getattr(optimizers, name)(0.1)
    expected = two_steps_of_an_array(optimizer)
    np.testing.assert_allclose(two_steps(optimizer).w, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrap", [optimizers.shadow_weights, optimizers.compressed])
def test_a_wrapper_around_one(wrap: Callable) -> None:
    optimizer = wrap(optimizers.adamw(0.1))
    expected = two_steps_of_an_array(optimizer)
    np.testing.assert_allclose(two_steps(optimizer).w, expected, rtol=1e-6)


@pytest.mark.parametrize("decays", [True, False])
def test_a_mask_that_is_a_module_is_not_called(decays: bool) -> None:
    eqx = pytest.importorskip("equinox")
    arrays = eqx.filter(make_module(), eqx.is_inexact_array)
    mask = jax.tree.map(lambda _: decays, arrays)
    got = two_steps(optimizers.adamw(0.1, weight_decay=0.5, mask=mask)).w
    plain = optimizers.adamw(0.1, weight_decay=0.5 * decays)
    np.testing.assert_allclose(got, two_steps_of_an_array(plain), rtol=1e-6)


def test_a_module_with_functions_is_no_set_of_parameters() -> None:
    with pytest.raises(TypeError, match=r"adamw: params.*must be a float or complex"):
        optimizers.adamw(0.1).init(make_module())


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_an_nnx_optimizer_with_a_mask(name: str) -> None:
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    mask = {"mask": lambda params: jax.tree.map(lambda p: p.ndim > 1, params)}
    optimizer = nnx.Optimizer(
        model, getattr(optimizers, name)(0.1, **mask), wrt=nnx.Param
    )

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Array:
        def objective(model: Any) -> Array:
            return jnp.mean((model(X)[:, 0] - Y) ** 2)

        value, grads = nnx.value_and_grad(objective)(model)
        optimizer.update(model, grads)
        return value

    values = [step(model, optimizer) for _ in range(5)]
    assert values[-1] < values[0] and int(optimizer.step[...]) == 5


def test_a_train_state() -> None:
    nn = pytest.importorskip("flax.linen")
    train_state = pytest.importorskip("flax.training.train_state")
    model = nn.Dense(1)
    params = model.init(jax.random.key(0), X)
    state = train_state.TrainState.create(
        apply_fn=model.apply, params=params, tx=optimizers.adamw(0.1)
    )

    @jax.jit
    def step(state: Any) -> Any:
        def objective(params: Any) -> Array:
            return jnp.mean((state.apply_fn(params, X)[:, 0] - Y) ** 2)

        value, grads = jax.value_and_grad(objective)(state.params)
        return state.apply_gradients(grads=grads), value

    state, first = step(state)
    for _ in range(4):
        state, value = step(state)
    assert value < first and state.step == 5
