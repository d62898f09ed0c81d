"""Numbers m · 2ᵉ in two floats, for products of thousands of probabilities.

Such a product underflows, and its logarithm loses digits as it grows. Here m keeps the
relative precision of a float, and e has its range (Smith, Olver and Lozier,
Extended-range arithmetic and normalized Legendre polynomials, ACM TOMS 7(1), 1981,
https://doi.org/10.1145/355934.355940). Derivatives are those of m: e is constant.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask
from jaxml._core.special.exp import LOG2_HI, LOG2_LO, exponent, ldexp, power_of_two

ZERO = -1e38
"""The e of the number 0, which absorbs any other e that is added to it."""


class ExtendedRange(NamedTuple):
    """Numbers m · 2ᵉ >= 0 with m > 0, and e = `ZERO` for 0."""

    m: Array
    e: Array

    def to_float(self) -> Array:
        """The numbers, none of which is large."""
        return ldexp(self.m, jnp.clip(self.e, -2000, 0).astype(jnp.int32))

    def log(self) -> Array:
        """The logarithms, -∞ for 0."""
        log = jnp.log(self.m) + self.e * LOG2_LO + self.e * LOG2_HI
        return apply_mask(log, self.e != ZERO, -jnp.inf)

    def normalize(self) -> "ExtendedRange":
        """The same numbers, with m in [1, 2)."""
        k = exponent(self.m)
        e = jnp.maximum(self.e + k.astype(self.m.dtype), ZERO)
        return ExtendedRange(_scale_down(self.m, -k), e)


def exp(x: Array) -> ExtendedRange:
    """eˣ for x <= 0, with m in [0.7, 1.5)."""
    is_zero = x < ZERO / 2
    x = apply_mask(x, ~is_zero)
    e = lax.stop_gradient(jnp.round(x * (1 / math.log(2))))
    r = (x - e * LOG2_HI) - e * LOG2_LO
    rounding_error = lax.stop_gradient(r - jnp.clip(r, -0.5, 0.5))  # of a huge e
    return ExtendedRange(jnp.exp(r - rounding_error), apply_mask(e, ~is_zero, ZERO))


def multiply(x: ExtendedRange, y: ExtendedRange) -> ExtendedRange:
    """x y, without normalization: m may grow from product to product."""
    return ExtendedRange(x.m * y.m, jnp.maximum(x.e + y.e, ZERO))


def add(*terms: ExtendedRange) -> tuple[ExtendedRange, list[Array]]:
    """The sum, without normalization, and the fraction of each term in it."""
    e = functools.reduce(jnp.maximum, (term.e for term in terms))
    aligned = [_scale_down(term.m, term.e - e) for term in terms]
    m = functools.reduce(jnp.add, aligned)
    return ExtendedRange(m, e), [x / m for x in aligned]


def _scale_down(x: Array, k: Array) -> Array:
    """x · 2ᵏ for a whole number k that is at most small, and 0 far below."""
    min_exponent = -jnp.finfo(x.dtype).maxexp
    return x * power_of_two(jnp.maximum(k, min_exponent).astype(jnp.int32), x)
