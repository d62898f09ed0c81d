"""Least squares: Gauss-Newton and Levenberg-Marquardt.

J is the Jacobian of the residuals r, and g = Jᵀr is the gradient of ½ Σ rᵢ². JᵀJ
approximates the Hessian and needs first derivatives only. A small J is materialized
and stacked on √λ I for a QR decomposition, which keeps the precision that forming JᵀJ
would lose. For a large J, conjugate gradients use products with J and Jᵀ. If residuals
are sharded, each device factorizes its rows of J, and then all of them the factors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from jaxml._core import trees
from jaxml._core.collectives import (
    check_bound,
    num_shards,
    sum_shards,
    vary,
    vary_together,
)
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import factory
from jaxml._core.types import AxisName, NonNegative, Positive, PyTree, Scalar
from jaxml.optimizers._line_search import backtracking_line_search
from jaxml.optimizers._newton import (
    NewtonState,
    find_positive_definite_shift,
    init_newton_state,
    materialize,
)
from jaxml.optimizers._objective import (
    MIN_GAIN_RATIO,
    Functions,
    Objective,
    second_order,
)
from jaxml.optimizers._per_leaf import Transformation, increment
from jaxml.optimizers._trust_region import steihaug_cg

MAX_DENSE_JACOBIAN = 2**20  # elements of J stacked on √λ I: 8 MiB in float64
CG_RTOL = 1e-4  # residual at which CG stops, relative to ‖g‖


class LevenbergMarquardtState(NamedTuple):
    count: Array
    value: Array  # ½ Σ rᵢ² before the step
    gradient_norm: Array  # before the step
    damping: Array  # μ of the next step
    growth: Array  # ν, the factor of μ if the next step is rejected
    iterations: Array  # of CG in this step, or 1 for a factorization
    gain_ratio: Array  # actual / predicted reduction of the objective
    products: Array  # with J or Jᵀ in all steps


class LinearizedResiduals(NamedTuple):
    """r(x + v) ≈ r(x) + Jv, and how its damped least-squares problem is solved."""

    objective: Objective
    curvature: Callable[[Array], Array]  # v -> ‖Jv‖²
    scale: Array  # the largest diagonal element of JᵀJ, or JᵀJ along g
    solve: Callable[[Array], "Solution"]  # λ -> p = -(JᵀJ + λI)⁻¹ g


class Solution(NamedTuple):
    p: Array
    is_full_rank: Array  # JᵀJ + λI
    iterations: Array  # of CG, or 1 for a factorization
    products: Array  # with J or Jᵀ


@factory
def gauss_newton(
    *,
    damping: NonNegative = 0.0,
    max_iterations: Positive = 500,
    axis_name: AxisName | None = None,
) -> Transformation:
    """Gauss-Newton: solves the linearized least-squares problem.

        u = -t (JᵀJ + λI + τI)⁻¹ g        J the Jacobian of `residual_fn`

    Solves linear least squares in one step. τ is 0, or, if J is singular, so small that
    u is close to the minimum-norm step; t is 1, or halved until ½ Σ rᵢ² decreases. If J
    is nearly singular, u can become orthogonal to the gradient and the line search
    fails (u = 0); use `levenberg_marquardt`. Call `update(grads, state, params,
    residual_fn=r, **data)` with the gradient of ½ Σ rᵢ²; r may return any tree.

    Args:
        damping: λ >= 0, in units of JᵀJ.
        max_iterations: The maximum number of CG iterations, if J is large.
        axis_name: In `jax.shard_map`, the mesh axes over which residuals are sharded.

    Raises:
        TypeError: If `update` is called without the parameters or `residual_fn`.

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
        (x_flat, unravel), (g_flat, _) = trees.ravel(x), trees.ravel(g)
        linearized = linearize_residuals(
            functions["residual_fn"], x_flat, g_flat, unravel, max_iterations, axis_name
        )
        lam = jnp.asarray(damping, g_flat.dtype)

        def solve_shifted(tau: Array) -> tuple[Solution, Array]:
            solution = linearized.solve(lam + tau)
            return solution, solution.is_full_rank

        min_shift = jnp.sqrt(jnp.finfo(g_flat.dtype).eps) * linearized.scale
        solution, tau, num_shifts = find_positive_definite_shift(
            solve_shifted, min_shift
        )
        objective, p = linearized.objective, solution.p
        search = backtracking_line_search(
            objective,
            x_flat,
            g_flat,
            p,
            linearized.curvature(p),
            init_step_size=jnp.ones_like(lam),
        )
        return unravel(search.s), NewtonState(
            count=increment(state.count),
            value=objective.value,
            gradient_norm=trees.norm(g_flat),
            damping=lam + tau,
            step_size=search.step_size,
            iterations=num_shifts * solution.iterations,
            gain_ratio=search.gain_ratio,
            products=state.products + solution.products + 1,
        )

    return second_order((("residual_fn",),), init_newton_state, step)


