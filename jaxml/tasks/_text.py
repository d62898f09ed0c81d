"""Language modeling of the docstrings of Python's standard library, by characters."""

import ast
import importlib.util
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxml import losses
from jaxml._core.matmul import matmul
from jaxml.sweep import Point, Task
from jaxml.tasks._network import Params

MODULES = (
    *("argparse", "ast", "asyncio.base_events", "asyncio.streams", "asyncio.tasks"),
    *("calendar", "cmd", "configparser", "contextlib", "copy", "csv"),
    *("dataclasses", "difflib", "doctest", "email.message", "enum", "fractions"),
    *("functools", "heapq", "inspect", "ipaddress", "logging", "mailbox", "optparse"),
    *("pathlib", "pickletools", "random", "shutil", "smtplib", "socket", "statistics"),
    *("string", "subprocess", "tarfile", "tempfile", "textwrap", "threading"),
    *("traceback", "turtle", "typing", "unittest.case", "unittest.mock", "zipfile"),
)
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
NUM_EVAL = 64  # windows on which metrics are computed


def text(
    *, features: int = 32, heads: int = 4, length: int = 32, dropout: float = 0.1
) -> Task:
    """Prediction of the next character of docstrings, by a two-layer transformer.

        h = h + D(attention(N(h))),    h = h + D(W₂ f(W₁ N(h))),    logits = V N(h)

    Attention is causal, N is layer normalization, and D is dropout, in training alone.
    The point of a model holds two functions: `activation`, f, and `loss`, (logits,
    labels) -> one loss per character. The metrics, over 64 windows of text, are `loss`,
    in nats, and `accuracy`. The text is that of the Python that runs, so figures of
    different versions differ a little; its last tenth is for validation.

    Args:
        features: Size of the vector of a character.
        heads: Number of attention heads, which divides `features`.
        length: Characters in a window.
        dropout: Probability that a number is dropped.

    Reference:
        Vaswani et al., Attention is all you need, NeurIPS 2017,
        https://arxiv.org/abs/1706.03762

    Example:
        >>> text().train.shape[1]
        33
    """
    codes = np.array([CHARACTERS.index(c) for c in _docstrings()], np.uint8)
    windows = codes[: len(codes) // (length + 1) * (length + 1)].reshape(-1, length + 1)
    data, split = jnp.asarray(windows), int(0.9 * len(windows))

    def init(key: Array, point: Point) -> Params:
        shapes = {
            "embedding": (len(CHARACTERS), features),
            "position": (length, features),
        }
        for i in range(2):
            shapes[f"qkv{i}"] = features, 3 * features
            shapes[f"out{i}"] = features, features
            shapes[f"up{i}"] = features, 4 * features
            shapes[f"down{i}"] = 4 * features, features
        shapes["head"] = features, len(CHARACTERS)
        keys = jax.random.split(key, len(shapes))
        params = {
            name: shape[0] ** -0.5 * jax.random.normal(key, shape, jnp.float32)
            for key, (name, shape) in zip(keys, shapes.items())
        }
        scales = "attention0", "attention1", "mlp0", "mlp1", "final"
        return params | {name: jnp.ones((1, features), jnp.float32) for name in scales}

    def predict(params: Params, x: Array, point: Point, key: Array | None) -> Array:
        """The logits [windows characters classes]; dropout needs a key."""
        keys = None if key is None else iter(jax.random.split(key, 5))

        def drop(h: Array) -> Array:
            return h if keys is None else _dropout(next(keys), h, dropout)

        def norm(h: Array, name: str) -> Array:
            return jax.nn.standardize(h, axis=-1) * params[name]

        rows = x.shape[0] * length
        position = jnp.broadcast_to(params["position"], (x.shape[0], length, features))
        h = drop(params["embedding"][x] + position).reshape(rows, features)
        for i in range(2):
            qkv = matmul(norm(h, f"attention{i}"), params[f"qkv{i}"])
            attended = _causal_attention(qkv.reshape(-1, length, 3 * features), heads)
            h = h + drop(matmul(attended.reshape(rows, features), params[f"out{i}"]))
            up = point["activation"](matmul(norm(h, f"mlp{i}"), params[f"up{i}"]))
            h = h + drop(matmul(up, params[f"down{i}"]))
        return matmul(norm(h, "final"), params["head"]).reshape(*x.shape, -1)

    def loss(params: Params, batch: Array, point: Point, *, key: Array) -> Array:
        windows = batch.astype(jnp.int32)
        x, y = windows[:, :-1], windows[:, 1:]
        return losses.mean(point["loss"](predict(params, x, point, key), y))

    def metrics(params: Params, data: Array, point: Point) -> dict[str, Array]:
        windows = data[:NUM_EVAL].astype(jnp.int32)
        x, y = windows[:, :-1], windows[:, 1:]
        logits = predict(params, x, point, None)
        predictions = jnp.argmax(logits, -1).astype(y.dtype)
        return {
            "loss": losses.mean(point["loss"](logits, y)),
            "accuracy": jnp.mean(predictions == y, dtype=jnp.float32),
        }

    return Task(init, loss, metrics, data[:split], data[split:], sequential=True)


def _causal_attention(qkv: Array, heads: int) -> Array:
    """Attention of every character to itself and those before it, in its window."""
    windows, length, width = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(windows, length, 3, heads, -1), 2, 0)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) * q.shape[-1] ** -0.5
    is_past = jnp.tril(jnp.ones((1, 1, length, length), bool))
    p = jax.nn.softmax(jnp.where(is_past, scores, -jnp.inf))
    return jnp.einsum("nhqk,nkhd->nqhd", p, v).reshape(windows, length, width // 3)


def _dropout(key: Array, h: Array, rate: float) -> Array:
    keep = jax.random.bernoulli(key, 1 - rate, h.shape)
    return jnp.where(keep, h / (1 - rate), jnp.zeros_like(h))


def _docstrings() -> str:
    """The ASCII characters of all docstrings of the modules."""
    docs = [
        ast.get_docstring(node)
        for tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    ]
    return "".join(c for c in "\n\n".join(filter(None, docs)) if c in CHARACTERS)


def _sources() -> Iterator[ast.Module]:
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and spec.has_location:
            yield ast.parse(pathlib.Path(spec.origin).read_text(encoding="utf-8"))
