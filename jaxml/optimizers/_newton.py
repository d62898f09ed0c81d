"""Newton's method with a dense Hessian and a line search.

The direction comes from a Cholesky factorization. A Hessian that is not positive
definite, as at a saddle point, is shifted by τI until it is, so every direction is a
descent direction. The update is 0 if no step decreases the objective, for example where
it is NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_solve

from jaxml._core import trees
from jaxml._core.collectives import vary_together
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import factory
from jaxml._core.types import NonNegative, PyTree, Rate
from jaxml.optimizers._line_search import backtracking_line_search
from jaxml.optimizers._objective import Functions, linearize_gradient, second_order
from jaxml.optimizers._per_leaf import Transformation, increment, learning_rate_at

MAX_DENSE_PARAMS = 4096  # a Hessian of 64 MiB in float32
MATERIALIZE_BATCH = 256  # rows at a time; each needs the memory of one product
MAX_SHIFTS = 20


class NewtonState(NamedTuple):
    count: Array
    value: Array  # of the objective, before the step
    gradient_norm: Array  # before the step
    damping: Array  # λ + τ
    step_size: Array  # 0 if no step was accepted
    iterations: Array  # factorizations in this step
    gain_ratio: Array  # actual / predicted reduction of the objective
    products: Array  # curvature-vector products in all steps


@factory
def newton(*, damping: NonNegative = 0.0, learning_rate: Rate = 1.0) -> Transformation:
    """Newton's method: minimizes the second-order Taylor expansion of the objective.

        u = -η (H + λI + τI)⁻¹ g        H the Hessian of `value_fn`

    Minimizes a strictly convex quadratic in one step. τ is 0 if H + λI is positive
    definite, otherwise it grows until H + λI + τI is. η is halved until the objective
    decreases. H is the Hessian with respect to all parameters together. Call
    `update(grads, state, params, value_fn=f, **data)`.

    Args:
        damping: λ >= 0, in units of H.
        learning_rate: η, a number or a schedule; 1 is the full Newton step.

    Raises:
        ValueError: If there are more than 4096 parameters; `newton_cg` has no limit.
        TypeError: If `update` is called without the parameters or `value_fn`.

    Reference:
        Nocedal and Wright, Numerical optimization, 2006, algorithms 3.2 and 3.3,
        https://doi.org/10.1007/978-0-387-40065-5

    Example:
        >>> f = lambda x: 2 * x[0] ** 2 + 32 * x[1] ** 2
        >>> optimizer, x = newton(), jnp.array([3.0, 1.0])
        >>> optimizer.update(jax.grad(f)(x), optimizer.init(x), x, value_fn=f)[0]
        Array([-3., -1.], dtype=float32)
    """

    def step(
        functions: Functions, g: PyTree, x: PyTree, state: NewtonState
    ) -> tuple[PyTree, NewtonState]:
        objective, hvp = linearize_gradient(functions["value_fn"], x, g)
        g_flat, unravel = trees.ravel(g)
        n, dtype = g_flat.size, g_flat.dtype
        identity, _ = vary_together((jnp.eye(n, dtype=dtype), g_flat))
        eps = jnp.finfo(dtype).eps
        hessian = materialize(lambda v: trees.ravel(hvp(unravel(v)))[0], identity)
        lam = jnp.asarray(damping, dtype)

        def solve_shifted(tau: Array) -> tuple[Array, Array]:
            matrix = hessian + (lam + tau) * identity
            factor = jnp.linalg.cholesky(matrix)
            # A pivot below n ε of the diagonal may be a rounding error.
            pivots = jnp.square(jnp.diagonal(factor)) / jnp.diagonal(matrix)
            p = -cho_solve((factor, True), g_flat)
            return p, jnp.min(pivots) > n * eps

        min_shift = jnp.sqrt(eps) * trees.norm(hessian)
        p, tau, num_shifts = find_positive_definite_shift(solve_shifted, min_shift)
        curvature = trees.dot(p, matmul(hessian, p))
        eta = learning_rate_at(learning_rate, state.count).astype(dtype)
        search = backtracking_line_search(objective, x, g, unravel(p), curvature, eta)
        return search.s, NewtonState(
            count=increment(state.count),
            value=objective.value,
            gradient_norm=trees.norm(g),
            damping=lam + tau,
            step_size=search.step_size,
            iterations=num_shifts,
            gain_ratio=search.gain_ratio,
            products=state.products + n,
        )

    return second_order((("value_fn",),), init_newton_state, step, _check_size)


def init_newton_state(dtype: Any) -> NewtonState:
    zero, zero_int = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    return NewtonState(
        count=zero_int,
        value=zero,
        gradient_norm=zero,
        damping=zero,
        step_size=zero,
        iterations=zero_int,
        gain_ratio=zero,
        products=zero_int,
    )


def materialize(product: Callable[[Array], Array], identity: Array) -> Array:
    """Aᵀ, by the products v -> Av with the rows of the identity, a batch at a time."""
    return jax.lax.map(product, identity, batch_size=MATERIALIZE_BATCH)


def _check_size(params: PyTree) -> None:
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    if size > MAX_DENSE_PARAMS:
        requirement = (
            f"have at most {MAX_DENSE_PARAMS} parameters (newton_cg takes more)"
        )
        raise_invalid(ValueError, "params", requirement, size)


class _ShiftSearch(NamedTuple):
    # Result of the last trial
    shift: Array
    solution: PyTree
    is_positive_definite: Array
    # For the next trial
    next_shift: Array
    num_trials: Array


def find_positive_definite_shift(
    solve_shifted: Callable[[Array], tuple[PyTree, Array]], min_shift: Array
) -> tuple[PyTree, Array, Array]:
    """The solution with the first shift of 0, τ, 10τ, ... that is positive definite.

    Args:
        solve_shifted: shift -> (solution, whether the matrix is positive definite).
        min_shift: τ, or 1 if it is not positive.

    Returns:
        The solution, its shift, and the number of trials, at most 20. The last trial
        counts if no shift is large enough.
    """
    min_shift = jnp.where(min_shift > 0, min_shift, 1)

    def cond_fun(search: _ShiftSearch) -> Array:
        return ~search.is_positive_definite & (search.num_trials < MAX_SHIFTS)

    def body_fun(search: _ShiftSearch) -> _ShiftSearch:
        shift = search.next_shift
        solution, is_positive_definite = solve_shifted(shift)
        next_shift = jnp.where(shift > 0, 10 * shift, min_shift)
        next_trial = search.num_trials + 1
        return vary_together(
            _ShiftSearch(shift, solution, is_positive_definite, next_shift, next_trial)
        )

    zero = jnp.zeros_like(min_shift)
    before_first = _ShiftSearch(
        shift=zero,
        solution=trees.zeros_like(jax.eval_shape(solve_shifted, zero)[0]),
        is_positive_definite=jnp.bool_(False),
        next_shift=zero,
        num_trials=jnp.int32(0),
    )
    search = jax.lax.while_loop(cond_fun, body_fun, vary_together(before_first))
    return search.solution, search.shift, search.num_trials
