"""Newton's method with conjugate gradients in a trust region.

The quadratic model of the objective is trusted within a radius. CG from 0 stops at the
trust-region boundary, at negative curvature, or at the residual tolerance. The radius
follows the gain ratio: it grows after an accurate prediction at the boundary, and
shrinks after an inaccurate one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core import trees
from jaxml._core.public import factory
from jaxml._core.types import Positive, PyTree, Scalar, UnitInterval
from jaxml.optimizers._objective import (
    MIN_GAIN_RATIO,
    Functions,
    Objective,
    check_scalar_output,
    grad_and_value,
    linearize_gradient,
    second_order,
)
from jaxml.optimizers._per_leaf import Transformation, increment


class TrustRegionState(NamedTuple):
    count: Array
    value: Array  # of the objective, before the step
    gradient_norm: Array  # before the step
    radius: Array  # of the next step
    iterations: Array  # of CG in this step
    gain_ratio: Array  # actual / predicted reduction of the objective
    products: Array  # curvature-vector products in all steps


@factory
def newton_cg(
    *,
    radius: Positive = 1.0,
    max_radius: Positive = 1e3,
    forcing: UnitInterval = 0.5,
    max_iterations: Positive = 500,
) -> Transformation:
    """Newton-CG: minimizes the quadratic model in a trust region, without a matrix.

        u ≈ argmin g·s + ½ s·Hs  where ‖s‖ <= Δ        H the Hessian of `value_fn`

    Needs the memory of a few copies of the parameters. Δ follows the gain ratio ρ, the
    actual divided by the predicted reduction; u = 0 unless ρ > 10⁻⁴. Call
    `update(grads, state, params, value_fn=f, **data)`. With `predict_fn` and `loss_fn`
    instead, f = loss_fn(predict_fn(params)) and H is the Gauss-Newton matrix
    Jᵀ ∇²loss J: cheaper, and positive semidefinite if the loss is convex.

    Args:
        radius: Δ > 0 of the first step, in units of the parameters.
        max_radius: The largest Δ, > 0.
        forcing: η in [0, 1); CG stops at a residual of η ‖g‖, or of
            (‖g‖ / previous ‖g‖)² ‖g‖ if that is smaller.
        max_iterations: The maximum number of CG iterations in one step.

    Raises:
        TypeError: If `update` is called without the parameters or the functions.

    Reference:
        Steihaug, The conjugate gradient method and trust regions in large scale
        optimization, 1983, https://doi.org/10.1137/0720042

    Example:
        >>> f = lambda x: jnp.sum(x**2)
        >>> optimizer, x = newton_cg(radius=5.0), jnp.array([3.0, -1.0])
        >>> optimizer.update(jax.grad(f)(x), optimizer.init(x), x, value_fn=f)[0]
        Array([-3.,  1.], dtype=float32)
    """

    def init_state(dtype: Any) -> TrustRegionState:
        zero, zero_int = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        return TrustRegionState(
            count=zero_int,
            value=zero,
            gradient_norm=zero,
            radius=jnp.asarray(radius, dtype),
            iterations=zero_int,
            gain_ratio=zero,
            products=zero_int,
        )

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: TrustRegionState
    ) -> tuple[PyTree, TrustRegionState]:
        if "predict_fn" in functions:
            objective, hvp = linearize_gauss_newton(functions, x, g)
        else:
            objective, hvp = linearize_gradient(functions["value_fn"], x, g)
        g_norm, previous_norm = trees.norm(g), state.gradient_norm
        decrease = jnp.where(previous_norm > 0, jnp.square(g_norm / previous_norm), 1)
        rtol = jnp.minimum(jnp.asarray(forcing, g_norm.dtype), decrease)
        cg = steihaug_cg(hvp, g, state.radius, rtol, max_iterations)

        trial_value = objective.trial_value(x, cg.s)
        rho = objective.gain_ratio(trial_value, cg.predicted_reduction)
        smaller = jnp.fmin(trees.norm(cg.s), state.radius) / 4  # cg.s may be NaN
        larger = jnp.minimum(2 * state.radius, jnp.asarray(max_radius, g_norm.dtype))
        grown = jnp.where(cg.hit_boundary & (rho > 0.75), larger, state.radius)
        min_radius = jnp.sqrt(jnp.finfo(g_norm.dtype).tiny)  # its square is not 0
        s = trees.where(rho > MIN_GAIN_RATIO, cg.s, trees.zeros_like(cg.s))
        return s, TrustRegionState(
            count=increment(state.count),
            value=objective.value,
            gradient_norm=g_norm,
            radius=jnp.maximum(jnp.where(rho < 0.25, smaller, grown), min_radius),
            iterations=cg.iterations,
            gain_ratio=rho,
            products=state.products + cg.iterations,
        )

    function_args = ("predict_fn", "loss_fn"), ("value_fn",)
    return second_order(function_args, init_state, step)


def linearize_gauss_newton(
    functions: Functions, x: PyTree, g: PyTree
) -> tuple[Objective, Callable[[PyTree], PyTree]]:
    """The objective loss(predict(x)), and the product v -> Jᵀ ∇²loss J v."""
    predict_fn = functions["predict_fn"]
    loss_fn = check_scalar_output("loss_fn", functions["loss_fn"])
    predicted, jvp = jax.linearize(predict_fn, x)
    vjp = jax.linear_transpose(jvp, x)
    loss_gradient, loss_hvp, value = jax.linearize(
        grad_and_value(loss_fn), predicted, has_aux=True
    )
    (gradient,) = vjp(loss_gradient)
    objective = Objective.from_value(
        value, trees.subtract(g, gradient), lambda x: loss_fn(predict_fn(x))
    )
    return objective, lambda v: vjp(loss_hvp(jvp(v)))[0]


class CGResult(NamedTuple):
    s: PyTree
    predicted_reduction: Array  # of the quadratic model, from 0 to s
    hit_boundary: Array
    iterations: Array  # products with H


class _CGState(NamedTuple):
    # The step, and the gradient of the model there
    s: PyTree
    r: PyTree
    r_sq: Array
    # The next direction
    d: PyTree
    # Termination
    done: Array
    hit_boundary: Array
    iterations: Array


def steihaug_cg(
    hvp: Callable[[PyTree], PyTree],
    g: PyTree,
    radius: Array,
    rtol: Array,
    max_iterations: Scalar,
) -> CGResult:
    """Conjugate gradients on g·s + ½ s·Hs where ‖s‖ <= Δ, from s = 0.

    Stops at ‖g + Hs‖ <= rtol ‖g‖, at the boundary ‖s‖ = Δ, and at non-positive
    curvature, where it follows the direction to the boundary. With Δ = ∞ it stops
    before that direction.
    """
    g_norm = trees.norm(g)
    scale = jnp.where(g_norm > 0, g_norm, 1)  # g and H are divided by it, so r·r is 1
    rtol = jnp.maximum(rtol, jnp.finfo(g_norm.dtype).eps)

    def cond_fun(cg: _CGState) -> Array:
        return ~cg.done & (cg.iterations < max_iterations)

    def body_fun(cg: _CGState) -> _CGState:
        hd = trees.scale(1 / scale, hvp(cg.d))
        curvature = trees.dot(cg.d, hd)
        alpha = cg.r_sq / curvature
        inside = trees.norm(trees.add_scaled(cg.s, alpha, cg.d)) < radius
        hit_boundary = ~((curvature > 0) & inside)
        alpha = jnp.where(hit_boundary, _to_boundary(cg.s, cg.d, radius), alpha)
        s = trees.add_scaled(cg.s, alpha, cg.d)
        r = trees.add_scaled(cg.r, alpha, hd)
        r_sq = trees.dot(r, r)
        beta = r_sq / cg.r_sq
        return _CGState(
            s=s,
            r=r,
            r_sq=r_sq,
            d=trees.add_scaled(_negative(r), beta, cg.d),
            done=hit_boundary | (jnp.sqrt(r_sq) <= rtol),
            hit_boundary=hit_boundary,
            iterations=cg.iterations + 1,
        )

    scaled_g = trees.scale(1 / scale, g)
    g_sq = trees.dot(scaled_g, scaled_g)
    init_state = _CGState(
        s=trees.zeros_like(scaled_g),
        r=scaled_g,
        r_sq=g_sq,
        d=_negative(scaled_g),
        done=jnp.sqrt(g_sq) <= rtol,
        hit_boundary=g_sq < 0,  # False, and sharded like g
        iterations=jnp.int32(0),
    )
    cg = jax.lax.while_loop(cond_fun, body_fun, init_state)
    # As Hs = r - g, the model g·s + ½ s·Hs is ½ s·(g + r).
    g_plus_r = jax.tree.map(jnp.add, scaled_g, cg.r)
    predicted_reduction = -scale * trees.dot(cg.s, g_plus_r) / 2
    return CGResult(cg.s, predicted_reduction, cg.hit_boundary, cg.iterations)


def _to_boundary(s: PyTree, d: PyTree, radius: Array) -> Array:
    """The τ >= 0 with ‖s + τd‖ = Δ, for s·d >= 0; 0 if Δ = ∞."""
    s_dot_d, d_sq = trees.dot(s, d), trees.dot(d, d)
    gap = jnp.maximum(jnp.square(radius) - trees.dot(s, s), 0)  # Δ² - ‖s‖²
    tau = gap / (s_dot_d + jnp.sqrt(jnp.square(s_dot_d) + d_sq * gap))
    return jnp.where(jnp.isfinite(tau), tau, 0)


def _negative(x: PyTree) -> PyTree:
    return jax.tree.map(jnp.negative, x)
