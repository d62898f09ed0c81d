"""What one writes without jaxml: optax, and losses on a matrix of all pairs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels


@jax.custom_vjp
def products(x: Array, y: Array) -> Array:
    """All products of the rows of x and y, in float32.

    The backward pass multiplies in the dtype of the rows, which is fastest.
    """
    precision = "highest" if x.dtype == jnp.float32 else None
    return jnp.matmul(x, y.T, precision=precision, preferred_element_type=jnp.float32)


def products_fwd(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return products(x, y), (x, y)


def products_bwd(factors: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    x, y = factors
    ct = ct.astype(x.dtype)
    return products(ct, y.T).astype(x.dtype), products(ct.T, x.T).astype(y.dtype)


products.defvjp(products_fwd, products_bwd)


def linear_cross_entropy(x: Array, w: Array, labels: Array) -> Array:
    return cross_entropy(products(x, w.T), labels)


def linear_log_prob(x: Array, w: Array, labels: Array) -> tuple[Array, Array, Array]:
    logits = products(x, w.T)
    log_p = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
    log_prob = jnp.take_along_axis(log_p, labels[:, None], -1)[:, 0]
    return log_prob, entropy, jax.nn.logsumexp(logits, -1)


def linear_kl_divergence(
    x: Array, w: Array, teacher_x: Array, teacher_w: Array
) -> Array:
    log_q, log_p = log_softmaxes(x, w, teacher_x, teacher_w)
    return optax.losses.kl_divergence_with_log_targets(log_q, log_p)


def linear_js_divergence(
    x: Array, w: Array, teacher_x: Array, teacher_w: Array
) -> Array:
    log_q, log_p = log_softmaxes(x, w, teacher_x, teacher_w)
    log_m = jnp.logaddexp(log_q, log_p) - jnp.log(2.0)
    from_p = optax.losses.kl_divergence_with_log_targets(log_m, log_p)
    return (from_p + optax.losses.kl_divergence_with_log_targets(log_m, log_q)) / 2


def log_softmaxes(
    x: Array, w: Array, teacher_x: Array, teacher_w: Array
) -> tuple[Array, Array]:
    logits = products(x, w.T), jax.lax.stop_gradient(products(teacher_x, teacher_w.T))
    log_q, log_p = map(jax.nn.log_softmax, logits)
    return log_q, log_p


def ctc_loss(logits: Array, labels: Array) -> Array:
    paddings = jnp.zeros(logits.shape[:2]), jnp.zeros(labels.shape)
    return optax.losses.ctc_loss(logits, paddings[0], labels, paddings[1])


def info_nce(queries: Array, keys: Array) -> Array:
    return cross_entropy(products(queries, keys) / 0.1, jnp.arange(len(queries)))


def clip_loss(a: Array, b: Array) -> Array:
    logits, labels = products(a, b) / 0.07, jnp.arange(len(a))
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def siglip_loss(a: Array, b: Array) -> Array:
    signs = 2 * jnp.eye(len(a)) - 1
    return -jnp.sum(jax.nn.log_sigmoid(signs * (10.0 * products(a, b) - 10.0)), -1)


def supcon_loss(embeddings: Array, labels: Array) -> Array:
    is_other = ~jnp.eye(len(labels), dtype=bool)
    is_positive = (labels[:, None] == labels[None]) & is_other
    logits = jnp.where(is_other, products(embeddings, embeddings) / 0.1, -jnp.inf)
    log_p = jax.nn.log_softmax(logits)
    total = jnp.sum(jnp.where(is_positive, log_p, 0), -1)
    return -total / jnp.maximum(jnp.sum(is_positive, -1), 1)


def batch_hard_triplet_loss(embeddings: Array, labels: Array) -> Array:
    """Distances from the products, which lose the digits of close pairs."""
    squares = jnp.sum(jnp.square(embeddings.astype(jnp.float32)), -1)
    d2 = squares[:, None] + squares[None] - 2 * products(embeddings, embeddings)
    d = jnp.sqrt(jnp.maximum(d2, 1e-12))
    is_same = labels[:, None] == labels[None]
    is_positive = is_same & ~jnp.eye(len(labels), dtype=bool)
    farthest = jnp.max(jnp.where(is_positive, d, 0), -1)
    nearest = jnp.min(jnp.where(is_same, jnp.inf, d), -1)
    return jax.nn.relu(farthest - nearest + 0.2)


def normalized_softmax_loss(embeddings: Array, proxies: Array, labels: Array) -> Array:
    def normalize(x: Array) -> Array:
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    logits = products(normalize(embeddings), normalize(proxies)) / 0.05
    return cross_entropy(logits, labels)


def poly_loss(logits: Array, labels: Array) -> Array:
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.losses.poly_loss_cross_entropy(logits, one_hot)


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "soft_cross_entropy": optax.losses.softmax_cross_entropy,
    "kl_divergence": optax.losses.kl_divergence_with_log_targets,
    "poly_loss": poly_loss,
    "multiclass_hinge_loss": optax.losses.multiclass_hinge_loss,
    "hinge_loss": optax.losses.hinge_loss,
    "perceptron_loss": optax.losses.perceptron_loss,
    "binary_cross_entropy_with_logits": optax.losses.sigmoid_binary_cross_entropy,
    "binary_focal_loss": optax.losses.sigmoid_focal_loss,
    "squared_error": optax.losses.squared_error,
    "huber_loss": optax.losses.huber_loss,
    "log_cosh_loss": optax.losses.log_cosh,
    "cosine_distance": optax.losses.cosine_distance,
    "ctc_loss": ctc_loss,
    "linear_cross_entropy": linear_cross_entropy,
    "linear_log_prob": linear_log_prob,
    "linear_kl_divergence": linear_kl_divergence,
    "linear_js_divergence": linear_js_divergence,
    "info_nce": info_nce,
    "n_pair_loss": info_nce,
    "clip_loss": clip_loss,
    "siglip_loss": siglip_loss,
    **dict.fromkeys(
        ("supcon_loss", "nt_xent", "multi_similarity_loss", "circle_loss"), supcon_loss
    ),
    **dict.fromkeys(
        (
            "batch_hard_triplet_loss",
            "batch_contrastive_loss",
            "margin_loss",
            "nca_loss",
        ),
        batch_hard_triplet_loss,
    ),
    **dict.fromkeys(
        ("normalized_softmax_loss", "arcface_loss", "cosface_loss", "proxy_nca_loss"),
        normalized_softmax_loss,
    ),
}
"""The dense form or optax's loss, of the arrays of ours.

A loss of all pairs without a dense form of its own has that of a loss with the same
products.
"""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tanh": jnp.tanh,
    "softsign": jax.nn.soft_sign,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": jax.nn.gelu,
    "swish": jax.nn.silu,
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
    "softplus": jax.nn.softplus,
    "squareplus": jax.nn.squareplus,
    "hard_swish": jax.nn.hard_swish,
    "glu": jax.nn.glu,
    "softmax": jax.nn.softmax,
    "log_softmax": jax.nn.log_softmax,
}
