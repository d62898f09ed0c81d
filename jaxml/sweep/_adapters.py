"""Tasks from models of other libraries, as pure functions (init, apply, state)."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import jaxpr_as_fun

from jaxml._core.contract import raise_invalid, reports_as
from jaxml._core.types import PyTree
from jaxml.sweep.engine._task import Point, Task, call_with

TRAINING_FLAGS = "train", "training", "is_training"
EVALUATION_FLAGS = "deterministic", "use_running_average", "inference"


class Model(NamedTuple):
    """A model as pure functions.

    Args:
        init: (key, point) -> params.
        apply: (params, x, point) -> predictions. If it also names `key`, it gets a
            random key in training and None in evaluation, by keyword. A model with a
            state names `state` and returns (predictions, new state).
        state: (key, point) -> what changes without a gradient, if anything does.
    """

    init: Callable[[Array, Point], PyTree]
    apply: Callable[..., Any]
    state: Callable[[Array, Point], PyTree] | None = None


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

    def predict(params: PyTree, x: Any, point: Point, **optional: Any) -> tuple:
        """The predictions and the new state, None if the model has none."""
        result = call_with(model.apply, params, x, point, **optional)
        return result if model.state else (result, None)

    def mean_loss(predictions: Any, y: Any, point: Point) -> Array:
        example_loss = loss or point.get("loss")
        if example_loss is None:
            with reports_as("supervised"):
                raise_invalid(TypeError, "loss", "be given, or be a choice", loss)
        return jnp.mean(example_loss(predictions, y))

    def batch_loss(
        params: PyTree,
        batch: tuple,
        point: Point,
        *,
        key: Array | None = None,
        state: PyTree = None,
    ) -> Any:
        x, y = batch
        predictions, new_state = predict(params, x, point, key=key, state=state)
        value = mean_loss(predictions, y, point)
        return (value, new_state) if model.state else value

    def evaluate(
        params: PyTree, data: tuple, point: Point, *, state: PyTree = None
    ) -> dict[str, Array]:
        x, y = data
        predictions, _ = predict(params, x, point, key=None, state=state)
        values = {name: f(predictions, y) for name, f in (metrics or {}).items()}
        return {"loss": mean_loss(predictions, y, point), **values}

    return Task(model.init, batch_loss, evaluate, train, valid, state=model.state)


def from_linen(make_module: Callable[[Point], Any], x: Any) -> Model:
    """The model of a Flax Linen module, with its collections and random streams.

    All collections but `params` are the state, and all random streams start from the
    key of the step. If `__call__` names `train`, `training`, `deterministic` or
    `use_running_average`, it gets True or False.

    Args:
        make_module: point -> the module.
        x: An example input.

    Example:
        >>> model = from_linen(lambda point: nn.Dense(2), jnp.ones((1, 3)))
        >>> model._fields
        ('init', 'apply', 'state')
    """

    def init_variables(key: Array, point: Point) -> dict[str, PyTree]:
        module = make_module(point)
        return dict(module.init(key, x, **_mode(module, training=False)))

    def init(key: Array, point: Point) -> PyTree:
        return {"params": init_variables(key, point).get("params", {})}

    def state(key: Array, point: Point) -> PyTree:
        variables = init_variables(key, point)
        variables.pop("params", None)
        return variables

    def call(
        params: PyTree, x: Any, point: Point, key: Array | None, state: PyTree
    ) -> tuple:
        module, collections = make_module(point), state or {}
        return module.apply(
            {**params, **collections},
            x,
            **_mode(module, training=key is not None),
            rngs=key,
            mutable=[*collections],
        )

    return Model(init, _apply(call), state)


def from_nnx(make_module: Callable[[Array, Point], Any]) -> Model:
    """The model of a Flax NNX module, with its variables and random streams.

    Every `nnx.Param` is trained, and all other variables are the state. The random
    streams start from the key of the step. `train` and `eval` set the mode.

    Args:
        make_module: (key, point) -> the module.

    Example:
        >>> model = from_nnx(lambda key, point: nnx.Linear(3, 2, rngs=nnx.Rngs(key)))
        >>> model._fields
        ('init', 'apply', 'state')
    """

    def split(module: Any) -> Any:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        return nnx.split(module, nnx.Param, nnx.RngState, ...)

    def init(key: Array, point: Point) -> PyTree:
        return split(make_module(key, point))[1]

    def state(key: Array, point: Point) -> PyTree:
        return split(make_module(key, point))[3]

    def call(
        params: PyTree, x: Any, point: Point, key: Array | None, state: PyTree
    ) -> tuple:
        from flax import nnx  # pyright: ignore[reportMissingImports]

        abstract = nnx.eval_shape(lambda: make_module(jax.random.key(0), point))
        graph, _, streams, no_state = split(abstract)
        streams = _seed_streams(streams, jax.random.key(0) if key is None else key)
        state = no_state if state is None else state
        # A copy, for NNX forbids to change what was made outside of `jax.grad`.
        module = nnx.merge(graph, params, streams, jax.tree.map(jnp.asarray, state))
        module.eval() if key is None else module.train()
        predictions = module(x, **_mode(module, training=key is not None))
        return predictions, split(module)[3]

    return Model(init, _apply(call), state)


def from_equinox(make_module: Callable[[Array, Point], Any]) -> Model:
    """The model of an Equinox module that takes one example; it is vmapped over x.

    The axis of the examples is named "batch", for `eqx.nn.BatchNorm`. If `__call__`
    names `key`, every example gets a random key in training.

    Args:
        make_module: (key, point) -> the module, or (module, state) as
            `eqx.nn.make_with_state` returns them.

    Example:
        >>> model = from_equinox(lambda key, point: eqx.nn.Linear(3, 2, key=key))
        >>> model._fields
        ('init', 'apply', 'state')
    """

    def make(key: Array, point: Point) -> tuple[Any, PyTree]:
        made = make_module(key, point)
        return made if isinstance(made, tuple) else (made, None)

    def init(key: Array, point: Point) -> PyTree:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        return eqx.filter(make(key, point)[0], eqx.is_inexact_array)

    def state(key: Array, point: Point) -> PyTree:
        return tuple(jax.tree.leaves(make(key, point)[1]))

    def call(
        params: PyTree, x: Any, point: Point, key: Array | None, state: PyTree
    ) -> tuple:
        import equinox as eqx  # pyright: ignore[reportMissingImports]

        abstract, abstract_state = eqx.filter_eval_shape(make, jax.random.key(0), point)
        _, static = eqx.partition(abstract, eqx.is_inexact_array)
        keys = (
            None if key is None else jax.random.split(key, len(jax.tree.leaves(x)[0]))
        )

        def call_examples(params: PyTree, x: Any, state: PyTree, keys: Any) -> tuple:
            module = eqx.nn.inference_mode(eqx.combine(params, static), key is None)

            def one_example(x: Any, key: Any) -> tuple:
                if abstract_state is None:
                    return call_with(module, x, key=key), None
                # The markers differ whenever a module is made, the leaves do not.
                tree = jax.tree.structure(abstract_state)
                states = jax.tree.unflatten(tree, state)
                predictions, new_state = call_with(module, x, states, key=key)
                return predictions, tuple(jax.tree.leaves(new_state))

            vmapped = jax.vmap(one_example, out_axes=(0, None), axis_name="batch")
            return vmapped(x, keys)

        if abstract_state is None:
            return call_examples(params, x, state, keys)[0], state
        return _without_mesh(call_examples, params, x, state, keys)

    return Model(init, _apply(call), state)


def _apply(call: Callable[..., tuple]) -> Callable[..., tuple]:
    """The `apply` of a model from its call (params, x, point, key, state).

    A state may be left out if there is none, and evaluation does not change it.
    """

    def apply(
        params: PyTree,
        x: Any,
        point: Point,
        *,
        key: Array | None = None,
        state: PyTree = None,
    ) -> tuple:
        predictions, new_state = call(params, x, point, key, state)
        return predictions, state if key is None else new_state

    return apply


def _mode(module: Any, *, training: bool) -> dict[str, bool]:
    """The flags by which a call of a Flax module tells training from evaluation."""
    names = inspect.signature(type(module).__call__).parameters
    flags = dict.fromkeys(TRAINING_FLAGS, training)
    flags |= dict.fromkeys(EVALUATION_FLAGS, not training)
    return {name: value for name, value in flags.items() if name in names}


def _without_mesh(function: Callable[..., Any], *arguments: PyTree) -> Any:
    """A call with arrays of no mesh; else Equinox refuses a constant as a new state."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*like)
    results = jaxpr_as_fun(jaxpr)(*jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


def _seed_streams(streams: PyTree, key: Array) -> PyTree:
    """The random streams of an NNX module, each with its key, and with count 0."""
    leaves, tree = jax.tree.flatten(streams)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    seeded = [
        jax.random.split(jax.random.fold_in(key, i), leaf.shape)
        if is_key[i]
        else jnp.zeros(leaf.shape, leaf.dtype)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, seeded)
