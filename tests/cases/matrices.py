"""Optimizers of matrices: each paper's algorithm over 12 steps, in float64 NumPy.

A row makes a function of an optimizer: from gradients [steps, m, n] to the updates.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from cases import FLOATS, Case, Extreme
from cases.optimizers import (
    ADAM,
    RATE,
    UNIT,
    adamw,
    all_updates,
    optimizer_case,
    recurrence,
)
from jaxml import optimizers


def muon(t, g, b, decay=0.95, nesterov=True, steps=5, weight_decay=0.0):
    b = decay * b + g
    x = g + decay * b if nesterov else b
    x = x / np.linalg.norm(x)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return 0.2 * np.sqrt(max(g.shape)) * x + weight_decay * 1.0, b


def muon_of_vectors(t, g, m, v, decay=0.95, weight_decay=0.0):
    return adamw(t, g, m, v, weight_decay=weight_decay)


def soap_updates(
    gradients,
    learning_rate=0.1,
    b1=0.95,
    b2=0.95,
    eps=1e-8,
    weight_decay=0.0,
    precondition_every=10,
    max_dim=10_000,
):
    """Algorithm 3; as in the code of its authors, no update at first, and sorting.

    Of a degenerate eigenvalue there is no one truth: |m - n| <= 1.
    """
    m = v = np.zeros_like(gradients[0])
    sides = list(m.shape)
    covariances = [np.zeros((n, n)) for n in sides]
    bases = [np.eye(n) for n in sides]
    result = []
    for t, g in enumerate(gradients):
        if t > 0:
            g_rotated = bases[0].T @ g @ bases[1]
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g_rotated**2
            m_rotated = bases[0].T @ m @ bases[1]
            n = m_rotated / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            direction = bases[0] @ n @ bases[1].T + weight_decay * 1.0
        else:
            direction = 0 * g
        result.append(-learning_rate * direction)
        for i, product in enumerate((g @ g.T, g.T @ g)):
            covariances[i] = b2 * covariances[i] + (1 - b2) * product
            if sides[i] > max_dim:
                continue
            if t == 0:
                bases[i] = np.linalg.eigh(covariances[i])[1][:, ::-1]
            elif t % precondition_every == 0:
                s = covariances[i] @ bases[i]
                order = np.argsort(-np.sum(bases[i] * s, 0))
                bases[i] = np.linalg.qr(s[:, order])[0]
                v = np.take(v, order, i)
    return np.array(result)


def matrix_gradients(
    shape: tuple[int, ...],
) -> Callable[[np.random.Generator], tuple[np.ndarray]]:
    return lambda rng: (rng.normal(size=(12, *shape)),)


def matrix_case(
    function: Callable[..., Any],
    truth: Any,
    hyperparams: Any,
    *,
    shape: tuple[int, int] = (3, 4),
    dtypes: tuple[Any, ...] = FLOATS,
    id_suffix: str = "",
    **static_args: Any,
) -> Case:
    return Case(
        function,
        matrix_gradients(shape),
        truth,
        hyperparams=hyperparams,
        static_args=static_args,
        adapter=all_updates(function, static_argnames=tuple(static_args)),
        dtypes=dtypes,
        rtol=1e-10,
        ulps=100,
        tol_relative_to_max=True,
        extremes=(
            Extreme((np.zeros((2, 2, 3)),), 0.0),
            Extreme((np.full((2, 2, 3), 1e30),), None, check_grads_of=()),
            Extreme((np.full((2, 2, 3), 1e-30),), None, check_grads_of=()),
        ),
        id_suffix=id_suffix,
    )


CASES = [
    matrix_case(
        optimizers.muon,
        recurrence(1, muon),
        {**RATE, "decay": UNIT, "weight_decay": (0.3,)},
    ),
    matrix_case(
        optimizers.muon,
        recurrence(1, muon),
        {},
        shape=(5, 2),
        dtypes=(),
        id_suffix="tall",
        nesterov=False,
        steps=3,
    ),
    *(
        matrix_case(
            optimizers.soap,
            soap_updates,
            {
                **RATE,
                "b1": UNIT,
                "b2": (0.5, 0.99),
                "eps": (1e-3,),
                "weight_decay": (0.3,),
            },
            shape=shape,
            dtypes=(),  # its bases are constants to derivatives
            id_suffix=id_suffix,
            **static_args,
        )
        for id_suffix, shape, static_args in (
            ("wide", (3, 4), {"precondition_every": 3}),
            ("tall", (4, 3), {"precondition_every": 1}),
            ("one-sided", (3, 5), {"precondition_every": 4, "max_dim": 4}),
            ("zero-sided", (3, 5), {"precondition_every": 4, "max_dim": 2}),
        )
    ),
    optimizer_case(
        optimizers.soap,
        lambda gradients, b1=0.95, b2=0.95, **hyperparams: recurrence(2, adamw)(
            gradients, b1=b1, b2=b2, **{"weight_decay": 0.0} | hyperparams
        ),
        {**RATE, **ADAM, "weight_decay": (0.0, 0.3)},
        id_suffix="vectors",
    ),
    optimizer_case(
        optimizers.muon,
        recurrence(2, muon_of_vectors),
        {**RATE, "weight_decay": (0.0, 0.3)},
        id_suffix="vectors",
    ),
]
