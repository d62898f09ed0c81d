"""Tasks from models of other libraries, as pairs of functions (init, apply)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.contract import raise_invalid, reports_as
from jaxml._core.types import PyTree
from jaxml.sweep.engine._task import Point, Task


class Model(NamedTuple):
    """A model as two pure functions.

    Args:
        init: (key, point) -> params.
        apply: (params, x, point) -> predictions.
    """

    init: Callable[[Array, Point], PyTree]
    apply: Callable[[PyTree, Any, Point], Any]


def supervised(
    model: Model,
    train: tuple[Any, Any],
    valid: tuple[Any, Any],
    *,
    loss: Callable[..., Array] | None = None,
    metrics: dict[str, Callable[[Any, Any], Array]] | None = None,
) -> Task:
    """A task on pairs (x, y): the model predicts y from x.

    Args:
        model: The model.
        train: x and y for training, examples first.
        valid: x and y for the metrics.
        loss: (predictions, y) -> one loss per example; `point["loss"]` by default.
        metrics: (predictions, y) -> a scalar to report in addition to `loss`, by name.

    Example:
        >>> line = Model(lambda key, _: jnp.zeros(()), lambda w, x, _: w * x)
        >>> x = jnp.arange(8.0)
        >>> squared_error = lambda predictions, y: (predictions - y) ** 2
        >>> task = supervised(line, (x, 2 * x), (x, 2 * x), loss=squared_error)
        >>> task.metrics(jnp.ones(()), task.valid, {})["loss"]
        Array(17.5, dtype=float32)
    """

    def mean_loss(predictions: Any, y: Any, point: Point) -> Array:
        example_loss = loss or point.get("loss")
        if example_loss is None:
            with reports_as("supervised"):
                raise_invalid(TypeError, "loss", "be given, or be a choice", loss)
        return jnp.mean(example_loss(predictions, y))

    def batch_loss(params: PyTree, batch: tuple, point: Point) -> Array:
        x, y = batch
        return mean_loss(model.apply(params, x, point), y, point)

    def evaluate(params: PyTree, data: tuple, point: Point) -> dict[str, Array]:
        x, y = data
        predictions = model.apply(params, x, point)
        values = {name: f(predictions, y) for name, f in (metrics or {}).items()}
        return {"loss": mean_loss(predictions, y, point), **values}

    return Task(model.init, batch_loss, evaluate, train, valid)


def from_linen(make_module: Callable[[Point], Any], x: Any) -> Model:
    """The model of a Flax Linen module whose only variables are parameters.

    Args:
        make_module: point -> the module.
        x: An example input.

    Example:
        >>> model = from_linen(lambda point: nn.Dense(2), jnp.ones((1, 3)))
        >>> model._fields
        ('init', 'apply')
    """
    return Model(
        lambda key, point: make_module(point).init(key, x),
        lambda params, x, point: make_module(point).apply(params, x),
    )


def from_nnx(make_module: Callable[[Array, Point], Any]) -> Model:
    """The model of a Flax NNX module whose only arrays are `nnx.Param`.

    Args:
        make_module: (key, point) -> the module.

    Example:
        >>> model = from_nnx(lambda key, point: nnx.Linear(3, 2, rngs=nnx.Rngs(key)))
        >>> model._fields
        ('init', 'apply')
    """

    def init(key: Array, point: Point) -> PyTree:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        return nnx.split(make_module(key, point), nnx.Param, ...)[1]

    def apply(params: PyTree, x: Any, point: Point) -> Any:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        abstract = nnx.eval_shape(lambda: make_module(jax.random.key(0), point))
        graph, _, rest = nnx.split(abstract, nnx.Param, ...)
        return nnx.merge(graph, params, rest)(x)

    return Model(init, apply)


def from_equinox(make_module: Callable[[Array, Point], Any]) -> Model:
    """The model of an Equinox module that takes one example; it is vmapped over x.

    Args:
        make_module: (key, point) -> the module.

    Example:
        >>> model = from_equinox(lambda key, point: eqx.nn.Linear(3, 2, key=key))
        >>> model._fields
        ('init', 'apply')
    """

    def init(key: Array, point: Point) -> PyTree:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        return eqx.filter(make_module(key, point), eqx.is_inexact_array)

    def apply(params: PyTree, x: Any, point: Point) -> Any:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        abstract = eqx.filter_eval_shape(make_module, jax.random.key(0), point)
        _, static = eqx.partition(abstract, eqx.is_inexact_array)
        return jax.vmap(eqx.combine(params, static))(x)

    return Model(init, apply)
