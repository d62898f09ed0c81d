"""A whole training step next to the same step made of optax and jax.nn.

A step computes the loss and its gradient, and updates the parameters and the state of
the optimizer in place. Both have the same model, exact GELU, cross entropy and AdamW.
The MLP has three layers and a batch of 4096 images; the transformer has two blocks and
a batch of 8 texts of 128 tokens. A ratio below 1 means that ours is faster. Memory is
what the compiled step allocates besides its arguments.
"""

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from bench import measure
from jaxml import activations, losses, optimizers

LEARNING_RATE = 1e-3
NUM_HEADS = 4
Params = dict[str, Array]


class Library(NamedTuple):
    """What a step is made of."""

    cross_entropy: Callable[[Array, Array], Array]
    gelu: Callable[[Array], Array]
    optimizer: Any


LIBRARIES = {
    "ours": Library(
        losses.cross_entropy, activations.gelu, optimizers.adamw(LEARNING_RATE)
    ),
    "optax": Library(
        optax.losses.softmax_cross_entropy_with_integer_labels,
        partial(jax.nn.gelu, approximate=False),
        optax.adamw(LEARNING_RATE),
    ),
}


class Model(NamedTuple):
    """A network: the shapes of its parameters and inputs, and its logits."""

    shapes: dict[str, tuple[int, ...]]
    inputs: jax.ShapeDtypeStruct
    labels: jax.ShapeDtypeStruct
    logits: Callable[[Library, Params, Array], Array]


def mlp(batch: int, *widths: int) -> Model:
    """Dense layers of these widths, the inputs and the classes included."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, shape in enumerate(itertools.pairwise(widths)):
        shapes |= {f"w{i}": shape, f"b{i}": shape[1:]}
    inputs = jax.ShapeDtypeStruct((batch, widths[0]), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    return Model(shapes, inputs, labels, _mlp_logits)


def _mlp_logits(library: Library, params: Params, x: Array) -> Array:
    num_layers = len(params) // 2
    for i in range(num_layers):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = library.gelu(x) if i < num_layers - 1 else x
    return x


def transformer(batch: int, length: int, width: int, blocks: int, words: int) -> Model:
    """Causal attention and two dense layers a block, with a norm before each."""
    shapes: dict[str, tuple[int, ...]] = {"in": (words, width), "out": (width, words)}
    for i in range(blocks):
        shapes |= {f"qkv{i}": (width, 3 * width), f"mix{i}": (width, width)}
        shapes |= {f"up{i}": (width, 4 * width), f"down{i}": (4 * width, width)}
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    return Model(shapes, tokens, tokens, _transformer_logits)


def _transformer_logits(library: Library, params: Params, tokens: Array) -> Array:
    h = params["in"][tokens]
    for i in range((len(params) - 2) // 4):
        qkv = jnp.split(_norm(h) @ params[f"qkv{i}"], 3, -1)
        q, k, v = (x.reshape(*x.shape[:2], NUM_HEADS, -1) for x in qkv)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        h += mixed.reshape(h.shape) @ params[f"mix{i}"]
        h += library.gelu(_norm(h) @ params[f"up{i}"]) @ params[f"down{i}"]
    return _norm(h) @ params["out"]


def _norm(h: Array) -> Array:
    return h * jax.lax.rsqrt(jnp.mean(jnp.square(h), -1, keepdims=True) + 1e-6)


def step(library: Library, model: Model) -> Callable[..., Any]:
    """(parameters, state, inputs, labels) -> the new parameters and state."""

    def loss(params: Params, x: Array, labels: Array) -> Array:
        return jnp.mean(library.cross_entropy(model.logits(library, params, x), labels))

    def run(params: Params, state: Any, x: Array, labels: Array) -> tuple[Params, Any]:
        grads = jax.grad(loss)(params, x, labels)
        updates, state = library.optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return run


def arrays(library: Library, model: Model) -> tuple[Any, ...]:
    """The shapes of a step's arguments."""
    params = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in model.shapes.items()
    }
    state = jax.eval_shape(library.optimizer.init, params)
    return params, state, model.inputs, model.labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="an eighth of the batches")
    shrink = 8 if parser.parse_args().small else 1
    models = {
        "MLP": mlp(4096 // shrink, 784, 512, 512, 10),
        "transformer": transformer(8 // shrink, 128, width=256, blocks=2, words=4096),
    }
    rows = [_measure(name, model) for name, model in models.items()]
    measure.record("steps", rows)


def _measure(name: str, model: Model) -> dict[str, Any]:
    runs, mebibytes = {}, {}
    for label, library in LIBRARIES.items():
        function = jax.jit(step(library, model), donate_argnums=(0, 1))
        compiled = function.lower(*arrays(library, model)).compile()
        mebibytes[label] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        runs[label] = _training(library, model, compiled)
    seconds = measure.interleaved_medians(runs, repeats=25)
    return {
        "step": name,
        "parameters": sum(int(np.prod(shape)) for shape in model.shapes.values()),
        **{f"{label}_ms": 1e3 * s for label, s in seconds.items()},
        "to_optax": seconds["ours"] / seconds["optax"],
        **{f"{label}_MiB": size for label, size in mebibytes.items()},
    }


def _training(
    library: Library, model: Model, compiled: Callable[..., Any]
) -> Callable[[], Any]:
    """A function that takes the next step with each call."""
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
        for name, shape in model.shapes.items()
    }
    labels = jnp.asarray(rng.integers(0, 10, model.labels.shape), jnp.int32)
    x = jnp.asarray(10 * rng.random(model.inputs.shape)).astype(model.inputs.dtype)
    trained = params, library.optimizer.init(params)

    def run() -> Any:
        nonlocal trained
        trained = compiled(*trained, x, labels)
        return trained

    return run


if __name__ == "__main__":
    main()
