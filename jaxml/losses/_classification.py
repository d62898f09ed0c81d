"""Classification: scores of classes against labels or target distributions.

The event is the last axis, the classes. `where` keeps classes: one that is left out has
probability 0. An integer label outside [0, classes) gives NaN for that example alone. A
row of which nothing is kept costs 0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Bool, Float, Integer

from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan, safe_subtract, zero_if_inf
from jaxml._core.softmax import log_softmax, logsumexp, project_simplex
from jaxml._core.special.exp import expm1_minus_x, expm1_minus_x_over_x2
from jaxml._core.special.logistic import sigmoid, softplus
from jaxml._core.special.partials import with_partials
from jaxml._core.types import Scalar
from jaxml.losses._binary import focal
from jaxml.losses._labels import label_mask, nan_if_invalid, take_label


@public
def cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    label_smoothing: Scalar = 0.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The nats that the label costs under the predicted distribution.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ    with s = -log softmax(logits)

    over the C kept classes. A loss of 1e-30 is 1e-30, not 0.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        label_smoothing: ε in [0, 1], the share of the target spread over all classes.
        where: The classes that exist.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567 (label label_smoothing)

    Example:
        >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([1, -100]))
        Array([1.3862944,       nan], dtype=float32)
    """
    epsilon = jnp.asarray(label_smoothing)
    return _settled(
        _cross_entropy(logits, labels, epsilon, where), labels, logits, where
    )


@jax.custom_jvp
def _cross_entropy(
    z: Array, labels: Array, epsilon: Array, where: Array | None
) -> Array:
    own, rivals = _under_max(labels, apply_mask(z, where, -jnp.inf))
    others = jnp.sum(rivals, -1)
    lead = lax.cond(
        epsilon != 0,
        lambda: _lead(labels, z, where),
        lambda: jnp.zeros(labels.shape, z.dtype),
    )
    return jnp.log1p(others + jnp.expm1(own)) - own + epsilon * lead


