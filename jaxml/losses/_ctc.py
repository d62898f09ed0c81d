"""Connectionist temporal classification: labels of a sequence without their positions.

The event is a sequence: its frames, their classes, and its labels. An alignment gives
each frame a label or the blank, and is a path through blank 0, label 1, blank 1, label
2, ..., blank n, the states of a recursion over the frames.

A path's probability underflows, and its logarithm loses digits as it grows. So it is an
`ExtendedRange` here, and its relative precision does not depend on the frames.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Integer

from jaxml._core.blocks import CPU_BLOCK_ELEMENTS
from jaxml._core.contract import raise_invalid
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.softmax import shifted_logsumexp, subtract_max
from jaxml._core.special import extended_range
from jaxml._core.special.extended_range import ZERO, ExtendedRange
from jaxml._core.special.log1p import wide_log1p
from jaxml._core.types import compute_dtype
from jaxml.losses._labels import label_index

BLOCK = 56
"""Frames per block. A frame multiplies m by at most 4.3, and 4.3⁵⁶ < 2¹²⁷."""


@public(upcast=False, masked=True)
def ctc_loss(
    logits: Float[Array, "*batch frames classes"],
    labels: Integer[Array, "*batch length"],
    *,
    logit_mask: Bool[Array, "*batch frames"] | None = None,
    label_mask: Bool[Array, "*batch length"] | None = None,
    blank: int = 0,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The negative log-likelihood of a label sequence under all of its alignments.

        loss = -log Σ_a Πₜ pₜ[aₜ]    with p = softmax(logits)

    over the alignments a that read as the labels. It is never negative, and as exact
    near 0 as elsewhere. Labels without an alignment, because the frames are too few,
    have loss ∞ with gradient 0.

    Args:
        logits: Unnormalized scores of the classes in each frame.
        labels: The classes, without blanks. A label out of range, or a blank, makes the
            loss of its sequence NaN.
        logit_mask: The frames that exist.
        label_mask: The labels that exist.
        blank: The class of frames that have no label.
        where: The sequences that count; the others have loss 0.

    Raises:
        ValueError: If `blank` is not a class.

    Reference:
        Graves et al., Connectionist temporal classification, ICML 2006,
        https://doi.org/10.1145/1143844.1143891

    Example:
        >>> ctc_loss(jnp.zeros((2, 4, 3)), jnp.array([[1, 2], [1, -1]]))
        Array([1.6863992,       nan], dtype=float32)
    """
    *batch, num_frames, num_classes = logits.shape
    if not 0 <= blank < num_classes:
        raise_invalid(ValueError, "blank", f"be in [0, {num_classes})", blank)
    z = logits.reshape(math.prod(batch), num_frames, num_classes)
    index = label_index(labels, num_classes).reshape(len(z), labels.shape[-1])
    index = apply_mask(index, index != blank, -1)
    is_label = jnp.ones_like(index, bool)
    if label_mask is not None:
        is_label = label_mask.reshape(index.shape)
    is_frame = jnp.ones_like(z, bool, shape=z.shape[:2])
    if logit_mask is not None:
        is_frame = logit_mask.reshape(is_frame.shape)
        z = apply_mask(z, is_frame[..., None])
    target = _target(index, is_label)
    loss = _ctc(blank, z, is_frame, target)
    is_invalid = jnp.any((index < 0) & is_label, -1)
    return apply_mask(loss, ~is_invalid, jnp.nan).reshape(batch)


class Target(NamedTuple):
    """The labels 1, 2, ... of each sequence, [batch labels]; label 0 does not exist."""

    index: Array
    """The class of each label, -1 if it does not exist."""
    differs: Array
    """Whether the label before is another class: no blank must separate them."""
    count: Array
    """[batch]: the number of labels."""


def _target(index: Array, is_label: Array) -> Target:
    order = jnp.argsort(~is_label, axis=-1, stable=True)
    index = jnp.take_along_axis(apply_mask(index, is_label, -1), order, -1)
    index = jnp.pad(index, ((0, 0), (1, 0)), constant_values=-1)
    differs = index != _shift_right(index, -1)
    return Target(index, differs, jnp.sum(is_label, -1, dtype=jnp.int32))


def _shift_right(x: Array, fill: float) -> Array:
    """The entry to the left of each along the last axis."""
    return jnp.concatenate([jnp.full_like(x[..., :1], fill), x[..., :-1]], -1)


