"""How a row of `bench.devices` is made: a function, and the shapes of its arrays.

A loss is compiled with its gradient, an activation or a distance with its pullback, an
optimizer as a step that donates its state. The shapes of the arrays follow from the
annotations of the function and from the sizes of their axes.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bench.aot import peers
from bench.aot.hardware import Layout
from bench.optimizers import LEARNING_RATE, MATRICES, OPTIMIZERS, Peers, shapes
from jaxml import activations, losses, mining, optimizers

Sizes = Mapping[str, tuple[int, ...]]
Shape = jax.ShapeDtypeStruct

MATRIX = (4096, 32768)
SMALL_BATCH: Sizes = {"n": (4096,), "m": (4096,), "d": (512,)}
PARAMETERS = 2**26


class Form(NamedTuple):
    """A function of arrays, to be compiled."""

    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    donated: tuple[int, ...] = ()


class Program(NamedTuple):
    name: str
    ours: Form
    peer: Form | None = None
    layout: Layout | None = None
    """How the arrays lie on several devices; None for one device."""


def array_arguments(
    function: Callable[..., Any], sizes: Sizes, dtype: Any
) -> dict[str, Shape]:
    """The required arrays of a public function, by name."""
    arrays = {}
    for name, parameter in inspect.signature(function).parameters.items():
        axes = getattr(parameter.annotation, "dim_str", None)
        if axes is None or parameter.default is not parameter.empty:
            continue
        named = (sizes[axis.removeprefix("*")] for axis in axes.split())
        shape = tuple(itertools.chain.from_iterable(named))
        kind = parameter.annotation.__name__.split("[")[0]
        arrays[name] = Shape(
            shape, {"Integer": "int32", "Bool": "bool"}.get(kind, dtype)
        )
    return arrays


@functools.cache
def value_and_grad(
    function: Callable[..., Any], argnums: tuple[int, ...]
) -> Callable[..., Any]:
    """The mean of a loss, and its gradient. A loss may return several arrays."""

    def mean(*arrays: Any) -> Any:
        return sum(map(jnp.mean, jax.tree.leaves(function(*arrays))))

    return jax.value_and_grad(mean, argnums)


@functools.cache
def value_and_pullback(function: Callable[..., Any]) -> Callable[..., Any]:
    """The result, and the gradient for its cotangent, which is the last array."""

    def both(*arrays: Any) -> Any:
        *primals, ct = arrays
        value, pullback = jax.vjp(function, *primals)
        return value, pullback(ct)

    return both


def row_name(function: str, suffix: str) -> str:
    return f"{function}, {suffix}" if suffix else function


def loss(
    name: str,
    sizes: Sizes,
    *,
    argnums: tuple[int, ...] = (0,),
    dtype: Any = jnp.bfloat16,
    suffix: str = "",
    optional: tuple[str, ...] = (),
    transform: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f,
    **keywords: Any,
) -> Program:
    """A loss and its gradient, after a transformation of the loss of its arrays.

    `optional` arguments have the shape of the first array.
    """
    function = getattr(losses, name)
    arguments = array_arguments(function, sizes, dtype)
    arguments |= dict.fromkeys(optional, next(iter(arguments.values())))
    arrays = tuple(arguments.values())

    def ours(*arrays: Any) -> Any:
        return function(**dict(zip(arguments, arrays)), **keywords)

    peer = peers.LOSSES.get(name)
    return Program(
        row_name(name, suffix),
        Form(value_and_grad(transform(ours), argnums), arrays),
        Form(value_and_grad(peer, argnums), arrays) if peer else None,
    )


def pullback(
    name: str,
    function: Callable[..., Any],
    arrays: tuple[Shape, ...],
    peer: Callable[..., Any] | None = None,
) -> Program:
    ct = jax.eval_shape(function, *arrays)
    arrays = (*arrays, ct)
    return Program(
        name,
        Form(value_and_pullback(function), arrays),
        Form(value_and_pullback(peer), arrays) if peer else None,
    )


def activation(name: str, **keywords: Any) -> Program:
    function = functools.partial(getattr(activations, name), **keywords)
    x = Shape(MATRIX, jnp.bfloat16)
    return pullback(name, function, (x,), peers.ACTIVATIONS.get(name))


def distance(name: str, dtype: Any = jnp.float32, **keywords: Any) -> Program:
    function = getattr(mining, name)
    arrays = array_arguments(function, SMALL_BATCH, dtype)
    return pullback(name, functools.partial(function, **keywords), (*arrays.values(),))


def value(function: Callable[..., Any], sizes: Sizes, **keywords: Any) -> Program:
    """A function that has no gradient."""
    arrays = array_arguments(function, sizes, jnp.float32)
    return Program(
        function.__name__,
        Form(functools.partial(function, **keywords), (*arrays.values(),)),
    )


def optimizer_step(optimizer: Any, params: Any) -> Form:

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(optimizer.init, params)
    return Form(step, (params, state, params), donated=(0, 1))


def optimizer(name: str) -> Program:
    return optimizer_program(name, OPTIMIZERS[name], Shape((PARAMETERS,), jnp.float32))


def matrix_optimizer(name: str) -> Program:
    """A step for the weights of four layers of width 2048."""
    params = [Shape(shape, jnp.float32) for shape in shapes(2048)[:16]]
    return optimizer_program(name, MATRICES[name], params)


def optimizer_program(name: str, known: Peers, params: Any) -> Program:
    peer = known.optax and optimizer_step(known.optax(LEARNING_RATE), params)
    return Program(name, optimizer_step(known.ours(LEARNING_RATE), params), peer)


def second_order(name: str, **functions: Callable[..., Any]) -> Program:
    """A step for 256 parameters and 8192 examples."""
    optimizer = getattr(optimizers, name)()
    params, features = Shape((256,), jnp.float32), Shape((8192, 256), jnp.float32)

    def step(params: Any, state: Any, grads: Any, features: Any) -> Any:
        updates, state = optimizer.update(
            grads, state, params, features=features, **functions
        )
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(optimizer.init, params)
    return Program(name, Form(step, (params, state, params, features), donated=(0, 1)))


# Functions that some rows are given


def row_nll(similarities: Any, index: Any) -> Any:
    return jax.nn.logsumexp(similarities / 0.1) - similarities[index] / 0.1


def logistic(x: Any, features: Any) -> Any:
    return jnp.sum(jax.nn.softplus(features @ x))


def residuals(x: Any, features: Any) -> Any:
    return jnp.tanh(features @ x) - 0.5


def per_channel(name: str) -> Program:
    """An activation with a learned number for each channel."""
    x, learned = (Shape(shape, jnp.bfloat16) for shape in (MATRIX, MATRIX[1:]))
    return pullback(name, getattr(activations, name), (x, learned))


def random_activation(name: str) -> Program:
    function = functools.partial(getattr(activations, name), jax.random.key(0))
    return pullback(name, function, (Shape(MATRIX, jnp.bfloat16),))
