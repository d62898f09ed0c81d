"""What every function promises, checked for every row of the table of cases."""

import inspect
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, Extreme, cases
from compilation import jit_without_fusion_emitters

CASES = cases()
FIRST_ROWS = {case.name: case for case in reversed(CASES)}
ULP = {jnp.float32: 2.0**-23, jnp.bfloat16: 2.0**-7, jnp.float16: 2.0**-10}


def is_first_row(case: Case) -> bool:
    """Whether no row of the same function comes before."""
    return case is FIRST_ROWS[case.name]


def for_rows(condition: Callable[[Case], Any] = lambda case: True) -> Any:
    """Parametrizes a promise over the rows that it holds for.

    One process checks all promises of a row, so that its program compiles once. Further
    rows of a function are slow tests.
    """
    params = []
    for case in filter(condition, CASES):
        name = f"{case.name}-{case.id_suffix}".rstrip("-")
        marks = [pytest.mark.xdist_group(name)]
        if not is_first_row(case):
            marks.append(pytest.mark.slow)
        params.append(pytest.param(case, id=name, marks=marks))
    return pytest.mark.parametrize("case", params)


def samples(case: Case, count: int = 1) -> list[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return [case.sample(rng) for _ in range(count)]


def cast(arrays: tuple, dtype: Any) -> tuple[jax.Array, ...]:
    arrays = tuple(map(jnp.asarray, arrays))
    return tuple(a.astype(dtype) if is_float(a) else a for a in arrays)


def is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)


def differentiated(case: Case, arrays: tuple) -> list[int]:
    """The positions of the float arrays that the row differentiates."""
    return [
        i
        for i, array in enumerate(arrays)
        if is_float(array) and i not in case.not_differentiated
    ]


def replaced(arrays: tuple, positions: list[int], values: Any) -> list[Any]:
    merged = list(arrays)
    for i, value in zip(positions, values, strict=True):
        merged[i] = value
    return merged


def as_function_of_floats(
    case: Case, arrays: tuple, **keywords: Any
) -> tuple[Callable[..., jax.Array], list[jax.Array]]:
    """The row as a function of the arrays it differentiates, and these arrays."""
    arrays = tuple(map(jnp.asarray, arrays))
    positions = differentiated(case, arrays)

    def function(*floats: jax.Array) -> jax.Array:
        return case(*replaced(arrays, positions, floats), **keywords)

    return function, [arrays[i] for i in positions]


def weighted_sum(values: jax.Array) -> jax.Array:
    """A scalar to differentiate, in which no two values can cancel."""
    return jnp.sum(values * jnp.cos(jnp.arange(values.size).reshape(values.shape)))


def dot(xs: list, ys: list) -> jax.Array:
    return sum(jnp.sum(x * y) for x, y in zip(xs, ys))


@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows()
def test_equals_the_truth_in_float64(case: Case) -> None:
    for arrays in samples(case, 2):
        for hyperparams in case.variations():
            np.testing.assert_allclose(
                case(*arrays, **hyperparams),
                case.expected(*arrays, **hyperparams),
                rtol=case.rtol,
                atol=1e-300,
                err_msg=str(hyperparams),
            )


@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.mask)
def test_equals_the_truth_of_the_unmasked_entries(case: Case) -> None:
    (arrays,) = samples(case)
    where = case.mask(np.random.default_rng(0))
    np.testing.assert_allclose(
        case(*arrays, where=where),
        case.expected(*arrays, where=where),
        rtol=case.rtol,
    )


@for_rows(lambda case: case.dtypes)
def test_result_dtype_and_one_rounding(case: Case) -> None:
    check_result_dtype_and_one_rounding(case, jnp.float32)


@pytest.mark.slow
@for_rows(lambda case: case.dtypes)
def test_result_dtype_and_one_rounding_of_float64(case: Case) -> None:
    check_result_dtype_and_one_rounding(case, jnp.float64)


