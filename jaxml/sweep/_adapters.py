"""A task from a model that is a pair (init, apply), as those of libraries can be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core.checks import refuse
from jaxml._core.types import Tree
from jaxml.sweep.engine._task import Point, Task


class Model(NamedTuple):
    """A model as two pure functions.

    Args:
        init: (key, point) -> params.
        apply: (params, x, point) -> predicted.
    """

    init: Callable[[Array, Point], Tree]
    apply: Callable[[Tree, Any, Point], Any]


def supervised(
    model: Model,
    train: tuple[Any, Any],
    valid: tuple[Any, Any],
    *,
    loss: Callable[..., Array] | None = None,
    metrics: dict[str, Callable[[Any, Any], Array]] | None = None,
) -> Task:
    """A task whose data are pairs (x, y), and whose model predicts y from x.

    Args:
        model: The model.
        train: x and y for training, examples first.
        valid: x and y for the metrics.
        loss: (predicted, y) -> one loss for each example; `point["loss"]` by default.
        metrics: (predicted, y) -> a number, by name, to report beside `loss`.

    Example:
        >>> line = Model(lambda key, _: jnp.zeros(()), lambda w, x, _: w * x)
        >>> x = jnp.arange(8.0)
        >>> squared = lambda predicted, y: (predicted - y) ** 2
        >>> fit = supervised(line, (x, 2 * x), (x, 2 * x), loss=squared)
        >>> fit.metrics(jnp.ones(()), fit.valid, {})["loss"]
        Array(17.5, dtype=float32)
    """

    def mean_loss(predicted: Any, y: Any, point: Point) -> Array:
        of_each = loss or point.get("loss")
        if of_each is None:
            refuse(TypeError, "supervised", "loss", "be given, or be a choice", loss)
        return jnp.mean(of_each(predicted, y))

    def of_batch(params: Tree, batch: tuple, point: Point) -> Array:
        x, y = batch
        return mean_loss(model.apply(params, x, point), y, point)

    def reported(params: Tree, data: tuple, point: Point) -> dict[str, Array]:
        x, y = data
        predicted = model.apply(params, x, point)
        own = {name: metric(predicted, y) for name, metric in (metrics or {}).items()}
        return {"loss": mean_loss(predicted, y, point), **own}

    return Task(model.init, of_batch, reported, train, valid)


def from_linen(make: Callable[[Point], Any], x: Any) -> Model:
    """The model of a Flax module that has parameters and no other variables.

    Args:
        make: point -> the module.
        x: An example of its input.

    Example:
        >>> model = from_linen(lambda point: nn.Dense(2), jnp.ones((1, 3)))
        >>> model._fields
        ('init', 'apply')
    """
    return Model(
        lambda key, point: make(point).init(key, x),
        lambda params, x, point: make(point).apply(params, x),
    )


def from_nnx(make: Callable[[Array, Point], Any]) -> Model:
    """The model of a Flax NNX module, of which `nnx.Param` is all that has arrays.

    Args:
        make: (key, point) -> the module.

    Example:
        >>> model = from_nnx(lambda key, point: nnx.Linear(3, 2, rngs=nnx.Rngs(key)))
        >>> model._fields
        ('init', 'apply')
    """

    def init(key: Array, point: Point) -> Tree:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        return nnx.split(make(key, point), nnx.Param, ...)[1]

    def apply(params: Tree, x: Any, point: Point) -> Any:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        abstract = nnx.eval_shape(lambda: make(jax.random.key(0), point))
        graph, _, rest = nnx.split(abstract, nnx.Param, ...)
        return nnx.merge(graph, params, rest)(x)

    return Model(init, apply)


def from_equinox(make: Callable[[Array, Point], Any]) -> Model:
    """The model of an Equinox module, which takes one example at a time.

    Args:
        make: (key, point) -> the module.

    Example:
        >>> model = from_equinox(lambda key, point: eqx.nn.Linear(3, 2, key=key))
        >>> model._fields
        ('init', 'apply')
    """

    def init(key: Array, point: Point) -> Tree:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        return eqx.filter(make(key, point), eqx.is_inexact_array)

    def apply(params: Tree, x: Any, point: Point) -> Any:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        model = eqx.filter_eval_shape(make, jax.random.key(0), point)
        _, static = eqx.partition(model, eqx.is_inexact_array)
        return jax.vmap(eqx.combine(params, static))(x)

    return Model(init, apply)
