"""The engine of the second-order optimizers: steps that are checked on the objective.

A step s minimizes a quadratic model g·s + ½ s·Bs of the objective f near x, and the
decrease f(x) - f(x + s) is compared with the decrease of the model. `second_order`
makes an optax transformation of such a step. Four algorithms have this form:

    newton               B = ∇²f, dense; a line search along s
    gauss_newton         B = JᵀJ, J the Jacobian of residuals; a line search along s
    newton_cg            B = ∇²f or Jᵀ ∇²loss J, as products; ‖s‖ <= Δ, Δ is adapted
    levenberg_marquardt  B = JᵀJ + μI; μ is adapted

Members of an `optax.chain` before this one may have changed the gradient g, as weight
decay and clipping do. The difference g - ∇f(x) is taken for the gradient of a linear
function that is minimized too: the objective is f(x + s) + (g - ∇f(x))·s.
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
from jaxml._core.collectives import vary_together
from jaxml._core.contract import raise_invalid
from jaxml._core.types import PyTree
from jaxml.optimizers._per_leaf import Transformation, real_compute_dtype

Functions = dict[str, Callable[..., Any]]

MIN_GAIN_RATIO = 1e-4  # of a step that is accepted, where there is no line search


def second_order(
    function_args: tuple[tuple[str, ...], ...],
    init_state: Callable[[Any], Any],
    step: Callable[..., tuple[PyTree, Any]],
    check_params: Callable[[PyTree], None] = lambda params: None,
) -> Transformation:
    """The optax transformation of a second-order step.

        update(grads, state, params, value_fn=f, batch=batch)

    calls f(params, batch=batch): as in optax's line searches, a function receives the
    data that its signature names. `update` is compiled once per function, as by
    `jax.jit`, so define functions once and pass as data what changes between steps.
    Numbers and arrays are traced; all other data is static.

    The arithmetic is in one dtype, float32 or wider. Functions receive the parameters
    in their own dtypes.

    Args:
        function_args: The names of the functions that `update` takes. If there are
            several tuples, the first with a given name must be given completely. The
            first function of a tuple takes the parameters.
        init_state: dtype -> the initial state.
        step: (functions, g, x, state) -> (s, state), with all arrays in one dtype.
        check_params: Raises an error for invalid parameters.
    """

    def init(params: PyTree) -> Any:
        check_real_floats("params", params)
        check_params(params)
        state = init_state(_compute_dtype(params))
        state = jax.tree.map(jnp.copy, state)  # two leaves of one buffer, donated twice
        return vary_together((state, params))[0]

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra_args: Any
    ) -> tuple[PyTree, Any]:
        if params is None:
            raise_invalid(TypeError, "params", "be given to update", params)
        check_real_floats("updates", updates)
        check_real_floats("params", params)
        functions = _select_functions(function_args, extra_args)
        names = set(itertools.chain(*function_args))
        data = {k: v for k, v in extra_args.items() if k not in names}
        static = {k: v for k, v in data.items() if not _is_traced(v)}
        traced = {k: v for k, v in data.items() if k not in static}
        static_args = tuple(functions.items()), tuple(static.items())
        return jitted_step(static_args, updates, state, params, traced)

    @functools.partial(jax.jit, static_argnums=0)
    def jitted_step(
        static_args: tuple, updates: PyTree, state: Any, params: PyTree, traced: dict
    ) -> tuple[PyTree, Any]:
        updates, state, params = vary_together((updates, state, params))
        functions, static = map(dict, static_args)
        data = static | traced
        bound = {name: _bind_data(f, data) for name, f in functions.items()}
        takes_params = next(iter(bound))
        bound[takes_params] = _in_param_dtypes(bound[takes_params], params)
        dtype = _compute_dtype(params)
        g, x = trees.cast(updates, dtype), trees.cast(params, dtype)
        s, state = vary_together(step(bound, g, x, state))
        s = jax.tree.map(lambda a, u: a.astype(jnp.result_type(u)), s, updates)
        return s, state

    return Transformation(init, update)


class Objective(NamedTuple):
    """f(x + s) + (g - ∇f(x))·s, as a function of the step s."""

    value: Array  # f(x)
    linear_term: PyTree  # g - ∇f(x)
    eps: float  # machine epsilon of the dtype that f returns
    value_fn: Callable[[PyTree], Array]  # f

    @classmethod
    def from_value(
        cls, value: Array, linear_term: PyTree, value_fn: Callable[[PyTree], Array]
    ) -> "Objective":
        """The objective whose f has returned this value."""
        dtype = jax.tree.leaves(linear_term)[0].dtype
        eps = float(jnp.finfo(value.dtype).eps)
        return cls(value.astype(dtype), linear_term, eps, value_fn)

    def trial_value(self, x: PyTree, s: PyTree) -> Array:
        """The objective at the step s, ∞ where it is not finite."""
        x = jax.tree.map(jnp.add, x, s)
        value = self.value_fn(x).astype(self.value.dtype)
        value += trees.dot(self.linear_term, s)
        return jnp.where(jnp.isfinite(value), value, jnp.inf)

    @property
    def rounding_error(self) -> Array:
        """A bound on the rounding error in the difference of two values."""
        return 10 * self.eps * jnp.abs(self.value)

    def gain_ratio(self, trial_value: Array, predicted_reduction: Array) -> Array:
        """The actual divided by the predicted reduction, ½ if both are rounding errors.

        No method changes its damping or radius at ½, so rounding errors change neither.
        """
        error = self.rounding_error
        actual = self.value - trial_value + error
        predicted = predicted_reduction + 2 * error
        both_zero = (actual == 0) & (predicted == 0)
        ratio = jnp.where(both_zero, 0.5, actual / jnp.where(both_zero, 1, predicted))
        return jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)


def linearize_gradient(
    value_fn: Callable[[PyTree], Array], x: PyTree, g: PyTree
) -> tuple[Objective, Callable[[PyTree], PyTree]]:
    """The objective at x, and the Hessian-vector product v -> ∇²f(x) v."""
    value_fn = check_scalar_output("value_fn", value_fn)
    gradient, hvp, value = jax.linearize(grad_and_value(value_fn), x, has_aux=True)
    return Objective.from_value(value, trees.subtract(g, gradient), value_fn), hvp


def grad_and_value(
    function: Callable[[PyTree], Array],
) -> Callable[[PyTree], tuple[PyTree, Array]]:
    """x -> (∇f(x), f(x)), so that the value is the auxiliary output."""

    def call(x: PyTree) -> tuple[PyTree, Array]:
        value, gradient = jax.value_and_grad(function)(x)
        return gradient, value

    return call


def check_real_floats(argument: str, tree: PyTree) -> None:
    """Raises a TypeError for the first leaf that is not an array of real floats."""
    if not jax.tree.leaves(tree):
        raise_invalid(TypeError, argument, "hold a float array", tree)
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            leaf_name = f"{argument}{jax.tree_util.keystr(path)}"
            raise_invalid(TypeError, leaf_name, "be a float array", leaf)


def check_scalar_output(
    argument: str, function: Callable[[Any], Any]
) -> Callable[[Any], Array]:
    """The function, which raises a TypeError unless it returns one float."""

    def call(x: Any) -> Array:
        value = function(x)
        shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", int)
        if shape != () or not jnp.issubdtype(dtype, jnp.floating):
            raise_invalid(TypeError, argument, "return a float", value)
        return value

    return call


def _compute_dtype(params: PyTree) -> Any:
    return real_compute_dtype(*map(jnp.result_type, jax.tree.leaves(params)))


def _select_functions(
    function_args: tuple[tuple[str, ...], ...], extra_args: dict[str, Any]
) -> Functions:
    """The functions of the first tuple with a given name, all of them required."""
    given = (names for names in function_args if set(names) & set(extra_args))
    names = next(given, function_args[-1])
    for name in names:
        if not callable(extra_args.get(name)):
            call = ", ".join(f"{name}=..." for name in names)
            requirement = (
                f"be a function, as in update(grads, state, params, {call}, **data)"
            )
            raise_invalid(TypeError, name, requirement, extra_args.get(name))
    return {name: extra_args[name] for name in names}


def _is_traced(value: Any) -> bool:
    """Whether all leaves are numbers or arrays. A bool is static."""
    number = jax.Array | np.ndarray | np.generic | float | int
    return all(
        isinstance(leaf, number) and not isinstance(leaf, bool)
        for leaf in jax.tree.leaves(value)
    )


def _bind_data(function: Callable[..., Any], data: dict) -> Callable[[Any], Any]:
    """A function of the first argument, with the data that the signature names."""
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        names = {p.name for p in parameters}
        data = {k: v for k, v in data.items() if k in names}
    return lambda x: function(x, **data)


def _in_param_dtypes(
    function: Callable[[PyTree], Any], params: PyTree
) -> Callable[[PyTree], Any]:
    """The function, called with the parameters in their own dtypes."""
    dtypes = jax.tree.map(jnp.result_type, params)
    return lambda x: function(jax.tree.map(lambda a, d: a.astype(d), x, dtypes))