@pytest.mark.slow
@for_rows(lambda case: case.dtypes and is_first_row(case))
def test_result_dtype_and_one_rounding_of_bfloat16(case: Case) -> None:
    check_result_dtype_and_one_rounding(case, jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")  # as bfloat16, at half of the time
@for_rows(lambda case: case.dtypes and is_first_row(case))
def test_result_dtype_and_one_rounding_of_float16(case: Case) -> None:
    check_result_dtype_and_one_rounding(case, jnp.float16)


def check_result_dtype_and_one_rounding(case: Case, dtype: Any) -> None:
    arrays = cast(samples(case)[0], dtype)
    function, floats = as_function_of_floats(case, arrays)

    def value_and_gradient(*xs: jax.Array) -> Any:
        value, vjp = jax.vjp(function, *xs)
        return value, vjp(value)

    value, gradients = jax.eval_shape(value_and_gradient, *floats)
    assert {g.dtype for g in gradients} == {jnp.dtype(dtype)}
    is_narrow = dtype in (jnp.bfloat16, jnp.float16)
    if is_narrow and not case.keeps_dtype(value, arrays):
        assert value.dtype == jnp.float32
    else:
        assert value.dtype == dtype
    if dtype in ULP:
        expected = case.expected(*arrays)
        rtol = ULP[dtype] * (case.ulps if dtype == jnp.float32 else 0.51)
        if is_narrow and value.dtype == jnp.float32:
            rtol = 1e-5
        atol = jnp.finfo(dtype).tiny
        if case.tol_relative_to_max:
            atol += ULP[jnp.float32] * case.ulps * np.max(abs(expected))
        got = np.float64(case(*arrays))
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.dtypes)
def test_the_gradient_is_the_derivative_twice(case: Case) -> None:
    """First and second derivatives along directions v and w, in both modes."""
    function, floats = as_function_of_floats(case, samples(case)[0])
    rng = np.random.default_rng(1)
    v, w = ([jnp.asarray(rng.normal(size=a.shape)) for a in floats] for _ in "vw")
    checks = jit_without_fusion_emitters(partial(derivatives, case, function))
    numeric, first, second = checks(floats, v, w)
    np.testing.assert_allclose(first, numeric[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(second, numeric[1], rtol=1e-5, atol=1e-7)


def derivatives(
    case: Case, function: Callable[..., jax.Array], x: list, v: list, w: list
) -> tuple[jax.Array, tuple, tuple]:
    """Of f(x) = weighted_sum(function(x)): numeric, and by forward and reverse mode.

    Numeric are f'(x) v and v f''(x) w, by central differences along v.
    """

    def f(x: list) -> jax.Array:
        return weighted_sum(function(*x))

    def value_and_derivative_along_w(x: list) -> jax.Array:
        value, gradient = jax.value_and_grad(f)(x)
        return jnp.stack([value, dot(gradient, w)])

    h = 1e-5
    both_sides = [jnp.stack([a + h * d, a - h * d]) for a, d in zip(x, v)]
    plus, minus = jax.lax.map(value_and_derivative_along_w, both_sides)
    gradient, forward_over_reverse = jax.jvp(jax.grad(f), (x,), (v,))
    reverse = dot(gradient, v)
    forward = jax.jvp(f, (x,), (v,))[1] if case.has_jvp else reverse
    reverse_over_reverse = jax.grad(lambda x: value_and_derivative_along_w(x)[1])(x)
    return (
        (plus - minus) / (2 * h),
        (forward, reverse),
        (dot(forward_over_reverse, w), dot(reverse_over_reverse, v)),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.hyperparams and case.dtypes)
def test_hyperparameters_have_derivatives(case: Case) -> None:
    (arrays,) = samples(case)
    at = {name: 0.8 * max(values) + 0.07 for name, values in case.hyperparams.items()}

    def total(hyperparams: dict[str, Any]) -> jax.Array:
        return jnp.sum(case(*arrays, **hyperparams))

    value = jit_without_fusion_emitters(total)
    gradient = jit_without_fusion_emitters(jax.grad(total))(at)
    h = 1e-6
    for name, x in at.items():
        plus, minus = value(at | {name: x + h}), value(at | {name: x - h})
        np.testing.assert_allclose(
            gradient[name], (plus - minus) / (2 * h), rtol=1e-5, atol=1e-6, err_msg=name
        )


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.extremes)
def test_extremes_have_values_and_finite_derivatives(case: Case) -> None:
    programs: dict[str, Any] = {}  # extremes of one shape share a program
    for extreme in case.extremes:
        arrays = [jnp.asarray(array) for array in extreme.arrays]
        positions = checked_positions(case, extreme)
        traced = {n: v for n, v in extreme.keywords.items() if is_traced(v)}
        static = {n: v for n, v in extreme.keywords.items() if not is_traced(v)}
        key = str((positions, static))
        if key not in programs:
            programs[key] = jit_without_fusion_emitters(
                partial(value_and_derivatives, case, positions, static)
            )
        value, derivatives = programs[key](arrays, traced)
        chex.assert_tree_all_finite(derivatives)
        if extreme.value is None:
            chex.assert_tree_all_finite(value)
        else:
            expected = np.broadcast_to(extreme.value, value.shape)
            np.testing.assert_allclose(
                value, expected, rtol=1e-6, atol=1e-60, err_msg=str(extreme)
            )


def checked_positions(case: Case, extreme: Extreme) -> list[int]:
    """The arrays whose derivatives must be finite at this extreme."""
    positions = differentiated(case, extreme.arrays)
    if extreme.check_grads_of is None:
        return positions
    return [positions[i] for i in extreme.check_grads_of]


def is_traced(value: Any) -> bool:
    return isinstance(value, float | np.ndarray | jax.Array)


def value_and_derivatives(
    case: Case, positions: list[int], static: dict, arrays: list, traced: dict
) -> tuple[jax.Array, Any]:
    """The value, the gradient, and a Hessian-vector product."""

    def sum_of_numbers(xs: list) -> jax.Array:
        values = case(*replaced(arrays, positions, xs), **static, **traced)
        return jnp.sum(jnp.where(jnp.isnan(values), 0.0, values))

    xs = [arrays[i] for i in positions]
    v = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in xs]
    derivatives = jax.jvp(jax.grad(sum_of_numbers), (xs,), (v,)) if xs else ()
    return case(*arrays, **static, **traced), derivatives


