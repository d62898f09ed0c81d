"""Backtracking line search with Armijo's condition of sufficient decrease."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml._core import trees
from jaxml._core.collectives import vary_together
from jaxml._core.types import PyTree
from jaxml.optimizers._objective import Objective

MAX_TRIALS = 40
ARMIJO = 1e-4  # required fraction of the decrease that the gradient predicts


class LineSearchResult(NamedTuple):
    s: PyTree  # t p, or 0 if no trial was accepted
    step_size: Array  # t, or 0 if no trial was accepted
    gain_ratio: Array  # of the last trial


class _Trial(NamedTuple):
    step_size: Array
    value: Array
    num_trials: Array | int


def backtracking_line_search(
    objective: Objective,
    x: PyTree,
    g: PyTree,
    p: PyTree,
    curvature: Array,
    init_step_size: Array,
) -> LineSearchResult:
    """The step t p with the first t = η, η/2, η/4, ... that decreases f sufficiently.

        f(x + t p) <= f(x) + 10⁻⁴ t g·p        up to rounding errors

    Args:
        objective: f near x.
        x: The parameters.
        g: The gradient.
        p: The direction.
        curvature: p·Bp of the quadratic model, for the gain ratio.
        init_step_size: η.
    """
    directional_derivative = trees.dot(g, p)

    def is_sufficient_decrease(trial: _Trial) -> Array:
        armijo_bound = (
            objective.value
            + ARMIJO * trial.step_size * directional_derivative
            + objective.rounding_error
        )
        return (trial.value <= armijo_bound) & (trial.value < jnp.inf)

    def cond_fun(trial: _Trial) -> Array:
        return ~is_sufficient_decrease(trial) & (trial.num_trials < MAX_TRIALS)

    def body_fun(trial: _Trial) -> _Trial:
        t = trial.step_size / 2
        value = objective.trial_value(x, trees.scale(t, p))
        return _Trial(t, value, trial.num_trials + 1)

    before_first = _Trial(2 * init_step_size, jnp.full_like(init_step_size, jnp.inf), 0)
    before_first, _ = vary_together((before_first, p))
    trial = jax.lax.while_loop(cond_fun, body_fun, before_first)
    t = trial.step_size
    accepted = is_sufficient_decrease(trial) & jnp.isfinite(trees.norm(p))
    predicted_reduction = -t * directional_derivative - t * t * curvature / 2
    return LineSearchResult(
        s=trees.where(accepted, trees.scale(t, p), trees.zeros_like(p)),
        step_size=jnp.where(accepted, t, 0),
        gain_ratio=objective.gain_ratio(trial.value, predicted_reduction),
    )
