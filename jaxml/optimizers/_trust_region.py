"""Newton's method within a trust region, by products with the curvature alone.

The quadratic model of the objective is trusted within a radius. Conjugate gradients go
down its valley from 0, and stop at the edge, at a direction along which it falls
without end, or when they are near enough to its minimum. If the objective then falls
as the model foretold, the region grows; if not, it shrinks and the update is 0.
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
    Functions,
    Model,
    model_of,
    returning_a_float,
    second_order,
)
from jaxml.optimizers._per_leaf import (
    Transformation,
    increment,
)


class TrustRegionState(NamedTuple):
    count: Array
    value: Array  # before the step, as is the norm
    gradient_norm: Array
    radius: Array  # of the next step
    iterations: Array  # of conjugate gradients, in this step
    gain_ratio: Array  # the fall of the objective by that of its model
    products: Array  # of the curvature with a vector, in all steps together


@factory
def newton_cg(
    *,
    radius: Positive = 1.0,
    max_radius: Positive = 1e3,
    forcing: UnitInterval = 0.5,
    max_iterations: Positive = 500,
) -> Transformation:
    """Newton's method for any number of parameters: conjugate gradients, trust region.

        u ≈ argmin g·s + ½ s·Hs  where ‖s‖ <= Δ        H the Hessian of `value_fn`

    Holds a few copies of the parameters and no matrix. Δ follows the gain ratio ρ; a
    step is taken if ρ > 10⁻⁴, else u = 0. Given `predict_fn` and `loss_fn`, with f =
    loss_fn(predict_fn(params)), H is Gauss and Newton's: Jᵀ ∇²loss J, positive where
    the loss is convex, and cheaper. `update(grads, state, params, value_fn=f, **data)`.

    Args:
        radius: Δ > 0 of the first step, in the units of the parameters.
        max_radius: The largest Δ, > 0.
        forcing: η in [0, 1); inner iterations end at a residual of η ‖g‖, or of
            (‖g‖ / ‖g before‖)² ‖g‖ if that is less.
        max_iterations: The most products for one step.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters and the function.

    Reference:
        Steihaug, The conjugate gradient method and trust regions in large scale
        optimization, 1983, https://doi.org/10.1137/0720042

    Example:
        >>> f = lambda x: jnp.sum(x**2)
        >>> optimizer, x = newton_cg(radius=5.0), jnp.array([3.0, -1.0])
        >>> optimizer.update(jax.grad(f)(x), optimizer.init(x), x, value_fn=f)[0]
        Array([-3.,  1.], dtype=float32)
    """

    def start(real: Any) -> TrustRegionState:
        none, zero = jnp.zeros((), jnp.int32), jnp.zeros((), real)
        return TrustRegionState(
            none, zero, zero, jnp.asarray(radius, real), none, zero, none
        )

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: TrustRegionState
    ) -> tuple[PyTree, TrustRegionState]:
        if "predict_fn" in functions:
            model, product = gauss_newton_model(functions, x, g)
        else:
            model, product = model_of("newton_cg", functions["value_fn"], x, g)
        length, before = trees.norm(g), state.gradient_norm
        progress = jnp.where(before > 0, jnp.square(length / before), 1)
        residual = jnp.minimum(jnp.asarray(forcing, length.dtype), progress)
        s, fall, at_edge, iterations = steihaug(
            product, g, state.radius, residual, max_iterations
        )
        ratio = model.gain_ratio(model.reached(x, s), fall)
        shrunk = jnp.fmin(trees.norm(s), state.radius) / 4  # s may be NaN
        grown = jnp.minimum(2 * state.radius, jnp.asarray(max_radius, length.dtype))
        kept = jnp.where(at_edge & (ratio > 0.75), grown, state.radius)
        least = jnp.sqrt(jnp.finfo(length.dtype).tiny)  # whose square is not 0
        taken = trees.where(ratio > 1e-4, s, trees.zeros_like(s))
        return taken, TrustRegionState(
            increment(state.count),
            model.value,
            length,
            jnp.maximum(jnp.where(ratio < 0.25, shrunk, kept), least),
            iterations,
            ratio,
            state.products + iterations,
        )

    roles = ("predict_fn", "loss_fn"), ("value_fn",)
    return second_order("newton_cg", roles, start, step)


def gauss_newton_model(
    functions: Functions, x: PyTree, g: PyTree
) -> tuple[Model, Callable[[PyTree], PyTree]]:
    """The model of loss(predict(x)), and the product with Jᵀ ∇²loss J."""
    loss_fn = returning_a_float("newton_cg", "loss_fn", functions["loss_fn"])

    def gradient(predicted: PyTree) -> tuple[PyTree, Array]:
        value, slope = jax.value_and_grad(loss_fn)(predicted)
        return slope, value

    predicted, forward = jax.linearize(functions["predict_fn"], x)
    backward = jax.linear_transpose(forward, x)
    slope, curvature, value = jax.linearize(gradient, predicted, has_aux=True)
    (own,) = backward(slope)
    model = Model.at(
        value, trees.subtract(g, own), lambda x: loss_fn(functions["predict_fn"](x))
    )
    return model, lambda v: backward(curvature(forward(v)))[0]


def steihaug(
    product: Callable[[PyTree], PyTree],
    g: PyTree,
    radius: Array,
    residual: Array,
    max_iterations: Scalar,
) -> tuple[PyTree, Array, Array, Array]:
    """The s with ‖s‖ <= Δ where conjugate gradients on g·s + ½ s·Hs stop.

    Returns s, how far the model falls, whether s is at the edge, and the products
    taken. They stop at ‖g + Hs‖ <= residual · ‖g‖ too. With Δ = ∞ there is no edge, and
    they stop before a direction of no curvature.
    """
    length = trees.norm(g)
    unit = jnp.where(length > 0, length, 1)  # g and H are divided by it
    residual = jnp.maximum(residual, jnp.finfo(length.dtype).eps)

    def unfinished(carry: tuple) -> Array:
        *_, done, _, iterations = carry
        return ~done & (iterations < max_iterations)

    def descended(carry: tuple) -> tuple:
        s, r, d, rr, _, _, iterations = carry
        hd = trees.scale(1 / unit, product(d))
        curvature = trees.dot(d, hd)
        alpha = rr / curvature
        within = trees.norm(trees.add_scaled(s, alpha, d)) < radius
        at_edge = ~((curvature > 0) & within)
        alpha = jnp.where(at_edge, _to_edge(s, d, radius), alpha)
        s, r = trees.add_scaled(s, alpha, d), trees.add_scaled(r, alpha, hd)
        next_rr = trees.dot(r, r)
        d = trees.add_scaled(trees.scale(-jnp.ones_like(rr), r), next_rr / rr, d)
        done = at_edge | (jnp.sqrt(next_rr) <= residual)
        return s, r, d, next_rr, done, at_edge, iterations + 1

    r = start = trees.scale(1 / unit, g)
    s, d = trees.zeros_like(r), trees.scale(-jnp.ones_like(unit), r)
    rr = trees.dot(r, r)
    state = s, r, d, rr, jnp.sqrt(rr) <= residual, rr < 0, jnp.int32(0)
    s, r, _, _, _, at_edge, iterations = jax.lax.while_loop(
        unfinished, descended, state
    )
    # As Hs = r - g, the model g·s + ½ s·Hs is ½ s·(g + r).
    fall = -unit * trees.dot(s, jax.tree.map(jnp.add, start, r)) / 2
    return s, fall, at_edge, iterations


def _to_edge(s: PyTree, d: PyTree, radius: Array) -> Array:
    """The τ >= 0 with ‖s + τd‖ = Δ, where s·d >= 0; 0 if Δ = ∞."""
    along, square = trees.dot(s, d), trees.dot(d, d)
    left = jnp.maximum(jnp.square(radius) - trees.dot(s, s), 0)
    tau = left / (along + jnp.sqrt(jnp.square(along) + square * left))
    return jnp.where(jnp.isfinite(tau), tau, 0)
