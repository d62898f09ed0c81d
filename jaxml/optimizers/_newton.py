"""Newton's method with the whole Hessian, and what it shares with Gauss and Newton's.

A direction comes from a triangular factor of the curvature, which is lifted by τI where
it is not positive definite; its length is halved until the objective falls. So a saddle
is left downhill, and a singular or indefinite curvature is no more than a shorter step.
Without a step to be had, as where the objective is NaN, the update is 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve

from jaxml._core import trees
from jaxml._core.contract import raise_invalid
from jaxml._core.matmul import matmul
from jaxml._core.public import factory
from jaxml._core.types import NonNegative, PyTree, Rate
from jaxml.optimizers._objective import Functions, Model, model_of, second_order
from jaxml.optimizers._per_leaf import (
    Transformation,
    increment,
    learning_rate_at,
)

LARGEST = 4096  # numbers among the parameters: a Hessian of 64 MiB in float32
BLOCK = 256  # rows of a matrix made at a time, each as large as what f holds on its way


class NewtonState(NamedTuple):
    count: Array
    value: Array  # before the step, as is the norm
    gradient_norm: Array
    damping: Array  # what was added to the diagonal, λ + τ
    step_size: Array  # 0 if there was no step
    iterations: Array  # factors that were tried
    gain_ratio: Array  # the fall of the objective by that of its quadratic model
    products: Array  # of a curvature with a vector, in all steps together


@factory
def newton(*, damping: NonNegative = 0.0, learning_rate: Rate = 1.0) -> Transformation:
    """Newton's method: a step to the minimum of the quadratic that fits best here.

        u = -η (H + λI + τI)⁻¹ g        H the Hessian of `value_fn`

    On a quadratic one step is all. τ is 0 where H + λI is positive definite, else grows
    until it is; η is halved until the objective falls. Needs the Hessian of all
    parameters together, and `update(grads, state, params, value_fn=f, **data)`.

    Args:
        damping: λ >= 0, in the units of H.
        learning_rate: η, a number or a schedule; 1 for Newton's own step.

    Raises:
        ValueError: If a number is out of its range, or the parameters are more than
            4096 numbers; `newton_cg` takes any number of them.
        TypeError: If `update` is not given the parameters and `value_fn`.

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
        model, product = model_of("newton", functions["value_fn"], x, g)
        slope, unravel = ravel_pytree(g)
        identity = jnp.eye(slope.size, dtype=slope.dtype)
        hessian = rows_of(lambda v: ravel_pytree(product(unravel(v)))[0], identity)
        added, eps = jnp.asarray(damping, slope.dtype), jnp.finfo(slope.dtype).eps

        def solved(shift: Array) -> tuple[Array, Array]:
            matrix = hessian + (added + shift) * identity
            factor = jnp.linalg.cholesky(matrix)
            # What elimination leaves of the diagonal; n ε of it may be rounding.
            kept = jnp.square(jnp.diagonal(factor)) / jnp.diagonal(matrix)
            p = -cho_solve((factor, True), slope)
            return p, jnp.min(kept) > slope.size * eps

        p, shift, iterations = shifted(solved, jnp.sqrt(eps) * trees.norm(hessian))
        curvature = trees.dot(p, matmul(hessian, p))
        rate = learning_rate_at(learning_rate, state.count).astype(slope.dtype)
        s, searched = searched_along(model, x, g, unravel(p), curvature, rate)
        return s, NewtonState(
            increment(state.count),
            damping=added + shift,
            iterations=iterations,
            products=state.products + slope.size,
            **searched,
        )

    return second_order("newton", (("value_fn",),), newton_state, step, _check_size)


def rows_of(product: Callable[[Array], Array], identity: Array) -> Array:
    """The products with the unit vectors, a block of them at a time."""
    return jax.lax.map(product, identity, batch_size=BLOCK)


def newton_state(real: Any) -> NewtonState:
    number, integer = jnp.zeros((), real), jnp.zeros((), jnp.int32)
    return NewtonState(
        integer, number, number, number, number, integer, number, integer
    )


def _check_size(params: PyTree) -> None:
    size = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    if size > LARGEST:
        rule = f"be at most {LARGEST} numbers (newton_cg takes more)"
        raise_invalid(ValueError, "params", rule, size)


def shifted(
    solved: Callable[[Array], tuple[PyTree, Array]], least: Array
) -> tuple[PyTree, Array, Array]:
    """The first good solution for a shift of 0, τ, 10τ, 100τ, ..., and this shift.

    `solved` is shift -> (solution, whether it is good), `least` the first τ. The third
    result is how many shifts were tried, at most 20.
    """
    least = jnp.where(least > 0, least, 1)

    def wanted(carry: tuple) -> Array:
        *_, good, tries = carry
        return ~good & (tries < 20)

    def grown(carry: tuple) -> tuple:
        _, following, _, _, tries = carry
        solution, good = solved(following)
        larger = jnp.where(following > 0, 10 * following, least)
        return following, larger, solution, good, tries + 1

    zero = jnp.zeros_like(least)
    solution = trees.zeros_like(jax.eval_shape(solved, zero)[0])
    start = zero, zero, solution, zero > 0, jnp.int32(0)
    shift, _, solution, _, tries = jax.lax.while_loop(wanted, grown, start)
    return solution, shift, tries


def searched_along(
    model: Model, x: PyTree, g: PyTree, p: PyTree, curvature: Array, rate: Array
) -> tuple[PyTree, dict[str, Array]]:
    """The step t p with t = η, η/2, ... at which the objective falls, and what it did.

    It falls if f(x + t p) <= f(x) + 10⁻⁴ t g·p (Armijo); `curvature` is p·Hp. If it has
    not after 40 trials the step is 0.
    """
    slope = trees.dot(g, p)

    def falls(t: Array, reached: Array) -> Array:
        highest = model.value + 1e-4 * t * slope + model.noise
        return (reached <= highest) & (reached < jnp.inf)

    def wanted(carry: tuple) -> Array:
        t, reached, tries = carry
        return ~falls(t, reached) & (tries < 40)

    def halved(carry: tuple) -> tuple:
        t, _, tries = carry
        return t / 2, model.reached(x, trees.scale(t / 2, p)), tries + 1

    start = 2 * rate, jnp.full_like(rate, jnp.inf), 0
    t, reached, _ = jax.lax.while_loop(wanted, halved, start)
    moved = falls(t, reached) & jnp.isfinite(trees.norm(p))
    predicted = -t * slope - t * t * curvature / 2
    taken = trees.where(moved, trees.scale(t, p), trees.zeros_like(p))
    return taken, {
        "value": model.value,
        "gradient_norm": trees.norm(g),
        "step_size": jnp.where(moved, t, 0),
        "gain_ratio": model.gain_ratio(reached, predicted),
    }
