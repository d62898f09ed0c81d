"""The tasks: each is the model that its docstring states."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import cli, losses, tasks


def test_derivatives_of_a_task_are_those_of_the_plain_network() -> None:
    task = tasks.digits(hidden=8)
    point = {"activation": jnp.tanh, "loss": losses.cross_entropy}
    params = task.init(jax.random.key(0), point)
    x, y = jax.tree.map(lambda a: a[:16], task.train)

    def plain_loss(params: Any) -> jax.Array:
        hidden = jnp.tanh(x @ params["w1"].T + params["b1"].T)
        logits = hidden @ params["w2"].T + params["b2"].T
        return losses.mean(losses.cross_entropy(logits, y))

    def grad_and_hvp(loss: Any) -> Any:
        return jax.jvp(jax.grad(loss), (params,), (params,))

    result = grad_and_hvp(lambda params: task.loss(params, (x, y), point))
    expected = grad_and_hvp(plain_loss)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), result, expected
    )


@pytest.mark.parametrize("name", cli.TASKS)
def test_a_task_returns_a_scalar_loss_and_its_metrics(name) -> None:
    setup = cli.TASKS[name]
    task, key = setup.task(), jax.random.key(0)
    batch = jax.tree.map(lambda x: x[:8], task.train)
    extra = {"key": key} if name == "text" else {}
    for loss in setup.losses.values():
        point = {"activation": jax.nn.relu, "loss": loss}
        state = {"state": task.state(key, point)} if task.state else {}
        evaluate = partial(task.metrics, data=batch, point=point, **state)
        train = partial(task.loss, batch=batch, point=point, **extra, **state)
        with jax.numpy_dtype_promotion("standard"):
            params = jax.eval_shape(partial(task.init, point=point), key)
            value = jax.eval_shape(train, params)
            metrics = jax.eval_shape(evaluate, params)
        value = value[0] if state else value
        assert value.shape == ()
        assert {"loss", setup.metric} <= set(metrics)


def test_segmented_digits_have_all_classes_and_ink_under_each_label() -> None:
    task = tasks.digits_segmentation()
    for x, y in (task.train, task.valid):
        assert set(np.unique(y)) == set(range(11))
        assert x[..., 0][y > 0].mean() > 0.4 + x[..., 0][y == 0].mean()


def test_the_convnet_is_three_convolutions_with_batch_norm() -> None:
    task = tasks.digits_convnet(channels=4)
    point = {"activation": jnp.tanh, "loss": losses.cross_entropy}
    key = jax.random.key(0)
    params, state = task.init(key, point), task.state(key, point)
    x, y = jax.tree.map(lambda a: a[:16], task.train)

    def plain_loss(params: Any) -> jax.Array:
        h = x[..., None]
        for i, stride in enumerate((1, 2, 1), 1):
            kernel = (
                params[f"w{i}"].reshape(-1, 3, 3, h.shape[-1]).transpose(1, 2, 3, 0)
            )
            h = jax.lax.conv_general_dilated(
                h,
                kernel,
                (stride, stride),
                [(1, 1)] * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            mean, var = (
                h.mean((0, 1, 2), keepdims=True),
                h.var((0, 1, 2), keepdims=True),
            )
            gamma, beta = (
                params[f"{name}{i}"].reshape(1, 1, 1, -1) for name in ("gamma", "beta")
            )
            h = jnp.tanh(gamma * (h - mean) / jnp.sqrt(var + 1e-5) + beta)
        logits = h.mean((1, 2)) @ params["v"].T + params["b"].T
        return losses.mean(losses.cross_entropy(logits, y))

    def loss(params: Any) -> jax.Array:
        return task.loss(params, (x, y), point, state=state)[0]

    expected, result = jax.value_and_grad(plain_loss)(params), None
    result = jax.value_and_grad(loss)(params)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-5), result, expected
    )


def test_the_convnet_evaluates_with_its_running_statistics() -> None:
    task = tasks.digits_convnet(channels=4)
    point = {"activation": jax.nn.relu, "loss": losses.cross_entropy}
    key = jax.random.key(0)
    params, state = task.init(key, point), task.state(key, point)
    for _ in range(100):
        state = task.loss(params, task.train, point, state=state)[1]
    trained = task.loss(params, task.train, point, state=state)[0]
    evaluated = task.metrics(params, task.train, point, state=state)["loss"]
    np.testing.assert_allclose(evaluated, trained, rtol=1e-3)
    fresh = task.state(key, point)
    other = task.metrics(params, task.train, point, state=fresh)["loss"]
    assert abs(other - trained) > 1e-2


def test_a_character_is_predicted_from_those_before_it() -> None:
    task = tasks.text(features=8, heads=2)
    point = {"activation": jax.nn.relu, "loss": lambda logits, _: logits[:, :5, 7]}
    params = task.init(jax.random.key(0), point)

    def first_logits(data: jax.Array) -> jax.Array:
        return task.metrics(params, data, point)["loss"]

    data = task.train[:2]
    later = data.at[:, 5:].set(3)
    assert first_logits(data) == first_logits(later)
    assert first_logits(data) != first_logits(data.at[:, 4].set(3))


def test_dropout_of_the_transformer_averages_to_its_evaluation() -> None:
    task = tasks.text(features=8, heads=2, dropout=0.01)
    point = {"activation": jax.nn.relu, "loss": losses.cross_entropy}
    params, batch = task.init(jax.random.key(0), point), task.train[:64]
    keys = jax.random.split(jax.random.key(1), 64)
    values = jax.vmap(lambda key: task.loss(params, batch, point, key=key))(keys)
    assert len(np.unique(values)) > 60
    expected = task.metrics(params, batch, point)["loss"]
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-3)


def test_the_text_is_english() -> None:
    task = tasks.text()
    counts = np.bincount(np.asarray(task.train).ravel(), minlength=96)
    assert len(task.train) > 5000
    assert counts[1] == counts.max()  # the space
    assert counts[1 + ord("e") - ord(" ")] > counts[1 + ord("z") - ord(" ")] * 10
