"""What every function promises, held against every row of the table of cases."""

import inspect
import re
import zlib
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case, cases

CASES = cases()
ULP = {jnp.float32: 2.0**-23, jnp.bfloat16: 2.0**-7, jnp.float16: 2.0**-10}


def rows(condition: Any = lambda case: True) -> Any:
    """The rows of which a promise speaks, each under its name.

    One process holds a row to all promises, so that its program is compiled once.
    """
    chosen = [(f"{c.name}-{c.id_suffix}".rstrip("-"), c) for c in CASES if condition(c)]
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=name, marks=pytest.mark.xdist_group(name))
            for name, case in chosen
        ],
    )


def quick_jit(function: Any) -> Any:
    """`jax.jit` with XLA:CPU's older kernels, which are compiled in half the time."""
    return jax.jit(function, compiler_options=older_kernels())


@cache
def older_kernels() -> dict[str, bool]:
    options = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0, compiler_options=options)()
    except jax.errors.JaxRuntimeError:  # a jaxlib that has no others
        return {}
    return options


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
    moving = [i for i in floats if i not in case.not_differentiated]

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
    function, floats = floats_of(case, arrays)

    def with_slopes(*xs: jax.Array) -> Any:
        value, pullback = jax.vjp(function, *xs)
        return value, pullback(value)

    leaves = jax.tree.leaves(jax.eval_shape(with_slopes, *floats))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
    if dtype in ULP:
        got = case(*arrays)
        units = ULP[dtype] * (case.ulps if dtype == jnp.float32 else 0.51)
        expected = case.expected(*arrays)
        below = jnp.finfo(dtype).tiny + case.tol_relative_to_max * ULP[
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

    @quick_jit
    def compare(floats: list, v: list, w: list) -> Any:
        def total(xs: list) -> jax.Array:
            values = function(*xs)
            return jnp.sum(
                values * jnp.cos(jnp.arange(values.size).reshape(values.shape))
            )

        def dot(xs: list, ys: list) -> jax.Array:
            return sum(jnp.sum(x * y) for x, y in zip(xs, ys))

        def both(xs: list) -> jax.Array:
            """The sum, and its slope along w."""
            value, gradient = jax.value_and_grad(total)(xs)
            return jnp.stack([value, dot(gradient, w)])

        h = 1e-5
        sides = [jnp.stack([x + h * d, x - h * d]) for x, d in zip(floats, v)]
        ahead, behind = jax.lax.map(both, sides)
        gradient, change = jax.jvp(jax.grad(total), (floats,), (v,))
        reverse = dot(gradient, v)
        forward = jax.jvp(total, (floats,), (v,))[1] if case.has_jvp else reverse
        twice = dot(jax.grad(lambda xs: both(xs)[1])(floats), v)
        return (ahead - behind) / (2 * h), (forward, reverse), (dot(change, w), twice)

    numeric, first, second = compare(floats, direction, other)
    np.testing.assert_allclose(first, numeric[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(second, numeric[1], rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.hyperparams and case.dtypes)
def test_numbers_have_derivatives(case: Case) -> None:
    (arrays,) = samples(case)
    at = {name: 0.8 * max(values) + 0.07 for name, values in case.hyperparams.items()}
    h = 1e-6

    def total(numbers: dict[str, Any]) -> jax.Array:
        return jnp.sum(case(*arrays, **numbers))

    value, got = quick_jit(total), quick_jit(jax.grad(total))(at)
    for name, x in at.items():
        ahead, behind = (value(at | {name: x + s * h}) for s in (1, -1))
        numeric = (ahead - behind) / (2 * h)
        np.testing.assert_allclose(
            got[name], numeric, rtol=1e-5, atol=1e-6, err_msg=name
        )


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.extremes)
def test_extremes_have_values_and_finite_derivatives(case: Case) -> None:
    programs = {}  # extremes of one shape compile once
    for extreme in case.extremes:
        arrays = [jnp.asarray(array) for array in extreme.arrays]
        moving = [
            i
            for i, array in enumerate(arrays)
            if is_float(array) and i not in case.not_differentiated
        ]
        if extreme.check_grads_of is not None:
            moving = [moving[i] for i in extreme.check_grads_of]
        traced = {n: v for n, v in extreme.keywords.items() if is_traced(v)}
        fixed = {n: v for n, v in extreme.keywords.items() if not is_traced(v)}
        key = str((moving, fixed))
        if key not in programs:
            programs[key] = quick_jit(partial(with_slopes, case, moving, fixed))
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
    gradient = quick_jit(jax.grad(lambda xs: jnp.sum(function(*xs))))

    np.testing.assert_array_equal(function(*floats), function(*dirty_floats))
    for clean, other in zip(gradient(floats), gradient(dirty_floats), strict=True):
        mask = where.reshape(where.shape + (1,) * (clean.ndim - where.ndim))
        np.testing.assert_array_equal(clean, other)
        assert not np.any(np.where(mask, 0, other))


@rows(lambda case: not case.adapter)
def test_wrong_arguments_are_refused_by_name(case: Case) -> None:
    arrays = [jnp.asarray(a) for a in samples(case)[0]]
    names = list(inspect.signature(case.function).parameters)
    for i, (name, array) in enumerate(zip(names, arrays)):
        swapped = array.astype(int) if is_float(array) else array.astype(float)
        wrong = [swapped, array.astype(complex), "text", [1.0], None]
        if len(arrays) > 1:
            wrong += [array[..., None], array[0]]
            wrong += [] if i in case.any_num_rows else [array[:1]]
        for value in wrong:
            given = [value if j == i else a for j, a in enumerate(arrays)]
            sentence = f"{case.function.__name__}: ({'|'.join(names)}) must .+, got .+"
            with pytest.raises(TypeError) as refusal:
                case(*given)
            message = str(refusal.value)
            assert re.fullmatch(sentence, message) and message.endswith("."), message
            assert i == 0 or f": {name} must" in message, message
    for name in case.hyperparams:
        with pytest.raises(TypeError, match=f"{name} must be a number, got float64"):
            case(*arrays, **{name: jnp.ones(3)})


@pytest.mark.usefixtures("quick_compilation")
@rows()
def test_vmap_equals_the_loop_and_jit_equals_eager(case: Case) -> None:
    several = samples(case, 3)
    looped = np.stack([case(*arrays) for arrays in several])
    together = quick_jit(jax.vmap(case))(*map(jnp.stack, zip(*several)))
    np.testing.assert_allclose(together, looped, rtol=max(1e-13, case.rtol / 10))


@pytest.mark.usefixtures("quick_compilation")
@rows(lambda case: case.hyperparams)
def test_all_numbers_may_be_swept_at_once(case: Case) -> None:
    (arrays,) = samples(case)
    count = max(map(len, case.hyperparams.values()))
    points = [
        {n: v[i % len(v)] for n, v in case.hyperparams.items()} for i in range(count)
    ]
    columns = jax.tree.map(lambda *column: jnp.array(column, float), *points)
    sweep = quick_jit(jax.vmap(lambda numbers: case(*arrays, **numbers)))
    looped = [case(*arrays, **point) for point in points]
    np.testing.assert_allclose(sweep(columns), looped, rtol=case.rtol)


@pytest.mark.usefixtures("quick_compilation")
@rows()
def test_the_second_call_does_not_compile(case: Case, compilations: list) -> None:
    first, second = samples(case, 2)
    numbers = [
        {name: v[i % len(v)] for name, v in case.hyperparams.items()} for i in (0, 1)
    ]
    function = jax.jit(case) if case.adapter else case
    function(*first, **numbers[0])
    compilations.clear()
    function(*second, **numbers[1])
    assert not compilations
