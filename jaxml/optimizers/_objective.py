"""What second-order methods share: the objective given by keyword, and how it is held.

`update(grads, state, params, value_fn=loss, batch=batch)` calls loss(params,
batch=batch): a function takes what its signature names, as in optax's line searches.
It is compiled once for each function object, as by `jax.jit`: define it once. What
changes between steps is data, and is never closed over. Numbers and arrays among the
data are traced, anything else is structure.

All arithmetic is in one dtype, float32 or wider; the user's functions see parameters in
their own. Members of a chain that stand before may have changed the gradient g. What it
holds beside the objective's own gradient ∇f, as a weight decay or a clipping adds, is
taken for a linear function that is minimised too: f(x + s) + (g - ∇f)·s.
"""

import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxml._core import trees
from jaxml._core.contract import raise_invalid
from jaxml._core.types import PyTree
from jaxml.optimizers._per_leaf import Transformation, real_compute_dtype

Functions = dict[str, Callable[..., Any]]


class Model(NamedTuple):
    """What is known of an objective at x, before a step s."""

    value: Array
    extra: PyTree  # g - ∇f
    eps: float  # the relative rounding of values
    objective: Callable[[PyTree], Array]

    @classmethod
    def at(
        cls, value: Array, extra: PyTree, objective: Callable[[PyTree], Array]
    ) -> "Model":
        """The model of an objective that rounds its values to their own dtype."""
        real = jax.tree.leaves(extra)[0].dtype
        eps = float(jnp.finfo(value.dtype).eps)
        return cls(value.astype(real), extra, eps, objective)

    def reached(self, x: PyTree, s: PyTree) -> Array:
        """f(x + s) + (g - ∇f)·s, and ∞ where that is no number."""
        x = jax.tree.map(jnp.add, x, s)
        value = self.objective(x).astype(self.value.dtype)
        value += trees.dot(self.extra, s)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    @property
    def noise(self) -> Array:
        """How far two values may differ by rounding alone."""
        return 10 * self.eps * jnp.abs(self.value)

    def gain_ratio(self, reached: Array, predicted: Array) -> Array:
        """What was gained by what was foreseen, and ½ where both are lost in rounding.

        At ½ no method changes its damping or radius: noise is no reason to.
        """
        actual, foreseen = self.value - reached + self.noise, predicted + 2 * self.noise
        nothing = (actual == 0) & (foreseen == 0)
        ratio = jnp.where(nothing, 0.5, actual / jnp.where(nothing, 1, foreseen))
        return jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)


def second_order(
    name: str,
    roles: tuple[tuple[str, ...], ...],
    start: Callable[[Any], Any],
    step: Callable[..., tuple[PyTree, Any]],
    check: Callable[[PyTree], None] = lambda params: None,
) -> Transformation:
    """The transformation with this step.

    Args:
        name: For messages.
        roles: The names of the functions that `update` takes. Of several tuples, the
            first of which any is given is to be given whole.
        start: The dtype of all numbers -> the first state.
        step: (functions, g, x, state) -> (s, state), in trees of this dtype.
        check: Refuses parameters.
    """

    def init(params: PyTree) -> Any:
        check_real(name, "params", params)
        check(params)
        return start(_dtype(params))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **given: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise_invalid(TypeError, "params", "be given to update", params)
        check_real(name, "updates", updates)
        check_real(name, "params", params)
        functions = _chosen(name, roles, given)
        data = {k: v for k, v in given.items() if k not in itertools.chain(*roles)}
        static = {k: v for k, v in data.items() if not _is_traced(v)}
        traced = {k: v for k, v in data.items() if k not in static}
        fixed = tuple(functions.items()), tuple(static.items())
        return program(fixed, updates, state, params, traced)

    @functools.partial(jax.jit, static_argnums=0)
    def program(
        fixed: tuple, updates: PyTree, state: Any, params: PyTree, traced: dict
    ) -> tuple[PyTree, Any]:
        functions, static = map(dict, fixed)
        bound = {role: _bound(f, static | traced) for role, f in functions.items()}
        of_params = next(iter(bound))
        bound[of_params] = _narrowed(bound[of_params], params)
        g, x = (trees.cast(tree, _dtype(params)) for tree in (updates, params))
        s, state = step(bound, g, x, state)
        narrow = jax.tree.map(lambda a, g: a.astype(jnp.result_type(g)), s, updates)
        return narrow, state

    return Transformation(init, update)


def check_real(name: str, argument: str, tree: PyTree) -> None:
    """Raises a TypeError for the first array that is not of real floats."""
    if not jax.tree.leaves(tree):
        raise_invalid(TypeError, argument, "hold a float array", tree)
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            where = f"{argument}{jax.tree_util.keystr(path)}"
            raise_invalid(TypeError, where, "be a float array", leaf)


def model_of(
    name: str, value_fn: Callable[[PyTree], Array], x: PyTree, g: PyTree
) -> tuple[Model, Callable[[PyTree], PyTree]]:
    """The model of f at x, and the product of its Hessian with a vector."""

    def gradient(x: PyTree) -> tuple[PyTree, Array]:
        value, slope = jax.value_and_grad(checked)(x)
        return slope, value

    checked = returning_a_float(name, "value_fn", value_fn)
    own, product, value = jax.linearize(gradient, x, has_aux=True)
    return Model.at(value, trees.subtract(g, own), checked), product


def returning_a_float(
    name: str, role: str, function: Callable[[Any], Any]
) -> Callable[[Any], Array]:
    """The function, which is refused if its result is anything else."""

    def checked(x: Any) -> Array:
        value = function(x)
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", int)
        if shape != () or not jnp.issubdtype(dtype, jnp.floating):
            raise_invalid(TypeError, role, "return a float", value)
        return value

    return checked


def _dtype(params: PyTree) -> Any:
    return real_compute_dtype(*map(jnp.result_type, jax.tree.leaves(params)))


def _chosen(name: str, roles: tuple[tuple[str, ...], ...], given: dict) -> Functions:
    """The functions of the first tuple of roles that is given."""
    begun = (wanted for wanted in roles if set(wanted) & set(given))
    wanted = next(begun, roles[-1])
    for role in wanted:
        if not callable(given.get(role)):
            call = ", ".join(f"{role}=..." for role in wanted)
            rule = f"be a function, as in update(grads, state, params, {call}, **data)"
            raise_invalid(TypeError, role, rule, given.get(role))
    return {role: given[role] for role in wanted}


def _is_traced(value: Any) -> bool:
    """Whether it is numbers throughout; anything else is structure."""
    number = jax.Array | np.ndarray | np.generic | float | int
    return all(
        isinstance(leaf, number) and not isinstance(leaf, bool)
        for leaf in jax.tree.leaves(value)
    )


def _bound(function: Callable[..., Any], data: dict) -> Callable[[Any], Any]:
    """The function of its first argument, with as much of the data as it names."""
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        names = {p.name for p in parameters}
        data = {k: v for k, v in data.items() if k in names}
    return lambda x: function(x, **data)


def _narrowed(
    function: Callable[[PyTree], Any], params: PyTree
) -> Callable[[PyTree], Any]:
    """The function of parameters that it is given in their own dtypes."""
    dtypes = jax.tree.map(jnp.result_type, params)
    return lambda x: function(jax.tree.map(lambda a, d: a.astype(d), x, dtypes))