def _shift_left(x: Array, fill: float = 0.0) -> Array:
    """The entry to the right of each along the last axis."""
    return jnp.concatenate([x[..., 1:], jnp.full_like(x[..., :1], fill)], -1)


class States(NamedTuple):
    """Something for each state, [*frames batch labels]: blank i comes after label i."""

    blank: Any
    label: Any


class Frames(NamedTuple):
    """Frames, and what normalizes their logits: [batch *blocks frames ...]."""

    z: Array
    is_frame: Array
    z_max: Array
    log_sum: Array

    @classmethod
    def of(cls, z: Array, is_frame: Array) -> "Frames":
        wide = z.astype(compute_dtype(z.dtype))
        z_max, _ = subtract_max(wide, -1)
        _, log_sum = shifted_logsumexp(wide, -1)
        return cls(z, is_frame, jnp.squeeze(z_max, -1), jnp.squeeze(log_sum, -1))

    def split(self) -> "Frames":
        """The frames in blocks, the last of which is padded."""
        num_frames = self.z.shape[1]
        num_blocks = max(1, math.ceil(num_frames / BLOCK))
        size = max(1, math.ceil(num_frames / num_blocks))

        def split(x: Array) -> Array:
            padding = [(0, 0)] * x.ndim
            padding[1] = (0, num_blocks * size - num_frames)
            return jnp.pad(x, padding).reshape(len(x), num_blocks, size, *x.shape[2:])

        return Frames(*map(split, self))

    def block(self, i: Array) -> "Frames":
        return Frames(*(lax.dynamic_index_in_dim(x, i, 1, False) for x in self))

    def log_p(self, z: Array) -> Array:
        """The log-probabilities of classes with logits z."""
        z_max, log_sum = self.z_max[..., None], self.log_sum[..., None]
        z = z.astype(z_max.dtype)
        return apply_mask(z - z_max, z != z_max) - log_sum

    def label_logits(self, target: Target) -> Array:
        """[batch frames labels]: -∞ for a label that does not exist."""
        index = target.index[:, None]
        index = jnp.broadcast_to(index, (*self.z.shape[:2], index.shape[-1]))
        clipped = jnp.maximum(index, 0)
        z = jnp.take_along_axis(self.z, clipped, -1, mode="promise_in_bounds")
        z = lax.optimization_barrier(z)  # a CPU's exponentials are slow behind a gather
        return apply_mask(z, index >= 0, -jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _ctc(blank: int, z: Array, is_frame: Array, target: Target) -> Array:
    return _loss_and_gradient(blank, z, is_frame, target)[0]


@_ctc.defjvp
def _ctc_jvp(blank: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """The gradient is computed with the loss and saved in place of the logits."""
    loss, gradient = _loss_and_gradient(blank, *primals)
    return loss, jnp.sum(gradient * tangents[0].astype(gradient.dtype), (1, 2))


@jax.custom_jvp
def _with_gradient(loss: Array, z: Array, gradient: Array) -> Array:
    """The loss, with this derivative in place of that of its computation."""
    return loss


@_with_gradient.defjvp
def _with_gradient_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (loss, _, gradient), (_, z_dot, _) = primals, tangents
    return loss, jnp.sum(gradient * z_dot.astype(gradient.dtype), (1, 2))


def _loss_and_gradient(
    blank: int, z: Array, is_frame: Array, target: Target
) -> tuple[Array, Array]:
    """A pass forward, which saves the first states of each block, and a pass back.

    The pass back computes the origins of a block again, unless all of them are small.
    """
    blocks = Frames.of(z, is_frame).split()
    saves_origins = 5 * z.shape[1] * target.index.size <= CPU_BLOCK_ELEMENTS

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def forward(alpha: States, i: Array) -> tuple[States, tuple]:
        frames = blocks.block(i)
        z_label = frames.label_logits(target)
        end, _, origins = _forward(alpha, frames, z_label, target, blank)
        return end, (alpha, origins if saves_origins else None)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def backward(gamma: States, inputs: tuple) -> tuple[States, Array]:
        i, alpha, origins = inputs
        frames = blocks.block(i)
        if origins is None:
            z_label = frames.label_logits(target)
            *_, origins = _forward(alpha, frames, z_label, target, blank)
        gamma, occupancies = _backward(gamma, origins, frames)
        return gamma, _gradient(occupancies, frames, target, blank)

    index = jnp.arange(blocks.z.shape[1], dtype=jnp.int32)
    end, (starts, origins) = lax.scan(forward, _start(target, blocks), index)
    p, gamma, incomplete = _final(end, target)
    lost = _lost_if_likely(blank, p, blocks, starts, target)
    loss = _nll(p, lost + incomplete)
    _, gradient = lax.scan(backward, gamma, (index, starts, origins), reverse=True)
    gradient = lax.collapse(jnp.moveaxis(gradient, 0, 1), 1, 3)[:, : z.shape[1]]
    is_possible = p.e != ZERO
    gradient = apply_mask(gradient, (is_frame & is_possible[:, None])[..., None])
    return _with_gradient(loss, z, gradient), gradient


def _start(target: Target, blocks: Frames) -> States:
    """Before the first frame, blank 0 has probability 1."""
    column = lax.broadcasted_iota(jnp.int32, target.index.shape, 1)
    zero = jnp.where(target.index >= -1, ZERO, 0.0).astype(blocks.z_max.dtype)
    one = jnp.ones_like(zero)
    return States(
        ExtendedRange(one, jnp.where(column == 0, 0.0, zero)), ExtendedRange(one, zero)
    )


def _forward(
    alpha: States, frames: Frames, z_label: Array, target: Target, blank: int
) -> tuple[States, States, Any]:
    """α after the last frame; α before each frame, and the origins of what follows.

    α is the probability that the frames so far are a path to this state. Origins are
    the fractions of it that come from each state of the frame before.
    """
    z_blank = frames.z[..., blank : blank + 1]
    log_p = (frames.log_p(z).swapaxes(0, 1) for z in (z_blank, z_label))
    emission = States(*map(extended_range.exp, log_p))

    def step(alpha: States, inputs: tuple) -> tuple[States, tuple]:
        emission, is_frame = inputs
        blank, label = (
            ExtendedRange(_shift_right(x.m, 1.0), _shift_right(x.e, ZERO))
            for x in alpha
        )
        other_label = ExtendedRange(label.m, apply_mask(label.e, target.differs, ZERO))
        to_blank, to_blank_from = extended_range.add(*alpha)
        to_label, to_label_from = extended_range.add(alpha.label, blank, other_label)
        moved = States(
            extended_range.multiply(to_blank, emission.blank),
            extended_range.multiply(to_label, emission.label),
        )
        origins = to_blank_from, to_label_from
        return _where(is_frame, moved, alpha), (alpha, origins)

    end, (before, origins) = lax.scan(step, alpha, (emission, frames.is_frame.T))
    return States(*(x.normalize() for x in end)), before, origins


def _where(is_frame: Array, x: Any, y: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(is_frame[:, None], x, y), x, y)


def _backward(gamma: States, origins: Any, frames: Frames) -> tuple[States, States]:
    """γ before the first frame, and after each: the probability to be in a state.

    It is that of a complete path, by Bayes' rule from its end to its beginning.
    """

    def step(gamma: States, inputs: tuple) -> tuple[States, States]:
        ((from_blank, from_label), (stay, advance, skip)), is_frame = inputs
        blank = gamma.blank * from_blank + _shift_left(gamma.label * advance)
        label = gamma.blank * from_label + gamma.label * stay
        label += _shift_left(gamma.label * skip)
        return _where(is_frame, States(blank, label), gamma), gamma

    return lax.scan(step, gamma, (origins, frames.is_frame.T), reverse=True)


def _final(alpha: States, target: Target) -> tuple[ExtendedRange, States, Array]:
    """The probability of the labels, γ after the last frame, and incomplete paths."""
    column = lax.broadcasted_iota(jnp.int32, target.index.shape, 1)
    is_last = column == target.count[:, None]
    ends = States(*(ExtendedRange(x.m, apply_mask(x.e, is_last, ZERO)) for x in alpha))
    total, fractions = extended_range.add(*ends)
    e = jnp.max(total.e, -1)
    p = ExtendedRange(jnp.sum(apply_mask(total.m, is_last), -1), e)
    gamma = States(*(apply_mask(x, is_last) for x in fractions))
    incomplete = (apply_mask(x.to_float(), ~is_last) for x in alpha)
    return p.normalize(), gamma, jnp.sum(functools.reduce(jnp.add, incomplete), -1)


def _lost_if_likely(
    blank: int, p: ExtendedRange, blocks: Frames, starts: States, target: Target
) -> Array:
    """[batch]: the probability of paths that a wrong class ends, or 1 if all p <= ¼.

    It takes another pass over the frames, which only a confident model needs.
    """
    blocks, starts = lax.stop_gradient((blocks, starts))

    def lost(alpha: States, i: Array) -> Array:
        frames = blocks.block(i)
        z_label = frames.label_logits(target)
        before = _forward(alpha, frames, z_label, target, blank)[1]
        return _lost(before, frames, z_label, target, blank)

    def sum_of_blocks() -> Array:
        index = jnp.arange(blocks.z.shape[1], dtype=jnp.int32)
        return jnp.sum(lax.map(lambda block: lost(*block), (starts, index)), 0)

    any_likely = jnp.any(p.to_float() > 0.25)
    return lax.cond(any_likely, sum_of_blocks, lambda: jnp.ones_like(p.m))


def _nll(p: ExtendedRange, complement: Array) -> Array:
    """-log p, for p > ½ from its complement 1 - p, of which p itself has no digits."""
    complement = lax.stop_gradient(complement)
    is_likely = complement < 0.5
    near_one = -wide_log1p(-apply_mask(complement, is_likely))
    return jnp.where(is_likely, near_one, -p.log())


def _lost(
    before: States, frames: Frames, z_label: Array, target: Target, blank: int
) -> Array:
    """[batch]: the probability of paths that end in these frames, at a wrong class.

    After a state all classes are wrong but the blank and at most two labels. Their
    probability is a sum without cancellation: for each right label that is subtracted,
    there is a wrong class among the two likeliest, which is at least as likely.
    """
    z = jnp.where(jnp.arange(frames.z.shape[-1]) == blank, -jnp.inf, frames.z)
    first = jnp.max(z, -1, keepdims=True)
    second = jnp.max(apply_mask(z, z < first, -jnp.inf), -1, keepdims=True)

    def split(z: Array) -> tuple[Array, Array, Array]:
        """Which are the likeliest, the second, and the probabilities of the others."""
        p = jnp.exp(frames.log_p(z))
        is_first, is_second = ((z == x).astype(p.dtype) for x in (first, second))
        return is_first, is_second, apply_mask(p, z < second)

    all_classes = [jnp.sum(x, -1, keepdims=True) for x in split(z)]
    factors = *(jnp.exp(frames.log_p(x)) for x in (first, second)), 1.0
    z_next = _shift_left(z_label, -jnp.inf)
    label, next_label = split(z_label), split(z_next)

    def wrong(*right: Sequence[Array]) -> Array:
        terms = ((n - sum(k)) * f for n, f, *k in zip(all_classes, factors, *right))
        return functools.reduce(jnp.add, terms).swapaxes(0, 1)

    may_skip = _shift_left(target.differs, False)[:, None]
    after_blank = wrong(next_label)
    after_label = wrong(label, [apply_mask(x, may_skip) for x in next_label])
    lost = before.blank.to_float() * after_blank + before.label.to_float() * after_label
    return jnp.sum(apply_mask(lost, frames.is_frame.T[..., None]), (0, 2))


def _gradient(occupancies: States, frames: Frames, target: Target, blank: int) -> Array:
    """[batch frames classes]: softmax(z) minus the probability of a class under γ."""
    p = jnp.exp(frames.log_p(frames.z))
    of_blank = jnp.sum(occupancies.blank, -1).T[..., None]
    gradient = p - jnp.where(jnp.arange(p.shape[-1]) == blank, of_blank, 0.0)
    of_label = occupancies.label.swapaxes(0, 1)
    gradient = _subtract_labels(gradient, of_label, jnp.maximum(target.index, 0))
    # a difference of two numbers near 1 has no digits, and the sum over classes is 0
    is_likely = p > 0.5
    others = apply_mask(gradient, ~is_likely)
    return jnp.where(is_likely, -jnp.sum(others, -1, keepdims=True), others)


def _subtract_labels(gradient: Array, of_label: Array, index: Array) -> Array:
    """Subtracts what each label has in a frame from the entry of its class."""
    if gradient.shape[-1] <= 4 * of_label.shape[-1]:  # faster than a scatter
        onehot = jax.nn.one_hot(index, gradient.shape[-1], dtype=gradient.dtype)
        return gradient - jnp.matmul(of_label, onehot, precision="highest")
    batch, frame, _ = jnp.indices(of_label.shape, jnp.int32, sparse=True)
    entries = gradient.at[batch, frame, index[:, None]]
    return entries.add(-of_label, mode="promise_in_bounds")
