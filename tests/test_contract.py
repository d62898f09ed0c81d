"""What every function promises, held against every row of the table of cases."""

import inspect
import re
import zlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, cases

CASES = cases()
ULP = {jnp.float32: 2.0**-23, jnp.bfloat16: 2.0**-7, jnp.float16: 2.0**-10}


def rows(condition: Any = lambda case: True) -> Any:
    """The rows of which a promise speaks, each under its name."""
    chosen = [case for case in CASES if condition(case)]
    ids = [f"{case.name}-{case.label}".rstrip("-") for case in chosen]
    return pytest.mark.parametrize("case", chosen, ids=ids)


def samples(case: Case, count: int = 1) -> list[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return [case.sample(rng) for _ in range(count)]


def cast(arrays: tuple, dtype: Any) -> tuple[jax.Array, ...]:
    arrays = tuple(map(jnp.asarray, arrays))
    return tuple(a.astype(dtype) if is_float(a) else a for a in arrays)


def is_float(array: Any) -> bool:
    return jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating)


def floats_of(case: Case, arrays: tuple, **keywords: Any) -> tuple[Any, list]:
    """The row as a function of its float arrays alone, and these."""
    arrays = tuple(map(jnp.asarray, arrays))
    floats = [i for i, a in enumerate(arrays) if is_float(a)]
    moving = [i for i in floats if i not in case.constant]

    def function(*floats: jax.Array) -> jax.Array:
        merged = list(arrays)
        for i, value in zip(moving, floats, strict=True):
            merged[i] = value
        return case(*merged, **keywords)

    return function, [arrays[i] for i in moving]


@pytest.mark.usefixtures("quick_compilation")
@rows()
def test_equals_the_truth_in_float64(case: Case) -> None:
    for arrays in samples(case, 2):
        for numbers in case.variations():
            np.testing.assert_allclose(
                case(*arrays, **numbers),
                case.expected(*arrays, **numbers),
                rtol=case.rtol,
                atol=1e-300,
                err_msg=str(numbers),
            )


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.mask)
def test_equals_the_truth_of_what_is_kept(case: Case) -> None:
    (arrays,) = samples(case)
    where = case.mask(np.random.default_rng(0))
    got, expected = case(*arrays, where=where), case.expected(*arrays, where=where)
    np.testing.assert_allclose(got, expected, rtol=case.rtol)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
@rows(lambda case: case.dtypes)
def test_keeps_the_dtype_and_rounds_once(case: Case, dtype: Any) -> None:
    arrays = cast(samples(case)[0], dtype)
    got = case(*arrays)
    assert got.dtype == dtype
    function, floats = floats_of(case, arrays)
    slopes = jax.eval_shape(lambda *xs: jax.vjp(function, *xs)[1](got), *floats)
    assert all(slope.dtype == dtype for slope in slopes)
    if dtype in ULP:
        units = ULP[dtype] * (case.ulps if dtype == jnp.float32 else 0.51)
        expected = case.expected(*arrays)
        below = jnp.finfo(dtype).tiny + case.cancels * ULP[
            jnp.float32
        ] * case.ulps * np.max(abs(expected))
        np.testing.assert_allclose(np.float64(got), expected, rtol=units, atol=below)


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.dtypes)
def test_the_gradient_is_the_derivative_twice(case: Case) -> None:
    function, floats = floats_of(case, samples(case)[0])
    rng = np.random.default_rng(1)
    direction, other = (
        [jnp.asarray(rng.normal(size=a.shape)) for a in floats] for _ in "vw"
    )

    @jax.jit
    def compare(floats: list, v: list, w: list) -> Any:
        def total(xs: list) -> jax.Array:
            values = function(*xs)
            return jnp.sum(
                values * jnp.cos(jnp.arange(values.size).reshape(values.shape))
            )

        def along(f: Any, h: float = 1e-5) -> jax.Array:
            ahead, behind = (
                [x + s * h * d for x, d in zip(floats, v)] for s in (1, -1)
            )
            return (f(ahead) - f(behind)) / (2 * h)

        def dot(xs: list, ys: list) -> jax.Array:
            return sum(jnp.sum(x * y) for x, y in zip(xs, ys))

        gradient = jax.grad(total)
        reverse = dot(gradient(floats), v)
        forward = jax.jvp(total, (floats,), (v,))[1] if case.forward else reverse
        first = along(total), forward, reverse

        def slope(xs: list) -> jax.Array:
            return dot(gradient(xs), w)

        second = along(slope), jax.jvp(slope, (floats,), (v,))[1]
        return first, second, dot(jax.grad(slope)(floats), v)

    (numeric, forward, reverse), (numeric2, over), twice = compare(
        floats, direction, other
    )
    np.testing.assert_allclose([forward, reverse], numeric, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose([over, twice], numeric2, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.numbers and case.dtypes)
def test_numbers_have_derivatives(case: Case) -> None:
    (arrays,) = samples(case)
    for name, values in case.numbers.items():
        at, h = 0.8 * max(values) + 0.07, 1e-6

        def total(value: Any, name: str = name) -> jax.Array:
            return jnp.sum(case(*arrays, **{name: value}))

        numeric = (total(at + h) - total(at - h)) / (2 * h)
        got = jax.jit(jax.grad(total))(at)
        np.testing.assert_allclose(got, numeric, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.extremes)
def test_extremes_have_values_and_finite_derivatives(case: Case) -> None:
    programs = {}  # extremes of one shape compile once
    for extreme in case.extremes:
        arrays = [jnp.asarray(array) for array in extreme.arrays]
        moving = [
            i
            for i, array in enumerate(arrays)
            if is_float(array) and i not in case.constant
        ]
        if extreme.finite is not None:
            moving = [moving[i] for i in extreme.finite]
        traced = {n: v for n, v in extreme.keywords.items() if is_traced(v)}
        fixed = {n: v for n, v in extreme.keywords.items() if not is_traced(v)}
        key = str((moving, fixed))
        if key not in programs:
            programs[key] = jax.jit(partial(with_slopes, case, moving, fixed))
        got, slopes = programs[key](arrays, traced)
        assert all(np.isfinite(s).all() for s in jax.tree.leaves(slopes)), extreme
        if extreme.value is None:
            assert np.isfinite(got).all(), extreme
        else:
            value = np.broadcast_to(extreme.value, got.shape)
            np.testing.assert_allclose(
                got, value, rtol=1e-6, atol=1e-60, err_msg=str(extreme)
            )


def is_traced(value: Any) -> bool:
    return isinstance(value, float | np.ndarray | jax.Array)


def with_slopes(
    case: Case, moving: list[int], fixed: dict, arrays: list, traced: dict
) -> tuple[jax.Array, Any]:
    """The value, its derivatives at some places, and how they change along a line."""

    def total(xs: list) -> jax.Array:
        """The sum of the values that are numbers."""
        moved = list(arrays)
        for i, x in zip(moving, xs):
            moved[i] = x
        values = case(*moved, **fixed, **traced)
        return jnp.sum(jnp.where(jnp.isnan(values), 0.0, values))

    xs = [arrays[i] for i in moving]
    along = [jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in xs]
    slopes = jax.jvp(jax.grad(total), (xs,), (along,)) if xs else ()
    return case(*arrays, **fixed, **traced), slopes


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.mask and case.dtypes)
def test_what_is_masked_counts_for_nothing(case: Case) -> None:
    (arrays,) = samples(case)
    where = case.mask(np.random.default_rng(2))

    def spoilt(array: np.ndarray) -> np.ndarray:
        mask = where.reshape(where.shape + (1,) * (array.ndim - where.ndim))
        return np.where(mask, array, np.nan)

    dirty = tuple(spoilt(a) if is_float(a) else a for a in arrays)
    function, floats = floats_of(case, arrays, where=where)
    _, dirty_floats = floats_of(case, dirty)
    gradient = jax.jit(jax.grad(lambda xs: jnp.sum(function(*xs))))

    np.testing.assert_array_equal(function(*floats), function(*dirty_floats))
    for clean, other in zip(gradient(floats), gradient(dirty_floats), strict=True):
        mask = where.reshape(where.shape + (1,) * (clean.ndim - where.ndim))
        np.testing.assert_array_equal(clean, other)
        assert not np.any(np.where(mask, 0, other))


