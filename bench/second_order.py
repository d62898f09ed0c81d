"""Second-order optimizers and their peers: steps, products and time to convergence.

    python -m bench.second_order [--small] [--only logistic rosenbrock ...]

The solvers of a problem alternate in one process. All but SciPy's are compiled as a
whole. `faster` is the time of optax.lbfgs, or of optimistix, divided by that of the
row; `products` are Hessian-vector products. On the digits, each optimizer trains the
same initial network for the same number of seconds, Adam at the best of `ADAM_RATES`.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench import measure
from bench.truths.least_squares import PROBLEMS, Problem
from jaxml import activations, losses, optimizers, tasks

ADAM_RATES = 1e-3, 3e-3, 1e-2, 3e-2
TOLERANCE = 1e-8  # relative and absolute, of optimistix's termination rule


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a quarter of the sizes")
    parser.add_argument("--only", nargs="*", default=BENCHES, choices=BENCHES)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in args.only:
        rows = BENCHES[name](4 if args.small else 1)
        measure.record(f"second_order.{name}", rows)


# Minimization until the gradient is small


def logistic(shrink: int) -> list[dict[str, Any]]:
    """4000 examples of 200 rotated features, with scales from 1 to 1/1000."""
    n, d = 4000 // shrink, 200 // shrink
    rng = np.random.default_rng(0)
    scales = np.logspace(0, -3, d)
    features = rng.normal(size=(n, d)) * scales
    weights = rng.normal(size=d) / scales / np.sqrt(d)
    signs = np.where(features @ weights + rng.logistic(size=n) > 0, 1, -1)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    x = jnp.asarray(features * signs[:, None] @ rotation)

    def f(w: jax.Array) -> jax.Array:
        return jnp.mean(losses.logistic_loss(x @ w, jnp.ones(n))) + 1e-6 * w @ w / 2

    return compare_minimizers(f"{n} x {d}", f, np.zeros(d), 1e-7)


def rosenbrock(shrink: int) -> list[dict[str, Any]]:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    starts = np.array([-1.2, 1.0]), np.zeros(10)
    return [row for x in starts for row in compare_minimizers(f"{len(x)}", f, x, 1e-8)]


def compare_minimizers(
    problem: str, f: Callable[..., jax.Array], start: np.ndarray, tolerance: float
) -> list[dict[str, Any]]:
    x = jnp.asarray(start)
    solvers = {
        "newton": make_newton_solver(optimizers.newton(), f, tolerance),
        "newton_cg": make_newton_solver(optimizers.newton_cg(), f, tolerance),
        "optax.lbfgs": make_lbfgs_solver(f, tolerance),
        "scipy trust-ncg": make_scipy_solver(f, tolerance),
    }
    seconds = measure.interleaved_medians(
        {name: lambda s=s: s(x) for name, s in solvers.items()}, repeats=7
    )
    rows = []
    for name, solve in solvers.items():
        minimizer, num_steps, products = solve(x)
        rows.append(
            {
                "problem": problem,
                "solver": name,
                "steps": int(num_steps),
                "products": int(products) if products is not None else "-",
                "value": float(f(minimizer)),
                "gradient": float(jnp.linalg.norm(jax.grad(f)(minimizer))),
                "ms": 1e3 * seconds[name],
                "faster": seconds["optax.lbfgs"] / seconds[name],
            }
        )
    return rows


def make_newton_solver(
    optimizer: Any,
    f: Callable[..., jax.Array],
    tolerance: float,
    max_steps: int = 1000,
) -> Callable[[jax.Array], tuple]:
    """x -> (the x with ‖∇f(x)‖ <= tolerance, steps, products)."""

    def cond_fun(carry: tuple) -> jax.Array:
        _, state, grads = carry
        return (jnp.linalg.norm(grads) > tolerance) & (state.count < max_steps)

    def body_fun(carry: tuple) -> tuple:
        x, state, grads = carry
        updates, state = optimizer.update(grads, state, x, value_fn=f)
        return x + updates, state, jax.grad(f)(x + updates)

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        init = x, optimizer.init(x), jax.grad(f)(x)
        x, state, _ = jax.lax.while_loop(cond_fun, body_fun, init)
        return x, state.count, state.products

    return solve


def make_lbfgs_solver(
    f: Callable[..., jax.Array], tolerance: float
) -> Callable[..., tuple]:
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(f)

    def cond_fun(carry: tuple) -> jax.Array:
        _, state, num_steps = carry
        grad_norm = jnp.linalg.norm(optax.tree.get(state, "grad"))
        return (num_steps == 0) | ((grad_norm > tolerance) & (num_steps < 10_000))

    def body_fun(carry: tuple) -> tuple:
        x, state, num_steps = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = optimizer.update(
            grad, state, x, value=value, grad=grad, value_fn=f
        )
        return x + updates, state, num_steps + 1

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        init = x, optimizer.init(x), 0
        x, _, num_steps = jax.lax.while_loop(cond_fun, body_fun, init)
        return x, num_steps, None

    return solve


def make_scipy_solver(
    f: Callable[..., jax.Array], tolerance: float
) -> Callable[..., tuple]:
    from scipy.optimize import minimize

    jitted_value_and_grad = jax.jit(jax.value_and_grad(f))
    hvp = jax.jit(lambda x, v: jax.jvp(jax.grad(f), (x,), (v,))[1])

    def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = jitted_value_and_grad(x)
        return float(value), np.asarray(grad)

    def solve(x: jax.Array) -> tuple:
        result = minimize(
            value_and_grad,
            np.asarray(x),
            jac=True,
            hessp=lambda x, v: np.asarray(hvp(x, v)),
            method="trust-ncg",
            options={"gtol": tolerance},
        )
        return jnp.asarray(result.x), result.nit, result.nhev

    return solve


# Least squares


def least_squares(shrink: int) -> list[dict[str, Any]]:
    return [compare_least_squares(name, p) for name, p in PROBLEMS.items()]


def compare_least_squares(name: str, problem: Problem) -> dict[str, Any]:
    """Both solvers stop when x and ½ Σ rᵢ² change by less than the tolerance."""
    x, residuals = jnp.array(problem.start), problem.residuals
    solvers = {"ours": make_levenberg_marquardt_solver(residuals)}
    solvers |= make_optimistix_solver(residuals)
    seconds = measure.interleaved_medians(
        {name: lambda s=s: s(x) for name, s in solvers.items()}, repeats=9
    )
    row: dict[str, Any] = {"problem": name, "published": problem.minima[0]}
    for solver, solve in solvers.items():
        minimizer, num_steps = solve(x)
        row[f"{solver} sum"] = float(jnp.sum(residuals(minimizer) ** 2))
        row[f"{solver} steps"] = int(num_steps)
        row[f"{solver} ms"] = 1e3 * seconds[solver]
    row["faster"] = seconds.get("optimistix", float("nan")) / seconds["ours"]
    return row


def make_levenberg_marquardt_solver(
    residuals: Callable[[jax.Array], jax.Array],
) -> Callable[..., tuple]:
    optimizer = optimizers.levenberg_marquardt()

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(residuals(x) ** 2) / 2

    def cond_fun(carry: tuple) -> jax.Array:
        _, state, _, converged = carry
        return ~converged & (state.count < 1000)

    def body_fun(carry: tuple) -> tuple:
        x, state, previous_value, _ = carry
        value, grads = jax.value_and_grad(f)(x)
        updates, state = optimizer.update(grads, state, x, residual_fn=residuals)
        accepted = state.gain_ratio > 1e-4
        x_converged = jnp.all(abs(updates) < TOLERANCE * (1 + abs(x)))
        f_converged = abs(value - previous_value) < TOLERANCE * (1 + value)
        return x + updates, state, value, accepted & x_converged & f_converged

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        init = x, optimizer.init(x), jnp.inf, False
        x, state, _, _ = jax.lax.while_loop(cond_fun, body_fun, init)
        return x, state.count

    return solve


def make_optimistix_solver(
    residuals: Callable[[jax.Array], jax.Array],
) -> dict[str, Callable]:
    """Nothing if optimistix is not installed."""
    try:
        import optimistix
    except ImportError:
        return {}
    method = optimistix.LevenbergMarquardt(rtol=TOLERANCE, atol=TOLERANCE)

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        solution = optimistix.least_squares(
            lambda x, _: residuals(x), method, x, max_steps=1000, throw=False
        )
        return solution.value, solution.stats["num_steps"]

    return {"optimistix": solve}


# Training a network


def digits(shrink: int) -> list[dict[str, Any]]:
    """The training loss of a network with one hidden layer after equal seconds."""
    task = tasks.digits()
    config = {"activation": activations.tanh, "loss": losses.cross_entropy}
    params = task.init(jax.random.key(0), config)

    def value_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return task.loss(params, (x, y), config)

    def predict_fn(params: Any, x: jax.Array) -> jax.Array:
        hidden = activations.tanh(x @ params["w1"].T + params["b1"].T)
        return hidden @ params["w2"].T + params["b2"].T

    def loss_fn(logits: jax.Array, y: jax.Array) -> jax.Array:
        return losses.mean(losses.cross_entropy(logits, y))

    newton_cg = optimizers.newton_cg(max_iterations=50)
    hessian = {"value_fn": value_fn}
    gauss_newton = {"predict_fn": predict_fn, "loss_fn": loss_fn}
    variants = {
        "newton_cg": [(newton_cg, hessian, None)],
        "newton_cg, Gauss-Newton": [(newton_cg, gauss_newton, None)],
        "adam": [(optimizers.adam(rate), {}, None) for rate in ADAM_RATES],
        "adam, batches of 64": [(optimizers.adam(rate), {}, 64) for rate in ADAM_RATES],
    }
    rows = []
    for seconds in (
        (1.0 / shrink,) if measure.MAX_REPEATS else (1.0 / shrink, 8.0 / shrink)
    ):
        for name, candidates in variants.items():
            loss, num_steps = min(
                train(optimizer, value_fn, functions, params, task.train, size, seconds)
                for optimizer, functions, size in candidates
            )
            row = {"seconds": seconds, "optimizer": name, "steps": num_steps}
            rows.append(row | {"loss": loss})
    return rows


def train(
    optimizer: Any,
    value_fn: Callable[..., jax.Array],
    functions: dict[str, Callable],
    params: Any,
    data: tuple[jax.Array, jax.Array],
    batch_size: int | None,
    seconds: float,
) -> tuple[float, int]:
    """The loss over all data after so many seconds, and the number of steps."""

    @jax.jit
    def run_chunk(params: Any, state: Any, key: jax.Array) -> tuple:
        def step(carry: tuple, key: jax.Array) -> tuple:
            params, state = carry
            x, y = data
            if batch_size:
                indices = jax.random.randint(key, (batch_size,), 0, len(y))
                x, y = x[indices], y[indices]
            grads = jax.grad(value_fn)(params, x, y)
            updates, state = optimizer.update(
                grads, state, params, **functions, x=x, y=y
            )
            return (optax.apply_updates(params, updates), state), None

        # Enough steps per call to make the cost of Python's loop negligible.
        num_steps = 1 if functions else 20
        keys = jax.random.split(key, num_steps)
        return jax.lax.scan(step, (params, state), keys)[0]

    state, num_chunks = optimizer.init(params), 0
    jax.block_until_ready(run_chunk(params, state, jax.random.key(0)))  # compiles
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        num_chunks += 1
        key = jax.random.key(num_chunks)
        params, state = jax.block_until_ready(run_chunk(params, state, key))
    return float(value_fn(params, *data)), int(state.count)


BENCHES = {
    "logistic": logistic,
    "rosenbrock": rosenbrock,
    "least_squares": least_squares,
    "digits": digits,
}

if __name__ == "__main__":
    main()
