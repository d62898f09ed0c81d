"""The orthogonal factor of a square matrix, by a form for each platform.

XLA:TPU unrolls `jnp.linalg.qr` over blocks of 128 columns, and takes a minute to
compile it for 1024 columns. The loop over panels here compiles in seconds for any size.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jaxml._core.matmul import matmul

PANEL = 128
"""Columns that are reflected at once."""


def q_factor(x: Array) -> Array:
    """Q of a square matrix x = Q R, orthogonal even where x is singular."""
    if x.size == 0:
        return x
    return lax.platform_dependent(
        x, tpu=_q_factor_by_panels, default=lambda x: jnp.linalg.qr(x)[0]
    )


def _q_factor_by_panels(x: Array) -> Array:
    """The product of Householder reflections, a panel of columns at a time.

    They turn [x I] into [R Qᴴ]. Those of a panel are I - V T Vᴴ, with
    T⁻¹ = striu(Vᴴ V) + diag(1/τ) (Joffrain et al., Accumulating Householder
    transformations, revisited, ACM Transactions on Mathematical Software 32(2), 2006).
    """
    n, size = len(x), min(PANEL, len(x))
    length = size * -(-n // size)
    added = jnp.arange(n, length)
    x = jnp.pad(x, (0, length - n)).at[added, added].set(1)
    identity = jnp.eye(length, dtype=x.dtype)
    rows = jnp.arange(length)[:, None]

    def reflect(i: Array, r_and_q: Array) -> Array:
        first = i * size
        panel = lax.dynamic_slice_in_dim(r_and_q, first, size, 1)
        panel = jnp.roll(panel, -first, 0)  # its pivots come first
        panel = jnp.where(rows < length - first, panel, 0)
        h, tau = jnp.linalg.qr(panel, mode="raw")
        v = jnp.tril(h.T, -1) + identity[:, :size]
        v = jnp.roll(jnp.where(tau == 0, 0, v), first, 0)
        v_adjoint = v.conj().T
        inverse_t = jnp.triu(matmul(v_adjoint, v), 1)
        inverse_t += jnp.diag(1 / jnp.where(tau == 0, 1, tau))
        t_v = solve_triangular(inverse_t, v_adjoint, trans="C")
        return r_and_q - matmul(v, matmul(t_v, r_and_q))

    start = jnp.concatenate([x, identity], 1)
    _, q_adjoint = jnp.split(lax.fori_loop(0, length // size, reflect, start), 2, 1)
    return q_adjoint.conj().T[:n, :n]
