"""Matrix products, and distances of all pairs of rows: their precision and dtypes.

float32 factors keep all their digits. By default a GPU would round them to 10 bits
(TensorFloat-32) and a TPU to 8, which similarities that are divided by a small
temperature cannot afford. 16-bit factors are multiplied as they are, at the full speed
of the device, and accumulated in float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxml._core.masking import apply_mask
from jaxml._core.safe import safe_divide, safe_sqrt
from jaxml._core.softmax import exp_terms, logsumexp
from jaxml._core.types import compute_dtype

CPU_FEATURES, TPU_FEATURES = 2, 16
"""The features per step of a scan. They share one pass over its [n m] accumulator."""


def factor_dtype(*dtypes: Any) -> Any:
    """The dtype of the factors of a product: the 16-bit one, if there is one."""
    narrow = {jnp.dtype(d) for d in dtypes if jnp.dtype(d).itemsize == 2}
    return narrow.pop() if len(narrow) == 1 else compute_dtype(*dtypes)


def cotangent_dtype(dtype: Any) -> Any:
    """The dtype of cotangents in a product: of 16-bit ones bfloat16, for its range."""
    return jnp.dtype(jnp.bfloat16 if jnp.dtype(dtype).itemsize == 2 else dtype)


def matmul(x: Array, y: Array) -> Array:
    """x y, accumulated in float32 or wider. Its derivatives inherit the precision.

    If one factor has 16 bits, the other one is rounded to them, and so is the cotangent
    in the backward pass.
    """
    dtype = factor_dtype(x.dtype, y.dtype)
    x, y = x.astype(dtype), y.astype(dtype)
    return _matmul_16_bit(x, y) if dtype.itemsize == 2 else _matmul_full(x, y)


def tangent_matmul(x: Array, y: Array) -> Array:
    """`matmul`, where one factor is a tangent.

    Products of 16-bit factors have a 16-bit result here, before it is widened, so that
    their transposes multiply 16-bit factors, the rounded cotangent among them.
    """
    dtype = cotangent_dtype(factor_dtype(x.dtype, y.dtype))
    x, y = x.astype(dtype), y.astype(dtype)
    return (x @ y).astype(jnp.float32) if dtype.itemsize == 2 else _matmul_full(x, y)


@jax.custom_jvp
def _matmul_16_bit(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)


@_matmul_16_bit.defjvp
def _matmul_16_bit_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x, y), (x_dot, y_dot) = primals, tangents
    return _matmul_16_bit(x, y), tangent_matmul(x_dot, y) + tangent_matmul(x, y_dot)


def _matmul_full(x: Array, y: Array) -> Array:
    """x y in full precision, unless the user has set `jax_default_matmul_precision`."""
    if getattr(jax.config, "jax_default_matmul_precision", None) is not None:
        return x @ y
    highest = functools.partial(jnp.matmul, precision="highest")
    if x.dtype != jnp.float32 or not _has_bfloat16_units():
        return highest(x, y)
    # three bfloat16 hold a float32; "highest" would not use the matrix units of a GPU
    six_passes = functools.partial(
        jnp.matmul, precision=lax.DotAlgorithmPreset.BF16_BF16_F32_X6
    )
    return lax.platform_dependent(x, y, cuda=six_passes, default=highest)


@functools.cache
def _has_bfloat16_units() -> bool:
    """Whether no local GPU is older than NVIDIA's Ampere."""
    gpus = [d for d in jax.local_devices() if "NVIDIA" in d.device_kind]
    return all(float(gpu.compute_capability) >= 8 for gpu in gpus)


def materialized_transpose(x: Array) -> Array:
    """xᵀ, computed before the product that uses it.

    XLA:CPU would otherwise fuse the transpose into the product, and the derivative
    would read its tile in the wrong order, at half the speed.
    """
    return lax.optimization_barrier(x.T)


@jax.custom_jvp
def logsumexp_matmul(rows: Array, columns: Array, mask: Array, scale: Array) -> Array:
    """log Σⱼ e^(scale · rowᵢ · columnⱼ) of each row i, over the unmasked pairs.

    Its derivative multiplies with the unnormalized exponentials, so that the tile is
    read once and never scaled.
    """
    return logsumexp(scale * matmul(rows, columns), 1, mask)


@logsumexp_matmul.defjvp
def logsumexp_matmul_jvp(primals: tuple, tangents: tuple) -> tuple:
    """Σⱼ e^sᵢⱼ ṡᵢⱼ / Σⱼ e^sᵢⱼ, where the products for ṡ take the sum over j."""
    (rows, columns, mask, scale), (rows_dot, columns_dot, _, scale_dot) = (
        primals,
        tangents,
    )
    s = apply_mask(scale * matmul(rows, columns), mask, -jnp.inf)
    lse, exps = exp_terms(s, 1)
    exps = exps.astype(factor_dtype(rows.dtype, columns.dtype))
    rows, rows_dot = rows.astype(s.dtype), rows_dot.astype(s.dtype)
    scaled_rows_dot = scale * rows_dot + scale_dot * rows
    from_rows = jnp.sum(scaled_rows_dot * matmul(exps, columns.T), 1)
    products_dot = tangent_matmul(columns_dot, exps.T)
    from_columns = jnp.sum(materialized_transpose(scale * rows) * products_dot, 0)
    lse_dot = safe_divide(from_rows + from_columns, jnp.squeeze(lse.sum, 1))
    return jnp.squeeze(lse.log(), 1), lse_dot


