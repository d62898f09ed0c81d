"""The table of sampling, memory banks and cached gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case
from jaxml import mining

KEY = jax.random.key(0)


def m_per_class(labels, classes_per_batch=2, per_class=3):
    """From the same random numbers: first of the order of examples, then of classes."""
    order_key, class_key = jax.random.split(KEY)
    shape = (len(labels),)
    noise = np.asarray(jax.random.bits(order_key, shape, "uint32"))
    priority = np.asarray(jax.random.bits(class_key, shape, "uint32")) >> 1
    examples, position = {}, 0
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        examples[priority[position]] = members[np.argsort(noise[members])].tolist()
        position += len(members)
    classes = [examples[p] for p in sorted(examples, reverse=True)]
    batch = []
    for i in range(classes_per_batch):
        turn, c = divmod(i, min(len(classes), classes_per_batch))
        for j in range(turn * per_class, (turn + 1) * per_class):
            batch.append(classes[c][j % len(classes[c])])
    return np.array(batch)


def m_per_class_of_labels(labels, **counts):
    return mining.m_per_class(KEY, labels, **counts)


def queue_of_two_pushes(x, y):
    """The rows of a bank of 4 after x, and y, are pushed."""
    bank = mining.memory_bank(4, x.shape[1], dtype=x.dtype)
    state = bank.init()
    for rows in (x, y):
        state = bank.push(state, rows, jnp.arange(len(rows)))
    return jnp.asarray(state.embeddings)


@jax.jit
def cached_gradient(x, weights):
    """The gradient of a loss of all pairs, encoded in chunks of three."""
    step = mining.grad_cache(lambda w, x: jnp.sin(x @ w), coupled_loss, chunk=3)
    return step(weights, x)[1]


def coupled_loss(weights, embeddings, x):
    return jnp.sum(jnp.exp(embeddings @ embeddings.T)) + jnp.sum(weights)


def true_gradient(x, weights):
    """By the chain rule, one pair of examples at a time."""
    gradient = np.ones_like(weights)
    e, derivative = np.sin(x @ weights), np.cos(x @ weights)
    for i in range(len(x)):
        for j in range(len(x)):
            factor = np.exp(e[i] @ e[j])
            gradient += factor * np.outer(x[i], derivative[i] * e[j])
            gradient += factor * np.outer(x[j], derivative[j] * e[i])
    return gradient


CASES = [
    *(
        Case(
            mining.m_per_class,
            lambda rng: (rng.choice([-3, 0, 7, 9], 9),),
            m_per_class,
            static_args={"classes_per_batch": k, "per_class": m},
            dtypes=(),
            adapter=m_per_class_of_labels,
            id_suffix=f"{k}x{m}",
        )
        for k, m in ((2, 2), (3, 4), (12, 1))
    ),
    Case(
        mining.memory_bank,
        lambda rng: (rng.normal(size=(3, 3)), rng.normal(size=(2, 3))),
        lambda x, y: np.concatenate([x, y])[-4:],
        dtypes=(),
        not_differentiated=(0, 1),
        adapter=queue_of_two_pushes,
    ),
    Case(
        mining.grad_cache,
        lambda rng: (rng.normal(size=(7, 3)), rng.normal(size=(3, 2))),
        true_gradient,
        dtypes=(),
        not_differentiated=(0, 1),
        adapter=cached_gradient,
    ),
]
