"""Classification with other losses than cross entropy: scores of classes and labels.

The event is the last axis, the classes. A class masked by `where` has probability 0. An
integer label outside [0, classes) gives NaN for its example alone. An example whose
classes are all masked has loss 0.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_divide, safe_subtract
from jaxml._core.softmax import project_simplex
from jaxml._core.special.exp import expm1_minus_x, expm1_minus_x_over_x2
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Fraction, NonNegative, Range, Scalar
from jaxml.losses._binary import focal_from_logit
from jaxml.losses._labels import (
    finalize,
    label_index,
    label_mask,
    shifted_label_and_exps,
    take_label,
)


@public
def focal_loss(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    gamma: NonNegative = 2.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy with less weight on well-classified examples.

        loss = -(1 - p)^γ log p    with p = softmax(logits)[label]

    At γ = 0 it is the cross entropy. First and second derivatives are finite for every
    γ, however confident the prediction.

    Args:
        logits: Unnormalized scores.
        labels: The true classes.
        gamma: γ >= 0, the focusing parameter. Large values ignore easy examples.
        where: The classes that exist.

    Reference:
        Lin et al., Focal loss for dense object detection, ICCV 2017,
        https://arxiv.org/abs/1708.02002

    Example:
        >>> focal_loss(jnp.zeros((1, 2)), jnp.array([0]), gamma=2.0)
        Array([0.1732868], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    u = _negative_logit(logits, index, where)
    return finalize(focal_from_logit(u, jnp.asarray(gamma)), index, where)


@public
def poly_loss(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    epsilon: Annotated[Scalar, Range("be at least -1", lambda x: x >= -1)] = 1.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy with another weight on the first term of its series in 1 - p.

        loss = -log p + ε (1 - p)    with p = softmax(logits)[label]

    Args:
        logits: Unnormalized scores.
        labels: The true classes.
        epsilon: ε >= -1, added to the weight 1 of the term 1 - p.
        where: The classes that exist.

    Reference:
        Leng et al., PolyLoss: a polynomial expansion perspective of classification loss
        functions, ICLR 2022, https://arxiv.org/abs/2204.12511

    Example:
        >>> poly_loss(jnp.zeros((1, 2)), jnp.array([0]), epsilon=2.0)
        Array([1.6931472], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    u = _negative_logit(logits, index, where)
    return finalize(softplus(u) + epsilon * sigmoid(u), index, where)


@public
def generalized_cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    q: Fraction = 0.7,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """A loss between cross entropy and absolute error, robust to wrong labels.

        loss = (1 - p^q) / q    with p = softmax(logits)[label]

    The limit at q = 0 is the cross entropy. At q = 1 it is 1 - p, which is bounded.

    Args:
        logits: Unnormalized scores.
        labels: The true classes.
        q: In [0, 1].
        where: The classes that exist.

    Reference:
        Zhang and Sabuncu, Generalized cross entropy loss for training deep neural
        networks with noisy labels, NeurIPS 2018, https://arxiv.org/abs/1805.07836

    Example:
        >>> generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q=1.0)
        Array([0.5], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    nll = softplus(_negative_logit(logits, index, where))
    return finalize(_box_cox(nll, jnp.asarray(q)), index, where)


def _box_cox_dq(s: Array, q: Array) -> Array:
    """-(1 - (1 + y) e⁻ʸ) / q² with y = q s, which is -s²/2 at q = 0."""
    y = multiply_no_nan(q, s)
    is_small = y < 0.5
    small_y, small_s = jnp.where(is_small, y, 0.0), jnp.where(is_small, s, 0.0)
    series = small_s * small_s * jnp.exp(-small_y) * expm1_minus_x_over_x2(small_y)
    large_y = jnp.where(is_small, 1.0, jnp.minimum(y, 40.0))  # e⁻⁴⁰ adds nothing to 1
    direct = jnp.exp(-large_y) * expm1_minus_x(large_y)
    direct = direct / jnp.where(is_small, 1.0, q) ** 2
    return -jnp.where(is_small, series, direct)


@with_partials(lambda s, q: jnp.exp(-multiply_no_nan(q, s)), _box_cox_dq)
def _box_cox(s: Array, q: Array) -> Array:
    """(1 - e^(-q s)) / q, which is s at q = 0: the Box-Cox transform of e^-s."""
    y = multiply_no_nan(q, s)
    return jnp.where(y == 0, s, -jnp.expm1(-y) / jnp.where(y == 0, 1.0, q))


@public
def sparsemax_loss(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The loss whose gradient uses sparsemax: 0 once the label leads by a margin of 1.

        loss = Σⱼ pⱼ (zⱼ - z[label]) + ½ (1 - Σⱼ pⱼ²)    with p = sparsemax(z)

    Its gradient is p - onehot, which is 0 for every class with p = 0 but the label.

    Args:
        logits: Scores z.
        labels: The true classes.
        where: The classes that exist.

    Reference:
        Martins and Astudillo, From softmax to sparsemax, ICML 2016,
        https://arxiv.org/abs/1602.02068

    Example:
        >>> sparsemax_loss(jnp.array([[0.5, 0.0], [1.0, 0.0]]), jnp.array([0, 0]))
        Array([0.0625, 0.    ], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    z = apply_mask(logits, where, -jnp.inf)
    return finalize(_sparsemax_loss(z, index), index, where)


@jax.custom_jvp
def _sparsemax_loss(z: Array, index: Array) -> Array:
    """Σ pⱼ ((pⱼ + r)/2 + t) over the other classes, a sum without negative terms.

    r is the sum of the other pⱼ, and t the distance of the label's score from support.
    """
    p = project_simplex(z)
    other_p = apply_mask(p, ~label_mask(index, z))
    r = jnp.sum(other_p, -1, keepdims=True)
    max_minus_label = safe_subtract(
        jnp.max(z, -1, initial=-jnp.inf), take_label(index, z)
    )
    t = jnp.maximum(max_minus_label - jnp.max(p, -1, initial=0), 0)[..., None]
    return jnp.sum(multiply_no_nan(other_p, (other_p + r) / 2 + t), -1)


@_sparsemax_loss.defjvp
def _sparsemax_loss_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z, index), (z_dot, _) = primals, tangents
    onehot = label_mask(index, z).astype(z.dtype)
    gradient = project_simplex(z) - onehot
    return _sparsemax_loss(z, index), jnp.sum(gradient * z_dot, -1)


@jax.custom_jvp
def _negative_logit(z: Array, index: Array, where: Array | None) -> Array:
    """u = log((1 - p) / p) with p the label's probability: -log p = softplus(u)."""
    label, others, _ = shifted_label_and_exps(None, z, index, where)
    return jnp.log(others) - label


@_negative_logit.defjvp
def _negative_logit_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """∂u/∂z is the softmax of the other logits, and -1 at the label."""
    (z, index, where), (z_dot, *_) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(z: Array, z_dot: Array) -> Array:
        _, others, exps = shifted_label_and_exps(None, z, index, where)
        onehot = label_mask(index, z).astype(z.dtype)
        gradient = safe_divide(exps, others[..., None]) - onehot
        return jnp.sum(apply_mask(gradient, where) * z_dot, -1)

    return _negative_logit(z, index, where), gradient_dot(z, z_dot)
