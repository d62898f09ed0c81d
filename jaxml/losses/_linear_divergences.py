"""Divergences of a student's head from a teacher's, without materializing the logits.

The event is the classes of one row. The student x, W and the teacher X, V may differ in
width, and their distributions are

    q = softmax(c tanh((x W + b) / c) / T),    p = softmax(c tanh((X V + B) / c) / T)

The logits are computed tile by tile, and again in the backward pass. The teacher has no
gradient.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from jaxml._core.linear.divergence import JS, KL, divergence
from jaxml._core.linear.tiles import Head, Transform
from jaxml._core.public import public
from jaxml._core.types import (
    AxisName,
    Count,
    Fraction,
    Positive,
    Scalar,
    compute_dtype,
)


@public(upcast=False, masked=True)
def linear_kl_divergence(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    teacher_x: Float[Array, "*batch teacher_d"],
    teacher_w: Float[Array, "teacher_d classes"],
    *,
    bias: Float[Array, "classes"] | None = None,
    teacher_bias: Float[Array, "classes"] | None = None,
    temperature: Positive = 1.0,
    softcap: Positive | None = None,
    block: Count | None = None,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The KL divergence of a student's head from its teacher's, over all classes.

        KL(p‖q) = Σⱼ pⱼ log(pⱼ/qⱼ) = Σⱼ [pⱼ log(pⱼ/qⱼ) - pⱼ + qⱼ]

    The second sum is the one computed: it is never negative and precise if p ≈ q. It
    has no factor T², by which distillation losses are often multiplied.

    Args:
        x: The inputs of the student's last layer.
        w: W, its weights.
        teacher_x: X, the inputs of the teacher's last layer.
        teacher_w: V, its weights.
        bias: b, the student's; none by default.
        teacher_bias: B, the teacher's; none by default.
        temperature: T > 0, which divides the logits of both.
        softcap: c > 0, a soft bound on the logits of both; none by default.
        block: The rows, and the classes, of a tile. By default the platform decides.
        where: The rows that count; the others have divergence 0.
        axis_name: The mesh axes over which both heads are sharded by class, in
            `jax.shard_map`.

    Reference:
        Hinton et al., Distilling the knowledge in a neural network, 2015,
        https://arxiv.org/abs/1503.02531

    Example:
        >>> x, w, bias = jnp.ones((1, 2)), jnp.zeros((2, 3)), jnp.array([0.0, 0.0, 1.0])
        >>> linear_kl_divergence(x, w, x, w, teacher_bias=bias)
        Array([0.12328446], dtype=float32)
    """
    student, teacher, transform = _heads(
        (x, w, bias), (teacher_x, teacher_w, teacher_bias), softcap, temperature
    )
    beta = jnp.ones((), student.dtype)
    values = divergence(KL, student, teacher, transform, beta, block, axis_name)
    return values.reshape(x.shape[:-1])


@public(upcast=False, masked=True)
def linear_js_divergence(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    teacher_x: Float[Array, "*batch teacher_d"],
    teacher_w: Float[Array, "teacher_d classes"],
    *,
    beta: Fraction = 0.5,
    bias: Float[Array, "classes"] | None = None,
    teacher_bias: Float[Array, "classes"] | None = None,
    temperature: Positive = 1.0,
    softcap: Positive | None = None,
    block: Count | None = None,
    where: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName | None = None,
) -> Float[Array, "*batch"]:
    """The Jensen-Shannon divergence of a student's head and its teacher's.

        JS = β KL(p‖m) + (1 - β) KL(q‖m)    with m = β p + (1 - β) q

    It tends to 0 for β -> 0 and β -> 1, where JS/β tends to KL(p‖q) and JS/(1 - β) to
    KL(q‖p). It is at most the entropy of β, and has no factor T².

    Args:
        x: The inputs of the student's last layer.
        w: W, its weights.
        teacher_x: X, the inputs of the teacher's last layer.
        teacher_w: V, its weights.
        beta: β in [0, 1], the weight of the teacher in m.
        bias: b, the student's; none by default.
        teacher_bias: B, the teacher's; none by default.
        temperature: T > 0, which divides the logits of both.
        softcap: c > 0, a soft bound on the logits of both; none by default.
        block: The rows, and the classes, of a tile. By default the platform decides.
        where: The rows that count; the others have divergence 0.
        axis_name: The mesh axes over which both heads are sharded by class.

    Reference:
        Agarwal et al., On-policy distillation of language models, ICLR 2024,
        https://arxiv.org/abs/2306.13649

    Example:
        >>> x, w, bias = jnp.ones((1, 2)), jnp.zeros((2, 2)), jnp.array([0.0, 100.0])
        >>> linear_js_divergence(x, w, x, w, bias=-bias, teacher_bias=bias)
        Array([0.6931472], dtype=float32)
    """
    student, teacher, transform = _heads(
        (x, w, bias), (teacher_x, teacher_w, teacher_bias), softcap, temperature
    )
    beta = jnp.asarray(beta, compute_dtype(student.dtype, teacher.dtype))
    values = divergence(JS, student, teacher, transform, beta, block, axis_name)
    return values.reshape(x.shape[:-1])


def _heads(
    student: tuple, teacher: tuple, softcap: Scalar | None, temperature: Scalar
) -> tuple[Head, Head, Transform]:
    dtypes = [array.dtype for array in (*student, *teacher) if array is not None]
    return (
        Head.of(*student, *dtypes),
        Head.of(*lax.stop_gradient(teacher), *dtypes),
        Transform.of(softcap, temperature, *dtypes),
    )
