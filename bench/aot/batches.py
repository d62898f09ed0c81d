"""Programs of mining that make a batch, a queue of rows, or a gradient in chunks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxml import losses, mining

Shape = jax.ShapeDtypeStruct
LABELS, BANK, BATCH, FEATURES = 2**20, 2**16, 8192, 512


def forms() -> dict[str, tuple]:
    """The function, the shapes of its arrays, and which of them it may overwrite."""
    rows = Shape((BATCH, FEATURES), jnp.float32)
    labels = Shape((BATCH,), jnp.int32)
    bank = mining.memory_bank(BANK, FEATURES)
    sample = functools.partial(
        mining.m_per_class, jax.random.key(0), classes_per_batch=256, per_class=4
    )

    def encode(weights: Any, batch: Any) -> Any:
        return jnp.tanh(batch[0] @ weights)

    def loss(weights: Any, embeddings: Any, batch: Any) -> Any:
        return losses.mean(losses.supcon_loss(embeddings, batch[1]))

    cached = mining.grad_cache(encode, loss, BATCH // 8)
    return {
        "m_per_class": (sample, (Shape((LABELS,), jnp.int32),)),
        "memory_bank": (bank.push, (jax.eval_shape(bank.init), rows, labels), (0,)),
        "grad_cache": (cached, (Shape((FEATURES, 128), jnp.float32), (rows, labels))),
    }