@rows(lambda case: not case.call)
def test_wrong_arguments_are_refused_by_name(case: Case) -> None:
    arrays = [jnp.asarray(a) for a in samples(case)[0]]
    names = list(inspect.signature(case.function).parameters)
    for i, (name, array) in enumerate(zip(names, arrays)):
        swapped = array.astype(int) if is_float(array) else array.astype(float)
        wrong = [swapped, array.astype(complex), "text", [1.0], None]
        if len(arrays) > 1:
            wrong += [array[..., None], array[0]]
            wrong += [] if i in case.free else [array[:1]]
        for value in wrong:
            given = [value if j == i else a for j, a in enumerate(arrays)]
            sentence = f"{case.function.__name__}: ({'|'.join(names)}) must .+, got .+"
            with pytest.raises(TypeError) as refusal:
                case(*given)
            message = str(refusal.value)
            assert re.fullmatch(sentence, message) and message.endswith("."), message
            assert i == 0 or f": {name} must" in message, message
    for name in case.numbers:
        with pytest.raises(TypeError, match=f"{name} must be a number, got float64"):
            case(*arrays, **{name: jnp.ones(3)})


@pytest.mark.usefixtures("quick_compilation")
@rows()
def test_vmap_equals_the_loop_and_jit_equals_eager(case: Case) -> None:
    several = samples(case, 3)
    looped = np.stack([case(*arrays) for arrays in several])
    together = jax.jit(jax.vmap(case))(*map(jnp.stack, zip(*several)))
    np.testing.assert_allclose(together, looped, rtol=max(1e-13, case.rtol / 10))


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.numbers)
def test_every_number_may_be_swept(case: Case) -> None:
    (arrays,) = samples(case)
    for name, values in case.numbers.items():
        sweep = jax.jit(
            jax.vmap(lambda value, name=name: case(*arrays, **{name: value}))
        )
        looped = [case(*arrays, **{name: value}) for value in values]
        got = sweep(jnp.array(values, float))
        np.testing.assert_allclose(got, looped, rtol=case.rtol, err_msg=name)


@pytest.mark.usefixtures("quick_compilation")
@rows()
def test_the_second_call_does_not_compile(case: Case, compilations: list) -> None:
    first, second = samples(case, 2)
    numbers = [
        {name: v[i % len(v)] for name, v in case.numbers.items()} for i in (0, 1)
    ]
    function = jax.jit(case) if case.call else case
    function(*first, **numbers[0])
    compilations.clear()
    function(*second, **numbers[1])
    assert not compilations
