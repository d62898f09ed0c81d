"""Least squares: the curvature of ½ Σ rᵢ² from the first derivatives of r alone.

J is the Jacobian of the residuals r, and g = Jᵀr the gradient of ½ Σ rᵢ². Where J is
small, JᵀJ is never formed: R of a QR decomposition of J stacked on √λ I keeps the
digits of J. Where it is large, J is not formed either: conjugate gradients take
products with it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from jaxml._core import trees
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import factory
from jaxml._core.types import NonNegative, Positive, PyTree, Scalar
from jaxml.optimizers._newton import (
    NewtonState,
    newton_state,
    rows_of,
    searched_along,
    shifted,
)
from jaxml.optimizers._objective import Functions, Model, second_order
from jaxml.optimizers._per_leaf import (
    Transformation,
    increment,
)
from jaxml.optimizers._trust_region import steihaug

SMALL = 2**20  # numbers in the stacked matrix: 8 MiB in float64
RESIDUAL = 1e-4  # where conjugate gradients stop, in units of ‖g‖


class LevenbergMarquardtState(NamedTuple):
    count: Array
    value: Array  # ½ Σ rᵢ² before the step, as is the norm
    gradient_norm: Array
    damping: Array  # of the next step
    growth: Array  # of the damping, should the next step be rejected
    iterations: Array  # 1 for a factor, or the conjugate gradients
    gain_ratio: Array  # the fall of the objective by that of its model
    products: Array  # with J or Jᵀ, in all steps together


class Linear(NamedTuple):
    """The residuals near x, and how their equations are solved."""

    model: Model
    forward: Callable[[Array], Array]  # v -> Jv
    scale: Array  # the largest diagonal element of JᵀJ, or JᵀJ along g
    solve: Callable[[Array], "Solution"]  # λ -> p = -(JᵀJ + λI)⁻¹ g


class Solution(NamedTuple):
    p: Array
    good: Array  # whether JᵀJ + λI has full rank
    iterations: Array  # 1 for a factor, or the conjugate gradients
    products: Array  # with J or Jᵀ


@factory
def gauss_newton(
    *, damping: NonNegative = 0.0, max_iterations: Positive = 500
) -> Transformation:
    """Gauss and Newton's method: a step to the least squares of what r is nearly.

        u = -t (JᵀJ + λI + τI)⁻¹ g        J the Jacobian of `residual_fn`

    On linear residuals one step is all. τ is 0, or if J is singular so little that u is
    nearly the shortest step; t is 1, or halved until ½ Σ rᵢ² falls. Where J is almost
    singular u may turn across the slope, until no t is left and it stays 0; there
    `levenberg_marquardt` goes on. `update(grads, state, params, residual_fn=r, **data)`
    takes the gradient of ½ Σ rᵢ²; r may return any tree.

    Args:
        damping: λ >= 0, in the units of JᵀJ.
        max_iterations: The most conjugate gradients, where J is large.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters and `residual_fn`.

    Reference:
        Nocedal and Wright, Numerical optimization, 2006, section 10.3,
        https://doi.org/10.1007/978-0-387-40065-5

    Example:
        >>> r = lambda x: jnp.array([x[0] - 1, 10 * x[1] + 20])
        >>> g = lambda x: jax.grad(lambda x: jnp.sum(r(x) ** 2) / 2)(x)
        >>> optimizer, x = gauss_newton(), jnp.zeros(2)
        >>> optimizer.update(g(x), optimizer.init(x), x, residual_fn=r)[0]
        Array([ 1., -2.], dtype=float32)
    """

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: NewtonState
    ) -> tuple[PyTree, NewtonState]:
        point, unravel = ravel_pytree(x)
        slope, _ = ravel_pytree(g)
        linear = linearized(
            "gauss_newton", functions, point, slope, unravel, max_iterations
        )
        added = jnp.asarray(damping, slope.dtype)

        def solved(shift: Array) -> tuple[Solution, Array]:
            solution = linear.solve(added + shift)
            return solution, solution.good

        least = jnp.sqrt(jnp.finfo(slope.dtype).eps) * linear.scale
        (p, _, iterations, products), shift, tries = shifted(solved, least)
        curvature = jnp.sum(jnp.square(linear.forward(p)))
        one = jnp.ones_like(added)
        s, searched = searched_along(linear.model, point, slope, p, curvature, one)
        return unravel(s), NewtonState(
            increment(state.count),
            damping=added + shift,
            iterations=tries * iterations,
            products=state.products + products + 1,
            **searched,
        )

    return second_order("gauss_newton", (("residual_fn",),), newton_state, step)


@factory
def levenberg_marquardt(
    *, damping: Positive = 1e-3, max_iterations: Positive = 500
) -> Transformation:
    """Gauss and Newton's step, shortened towards the gradient as far as it deceives.

        u = -(JᵀJ + μI)⁻¹ g        J the Jacobian of `residual_fn`
        μ ← μ max(⅓, 1 - (2ρ - 1)³), ν ← 2  where ρ > 0,  else  u = 0, μ ← νμ, ν ← 2ν

    ρ is the fall of ½ Σ rᵢ² by the fall that the linear model foretold; ½, so that μ
    stays, where both are lost in rounding. `update(grads, state, params, residual_fn=r,
    **data)` takes the gradient of ½ Σ rᵢ²; r may return any tree.

    Args:
        damping: The first μ > 0, in units of the largest diagonal element of JᵀJ, or of
            JᵀJ along g where J is large.
        max_iterations: The most conjugate gradients, where J is large.

    Raises:
        ValueError: If a number is out of its range.
        TypeError: If `update` is not given the parameters and `residual_fn`.

    Reference:
        Moré, The Levenberg-Marquardt algorithm, 1978,
        https://doi.org/10.1007/BFb0067700; μ as in Madsen, Nielsen and Tingleff,
        Methods for non-linear least squares problems, 2004, algorithm 3.16

    Example:
        >>> r = lambda x: x - jnp.array([1.0, -2.0])
        >>> optimizer, x = levenberg_marquardt(damping=3.0), jnp.zeros(2)
        >>> optimizer.update(r(x), optimizer.init(x), x, residual_fn=r)[0].round(2)
        Array([ 0.25, -0.5 ], dtype=float32)
    """
    name = "levenberg_marquardt"

    def start(real: Any) -> LevenbergMarquardtState:
        zero, none = jnp.zeros((), real), jnp.zeros((), jnp.int32)
        return LevenbergMarquardtState(
            none, zero, zero, zero, zero + 2, none, zero, none
        )

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: LevenbergMarquardtState
    ) -> tuple[PyTree, LevenbergMarquardtState]:
        point, unravel = ravel_pytree(x)
        slope, _ = ravel_pytree(g)
        linear = linearized(name, functions, point, slope, unravel, max_iterations)
        scale = jnp.where(jnp.isfinite(linear.scale), linear.scale, 1)
        first = jnp.asarray(damping, slope.dtype) * scale
        mu = jnp.where(state.count == 0, first, state.damping)
        s, _, iterations, products = linear.solve(mu)
        fall = jnp.sum(s * (mu * s - slope)) / 2  # as JᵀJ s = -g - μs
        ratio = linear.model.gain_ratio(linear.model.reached(point, s), fall)
        good = ratio > 1e-4
        factor = jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
        following = mu * jnp.where(good, factor, state.growth)
        least = jnp.sqrt(jnp.finfo(mu.dtype).tiny)  # so that μ and ν come back
        return unravel(jnp.where(good, s, 0)), LevenbergMarquardtState(
            increment(state.count),
            linear.model.value,
            trees.norm(slope),
            jnp.clip(following, least, 1 / least),
            jnp.where(good, 2, jnp.minimum(2 * state.growth, 1 / least)),
            iterations,
            ratio,
            state.products + products + 1,
        )

    return second_order(name, (("residual_fn",),), start, step)


def linearized(
    name: str,
    functions: Functions,
    x: Array,
    g: Array,
    unravel: Callable[[Array], PyTree],
    max_iterations: Scalar,
) -> Linear:
    """The residuals as a function of one vector, linear near x."""
    residuals = functions["residual_fn"]
    leaves = jax.tree.leaves(jax.eval_shape(residuals, unravel(x)))
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise_invalid(TypeError, "residual_fn", "return float arrays", leaf)
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)

    def flat(x: Array) -> Array:
        leaves = jax.tree.leaves(residuals(unravel(x)))
        return jnp.concatenate([jnp.ravel(leaf).astype(x.dtype) for leaf in leaves])

    def objective(x: Array) -> Array:
        return jnp.sum(jnp.square(flat(x))) / 2

    r, forward = jax.linearize(flat, x)
    transposed = jax.linear_transpose(forward, x)

    def backward(v: Array) -> Array:
        return transposed(v)[0]

    extra = g - backward(r)
    model = Model(jnp.sum(jnp.square(r)) / 2, extra, eps, objective)
    if (r.size + x.size) * x.size <= SMALL:
        return _dense(model, r, forward, backward, extra)
    return _matrix_free(model, g, forward, backward, max_iterations)


def _dense(
    model: Model, r: Array, forward: Callable, backward: Callable, extra: Array
) -> Linear:
    """By [J r; √λI 0] = Q [R c; 0 ρ]: the step is -R⁻¹ (c + R⁻ᵀ extra)."""
    n, m = extra.size, r.size
    identity = jnp.eye(n, dtype=r.dtype)
    if n <= m:
        columns = rows_of(forward, identity)
    else:
        columns = rows_of(backward, jnp.eye(m, dtype=r.dtype)).T
    squares = jnp.sum(jnp.square(columns), 1)
    eps = jnp.finfo(r.dtype).eps
    # Where g is the gradient of ½ Σ rᵢ², what is left of it is the noise of rounding.
    noise = 100 * model.eps * jnp.sqrt(2 * model.value * squares)
    extra = jnp.where(jnp.abs(extra) > noise, extra, 0)

    def solve(damping: Array) -> Solution:
        above = jnp.concatenate([columns.T, r[:, None]], 1)
        below = jnp.concatenate(
            [jnp.sqrt(damping) * identity, jnp.zeros((n, 1), r.dtype)], 1
        )
        factor = jnp.linalg.qr(jnp.concatenate([above, below]), mode="r")
        triangle, c = factor[:n, :n], factor[:n, n]
        c += jax.lax.cond(
            jnp.any(extra != 0),
            lambda: solve_triangular(triangle, extra, trans=1),
            lambda: jnp.zeros_like(c),
        )
        kept = jnp.abs(jnp.diagonal(triangle)) / jnp.sqrt(squares + damping)
        p = -solve_triangular(triangle, c)
        return Solution(p, jnp.all(kept > n * eps), jnp.int32(1), jnp.int32(n))

    def product(v: Array) -> Array:
        return matmul(v, columns)

    return Linear(model, product, jnp.max(squares), solve)


def _matrix_free(
    model: Model,
    g: Array,
    forward: Callable,
    backward: Callable,
    max_iterations: Scalar,
) -> Linear:
    length = trees.norm(g)
    along = jnp.sum(jnp.square(forward(g / jnp.where(length > 0, length, 1))))

    def solve(damping: Array) -> Solution:
        p, _, _, iterations = steihaug(
            lambda v: backward(forward(v)) + damping * v,
            g,
            jnp.full_like(damping, jnp.inf),
            jnp.full_like(damping, RESIDUAL),
            max_iterations,
        )
        return Solution(p, jnp.bool_(True), iterations, 2 * iterations)

    return Linear(model, forward, along, solve)