@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.mask and case.dtypes)
def test_masked_entries_never_matter(case: Case) -> None:
    (arrays,) = samples(case)
    where = case.mask(np.random.default_rng(2))

    def is_masked(array: Any) -> bool:
        return is_float(array) and array.shape[: where.ndim] == where.shape

    def mask_of(array: Any) -> np.ndarray:
        return where.reshape(where.shape + (1,) * (array.ndim - where.ndim))

    with_nans = tuple(
        np.where(mask_of(a), a, np.nan) if is_masked(a) else a for a in arrays
    )
    function, clean = as_function_of_floats(case, arrays, where=where)
    _, spoiled = as_function_of_floats(case, with_nans)
    gradient = jit_without_fusion_emitters(jax.grad(lambda xs: jnp.sum(function(*xs))))
    np.testing.assert_array_equal(function(*clean), function(*spoiled))
    for expected, got in zip(gradient(clean), gradient(spoiled), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert not is_masked(got) or not np.any(np.where(mask_of(got), 0, got))


@for_rows(lambda case: not case.adapter)
def test_invalid_arguments_are_reported_by_name(case: Case) -> None:
    arrays = [jnp.asarray(a) for a in samples(case)[0]]
    names = list(inspect.signature(case.function).parameters)
    sentence = f"{case.function.__name__}: ({'|'.join(names)}) must .+, got .+\\."
    for i, name in enumerate(names[: len(arrays)]):
        for value in invalid_values(case, arrays, i):
            with pytest.raises(TypeError) as error:
                case(*replaced(tuple(arrays), [i], [value]))
            message = str(error.value)
            assert re.fullmatch(sentence, message), message
            assert i == 0 or f": {name} must" in message, message
    for name in case.hyperparams:
        kind = "(be a number|have a shape that broadcasts to .+)"
        with pytest.raises(TypeError, match=rf"{name} must {kind}, got float64\[7\]"):
            case(*arrays, **{name: jnp.ones(7)})


def invalid_values(case: Case, arrays: list, i: int) -> list[Any]:
    """Values of a wrong dtype, type, rank or length for the i-th array."""
    array = arrays[i]
    other_dtype = array.astype(int) if is_float(array) else array.astype(float)
    values = [other_dtype, array.astype(complex), "text", [1.0], None]
    if len(arrays) > 1:
        values += [array[..., None], array[0]]
        values += [] if i in case.any_num_rows else [array[:1]]
    return values


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows()
def test_vmap_equals_the_loop(case: Case) -> None:
    batch = samples(case, 3)
    looped = np.stack([case(*arrays) for arrays in batch])
    batched = jit_without_fusion_emitters(jax.vmap(case))(*map(jnp.stack, zip(*batch)))
    np.testing.assert_allclose(batched, looped, rtol=max(1e-13, case.rtol / 10))


@pytest.mark.slow  # each operation compiles by itself
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: not case.adapter and is_first_row(case))
def test_runs_eagerly_on_numpy_arrays(case: Case) -> None:
    (arrays,) = samples(case)
    compiled = case(*arrays)
    with jax.disable_jit():
        eager = case(*arrays)
    np.testing.assert_allclose(eager, compiled, rtol=max(1e-11, case.rtol), atol=1e-13)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows(lambda case: case.hyperparams)
def test_all_hyperparameters_may_be_swept_at_once(case: Case) -> None:
    (arrays,) = samples(case)
    count = max(map(len, case.hyperparams.values()))
    points = [
        {name: values[i % len(values)] for name, values in case.hyperparams.items()}
        for i in range(count)
    ]
    columns = jax.tree.map(lambda *column: jnp.array(column, float), *points)
    sweep = jit_without_fusion_emitters(
        jax.vmap(lambda hyperparams: case(*arrays, **hyperparams))
    )
    looped = [case(*arrays, **point) for point in points]
    np.testing.assert_allclose(sweep(columns), looped, rtol=case.rtol)


@pytest.mark.slow
@pytest.mark.usefixtures("no_xla_optimizations")
@for_rows()
def test_the_second_call_does_not_compile(case: Case, compilations: list) -> None:
    first, second = samples(case, 2)
    hyperparams = [
        {name: v[i % len(v)] for name, v in case.hyperparams.items()} for i in (0, 1)
    ]
    function = jax.jit(case) if case.adapter else case
    function(*first, **hyperparams[0])
    compilations.clear()
    function(*second, **hyperparams[1])
    assert not compilations