def reduce_features(
    combine: Any, term: Callable[[Array], Array], x: Array, y: Array
) -> Array:
    """Folds term(xᵢₖ - yⱼₖ) over the features k, from 0: [n m].

    A GPU computes it as one fused reduction, whose derivative would hold all terms;
    `scan_features` is for what is differentiated.

    Args:
        combine: `jnp.add` or `jnp.maximum`.
        term: A function of a difference.
        x: [n d].
        y: [m d].
    """

    def fused(x: Array, y: Array) -> Array:
        return combine.reduce(term(x[:, None] - y[None]), -1, initial=0.0)

    scan = functools.partial(scan_features, combine, term)
    return lax.platform_dependent(
        x,
        y,
        cpu=scan,
        tpu=functools.partial(scan, per_step=TPU_FEATURES),
        default=fused,
    )


def scan_features(
    combine: Any,
    term: Callable[[Array], Array],
    x: Array,
    y: Array,
    per_step: int = CPU_FEATURES,
) -> Array:
    """`reduce_features`, a few features at a time in its derivatives too.

    The features are padded to a multiple of `per_step`; padded ones have difference 0.
    """

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def feature_term(x_k: Array, y_k: Array) -> Array:
        return term(x_k[:, None] - y_k[None])

    def add_features(total: Array, features: tuple) -> tuple[Array, None]:
        for x_k, y_k in zip(*features):
            total = combine(total, feature_term(x_k, y_k))
        return total, None

    def by_step(rows: Array) -> Array | list[Array]:
        columns = jnp.pad(rows, ((0, 0), (0, -rows.shape[1] % per_step))).T
        if per_step == CPU_FEATURES:  # XLA:CPU reads separate arrays faster
            return [columns[k::per_step] for k in range(per_step)]
        # a TPU's compiler takes a minute for separate arrays
        return columns.reshape(len(columns) // per_step, per_step, len(rows))

    init = jnp.zeros_like(x, shape=(len(x), len(y)))
    if init.size == 0:  # JAX cannot transpose the loop
        return init
    return lax.scan(add_features, init, (by_step(x), by_step(y)))[0]


@jax.custom_jvp
def pairwise_squared_euclidean(x: Array, y: Array) -> Array:
    """‖xᵢ - yⱼ‖² of all pairs of rows, [n d], [m d] -> [n m].

    The sum of squared differences, because ‖x‖² + ‖y‖² - 2 x·y has no correct digit
    for rows whose distance is 1/1000 of their norm.
    """
    dtype = compute_dtype(x.dtype, y.dtype)
    return reduce_features(jnp.add, jnp.square, x.astype(dtype), y.astype(dtype))


@pairwise_squared_euclidean.defjvp
def pairwise_squared_euclidean_jvp(primals: tuple, tangents: tuple) -> tuple:
    """2 (x - y)·(ẋ - ẏ), as matrix products.

    They cancel for close rows: at 1/1000 of the norm, three digits of seven are lost.
    The factor -2 multiplies the rows, so that the derivative reads its tile in order.
    """
    (x, y), (x_dot, y_dot) = primals, tangents
    d_sq = pairwise_squared_euclidean(x, y)
    cross_terms = tangent_matmul(x_dot, -2 * y.T)
    cross_terms += tangent_matmul(-2 * x, materialized_transpose(y_dot))
    x, x_dot, y, y_dot = (a.astype(d_sq.dtype) for a in (x, x_dot, y, y_dot))
    square_terms = 2 * jnp.sum(x * x_dot, 1)[:, None] + 2 * jnp.sum(y * y_dot, 1)[None]
    return d_sq, square_terms + cross_terms


def pairwise_euclidean(x: Array, y: Array) -> Array:
    """‖xᵢ - yⱼ‖ of all pairs of rows, with derivative 0 at distance 0."""
    return safe_sqrt(pairwise_squared_euclidean(x, y))


@jax.custom_vjp
def matmul_columns(weights: Array, h: Array) -> Array:
    """W h for small matrices, where h holds one example per column.

    XLA:CPU runs a batch of small products at a fraction of its speed when it fuses the
    transpose of an operand into the product. This rule and `columns_to_rows` transpose
    only small arrays, behind a barrier that keeps the transpose apart.
    """
    return weights @ h


def matmul_columns_fwd(weights: Array, h: Array) -> tuple[Array, tuple[Array, Array]]:
    return weights @ h, (weights, h)


def matmul_columns_bwd(
    residuals: tuple[Array, Array], ct: Array
) -> tuple[Array, Array]:
    weights, h = residuals
    return ct @ h.T, materialized_transpose(weights) @ ct


matmul_columns.defvjp(matmul_columns_fwd, matmul_columns_bwd)


def columns_to_rows(columns: Array) -> Array:
    """Turns one example per column into one example per row."""
    return lax.optimization_barrier(columns).T
