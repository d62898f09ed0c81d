"""Classification: scores of classes against labels or target distributions.

The event is the last axis, the classes. A class masked by `where` has probability 0. An
integer label outside [0, classes) gives NaN for its example alone. An example whose
classes are all masked has loss 0.
"""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import is_known_zero, multiply_no_nan, safe_subtract
from jaxml._core.softmax import (
    log_softmax,
    logsumexp,
    project_simplex,
    shifted_logsumexp,
    subtract_max,
)
from jaxml._core.special.exp import expm1_minus_x, expm1_minus_x_over_x2
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Fraction, NonNegative, Range, Scalar
from jaxml.losses._binary import focal_from_logit
from jaxml.losses._labels import label_index, label_mask, nan_if_invalid, take_label


@public
def cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    label_smoothing: Fraction = 0.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The negative log-likelihood of the label under softmax(logits), in nats.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ    with s = -log softmax(logits)

    over the C unmasked classes. A loss of 1e-30 keeps full precision.

    Args:
        logits: Unnormalized scores z.
        labels: The true classes.
        label_smoothing: ε in [0, 1], the part of the target spread over all classes.
        where: The classes that exist.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567 (label smoothing)

    Example:
        >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([1, -100]))
        Array([1.3862944,       nan], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    epsilon = None if is_known_zero(label_smoothing) else jnp.asarray(label_smoothing)
    return _finalize(_cross_entropy(logits, index, epsilon, where), index, where)


@jax.custom_jvp
@functools.partial(jax.jit, inline=True)
def _cross_entropy(
    z: Array, index: Array, epsilon: Array | None, where: Array | None
) -> Array:
    label, other_exps = _shifted_label_and_exps(z, index, where)
    nll = lax.log1p(jnp.sum(other_exps, -1) + lax.expm1(label)) - label
    if epsilon is None:
        return nll
    return nll + multiply_no_nan(epsilon, _label_minus_mean(z, index, where))


def _cross_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """∂/∂z = p - (1 - ε) onehot - ε/C in one pass, where 1 - p is never a difference.

    The backward pass recomputes p, so that it saves no other array of the size of z.
    """
    z, index, epsilon, where = primals
    z_dot, _, epsilon_dot, _ = tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(z: Array, epsilon: Array | None, z_dot: Array) -> Array:
        label, other_exps = _shifted_label_and_exps(z, index, where)
        others = jnp.sum(other_exps, -1, keepdims=True)
        total = others + lax.exp(jnp.expand_dims(label, -1))
        onehot = label_mask(index, z).astype(z.dtype)
        gradient = (other_exps - onehot * others) / total
        if epsilon is not None:
            gradient += epsilon * (onehot - 1 / _num_classes(z, where))
        return jnp.sum(apply_mask(gradient, where) * z_dot, -1)

    terms = []
    if not isinstance(z_dot, SymbolicZero):
        terms += [gradient_dot(z, epsilon, z_dot)]
    if epsilon is not None and not isinstance(epsilon_dot, SymbolicZero):
        epsilon_grad = _label_minus_mean(z, index, where)
        mask = (epsilon != 0) | jnp.isfinite(epsilon_grad)
        terms += [apply_mask(epsilon_grad, mask) * epsilon_dot]
    return _cross_entropy(*primals), functools.reduce(jnp.add, terms)


_cross_entropy.defjvp(_cross_entropy_jvp, symbolic_zeros=True)


@functools.partial(jax.jit, inline=True)  # traced once, for value and gradient
def _shifted_label_and_exps(
    z: Array, index: Array, where: Array | None
) -> tuple[Array, Array]:
    """z - max z at the label, and e^(z - max z) with 0 at the label."""
    z = apply_mask(z, where, -jnp.inf)
    z_max, shifted = subtract_max(z, -1)
    exps = apply_mask(lax.exp(shifted), ~label_mask(index, z))
    # taken from z: XLA:CPU would materialize `shifted` for a gather
    label, z_max = take_label(index, z), jnp.squeeze(z_max, -1)
    return apply_mask(label - z_max, label != z_max), exps


def _label_minus_mean(z: Array, index: Array, where: Array | None) -> Array:
    """The label's logit minus the mean of the unmasked logits."""
    z = apply_mask(z, where)
    mean = jnp.sum(z / _num_classes(z, where), -1)
    return safe_subtract(take_label(index, z), mean)


@public
def soft_cross_entropy(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of a predicted distribution q relative to a target p, in nats.

        loss = -Σⱼ pⱼ log qⱼ    with q = softmax(logits)
             = H(p) + KL(p‖q)

    Its minimum is the entropy of p, not 0. A class with target 0 contributes 0, even if
    its logit is -∞.

    Args:
        logits: Unnormalized scores.
        targets: p, a distribution over the classes.
        where: The classes that exist.

    Reference:
        Cover and Thomas, Elements of information theory, chapter 2, Wiley 2006,
        https://doi.org/10.1002/047174882X

    Example:
        >>> soft_cross_entropy(
        ...     jnp.array([0.0, 0.0, -jnp.inf]), jnp.array([0.5, 0.5, 0.0])
        ... )
        Array(0.6931472, dtype=float32)
    """
    z = apply_mask(logits, where, -jnp.inf)
    return _soft_cross_entropy(z, apply_mask(targets, where))


@jax.custom_jvp
def _soft_cross_entropy(z: Array, p: Array) -> Array:
    """Σ p log Σ eˢ - Σ p s with s = z - max z: no term is negative."""
    s, log_sum = shifted_logsumexp(z, -1)
    weighted_log_sum = jnp.sum(p, -1) * jnp.squeeze(log_sum, -1)
    return weighted_log_sum + jnp.sum(multiply_no_nan(p, -s), -1)


def _soft_cross_entropy_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """∂/∂z = q Σ p - p, as a sum in which 1 - q is never a difference."""
    (z, p), (z_dot, p_dot) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(z: Array, p: Array, z_dot: Array) -> Array:
        log_q = log_softmax(z)
        sum_of_others = jnp.sum(p, -1, keepdims=True) - p
        gradient = jnp.exp(log_q) * sum_of_others + jnp.expm1(log_q) * p
        return jnp.sum(gradient * z_dot, -1)

    terms = []
    if not isinstance(z_dot, SymbolicZero):
        terms += [gradient_dot(z, p, z_dot)]
    if not isinstance(p_dot, SymbolicZero):
        nll = -log_softmax(z)
        terms += [jnp.sum(apply_mask(nll, (p != 0) | jnp.isfinite(nll)) * p_dot, -1)]
    return _soft_cross_entropy(z, p), functools.reduce(jnp.add, terms)


_soft_cross_entropy.defjvp(_soft_cross_entropy_jvp, symbolic_zeros=True)


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
    return _finalize(focal_from_logit(u, jnp.asarray(gamma)), index, where)


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
    return _finalize(softplus(u) + epsilon * sigmoid(u), index, where)


@public
def generalized_cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    q: Fraction = 0.7,
) -> Float[Array, "*batch"]:
    """A loss between cross entropy and absolute error, robust to wrong labels.

        loss = (1 - p^q) / q    with p = softmax(logits)[label]

    The limit at q = 0 is the cross entropy. At q = 1 it is 1 - p, which is bounded.

    Args:
        logits: Unnormalized scores.
        labels: The true classes.
        q: In [0, 1].

    Reference:
        Zhang and Sabuncu, Generalized cross entropy loss for training deep neural
        networks with noisy labels, NeurIPS 2018, https://arxiv.org/abs/1805.07836

    Example:
        >>> generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q=1.0)
        Array([0.5], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    nll = softplus(_negative_logit(logits, index, None))
    return _finalize(_box_cox(nll, jnp.asarray(q)), index, None)


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
    logits: Float[Array, "*batch classes"], labels: Integer[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The loss whose gradient uses sparsemax: 0 once the label leads by a margin of 1.

        loss = Σⱼ pⱼ (zⱼ - z[label]) + ½ (1 - Σⱼ pⱼ²)    with p = sparsemax(z)

    Its gradient is p - onehot, which is 0 for every class with p = 0 but the label.

    Args:
        logits: Scores z.
        labels: The true classes.

    Reference:
        Martins and Astudillo, From softmax to sparsemax, ICML 2016,
        https://arxiv.org/abs/1602.02068

    Example:
        >>> sparsemax_loss(jnp.array([[0.5, 0.0], [1.0, 0.0]]), jnp.array([0, 0]))
        Array([0.0625, 0.    ], dtype=float32)
    """
    index = label_index(labels, logits.shape[-1])
    return nan_if_invalid(_sparsemax_loss(logits, index), index)


@jax.custom_jvp
def _sparsemax_loss(z: Array, index: Array) -> Array:
    """Σ pⱼ ((pⱼ + r)/2 + t) over the other classes, a sum without negative terms.

    r is the sum of the other pⱼ, and t the distance of the label's score from support.
    """
    p = project_simplex(z)
    other_p = apply_mask(p, ~label_mask(index, z))
    r = jnp.sum(other_p, -1, keepdims=True)
    max_minus_label = safe_subtract(jnp.max(z, -1), take_label(index, z))
    t = jnp.maximum(max_minus_label - jnp.max(p, -1), 0)[..., None]
    return jnp.sum(multiply_no_nan(other_p, (other_p + r) / 2 + t), -1)


@_sparsemax_loss.defjvp
def _sparsemax_loss_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z, index), (z_dot, _) = primals, tangents
    onehot = label_mask(index, z).astype(z.dtype)
    gradient = project_simplex(z) - onehot
    return _sparsemax_loss(z, index), jnp.sum(gradient * z_dot, -1)


@public
def smooth_labels(
    targets: Float[Array, "*batch classes"], *, label_smoothing: Fraction
) -> Float[Array, "*batch classes"]:
    """Target distributions mixed with the uniform distribution over the C classes.

        t' = (1 - ε) t + ε/C

    Args:
        targets: t, one-hot or any distributions.
        label_smoothing: ε in [0, 1], the weight of the uniform distribution.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567

    Example:
        >>> smooth_labels(jnp.array([1.0, 0.0]), label_smoothing=0.5)
        Array([0.75, 0.25], dtype=float32)
    """
    return (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]


def _negative_logit(logits: Array, index: Array, where: Array | None) -> Array:
    """u = log((1 - p) / p) with p the label's probability: -log p = softplus(u)."""
    z = apply_mask(logits, where, -jnp.inf)
    return logsumexp(z, mask=~label_mask(index, z)) - take_label(index, z)


def _num_classes(z: Array, where: Array | None) -> Array:
    """The number of unmasked classes, at least 1: [*batch 1], or [] without a mask."""
    if where is None:
        return jnp.asarray(max(z.shape[-1], 1), z.dtype)
    return jnp.maximum(jnp.sum(where, -1, keepdims=True, dtype=z.dtype), 1)


def _finalize(loss: Array, index: Array, where: Array | None) -> Array:
    """The loss, NaN where the label is out of range, 0 where all classes are masked."""
    loss = nan_if_invalid(loss, index)
    return apply_mask(loss, None if where is None else jnp.any(where, -1))
