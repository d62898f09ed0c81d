"""Classification of handwritten digits by a convolutional network with batch norm."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

from jaxml import losses
from jaxml.sweep import Point, Task
from jaxml.tasks._convolution import conv3x3
from jaxml.tasks._digits import MAX_PIXEL, NUM_CLASSES
from jaxml.tasks._network import Params, he_normal, shuffle

STRIDES = 1, 2, 1
MOMENTUM, EPS = 0.9, 1e-5
PIXELS = (1, 2, 3)  # of [channels images height width]


def digits_convnet(*, channels: int = 8) -> Task:
    """Classification of handwritten digits by three convolutions with batch norm.

        hᵢ = f(γᵢ N(Wᵢ ∗ hᵢ₋₁) + βᵢ), i = 1, 2, 3,    logits = V mean(h₃) + b

    N standardizes each channel: over the batch in training, and with the running mean
    and variance, which are the state of the task, in evaluation. The point of a model
    holds two functions: `activation`, f, and `loss`, (logits, labels) -> one loss per
    example. The metrics are `loss` and `accuracy`. The split is that of `digits`.

    Args:
        channels: Channels of h₁; h₂ has twice as many, h₃ four times.

    Reference:
        Ioffe and Szegedy, Batch normalization, ICML 2015,
        https://arxiv.org/abs/1502.03167

    Example:
        >>> x, y = digits_convnet().train
        >>> x.shape, y.shape
        ((1437, 8, 8), (1437,))
    """
    pixels, digits, num_train = shuffle(*load_digits(return_X_y=True))
    x = jnp.asarray(pixels.reshape(-1, 8, 8) / MAX_PIXEL, jnp.float32)
    y = jnp.asarray(digits, jnp.int32)
    widths = [1, channels, 2 * channels, 4 * channels]

    def init(key: Array, point: Point) -> Params:
        keys = jax.random.split(key, len(widths))
        params = {
            "v": he_normal(keys[0], widths[-1], NUM_CLASSES),
            "b": jnp.zeros((NUM_CLASSES, 1), jnp.float32),
        }
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            params[f"w{i}"] = he_normal(keys[i], 9 * inputs, outputs)
            params[f"gamma{i}"] = jnp.ones((outputs, 1, 1, 1), jnp.float32)
            params[f"beta{i}"] = jnp.zeros((outputs, 1, 1, 1), jnp.float32)
        return params

    def state(key: Array, point: Point) -> Params:
        means = {f"mean{i}": np.zeros(n) for i, n in enumerate(widths[1:], 1)}
        variances = {f"var{i}": np.ones(n) for i, n in enumerate(widths[1:], 1)}
        return {
            name: jnp.asarray(value.reshape(-1, 1, 1, 1), jnp.float32)
            for name, value in (means | variances).items()
        }

    def predict(
        params: Params, state: Params, x: Array, point: Point, *, training: bool
    ) -> tuple[Array, Params]:
        """The logits, and the statistics that N has used."""
        h, used = x[None], {}
        for i, stride in enumerate(STRIDES, 1):
            z = conv3x3(params[f"w{i}"], h, stride)
            mean, var = state[f"mean{i}"], state[f"var{i}"]
            if training:
                mean = z.mean(PIXELS, keepdims=True)
                var = z.var(PIXELS, keepdims=True)
            normalized = (z - mean) * jax.lax.rsqrt(var + EPS)
            h = point["activation"](
                params[f"gamma{i}"] * normalized + params[f"beta{i}"]
            )
            used |= {f"mean{i}": mean, f"var{i}": var}
        logits = params["v"] @ h.mean((-2, -1)) + params["b"]
        return logits.T, used

    def loss(
        params: Params, batch: tuple, point: Point, *, state: Params
    ) -> tuple[Array, Params]:
        x, y = batch
        logits, used = predict(params, state, x, point, training=True)
        new_state = {n: MOMENTUM * state[n] + (1 - MOMENTUM) * used[n] for n in used}
        return losses.mean(point["loss"](logits, y)), new_state

    def metrics(
        params: Params, data: tuple, point: Point, *, state: Params
    ) -> dict[str, Array]:
        x, y = data
        logits, _ = predict(params, state, x, point, training=False)
        predictions = jnp.argmax(logits, -1).astype(y.dtype)
        return {
            "loss": losses.mean(point["loss"](logits, y)),
            "accuracy": jnp.mean(predictions == y, dtype=jnp.float32),
        }

    train, valid = (x[:num_train], y[:num_train]), (x[num_train:], y[num_train:])
    return Task(init, loss, metrics, train, valid, state=state, sequential=True)
