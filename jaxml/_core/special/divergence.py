"""Terms of divergences of p and q, in which no digits cancel where p ≈ q.

The probabilities come with u = log(q/p), which is more precise than they are.
"""

import jax.numpy as jnp
from jax import Array

from jaxml._core.safe import multiply_no_nan
from jaxml._core.special.exp import expm1_minus_x_over_x2
from jaxml._core.special.log1p import wide_log1p


def bregman_term(p: Array, q: Array, u: Array) -> Array:
    """p log(p/q) - p + q >= 0, as p (eᵘ - 1 - u) if u is small."""
    is_small = jnp.abs(u) < 1
    small = jnp.where(is_small, u, 0.0)
    series = p * (small * small * expm1_minus_x_over_x2(small))
    # not q - p - p u: XLA:GPU would keep q - p, which the derivative needs too
    return jnp.where(is_small, series, q - multiply_no_nan(p, 1 + u))


def q_minus_p(p: Array, q: Array, u: Array) -> Array:
    """q - p, as p (eᵘ - 1) if u is small."""
    is_small = jnp.abs(u) < 1
    small = jnp.where(is_small, u, 0.0)
    series = small + small * small * expm1_minus_x_over_x2(small)
    return jnp.where(is_small, p * series, q - p)


def log_mixture_ratio(u: Array, beta: Array) -> Array:
    """log(m/p) with m = β p + (1 - β) q, as log1p((1 - β) (eᵘ - 1)) if u is small."""
    is_small = jnp.abs(u) < 1
    small = wide_log1p((1 - beta) * jnp.expm1(jnp.where(is_small, u, 0.0)))
    tiny = jnp.finfo(u.dtype).tiny  # log 0 would have no derivative
    log_beta, log_other = (jnp.log(jnp.maximum(b, tiny)) for b in (beta, 1 - beta))
    large = jnp.logaddexp(log_beta, log_other + jnp.where(is_small, 1.0, u))
    return jnp.where(is_small, small, large)
