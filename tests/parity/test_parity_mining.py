"""The table of equivalents in the README of mining: both sides run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxml import losses, mining

pytestmark = pytest.mark.parity


def test_m_per_class_draws_batches_as_the_sampler_does() -> None:
    """Each batch has 4 examples of 8 classes, all classes equally often."""
    samplers = pytest.importorskip("pytorch_metric_learning.samplers")
    labels = np.repeat(np.arange(16), np.arange(4, 20))
    np.random.seed(0)
    sampler = samplers.MPerClassSampler(labels, m=4, batch_size=32)
    theirs = np.array([*sampler])[: len(sampler) // 32 * 32].reshape(-1, 32)

    def draw(key: jax.Array) -> jax.Array:
        return mining.m_per_class(
            key, jnp.asarray(labels), classes_per_batch=8, per_class=4
        )

    ours = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 50)))
    for batches in (theirs, ours):
        for batch in batches:
            counts = np.unique(labels[batch], return_counts=True)[1]
            assert counts.tolist() == [4] * 8
            assert len(np.unique(batch)) == 32


def test_a_memory_bank_gives_the_losses_of_cross_batch_memory() -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("pytorch_metric_learning.losses")
    n, d, b = 12, 4, 5
    rng = np.random.default_rng(0)
    theirs = library.CrossBatchMemory(
        library.SupConLoss(), embedding_size=d, memory_size=n
    )
    bank = mining.memory_bank(n, d, dtype=jnp.float64)
    state = bank.init()
    for _ in range(5):
        x = rng.normal(size=(b, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        labels = rng.integers(0, 3, b)
        tensor = torch.tensor(x, requires_grad=True)
        value = theirs(tensor, torch.from_numpy(labels))
        value.backward()

        state = bank.push(state, jnp.asarray(x), labels)
        where = ~jnp.eye(b, n, n - b, dtype=bool) & state.is_filled[None]

        def loss(x, labels=labels, state=state, where=where):
            values = losses.supcon_loss(
                x,
                jnp.asarray(labels),
                references=state.embeddings,
                reference_labels=state.labels,
                where=where,
            )
            is_same = jnp.asarray(labels)[:, None] == state.labels[None]
            return losses.mean(values, where=jnp.any(where & is_same, 1))

        ours, gradient = jax.value_and_grad(loss)(jnp.asarray(x))
        np.testing.assert_allclose(ours, value.item(), rtol=1e-4)
        # theirs also differentiates the normalization
        tangent = gradient - x * jnp.sum(gradient * x, 1, keepdims=True)
        np.testing.assert_allclose(tangent, tensor.grad, rtol=1e-3, atol=1e-5)


def test_grad_cache_has_the_gradient_of_the_published_steps() -> None:
    """Encode without a graph, cache the gradient of the embeddings, encode again."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(12, 5)), rng.normal(size=(5, 3))
    inputs, weights = torch.from_numpy(x), torch.tensor(w, requires_grad=True)
    with torch.no_grad():
        parts = [torch.tanh(part @ weights) for part in inputs.split(4)]
    embeddings = torch.cat(parts).requires_grad_()
    value = torch.logsumexp(embeddings @ embeddings.T, 1).mean()
    value.backward()
    for part, cached in zip(inputs.split(4), embeddings.grad.split(4)):
        torch.tanh(part @ weights).backward(cached)

    def loss(w: jax.Array, e: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.logsumexp(e @ e.T, 1))

    step = mining.grad_cache(lambda w, x: jnp.tanh(x @ w), loss, 4)
    ours, gradient = step(jnp.asarray(w), jnp.asarray(x))
    np.testing.assert_allclose(ours, value.item(), rtol=1e-12)
    np.testing.assert_allclose(gradient, weights.grad, rtol=1e-9)
