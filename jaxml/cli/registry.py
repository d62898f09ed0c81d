"""The only place where a name becomes a function: what the command line offers."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxml import activations, losses, optimizers, schedules, sweep, tasks
from jaxml.tasks._embedding import LOSSES as EMBEDDING_LOSSES
from jaxml.tasks._segmentation import LOSSES as SEGMENTATION_LOSSES


def _names(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


def binary_cross_entropy_with_logits(logits: Array, labels: Array) -> Array:
    """Each class against all others."""
    each = losses.binary_cross_entropy_with_logits(logits, _one_hot(labels, logits))
    return jnp.sum(each, -1)


def squared_error(logits: Array, labels: Array) -> Array:
    """Logits against 1 for the label and 0 for the others."""
    return jnp.sum(losses.squared_error(logits, _one_hot(labels, logits)), -1)


def _one_hot(labels: Array, logits: Array) -> Array:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)


ACTIVATIONS = _names(
    activations.sigmoid,
    activations.tanh,
    activations.softsign,
    activations.relu,
    activations.leaky_relu,
    activations.elu,
    activations.selu,
    activations.gelu,
    activations.swish,
    activations.mish,
    activations.softplus,
)
LOSSES = _names(
    losses.cross_entropy,
    losses.focal_loss,
    binary_cross_entropy_with_logits,
    squared_error,
)
REGRESSION_LOSSES = _names(
    losses.squared_error,
    losses.absolute_error,
    losses.huber_loss,
    losses.log_cosh_loss,
)
OPTIMIZERS = _names(
    optimizers.sgd,
    optimizers.momentum,
    optimizers.nesterov,
    optimizers.lion,
    optimizers.adagrad,
    optimizers.adadelta,
    optimizers.rmsprop,
    optimizers.centered_rmsprop,
    optimizers.adam,
    optimizers.adam_l2,
    optimizers.adamw,
    optimizers.nadam,
    optimizers.radam,
    optimizers.amsgrad,
    optimizers.adamax,
    optimizers.yogi,
    optimizers.adabelief,
)
SCHEDULES = {  # by the number of steps; each is 1 at its highest
    "constant": lambda steps: schedules.constant(1.0),
    "linear": lambda steps: schedules.linear(1.0, 0.0, steps),
    "polynomial": lambda steps: schedules.polynomial(1.0, 0.0, steps, power=2.0),
    "exponential": lambda steps: schedules.exponential(
        1.0, decay_rate=0.01, decay_steps=steps
    ),
    "step_decay": lambda steps: schedules.step_decay(
        1.0, decay_rate=0.1, step_size=steps / 3
    ),
    "cosine": lambda steps: schedules.cosine(1.0, steps),
    "cosine_restarts": lambda steps: schedules.cosine_restarts(
        1.0, steps / 7, period_factor=2.0
    ),
    "warmup_cosine": lambda steps: schedules.warmup_cosine(1.0, steps / 10, steps),
    "warmup_linear": lambda steps: schedules.warmup_linear(1.0, steps / 10, steps),
    "inverse_sqrt": lambda steps: schedules.inverse_sqrt(1.0, steps / 10),
    "one_cycle": lambda steps: schedules.one_cycle(1.0, steps),
}


class Setup(NamedTuple):
    """A task, its losses, what its runs compare by which metric, and defaults."""

    task: Callable[[], sweep.Task]
    losses: dict[str, Callable[..., Any]]
    metric: str
    compared: str
    defaults: dict[str, Any]


def _table(task: Callable[[], sweep.Task], metric: str = "accuracy") -> Setup:
    known = LOSSES if metric == "accuracy" else REGRESSION_LOSSES
    of_task = {"loss": next(iter(known)), "steps": 200, "batch_size": "32"}
    return Setup(task, known, metric, "optimizer", _OPTIMIZERS_COMPARED | of_task)


_OPTIMIZERS_COMPARED = {
    "optimizer": "sgd,momentum,nesterov,adagrad,rmsprop,adam,adamw",
    "activation": "relu,gelu,tanh",
    "loss": "cross_entropy,focal_loss",
    "learning_rate": "log:1e-4:1:9",
    "schedule": "constant",
    "seeds": 5,
    "steps": 300,
    "batch_size": "64",
    "shared_batches": False,
}
_LOSSES_COMPARED = _OPTIMIZERS_COMPARED | {"optimizer": "adam", "activation": "relu"}

TASKS = {
    "digits": Setup(
        tasks.digits, LOSSES, "accuracy", "optimizer", _OPTIMIZERS_COMPARED
    ),
    "breast-cancer": _table(tasks.breast_cancer),
    "wine": _table(tasks.wine),
    "iris": _table(tasks.iris),
    "diabetes": _table(tasks.diabetes, "r2"),
    "digits-embedding": Setup(
        tasks.digits_embedding,
        EMBEDDING_LOSSES,
        "recall_at_1",
        "loss",
        _LOSSES_COMPARED
        | {
            "loss": "nt_xent,supcon_loss,multi_similarity_loss,margin_loss,"
            "batch_contrastive_loss,batch_hard_triplet_loss",
            "learning_rate": "log:1e-4:1e-1:7",
            "steps": 200,
        },
    ),
    "digits-segmentation": Setup(
        tasks.digits_segmentation,
        SEGMENTATION_LOSSES,
        "mean_iou",
        "loss",
        _LOSSES_COMPARED
        | {
            "loss": "all",
            "learning_rate": "0.01,0.03,0.1",
            "schedule": "warmup_cosine",
            "seeds": 5,
            "steps": 400,
            "batch_size": "4",
        },
    ),
}
SUITES = {  # several tasks in one command, and defaults of all of them
    "valley": (
        ["digits", "breast-cancer", "wine", "iris", "diabetes"],
        {
            "optimizer": "all",
            "schedule": "all",
            "activation": "relu",
            "loss": "",  # each task's first
            "learning_rate": "log:1e-4:1:8",
            "seeds": 7,
            "steps": 200,
            "batch_size": "32",
            "shared_batches": True,
        },
    )
}


def optimizer_of(name: str, numbers: list[str]) -> Callable[[sweep.Point], Any]:
    """The optimizer of a point: numbers are traced, so a sweep compiles once."""
    make = OPTIMIZERS[name]

    def of_point(point: sweep.Point) -> Any:
        rate, schedule = point["learning_rate"], point["schedule"]
        own = {number: point[number] for number in numbers}
        return make(lambda step: rate * schedule(step).astype(rate.dtype), **own)

    return of_point


def numbers_of(name: str) -> list[str]:
    """The numbers of an optimizer that may be swept."""
    given = inspect.signature(OPTIMIZERS[name]).parameters.values()
    return [
        p.name
        for p in given
        if p.kind is p.KEYWORD_ONLY and isinstance(p.default, float)
    ]
