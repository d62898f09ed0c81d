"""Explicit pairs and triplets: rows that should be near each other, or far apart.

The event is the last axis, a row; d is the Euclidean distance, whose derivative at
equal rows is 0.
"""

import jax
from jax import Array
from jaxtyping import Float

from jaxml._core.compiled import compiled
from jaxml._core.numerics import norm
from jaxml._core.types import Scalar


@compiled()
def triplet_loss(
    anchors: Float[Array, "*batch d"],
    positives: Float[Array, "*batch d"],
    negatives: Float[Array, "*batch d"],
    *,
    margin: Scalar = 1.0,
) -> Float[Array, "*batch"]:
    """How far the negative is from being farther than the positive by the margin.

        loss = max(0, d(a, p) - d(a, n) + m)

    Its derivative at the kink is 0.

    Args:
        anchors: a.
        positives: p, rows of the anchor's class.
        negatives: n, rows of other classes.
        margin: m >= 0, in the units of d. Too large and training does not converge, too
            small and the classes do not separate.

    Reference:
        Weinberger and Saul, Distance metric learning for large margin nearest neighbor
        classification, JMLR 10, 2009, https://jmlr.org/papers/v10/weinberger09a.html

    Example:
        >>> triplet_loss(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.array([[0.3, 0.4]]))
        Array([0.5], dtype=float32)
    """
    return jax.nn.relu(norm(anchors - positives) - norm(anchors - negatives) + margin)
