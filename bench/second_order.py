"""Second order beside its peers: steps, products and time to one gradient or residual.

    python -m bench.second_order [--small] [--only logistic rosenbrock ...]

All solvers of a problem run in turn in one process, compiled whole but for SciPy's.
`faster` is the time of optax.lbfgs, or of optimistix, by that of the row; `products`
are those of a Hessian with a vector. The network on the digits is trained for the same
seconds by each optimizer, from the same weights; Adam at the best of the rates `RATES`.
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
from bench.least_squares_problems import PROBLEMS, Problem
from jaxml import activations, losses, optimizers, tasks

RATES = 1e-3, 3e-3, 1e-2, 3e-2
TOLERANCE = 1e-8  # of optimistix's rule for the end, relative and absolute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a quarter of the sizes")
    parser.add_argument("--only", nargs="*", default=BENCHES, choices=BENCHES)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in given.only:
        rows = BENCHES[name](4 if given.small else 1)
        measure.record(f"second_order.{name}", rows)


# To a small gradient


def logistic(shrink: int) -> list[dict[str, Any]]:
    """4000 examples of 200 features, whose scales fall from 1 to 1/1000, rotated."""
    n, d = 4000 // shrink, 200 // shrink
    rng = np.random.default_rng(0)
    scales = np.logspace(0, -3, d)
    rows = rng.normal(size=(n, d)) * scales
    weights = rng.normal(size=d) / scales / np.sqrt(d)
    signs = np.where(rows @ weights + rng.logistic(size=n) > 0, 1, -1)
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    x = jnp.asarray(rows * signs[:, None] @ rotation)

    def f(w: jax.Array) -> jax.Array:
        return jnp.mean(losses.logistic_loss(x @ w, jnp.ones(n))) + 1e-6 * w @ w / 2

    return compared(f"{n} x {d}", f, np.zeros(d), 1e-7)


def rosenbrock(shrink: int) -> list[dict[str, Any]]:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    starts = np.array([-1.2, 1.0]), np.zeros(10)
    return [row for x in starts for row in compared(f"{len(x)}", f, x, 1e-8)]


def compared(
    problem: str, f: Callable[..., jax.Array], start: np.ndarray, tolerance: float
) -> list[dict[str, Any]]:
    x = jnp.asarray(start)
    solvers = {
        "newton": solver(optimizers.newton(), f, tolerance),
        "newton_cg": solver(optimizers.newton_cg(), f, tolerance),
        "optax.lbfgs": lbfgs(f, tolerance),
        "scipy trust-ncg": scipys(f, tolerance),
    }
    seconds = measure.paired(
        {name: lambda s=s: s(x) for name, s in solvers.items()}, repeats=7
    )
    rows = []
    for name, solve in solvers.items():
        reached, steps, products = solve(x)
        rows.append(
            {
                "problem": problem,
                "solver": name,
                "steps": int(steps),
                "products": int(products) if products is not None else "-",
                "value": float(f(reached)),
                "gradient": float(jnp.linalg.norm(jax.grad(f)(reached))),
                "ms": 1e3 * seconds[name],
                "faster": seconds["optax.lbfgs"] / seconds[name],
            }
        )
    return rows


def solver(
    optimizer: Any, f: Callable[..., jax.Array], tolerance: float, most: int = 1000
) -> Callable[[jax.Array], tuple]:
    """x -> (where ‖g‖ is small, steps, products)."""

    def unfinished(carry: tuple) -> jax.Array:
        _, state, g = carry
        return (jnp.linalg.norm(g) > tolerance) & (state.count < most)

    def stepped(carry: tuple) -> tuple:
        x, state, g = carry
        updates, state = optimizer.update(g, state, x, value_fn=f)
        return x + updates, state, jax.grad(f)(x + updates)

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        start = x, optimizer.init(x), jax.grad(f)(x)
        x, state, _ = jax.lax.while_loop(unfinished, stepped, start)
        return x, state.count, state.products

    return solve


def lbfgs(f: Callable[..., jax.Array], tolerance: float) -> Callable[..., tuple]:
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(f)

    def unfinished(carry: tuple) -> jax.Array:
        _, state, steps = carry
        far = jnp.linalg.norm(optax.tree.get(state, "grad")) > tolerance
        return (steps == 0) | (far & (steps < 10_000))

    def stepped(carry: tuple) -> tuple:
        x, state, steps = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = optimizer.update(
            grad, state, x, value=value, grad=grad, value_fn=f
        )
        return x + updates, state, steps + 1

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        start = x, optimizer.init(x), 0
        x, _, steps = jax.lax.while_loop(unfinished, stepped, start)
        return x, steps, None

    return solve


def scipys(f: Callable[..., jax.Array], tolerance: float) -> Callable[..., tuple]:
    from scipy.optimize import minimize

    value_and_grad = jax.jit(jax.value_and_grad(f))
    product = jax.jit(lambda x, v: jax.jvp(jax.grad(f), (x,), (v,))[1])

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_grad(x)
        return float(value), np.asarray(gradient)

    def solve(x: jax.Array) -> tuple:
        result = minimize(
            both,
            np.asarray(x),
            jac=True,
            hessp=lambda x, v: np.asarray(product(x, v)),
            method="trust-ncg",
            options={"gtol": tolerance},
        )
        return jnp.asarray(result.x), result.nit, result.nhev

    return solve


# Least squares


def least_squares(shrink: int) -> list[dict[str, Any]]:
    return [squares(name, problem) for name, problem in PROBLEMS.items()]


def squares(name: str, problem: Problem) -> dict[str, Any]:
    """Both end by one rule: x and ½ Σ rᵢ² change by less than the tolerance."""
    x, r = jnp.array(problem.start), problem.residuals
    solvers = {"ours": marquardt(r)} | optimistixs(r)
    seconds = measure.paired(
        {name: lambda s=s: s(x) for name, s in solvers.items()}, repeats=9
    )
    row: dict[str, Any] = {"problem": name, "published": problem.minima[0]}
    for solver, solve in solvers.items():
        reached, steps = solve(x)
        row[f"{solver} sum"] = float(jnp.sum(r(reached) ** 2))
        row[f"{solver} steps"] = int(steps)
        row[f"{solver} ms"] = 1e3 * seconds[solver]
    row["faster"] = seconds.get("optimistix", float("nan")) / seconds["ours"]
    return row


def marquardt(r: Callable[[jax.Array], jax.Array]) -> Callable[..., tuple]:
    optimizer = optimizers.levenberg_marquardt()

    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(r(x) ** 2) / 2

    def unfinished(carry: tuple) -> jax.Array:
        _, state, _, finished = carry
        return ~finished & (state.count < 1000)

    def stepped(carry: tuple) -> tuple:
        x, state, before, _ = carry
        value, gradient = jax.value_and_grad(f)(x)
        updates, state = optimizer.update(gradient, state, x, residual_fn=r)
        small = jnp.all(abs(updates) < TOLERANCE * (1 + abs(x)))
        still = abs(value - before) < TOLERANCE * (1 + value)
        taken = state.gain_ratio > 1e-4
        return x + updates, state, value, taken & small & still

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        start = x, optimizer.init(x), jnp.inf, False
        x, state, _, _ = jax.lax.while_loop(unfinished, stepped, start)
        return x, state.count

    return solve


def optimistixs(r: Callable[[jax.Array], jax.Array]) -> dict[str, Callable]:
    try:
        import optimistix
    except ImportError:
        return {}
    method = optimistix.LevenbergMarquardt(rtol=TOLERANCE, atol=TOLERANCE)

    @jax.jit
    def solve(x: jax.Array) -> tuple:
        solution = optimistix.least_squares(
            lambda x, _: r(x), method, x, max_steps=1000, throw=False
        )
        return solution.value, solution.stats["num_steps"]

    return {"optimistix": solve}


# A network


def digits(shrink: int) -> list[dict[str, Any]]:
    """The training loss of a network of one hidden layer, after the same seconds."""
    task = tasks.digits()
    point = {"activation": activations.tanh, "loss": losses.cross_entropy}
    params = task.init(jax.random.key(0), point)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return task.loss(params, (x, y), point)

    def logits(params: Any, x: jax.Array) -> jax.Array:
        hidden = activations.tanh(x @ params["w1"].T + params["b1"])
        return hidden @ params["w2"].T + params["b2"]

    def of_logits(scores: jax.Array, y: jax.Array) -> jax.Array:
        return losses.mean(losses.cross_entropy(scores, y))

    newton = optimizers.newton_cg(max_iterations=50)
    parts = {"predict_fn": logits, "loss_fn": of_logits}
    rivals = {
        "newton_cg": [(newton, {"value_fn": loss}, None)],
        "newton_cg, Gauss and Newton's": [(newton, parts, None)],
        "adam": [(optimizers.adam(rate), {}, None) for rate in RATES],
        "adam, batches of 64": [(optimizers.adam(rate), {}, 64) for rate in RATES],
    }
    rows = []
    for seconds in (1.0 / shrink,) if measure.BRIEF else (1.0 / shrink, 8.0 / shrink):
        for name, variants in rivals.items():
            ends = [
                trained(optimizer, loss, functions, params, task.train, size, seconds)
                for optimizer, functions, size in variants
            ]
            best, steps = min(ends)
            rows.append(
                {"seconds": seconds, "optimizer": name, "steps": steps, "loss": best}
            )
    return rows


def trained(
    optimizer: Any,
    loss: Callable[..., jax.Array],
    functions: dict[str, Callable],
    params: Any,
    data: tuple[jax.Array, jax.Array],
    size: int | None,
    seconds: float,
) -> tuple[float, int]:
    """The loss over all data after so many seconds, and the steps that were taken."""

    @jax.jit
    def stepped(params: Any, state: Any, key: jax.Array) -> tuple:
        def step(carry: tuple, key: jax.Array) -> tuple:
            params, state = carry
            x, y = data
            if size:
                rows = jax.random.randint(key, (size,), 0, len(y))
                x, y = x[rows], y[rows]
            gradient = jax.grad(loss)(params, x, y)
            updates, state = optimizer.update(
                gradient, state, params, **functions, x=x, y=y
            )
            return (optax.apply_updates(params, updates), state), None

        chunk = 1 if functions else 20  # so that the loop in Python costs nothing
        return jax.lax.scan(step, (params, state), jax.random.split(key, chunk))[0]

    state, keys, key = optimizer.init(params), 0, jax.random.key
    jax.block_until_ready(stepped(params, state, key(0)))  # compiled beforehand
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        keys += 1
        params, state = jax.block_until_ready(stepped(params, state, key(keys)))
    return float(loss(params, *data)), int(state.count)


BENCHES = {
    "logistic": logistic,
    "rosenbrock": rosenbrock,
    "least_squares": least_squares,
    "digits": digits,
}

if __name__ == "__main__":
    main()
