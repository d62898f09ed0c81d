"""The recipes in the README of losses compute the formulas of their papers."""

import inspect
import pathlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
import optax
import pytest

from jaxml import losses, optimizers

pytestmark = [
    pytest.mark.usefixtures("no_xla_optimizations"),
    pytest.mark.xdist_group("recipes"),  # which run once for all tests
]
README = pathlib.Path(losses.__file__).with_name("README.md").read_text()
SECTION = README.split("\n## Recipes\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.log(np.sum(np.exp(z), -1, keepdims=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def distillation(z: np.ndarray, teacher: np.ndarray) -> float:
    log_q, log_p = log_softmax(z / 2), log_softmax(teacher / 2)
    return 4 * np.mean(np.sum(np.exp(log_p) * (log_p - log_q), -1))


def adjusted(z: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> float:
    weighted = prior * np.exp(z)
    p = weighted[np.arange(6), labels] / weighted.sum(1)
    return -np.mean(np.log(p))


def balanced(z: np.ndarray, labels: np.ndarray, prior: np.ndarray) -> float:
    nll = -log_softmax(z)[np.arange(6), labels]
    return np.sum(nll / prior[labels]) / np.sum(1 / prior[labels])


def soft_f1(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p, t = sigmoid(z), np.eye(4)[labels]
    true_positives = np.sum(p * t, 0)
    precision, recall = true_positives / p.sum(0), true_positives / t.sum(0)
    return 2 * precision * recall / (precision + recall)


def coral(z: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> float:
    """Cao et al., Rank consistent ordinal regression, 2020."""
    total = 0.0
    for i, label in enumerate(labels):
        for rank in range(3):
            p = sigmoid(z[i, 0] - thresholds[0, rank])
            total -= np.log(p if label > rank else 1 - p)
    return total / len(labels)


def beta_nll(mu: np.ndarray, y: np.ndarray, variance: np.ndarray) -> float:
    """Seitzer et al., On the pitfalls of heteroscedastic uncertainty, 2022."""
    nll = np.log(variance) / 2 + (y - mu) ** 2 / (2 * variance)
    return np.mean(np.sqrt(variance) * nll)


def mean_of_ranked_pairs(
    formula: Callable[[float], float], s: np.ndarray, relevance: np.ndarray
) -> float:
    """Over the pairs (i, j) in which i is more relevant, of formula(sᵢ - sⱼ)."""
    pairs = [(i, j) for i in range(6) for j in range(6) if relevance[i] > relevance[j]]
    return np.mean([formula(s[i] - s[j]) for i, j in pairs])


def pairwise_hinge(s: np.ndarray, relevance: np.ndarray) -> float:
    return mean_of_ranked_pairs(lambda margin: max(0, 1 - margin), s, relevance)


def pairwise_logistic(s: np.ndarray, relevance: np.ndarray) -> float:
    return mean_of_ranked_pairs(lambda x: np.log1p(np.exp(-x)), s, relevance)


def pairwise_mse(s: np.ndarray, relevance: np.ndarray) -> float:
    errors = s - relevance
    return np.mean([(errors[i] - errors[j]) ** 2 for i in range(6) for j in range(6)])


def dpo(preferred: np.ndarray, rejected: np.ndarray) -> float:
    """Rafailov et al., Direct preference optimization, 2023."""
    return -np.mean(np.log(sigmoid(0.1 * (preferred - rejected))))


def matryoshka(a: np.ndarray, b: np.ndarray) -> float:
    """Kusupati et al., Matryoshka representation learning, 2022."""
    total = 0.0
    for d in (2, 4, 8):
        s = a[:, :d] @ b[:, :d].T / 0.07
        diagonals = np.diagonal(log_softmax(s)), np.diagonal(log_softmax(s.T))
        total -= np.mean(diagonals)
    return total


def hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Gretton et al., Measuring statistical dependence, 2005: tr(KHLH) / (n - 1)²."""
    kernel_a, kernel_b = (
        np.exp(-np.sum((x[:, None] - x) ** 2, -1) / 8) for x in (a, b)
    )
    h = np.eye(6) - 1 / 6
    return np.trace(kernel_a @ h @ kernel_b @ h) / 25


def load_balance(router_logits: np.ndarray) -> float:
    """Fedus et al., Switch transformers, 2022, for two experts per token."""
    total = 0.0
    for tokens in router_logits[:, :12]:
        chosen = np.argsort(-tokens, -1)[:, :2]
        fractions = np.bincount(chosen.ravel(), minlength=4) / 24
        total += 4 * fractions @ np.exp(log_softmax(tokens)).mean(0)
    return total / 3


def router_z(router_logits: np.ndarray) -> float:
    """Zoph et al., ST-MoE, 2022."""
    return np.mean(np.log(np.sum(np.exp(router_logits[:, :12]), -1)) ** 2)


def distances_by_hand(probabilities: np.ndarray) -> np.ndarray:
    """The distance of each pixel to the other side of the contour, by brute force."""
    result = np.zeros_like(probabilities)
    for i in np.ndindex(probabilities.shape):
        inside = probabilities[i[0], ..., i[-1]] > 0.5
        others = np.argwhere(inside != inside[i[1:3]])
        if len(others):
            result[i] = np.min(np.hypot(*(others - i[1:3]).T))
            result[i] *= -1 if inside[i[1:3]] else 1
    return result


def boundary(p: np.ndarray, t: np.ndarray) -> float:
    """Kervadec et al., Boundary loss for highly unbalanced segmentation, 2019."""
    return np.mean(p * distances_by_hand(t))


def hausdorff(p: np.ndarray, t: np.ndarray) -> float:
    """Karimi and Salcudean, Reducing the Hausdorff distance, 2019, equation 8."""
    weights = distances_by_hand(p) ** 2 + distances_by_hand(t) ** 2
    return np.mean((p - t) ** 2 * weights)


TRUTHS: dict[str, Callable] = {
    truth.__name__: truth
    for truth in (
        distillation,
        adjusted,
        balanced,
        soft_f1,
        coral,
        beta_nll,
        pairwise_hinge,
        pairwise_logistic,
        pairwise_mse,
        dpo,
        matryoshka,
        hsic,
        load_balance,
        router_z,
        boundary,
        hausdorff,
    )
}


@cache
def results() -> dict[str, np.ndarray]:
    """The arrays that the recipes define, by name."""
    names: dict = {}
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        for block in BLOCKS:
            exec(block, names)
    arrays = {n: np.asarray(v) for n, v in names.items() if isinstance(v, jax.Array)}
    return {
        n: v.astype(int if v.dtype == "int32" else float) for n, v in arrays.items()
    }


@pytest.mark.xdist_group("recipes")
@pytest.mark.parametrize("recipe", TRUTHS)
def test_the_recipe_computes_its_formula(recipe: str) -> None:
    truth = TRUTHS[recipe]
    inputs = {name: results()[name] for name in inspect.signature(truth).parameters}
    np.testing.assert_allclose(results()[recipe], truth(**inputs), rtol=2e-5)


@pytest.mark.xdist_group("recipes")
def test_every_recipe_has_a_formula() -> None:
    scalars = {name for name, value in results().items() if value.ndim == 0}
    assert scalars <= set(TRUTHS)


OPTAX_OPTIMIZERS = {
    "adafactor": lambda: optax.adafactor(0.05),
    "adan": lambda: optax.adan(0.05),
    "cocob": optax.contrib.cocob,
    "galore": lambda: optax.contrib.galore(0.05),
    "lamb": lambda: optax.lamb(0.05),
    "lars": lambda: optax.lars(0.5),
    "muon": lambda: optax.contrib.muon(0.05),
    "novograd": lambda: optax.novograd(0.05),
    "sophia": lambda: optax.contrib.sophia(0.05),
}
"""Those that need a matrix or the objective; a sweep tests the others."""


@pytest.fixture
def default_settings() -> Iterator[None]:
    """JAX as users have it: optax is not made for the strict settings of the tests."""
    with (
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def classifier() -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Initial weights, and the mean loss on labels that a linear model explains."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, w, true_w = (
        jax.random.normal(key, shape, "float32")
        for key, shape in zip(keys, [(64, 6), (6, 4), (6, 4)])
    )
    labels = jax.numpy.argmax(x @ true_w, 1)
    return w / 10, lambda w: losses.mean(losses.cross_entropy(x @ w, labels))


def train(update: Callable, carry: tuple) -> Any:
    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        return update(*carry), None

    return jax.lax.scan(step, carry, length=20)[0][0]


@pytest.mark.slow
@pytest.mark.usefixtures("default_settings")
@pytest.mark.parametrize("name", OPTAX_OPTIMIZERS)
def test_optimizers_of_optax_minimize_a_loss(name: str) -> None:
    w, loss = classifier()
    optimizer = optax.with_extra_args_support(OPTAX_OPTIMIZERS[name]())

    def update(w: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        updates, state = optimizer.update(jax.grad(loss)(w), state, w, obj_fn=loss)
        return optax.apply_updates(w, updates), state

    assert loss(train(update, (w, optimizer.init(w)))) < loss(w)


@pytest.mark.slow
@pytest.mark.usefixtures("default_settings")
def test_lookahead_wraps_an_optimizer() -> None:
    w, loss = classifier()
    lookahead = optax.lookahead(optimizers.adam(0.1), 5, slow_step_size=0.5)

    def update(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = lookahead.update(jax.grad(loss)(params.fast), state, params)
        return optax.apply_updates(params, updates), state

    params = optax.LookaheadParams.init_synced(w)
    assert loss(train(update, (params, lookahead.init(params))).slow) < loss(w)