@factory
def levenberg_marquardt(
    *,
    damping: Positive = 1e-3,
    max_iterations: Positive = 500,
    axis_name: AxisName | None = None,
) -> Transformation:
    """Damped Gauss-Newton; the damping grows if the model overpredicts the decrease.

        u = -(JᵀJ + μI)⁻¹ g        J the Jacobian of `residual_fn`
        μ ← μ max(⅓, 1 - (2ρ - 1)³), ν ← 2  if ρ > 10⁻⁴,  else  u = 0, μ ← νμ, ν ← 2ν

    ρ is the gain ratio, the actual divided by the predicted reduction of ½ Σ rᵢ². If
    both are rounding errors it is ½, which keeps μ. Call `update(grads, state, params,
    residual_fn=r, **data)` with the gradient of ½ Σ rᵢ²; r may return any tree.

    Args:
        damping: The first μ > 0, in units of the largest diagonal element of JᵀJ, or of
            JᵀJ along g if J is large.
        max_iterations: The maximum number of CG iterations, if J is large.
        axis_name: In `jax.shard_map`, the mesh axes over which residuals are sharded.

    Raises:
        TypeError: If `update` is called without the parameters or `residual_fn`.

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

    def init_state(dtype: Any) -> LevenbergMarquardtState:
        zero, zero_int = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
        return LevenbergMarquardtState(
            count=zero_int,
            value=zero,
            gradient_norm=zero,
            damping=zero,
            growth=zero + 2,
            iterations=zero_int,
            gain_ratio=zero,
            products=zero_int,
        )

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: LevenbergMarquardtState
    ) -> tuple[PyTree, LevenbergMarquardtState]:
        (x_flat, unravel), (g_flat, _) = trees.ravel(x), trees.ravel(g)
        linearized = linearize_residuals(
            functions["residual_fn"], x_flat, g_flat, unravel, max_iterations, axis_name
        )
        scale = jnp.where(jnp.isfinite(linearized.scale), linearized.scale, 1)
        init_damping = jnp.asarray(damping, g_flat.dtype) * scale
        mu = jnp.where(state.count == 0, init_damping, state.damping)
        solution = linearized.solve(mu)

        objective, s = linearized.objective, solution.p
        predicted_reduction = jnp.sum(s * (mu * s - g_flat)) / 2  # JᵀJ s = -g - μs
        rho = objective.gain_ratio(
            objective.trial_value(x_flat, s), predicted_reduction
        )
        accepted = rho > MIN_GAIN_RATIO
        factor = jnp.maximum(1 / 3, 1 - (2 * rho - 1) ** 3)
        next_damping = mu * jnp.where(accepted, factor, state.growth)
        # Bounds from which μ and ν can return, unlike 0 and ∞.
        lower = jnp.sqrt(jnp.finfo(mu.dtype).tiny)
        upper = 1 / lower
        return unravel(jnp.where(accepted, s, 0)), LevenbergMarquardtState(
            count=increment(state.count),
            value=objective.value,
            gradient_norm=trees.norm(g_flat),
            damping=jnp.clip(next_damping, lower, upper),
            growth=jnp.where(accepted, 2, jnp.minimum(2 * state.growth, upper)),
            iterations=solution.iterations,
            gain_ratio=rho,
            products=state.products + solution.products + 1,
        )

    return second_order((("residual_fn",),), init_state, step)


def linearize_residuals(
    residual_fn: Callable[[PyTree], PyTree],
    x: Array,
    g: Array,
    unravel: Callable[[Array], PyTree],
    max_iterations: Scalar,
    axis_name: AxisName | None,
) -> LinearizedResiduals:
    """The residuals near x, as a vector that is a function of a vector."""
    check_bound(axis_name)
    leaves = jax.tree.leaves(jax.eval_shape(residual_fn, unravel(x)))
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise_invalid(TypeError, "residual_fn", "return float arrays", leaf)
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)

    def residuals(x: Array) -> Array:
        leaves = jax.tree.leaves(residual_fn(unravel(x)))
        rows = [jnp.ravel(trees.unshard(leaf)).astype(x.dtype) for leaf in leaves]
        return jnp.concatenate(rows)

    def half_sum_of_squares(x: Array) -> Array:
        return sum_shards(jnp.sum(jnp.square(residuals(x))), axis_name) / 2

    x = vary(x, axis_name)
    r, jvp = jax.linearize(residuals, x)
    transpose = jax.linear_transpose(jvp, x)

    def shard_jvp(v: Array) -> Array:
        return jvp(vary(v, axis_name))

    def shard_vjp(v: Array) -> Array:
        return transpose(vary(v, axis_name))[0]

    value = sum_shards(jnp.sum(jnp.square(r)), axis_name) / 2
    linear_term = g - sum_shards(shard_vjp(r), axis_name)
    objective = Objective(value, linear_term, eps, half_sum_of_squares)
    num_residuals = r.size * num_shards(axis_name)
    if (num_residuals + x.size) * x.size <= MAX_DENSE_JACOBIAN:
        return _dense(objective, r, shard_jvp, shard_vjp, axis_name)
    return _matrix_free(objective, g, shard_jvp, shard_vjp, max_iterations, axis_name)


def _dense(
    objective: Objective,
    r: Array,
    jvp: Callable,
    vjp: Callable,
    axis_name: AxisName | None,
) -> LinearizedResiduals:
    """Solves by [J r; √λI 0] = Q [R c; 0 ·]: p = -R⁻¹ (c + R⁻ᵀ (g - Jᵀr))."""
    m, n = r.size, objective.linear_term.size
    identity, _ = vary_together((jnp.eye(n, dtype=r.dtype), objective.linear_term))
    eps = jnp.finfo(r.dtype).eps
    if n <= m:
        jacobian_t = materialize(jvp, identity)
    else:
        rows, _ = vary_together((jnp.eye(m, dtype=r.dtype), objective.linear_term))
        jacobian_t = materialize(vjp, rows).T
    j_and_r = jnp.concatenate([jacobian_t.T, r[:, None]], 1)
    if axis_name is not None:
        shard_triangle = jnp.linalg.qr(j_and_r, mode="r")
        j_and_r = lax.all_gather(shard_triangle, axis_name, tiled=True, to="invarying")
    diagonal = sum_shards(jnp.sum(jnp.square(jacobian_t), 1), axis_name)  # of JᵀJ
    # If g is the gradient of ½ Σ rᵢ², the linear term is a rounding error.
    rounding_error = 100 * objective.eps * jnp.sqrt(2 * objective.value * diagonal)
    linear_term = jnp.where(
        jnp.abs(objective.linear_term) > rounding_error, objective.linear_term, 0
    )

    def solve(damping: Array) -> Solution:
        damping_rows = jnp.concatenate(
            [jnp.sqrt(damping) * identity, jnp.zeros((n, 1), r.dtype)], 1
        )
        triangle = jnp.linalg.qr(jnp.concatenate([j_and_r, damping_rows]), mode="r")
        r_factor, c = triangle[:n, :n], triangle[:n, n]
        c += jax.lax.cond(
            jnp.any(linear_term != 0),
            lambda: solve_triangular(r_factor, linear_term, trans=1),
            lambda: jnp.zeros_like(c),
        )
        pivots = jnp.abs(jnp.diagonal(r_factor)) / jnp.sqrt(diagonal + damping)
        p = -solve_triangular(r_factor, c)
        return Solution(
            p=p,
            is_full_rank=jnp.all(pivots > n * eps),
            iterations=jnp.int32(1),
            products=jnp.int32(n),
        )

    def curvature(v: Array) -> Array:
        return sum_shards(jnp.sum(jnp.square(matmul(v, jacobian_t))), axis_name)

    return LinearizedResiduals(objective, curvature, jnp.max(diagonal), solve)


def _matrix_free(
    objective: Objective,
    g: Array,
    jvp: Callable,
    vjp: Callable,
    max_iterations: Scalar,
    axis_name: AxisName | None,
) -> LinearizedResiduals:
    """Solves by conjugate gradients."""
    g_norm = trees.norm(g)
    direction = g / jnp.where(g_norm > 0, g_norm, 1)

    def curvature(v: Array) -> Array:
        return sum_shards(jnp.sum(jnp.square(jvp(v))), axis_name)

    def solve(damping: Array) -> Solution:
        cg = steihaug_cg(
            lambda v: sum_shards(vjp(jvp(v)), axis_name) + damping * v,
            g,
            radius=jnp.full_like(damping, jnp.inf),
            rtol=jnp.full_like(damping, CG_RTOL),
            max_iterations=max_iterations,
        )
        return Solution(
            p=cg.s,
            is_full_rank=jnp.bool_(True),
            iterations=cg.iterations,
            products=2 * cg.iterations,
        )

    return LinearizedResiduals(objective, curvature, curvature(direction), solve)
