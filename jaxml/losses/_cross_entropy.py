"""Cross entropy of scores against labels or target distributions, and label smoothing.

The event is the last axis, the classes. A class masked by `where` has probability 0. An
integer label outside [0, classes) gives NaN for its example alone. An example whose
classes are all masked has loss 0.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float, Integer

from jaxml._core.collectives import num_shards, sum_shards
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import (
    is_known_zero,
    multiply_no_nan,
    multiply_no_nan_in_sum,
    zero_if_inf,
)
from jaxml._core.softmax import (
    log_softmax,
    shifted_exps,
    shifted_logsumexp,
    subtract_max,
)
from jaxml._core.types import AxisName, Fraction
from jaxml.losses._labels import (
    count_classes,
    finalize,
    label_index,
    label_mask,
    shard_index,
    shifted_label_and_exps,
    take_label,
)


@public
def cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    label_smoothing: Fraction = 0.0,
    where: Bool[Array, "*batch classes"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The negative log-likelihood of the label under softmax(logits), in nats.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ    with s = -log softmax(logits)

    over the C unmasked classes. A loss of 1e-30 keeps full precision.

    Args:
        logits: Unnormalized scores z.
        labels: The true classes.
        label_smoothing: ε in [0, 1], the part of the target spread over all classes.
        where: The classes that exist.
        axis_name: The mesh axes over which the classes are sharded, in
            `jax.shard_map`. The labels count all classes.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567 (label smoothing)

    Example:
        >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([1, -100]))
        Array([1.3862944,       nan], dtype=float32)
    """
    num_classes = logits.shape[-1]
    index = label_index(labels, num_classes * num_shards(axis_name))
    epsilon = None if is_known_zero(label_smoothing) else jnp.asarray(label_smoothing)
    local_index = shard_index(index, num_classes, axis_name)
    loss = _cross_entropy(axis_name, logits, local_index, epsilon, where)
    return finalize(loss, index, where, axis_name)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _cross_entropy(
    axis_name: AxisName | None,
    z: Array,
    index: Array,
    epsilon: Array | None,
    where: Array | None,
) -> Array:
    label, others, _ = shifted_label_and_exps(axis_name, z, index, where)
    nll = lax.log1p(others + lax.expm1(label)) - label
    if epsilon is None:
        return nll
    return nll + multiply_no_nan(epsilon, _label_minus_mean(axis_name, z, index, where))


def _cross_entropy_jvp(
    axis_name: AxisName | None, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    """∂/∂z = p - (1 - ε) onehot - ε/C in one pass, where 1 - p is never a difference.

    The backward pass recomputes p, so that it saves no other array of the size of z.
    """
    z, index, epsilon, where = primals
    z_dot, _, epsilon_dot, _ = tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(z: Array, epsilon: Array | None, z_dot: Array) -> Array:
        label, others, exps = shifted_label_and_exps(axis_name, z, index, where)
        others, label = jnp.expand_dims(others, -1), jnp.expand_dims(label, -1)
        onehot = label_mask(index, z).astype(z.dtype)
        gradient = (exps - onehot * others) / (others + lax.exp(label))
        if epsilon is not None:
            gradient += epsilon * (onehot - 1 / count_classes(axis_name, z, where))
        return sum_shards(jnp.sum(apply_mask(gradient, where) * z_dot, -1), axis_name)

    terms = []
    if not isinstance(z_dot, SymbolicZero):
        terms += [gradient_dot(z, epsilon, z_dot)]
    if epsilon is not None and not isinstance(epsilon_dot, SymbolicZero):
        epsilon_grad = _label_minus_mean(axis_name, z, index, where)
        mask = (epsilon != 0) | jnp.isfinite(epsilon_grad)
        terms += [apply_mask(epsilon_grad, mask) * epsilon_dot]
    return _cross_entropy(axis_name, *primals), functools.reduce(jnp.add, terms)


_cross_entropy.defjvp(_cross_entropy_jvp, symbolic_zeros=True)


def _label_minus_mean(
    axis_name: AxisName | None, z: Array, index: Array, where: Array | None
) -> Array:
    """The mean of the label's logit minus each unmasked logit; 0 if it is infinite."""
    label = sum_shards(take_label(index, z), axis_name)
    differences = apply_mask(zero_if_inf(label)[..., None] - z, where)
    mean = jnp.sum(differences / count_classes(axis_name, z, where), -1)
    return apply_mask(sum_shards(mean, axis_name), jnp.isfinite(label))


@public
def soft_cross_entropy(
    logits: Float[Array, "*batch classes"],
    targets: Float[Array, "*batch classes"],
    *,
    where: Bool[Array, "*batch classes"] | None = None,
    axis_name: AxisName | None = None,
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
        axis_name: The mesh axes over which the classes are sharded, in
            `jax.shard_map`.

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
    return _soft_cross_entropy(axis_name, z, apply_mask(targets, where))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _soft_cross_entropy(axis_name: AxisName | None, z: Array, p: Array) -> Array:
    """Σ p log Σ eˢ - Σ p s with s = z - max z: no term is negative."""
    _, log_sum = shifted_logsumexp(z, -1, axis_name)
    sum_p = sum_shards(jnp.sum(p, -1), axis_name)
    return sum_p * jnp.squeeze(log_sum, -1) + _weighted_distance(axis_name, z, p)


def _weighted_distance(axis_name: AxisName | None, z: Array, p: Array) -> Array:
    """Σ p (max z - z), with operations that XLA:CPU computes within the sum."""
    largest = jnp.finfo(z.dtype).max
    z_max, _ = subtract_max(z, -1, axis_name)
    # a barrier: XLA:CPU would hold the difference, which Σ eˢ needs too
    finite_max = lax.optimization_barrier(jnp.clip(z_max, -largest, largest))
    terms = multiply_no_nan_in_sum(p, finite_max - jnp.minimum(z, largest))
    total = sum_shards(jnp.sum(terms, -1), axis_name)
    return total * jnp.where(z_max == jnp.inf, largest, 1.0)[..., 0]


def _soft_cross_entropy_jvp(
    axis_name: AxisName | None, primals: tuple, tangents: tuple
) -> tuple[Array, Array]:
    """∂/∂z = q Σ p - p, as a sum in which 1 - q is never a difference."""
    (z, p), (z_dot, p_dot) = primals, tangents

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gradient_dot(z: Array, p: Array, z_dot: Array) -> Array:
        _, exps, others = shifted_exps(z, -1, axis_name)
        q, one_minus_q = exps / (1 + others), (1 - exps + others) / (1 + others)
        sum_of_others = sum_shards(jnp.sum(p, -1, keepdims=True), axis_name) - p
        gradient = q * sum_of_others - one_minus_q * p
        return sum_shards(jnp.sum(gradient * z_dot, -1), axis_name)

    terms = []
    if not isinstance(z_dot, SymbolicZero):
        terms += [gradient_dot(z, p, z_dot)]
    if not isinstance(p_dot, SymbolicZero):
        nll = -log_softmax(z, axis_name=axis_name)
        nll = apply_mask(nll, (p != 0) | jnp.isfinite(nll))
        terms += [sum_shards(jnp.sum(nll * p_dot, -1), axis_name)]
    return _soft_cross_entropy(axis_name, z, p), functools.reduce(jnp.add, terms)


_soft_cross_entropy.defjvp(_soft_cross_entropy_jvp, symbolic_zeros=True)


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
