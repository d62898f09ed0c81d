"""The last linear layer and its loss in one, without materializing the logits.

The logits are computed tile by tile, folded into three numbers per row, and computed
again in the backward pass. Only one tile of them exists at any time. Between the passes
only x, W and two numbers per row are saved.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Integer

from jaxml._core.blocks import tiles
from jaxml._core.matmul import matmul_precision
from jaxml._core.public import public
from jaxml._core.safe import multiply_no_nan
from jaxml._core.softmax import LogSumExp, softmax_nll
from jaxml._core.special.logistic import sech_squared, tanh
from jaxml._core.types import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    compute_dtype,
    result_dtype,
)
from jaxml.losses._labels import label_index, nan_if_invalid

TILE_SIZE = 512
"""Rows and classes of a tile: 1 MiB of float32."""


@public(upcast=False)
def linear_cross_entropy(
    x: Float[Array, "*batch d"],
    w: Float[Array, "d classes"],
    labels: Integer[Array, "*batch"],
    *,
    bias: Float[Array, "classes"] | None = None,
    label_smoothing: Fraction = 0.0,
    z_loss: NonNegative = 0.0,
    softcap: Positive | None = None,
    block: Count | None = None,
) -> Float[Array, "*batch"]:
    """The cross entropy of a linear layer's logits, which are never materialized.

        loss = (1 - ε) s[label] + ε/C Σⱼ sⱼ + ζ lse²    with s = lse - z
        z = c tanh((x W + b) / c),    lse = log Σⱼ exp zⱼ

    Tiles are computed in float32, or in float64 if x or W is float64.

    Args:
        x: The inputs of the last layer.
        w: W, its weights.
        labels: The true classes. An out-of-range label gives NaN for its example.
        bias: b; none by default.
        label_smoothing: ε in [0, 1], the part of the target spread over all classes.
        z_loss: ζ >= 0, the weight of the penalty on lse.
        softcap: c > 0, a soft bound on |z|; none by default.
        block: The rows, and the classes, of a tile; 512 by default.

    Reference:
        Wijmans et al., Cut your losses in large-vocabulary language models, ICLR 2025,
        https://arxiv.org/abs/2411.09009

    Example:
        >>> linear_cross_entropy(jnp.ones((2, 3)), jnp.zeros((3, 4)), jnp.array([1, 9]))
        Array([1.3862944,       nan], dtype=float32)
    """
    dtype = compute_dtype(x.dtype, w.dtype)
    index = label_index(labels.reshape(-1), w.shape[1])
    bias = jnp.zeros(w.shape[1], dtype) if bias is None else bias.astype(dtype)
    softcap = None if softcap is None else jnp.asarray(softcap, dtype)
    nll, lse, z_mean = _nll_lse_mean(
        block or TILE_SIZE, x.reshape(-1, x.shape[-1]), w, bias, index, softcap
    )
    epsilon, zeta = jnp.asarray(label_smoothing, dtype), jnp.asarray(z_loss, dtype)
    loss = multiply_no_nan(1 - epsilon, nll) + multiply_no_nan(epsilon, lse - z_mean)
    loss = nan_if_invalid(loss + multiply_no_nan(zeta, lse**2), index)
    return loss.reshape(labels.shape).astype(result_dtype(x.dtype, w.dtype))


class Logits(NamedTuple):
    """A tile of logits z with its derivatives."""

    z: Array
    dz_da: Array
    """For a = x W + b, before the cap."""
    dz_dcap: Array


def _logits(x: Array, w: Array, bias: Array, softcap: Array | None) -> Logits:
    dtype = result_dtype(x.dtype, w.dtype)
    a = bias[None] + jnp.matmul(
        x.astype(dtype),
        w.astype(dtype),
        precision=matmul_precision(dtype),
        preferred_element_type=bias.dtype,
    )
    if softcap is None:
        return Logits(a, jnp.ones_like(a), jnp.zeros_like(a))
    a_over_cap = a / softcap
    dz_da = sech_squared(a_over_cap)
    tanh_a = tanh(a_over_cap)
    return Logits(softcap * tanh_a, dz_da, tanh_a - a_over_cap * dz_da)


def _fold_logits(
    tile_size: int,
    x: Array,
    w: Array,
    bias: Array,
    index: Array,
    softcap: Array | None,
) -> tuple[Array, Array, Array]:
    """Per row: lse - z[label], lse, and the mean of z."""
    (num_rows, _), num_classes = x.shape, w.shape[1]
    num_row_tiles, row_tile = tiles(num_rows, tile_size)
    num_class_tiles, class_tile = tiles(num_classes, tile_size)

    def fold_rows(i: Array, result: Array) -> Array:
        rows = row_tile(i)
        x_tile, row_index = rows.slice(x), rows.slice(index)[:, None]

        def fold_classes(j: Array, carry: tuple) -> tuple:
            others, label_logit, z_sum = carry
            classes = class_tile(j)
            z = _logits(x_tile, classes.slice(w, 1), classes.slice(bias), softcap).z
            is_label = classes.index[None] == row_index
            is_new = classes.is_new[None]
            others = others.update(jnp.where(is_new & ~is_label, z, -jnp.inf), 1)
            label_logit += jnp.sum(jnp.where(is_new & is_label, z, 0.0), 1)
            return others, label_logit, z_sum + jnp.sum(jnp.where(is_new, z, 0.0), 1)

        zeros = jnp.zeros(len(x_tile), bias.dtype)
        init = LogSumExp.empty(zeros), zeros, zeros
        others, label_logit, z_sum = lax.fori_loop(
            0, num_class_tiles, fold_classes, init
        )
        other_lse = others.log()
        nll = softmax_nll(label_logit, other_lse)
        lse = jnp.logaddexp(other_lse, label_logit)
        return rows.update(result, jnp.stack([nll, lse, z_sum / num_classes]), 1)

    result = jnp.zeros((3, num_rows), bias.dtype)
    nll, lse, z_mean = lax.fori_loop(0, num_row_tiles, fold_rows, result)
    return nll, lse, z_mean


def _nll_lse_mean_fwd(tile_size: int, *args: Any) -> tuple:
    nll, lse, z_mean = _fold_logits(tile_size, *args)  # differentiable once more
    return (nll, lse, z_mean), (*args, nll, lse)


def _nll_lse_mean_bwd(tile_size: int, residuals: tuple, cts: tuple) -> tuple:
    """Computes the tiles again, for the gradients of x, w, bias and softcap."""
    x, w, bias, index, softcap, nll, lse = residuals
    nll_ct, lse_ct, mean_ct = cts
    (num_rows, _), num_classes = x.shape, w.shape[1]
    num_row_tiles, row_tile = tiles(num_rows, tile_size)
    num_class_tiles, class_tile = tiles(num_classes, tile_size)
    # at the label p - 1 comes from the loss, which is precise where p is near 1
    label_ct = nll_ct * jnp.expm1(-nll) + lse_ct * jnp.exp(-nll)
    row_scalars = jnp.stack([lse, nll_ct + lse_ct, label_ct, mean_ct / num_classes], 1)
    precision = matmul_precision(result_dtype(x.dtype, w.dtype))
    matmul = functools.partial(jnp.matmul, precision=precision)

    def fold_classes(j: Array, carry: tuple) -> tuple:
        dx, dw, dbias, dcap = carry
        classes = class_tile(j)
        w_tile, bias_tile = classes.slice(w, 1), classes.slice(bias)

        def fold_rows(i: Array, carry: tuple) -> tuple:
            dx, dw_tile, dbias_tile, dcap = carry
            rows = row_tile(i)
            x_tile = rows.slice(x)
            is_label = rows.slice(index)[:, None] == classes.index[None]
            lse, p_ct, label_ct, mean_ct = jnp.split(rows.slice(row_scalars), 4, 1)
            logits = _logits(x_tile, w_tile, bias_tile, softcap)
            dz = jnp.where(is_label, label_ct, p_ct * jnp.exp(logits.z - lse)) + mean_ct
            dz = jnp.where(rows.is_new[:, None] & classes.is_new[None], dz, 0.0)
            da = dz * logits.dz_da
            dx_tile = rows.slice(dx) + matmul(da, w_tile.T.astype(da.dtype))
            return (
                rows.update(dx, dx_tile),
                dw_tile + matmul(x_tile.T.astype(da.dtype), da),
                dbias_tile + jnp.sum(da, 0),
                dcap + jnp.sum(dz * logits.dz_dcap),
            )

        zeros = jnp.zeros(w_tile.shape, bias.dtype), jnp.zeros_like(bias_tile)
        dx, dw_tile, dbias_tile, dcap = lax.fori_loop(
            0, num_row_tiles, fold_rows, (dx, *zeros, dcap)
        )
        dw_tile = classes.slice(dw, 1) + dw_tile.astype(dw.dtype)
        dbias_tile = classes.slice(dbias) + dbias_tile
        return (
            dx,
            classes.update(dw, dw_tile, 1),
            classes.update(dbias, dbias_tile),
            dcap,
        )

    init = (
        jnp.zeros(x.shape, bias.dtype),
        jnp.zeros_like(w),
        jnp.zeros_like(bias),
        jnp.zeros((), bias.dtype),
    )
    dx, dw, dbias, dcap = lax.fori_loop(0, num_class_tiles, fold_classes, init)
    return dx.astype(x.dtype), dw, dbias, None, None if softcap is None else dcap


_nll_lse_mean = jax.custom_vjp(_fold_logits, nondiff_argnums=(0,))
_nll_lse_mean.defvjp(_nll_lse_mean_fwd, _nll_lse_mean_bwd)