def _change(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """∂z is p - (1 - ε) onehot - ε/C, in fewer passes than that of the formula.

    p - 1 is minus the probability of the others, with all its digits.
    """
    z, labels, epsilon, where = primals
    dz, _, d_epsilon, _ = tangents

    def slope(z: Array, epsilon: Array) -> Array:
        z = apply_mask(z, where, -jnp.inf)
        own, rivals = _under_max(labels, z)
        others = jnp.sum(rivals, -1)
        total = others + jnp.exp(own)
        of_label = (epsilon - others / total)[..., None]
        of_rivals = rivals / total[..., None]
        p_less_onehot = jnp.where(label_mask(labels, z), of_label, of_rivals)
        return apply_mask(p_less_onehot - epsilon / _count(z, where), where)

    change = jnp.zeros(labels.shape, z.dtype)
    if not isinstance(dz, SymbolicZero):
        slope = jax.checkpoint(slope, prevent_cse=False)
        change += jnp.sum(slope(z, epsilon) * dz, -1)
    if not isinstance(d_epsilon, SymbolicZero):
        lead = _lead(labels, z, where)
        change += apply_mask(lead, (epsilon != 0) | jnp.isfinite(lead)) * d_epsilon
    return _cross_entropy(*primals), change


_cross_entropy.defjvp(_change, symbolic_zeros=True)


def _under_max(labels: Array, z: Array) -> tuple[Array, Array]:
    """z - max z of the label, and e^(z - max z) of its rivals, with 0 at the label."""
    top = lax.stop_gradient(jnp.max(z, -1))
    own = take_label(labels, z)
    of_infinity = jnp.where(own == top, 0.0, -jnp.inf)
    own = jnp.where(top == jnp.inf, of_infinity, own - zero_if_inf(top))
    largest = float(jnp.finfo(z.dtype).max)  # stands for ∞, for ∞ - ∞ is none
    below = jnp.minimum(z, largest) - jnp.clip(top, -largest, largest)[..., None]
    return own, jnp.where(label_mask(labels, z), 0.0, jnp.exp(below))


def _lead(labels: Array, z: Array, where: Array | None) -> Array:
    """How far the label's logit is above the mean."""
    mean = jnp.sum(apply_mask(z, where), -1, keepdims=True) / _count(z, where)
    return safe_subtract(take_label(labels, apply_mask(z, where)), mean[..., 0])


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

    so it falls to the entropy of p, not to 0. A class that has target 0 contributes 0,
    even when its logit is -∞.

    Args:
        logits: Unnormalised scores.
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
    surprise = -log_softmax(logits, mask=where)
    return jnp.sum(multiply_no_nan(apply_mask(targets, where), surprise), -1)


@public
def focal_loss(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    gamma: Scalar = 2.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy that counts a well classified example for less.

        loss = -(1 - p)^γ log p    with p = softmax(logits)[label]

    At γ = 0 it is the cross entropy. First and second derivatives are finite for every
    γ, however sure the prediction.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        gamma: γ >= 0, how fast easy examples lose their weight.
        where: The classes that exist.

    Reference:
        Lin et al., Focal loss for dense object detection, ICCV 2017,
        https://arxiv.org/abs/1708.02002

    Example:
        >>> focal_loss(jnp.zeros((1, 2)), jnp.array([0]), gamma=2.0)
        Array([0.1732868], dtype=float32)
    """
    odds = _log_odds_against(labels, logits, where)
    return _settled(focal(odds, jnp.asarray(gamma)), labels, logits, where)


@public
def poly_loss(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    epsilon: Scalar = 1.0,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """Cross entropy with the weight of its first polynomial term changed.

        loss = -log p + ε (1 - p)    with p = softmax(logits)[label]

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        epsilon: ε >= -1, what is added to the weight 1 of the term 1 - p.
        where: The classes that exist.

    Reference:
        Leng et al., PolyLoss: a polynomial expansion perspective of classification loss
        functions, ICLR 2022, https://arxiv.org/abs/2204.12511

    Example:
        >>> poly_loss(jnp.zeros((1, 2)), jnp.array([0]), epsilon=2.0)
        Array([1.6931472], dtype=float32)
    """
    odds = _log_odds_against(labels, logits, where)
    loss = softplus(odds) + epsilon * sigmoid(odds)
    return _settled(loss, labels, logits, where)


@public
def generalized_cross_entropy(
    logits: Float[Array, "*batch classes"],
    labels: Integer[Array, "*batch"],
    *,
    q: Scalar = 0.7,
) -> Float[Array, "*batch"]:
    """Between cross entropy and absolute error: bounded, so wrong labels weigh less.

        loss = (1 - p^q) / q    with p = softmax(logits)[label]

    Its limit at q = 0 is the cross entropy; at q = 1 it is 1 - p.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        q: In [0, 1].

    Reference:
        Zhang and Sabuncu, Generalized cross entropy loss for training deep neural
        networks with noisy labels, NeurIPS 2018, https://arxiv.org/abs/1805.07836

    Example:
        >>> generalized_cross_entropy(jnp.zeros((1, 2)), jnp.array([0]), q=1.0)
        Array([0.5], dtype=float32)
    """
    surprise = softplus(_log_odds_against(labels, logits, None))  # -log p
    return _settled(_bounded(surprise, jnp.asarray(q)), labels, logits, None)


def _bounded_growth(s: Array, q: Array) -> Array:
    """-(1 - (1 + y) e⁻ʸ) / q² with y = q s, which is -s²/2 at q = 0."""
    y = multiply_no_nan(q, s)
    near = y < 0.5
    small, some = jnp.where(near, y, 0.0), jnp.where(near, s, 0.0)
    by_series = some * some * jnp.exp(-small) * expm1_minus_x_over_x2(small)
    large = jnp.where(near, 1.0, jnp.minimum(y, 40.0))  # at 40 the bracket is 1
    direct = jnp.exp(-large) * expm1_minus_x(large) / jnp.where(near, 1.0, q) ** 2
    return -jnp.where(near, by_series, direct)


@with_partials(lambda s, q: jnp.exp(-multiply_no_nan(q, s)), _bounded_growth)
def _bounded(s: Array, q: Array) -> Array:
    """(1 - e^(-q s)) / q, which is s at q = 0."""
    y = multiply_no_nan(q, s)
    nothing = y == 0
    return jnp.where(nothing, s, -jnp.expm1(-y) / jnp.where(nothing, 1.0, q))


@public
def sparsemax_loss(
    logits: Float[Array, "*batch classes"], labels: Integer[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """The loss that sparsemax is made for: 0 once the label leads by 1.

        loss = Σⱼ pⱼ (zⱼ - z[label]) + ½ (1 - Σⱼ pⱼ²)    with p = sparsemax(z)

    Its gradient is p - onehot, 0 for every class that has no probability.

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
    return nan_if_invalid(_sparsemax_loss(logits, labels), labels, logits.shape[-1])


@jax.custom_jvp
def _sparsemax_loss(z: Array, labels: Array) -> Array:
    """Σ pⱼ ((pⱼ + r)/2 + t) over the others, of which no term is negative.

    r is their sum, t how far the label's score is from having a probability.
    """
    p = project_simplex(z)
    others = apply_mask(p, ~label_mask(labels, z))
    r = jnp.sum(others, -1, keepdims=True)
    lead = safe_subtract(jnp.max(z, -1), take_label(labels, z))
    t = jnp.maximum(lead - jnp.max(p, -1), 0)[..., None]
    return jnp.sum(multiply_no_nan(others, (others + r) / 2 + t), -1)


@_sparsemax_loss.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    (z, labels), (dz, _) = primals, tangents
    own = label_mask(labels, z).astype(z.dtype)
    return _sparsemax_loss(z, labels), jnp.sum((project_simplex(z) - own) * dz, -1)


@public
def smooth_labels(
    targets: Float[Array, "*batch classes"], *, label_smoothing: Scalar
) -> Float[Array, "*batch classes"]:
    """Target distributions of which a share is spread evenly over all C classes.

        t' = (1 - ε) t + ε/C

    Args:
        targets: t, one-hot or any distributions.
        label_smoothing: ε in [0, 1], the share that is spread.

    Reference:
        Szegedy et al., Rethinking the Inception architecture for computer vision, CVPR
        2016, https://arxiv.org/abs/1512.00567

    Example:
        >>> smooth_labels(jnp.array([1.0, 0.0]), label_smoothing=0.5)
        Array([0.75, 0.25], dtype=float32)
    """
    return (1 - label_smoothing) * targets + label_smoothing / targets.shape[-1]


def _count(z: Array, where: Array | None) -> Array:
    """[*batch 1], or [] if all are kept: how many classes, at least 1."""
    if where is None:
        return jnp.asarray(z.shape[-1], z.dtype)
    return jnp.maximum(jnp.sum(where, -1, keepdims=True, dtype=z.dtype), 1)


def _settled(loss: Array, labels: Array, logits: Array, where: Array | None) -> Array:
    """The loss, NaN where the label is not a class, 0 where no class is kept."""
    loss = nan_if_invalid(loss, labels, logits.shape[-1])
    return apply_mask(loss, None if where is None else jnp.any(where, -1))


def _log_odds_against(labels: Array, logits: Array, where: Array | None) -> Array:
    """u = log((1 - p) / p) of the label's probability p: -log p is softplus(u)."""
    z = apply_mask(logits, where, -jnp.inf)
    return logsumexp(z, mask=~label_mask(labels, z)) - take_label(labels, z)
