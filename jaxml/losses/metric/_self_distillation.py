"""Losses of two views of one example without negatives: one view is the target.

The event of `byol_loss` is the features of an embedding, that of `dino_loss` the
classes, both the last axis. The targets carry no gradient. They come from a moving
average of the model, as `optimizers.shadow_weights` computes it.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.contract import broadcast
from jaxml._core.masking import apply_mask
from jaxml._core.public import public
from jaxml._core.softmax import log_softmax
from jaxml._core.types import PerElement, Positive
from jaxml.losses._cross_entropy import soft_cross_entropy
from jaxml.losses._regression import cosine_distance


@public(masked=True)
def byol_loss(
    predictions: Float[Array, "*batch d"],
    targets: Float[Array, "*batch d"],
    *,
    where: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The squared distance of two directions, of which the second is fixed.

        loss = ‖p/‖p‖ - t/‖t‖‖² = 2 - 2 cos(p, t)

    It is never negative, and 2 with gradient 0 if a vector is 0. SimSiam's loss is half
    of it, less 1. Both train on the sum of two losses, with the views exchanged.

    Args:
        predictions: p, the predictor's output for one view.
        targets: t, the projection of the other view. It carries no gradient.
        where: The examples that count; the others have loss 0.

    Reference:
        Grill et al., Bootstrap your own latent, NeurIPS 2020,
        https://arxiv.org/abs/2006.07733

    Example:
        >>> byol_loss(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 1.0]]))
        Array([2.], dtype=float32)
    """
    return 2 * cosine_distance(predictions, lax.stop_gradient(targets))


@public
def dino_loss(
    student_logits: Float[Array, "*batch classes"],
    teacher_logits: Float[Array, "*batch classes"],
    *,
    center: PerElement = 0.0,
    student_temperature: Positive = 0.1,
    teacher_temperature: Positive = 0.04,
    where: Bool[Array, "*batch classes"] | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of the student's classes relative to the teacher's.

        loss = -Σⱼ pⱼ log qⱼ    with p = softmax((t - c)/τₜ), q = softmax(s/τₛ)

    The center c keeps one class from dominating, the low temperature τₜ keeps p from
    becoming uniform.

    Args:
        student_logits: s, of one view.
        teacher_logits: t, of another view. They carry no gradient.
        center: c, the moving average of the teacher's logits: one number per class.
        student_temperature: τₛ > 0.
        teacher_temperature: τₜ > 0.
        where: The classes that exist.

    Reference:
        Caron et al., Emerging properties in self-supervised vision transformers, ICCV
        2021, https://arxiv.org/abs/2104.14294

    Example:
        >>> dino_loss(jnp.zeros((1, 4)), jnp.array([[1.0, 0.0, 0.0, 0.0]]))
        Array([1.3862944], dtype=float32)
    """
    teacher_logits = lax.stop_gradient(teacher_logits)
    centered = teacher_logits - broadcast("center", center, teacher_logits)
    z = apply_mask(centered, where) / teacher_temperature
    p = jnp.exp(log_softmax(z, mask=where))
    student_logits = apply_mask(student_logits, where)
    return soft_cross_entropy(student_logits / student_temperature, p, where=where)
