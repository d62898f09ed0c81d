"""Regression: predicted numbers against true ones, one loss per element."""

from jax import Array
from jaxtyping import Float

from jaxml._core.compiled import elementwise


@elementwise(
    lambda predicted, true: 2 * (predicted - true),
    lambda predicted, true: 2 * (true - predicted),
)
def squared_error(
    predicted: Float[Array, "*shape"], true: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The square of the difference; what minimises its mean is the expectation.

        loss = (x - y)²

    Args:
        predicted: x.
        true: y, in the units of x.

    Returns:
        Non-negative numbers, in the square of these units.

    Reference:
        Hastie, Tibshirani and Friedman, The elements of statistical learning, section
        2.4, Springer 2009, https://hastie.su.domains/ElemStatLearn

    Example:
        >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
        Array([0., 4.], dtype=float32)
    """
    return (predicted - true) ** 2
