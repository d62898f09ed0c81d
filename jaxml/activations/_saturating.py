"""Saturating activations: bounded, with a derivative that goes to 0 on both sides.

All are elementwise and keep the shape of x.
"""

from jax import Array
from jaxtyping import Float

from jaxml._core import numerics
from jaxml._core.compiled import elementwise


@elementwise(lambda x: numerics.sigmoid(x) * numerics.sigmoid(-x))
def sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A score as a probability: the logistic function.

        σ(x) = 1 / (1 + e⁻ˣ)        σ'(x) = σ(x) σ(-x)

    1 - σ(x) is σ(-x), which keeps its digits where σ(x) is near 1.

    Args:
        x: Scores, in units of log-odds.

    Returns:
        Probabilities in (0, 1), 0 and 1 at -∞ and ∞.

    Example:
        >>> sigmoid(jnp.array([-jnp.inf, 0.0, jnp.inf]))
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    return numerics.sigmoid(x)


@elementwise(lambda x: numerics.sech_squared(x))
def tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A number squeezed into (-1, 1), symmetric about the origin and near linear there.

        tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)        tanh'(x) = 1 / cosh²(x)

    Args:
        x: Any number.

    Returns:
        Numbers in (-1, 1), -1 and 1 at -∞ and ∞.

    Reference:
        LeCun et al., Efficient BackProp, 1998,
        http://yann.lecun.com/exdb/publis/pdf/lecun-98b.pdf

    Example:
        >>> tanh(jnp.array([-jnp.inf, 0.0, jnp.inf]))
        Array([-1.,  0.,  1.], dtype=float32)
    """
    return numerics.tanh(x)
