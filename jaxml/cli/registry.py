"""What the command line offers: the only place where a name becomes a function."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxml import activations, losses, optimizers, schedules, sweep, tasks
from jaxml.cli import adapters

Functions = dict[str, Callable[..., Any]]


def _by_name(*functions: Callable[..., Any]) -> Functions:
    return {function.__name__: function for function in functions}


ACTIVATIONS = _by_name(
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
CLASSIFICATION_LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": losses.cross_entropy,
    "focal_loss": losses.focal_loss,
    "binary_cross_entropy_with_logits": adapters.one_vs_rest_binary_cross_entropy,
    "squared_error": adapters.one_hot_squared_error,
}
REGRESSION_LOSSES = _by_name(
    losses.squared_error,
    losses.absolute_error,
    losses.huber_loss,
    losses.log_cosh_loss,
)
EMBEDDING_LOSSES = _by_name(
    losses.nt_xent,
    losses.supcon_loss,
    losses.multi_similarity_loss,
    losses.batch_contrastive_loss,
    losses.margin_loss,
    losses.batch_hard_triplet_loss,
    losses.batch_semihard_triplet_loss,
    losses.batch_all_triplet_loss,
    losses.nca_loss,
)
SEGMENTATION_LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": adapters.mean_cross_entropy,
    "dice_loss": adapters.mean_region_loss(losses.dice_loss),
    "tversky_loss": adapters.mean_region_loss(losses.tversky_loss, alpha=0.3, beta=0.7),
    "jaccard_loss": adapters.mean_region_loss(losses.jaccard_loss),
    "sensitivity_specificity_loss": adapters.mean_region_loss(
        losses.sensitivity_specificity_loss
    ),
    "lovasz_softmax_loss": adapters.mean_lovasz_softmax,
}
OPTIMIZERS = _by_name(
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
    optimizers.muon,
    optimizers.soap,
)
SCHEDULES: dict[
    str, Callable[..., Any]
] = {  # functions of the number of steps; each peaks at 1
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
    "warmup_stable_decay": lambda steps: schedules.warmup_stable_decay(
        1.0, steps / 10, steps * 0.7, steps / 5
    ),
    "inverse_sqrt": lambda steps: schedules.inverse_sqrt(1.0, steps / 10),
    "one_cycle": lambda steps: schedules.one_cycle(1.0, steps),
}


class TaskSpec(NamedTuple):
    """A task of the command line.

    Args:
        task: Makes the task.
        losses: By name; the first is the task's default in a suite.
        metric: The validation metric that ranks the settings.
        compare_by: The column whose values the tables and figures compare.
        defaults: The values of options that are not given.
    """

    task: Callable[[], sweep.Task]
    losses: Functions
    metric: str
    compare_by: str
    defaults: dict[str, Any]


class Suite(NamedTuple):
    """Several tasks in one command, and the options' defaults for all of them."""

    tasks: list[str]
    defaults: dict[str, Any]


def _without_hyperparams(*optimizers: str) -> dict[str, dict[str, list[float]]]:
    return {optimizer: {} for optimizer in optimizers}


COMPARE_OPTIMIZERS: dict[str, Any] = {
    "optimizer": _without_hyperparams(
        "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"
    ),
    "activation": ["relu", "gelu", "tanh"],
    "loss": ["cross_entropy", "focal_loss"],
    "learning_rate": np.geomspace(1e-4, 1.0, 9).tolist(),
    "schedule": ["constant"],
    "seeds": 5,
    "steps": 300,
    "batch_size": [64],
    "shared_batches": False,
}
COMPARE_LOSSES: dict[str, Any] = COMPARE_OPTIMIZERS | {
    "optimizer": _without_hyperparams("adam"),
    "activation": ["relu"],
}
COMPARE_LARGE: dict[str, Any] = COMPARE_OPTIMIZERS | {
    "optimizer": _without_hyperparams("momentum", "rmsprop", "adam", "lion"),
    "activation": ["gelu"],
    "loss": ["cross_entropy"],
    "learning_rate": [0.001, 0.003, 0.01, 0.03],
    "schedule": ["warmup_cosine"],
    "seeds": 4,  # with four rates 16 models of each optimizer, a whole group
    "steps": 300,
    "batch_size": [16],
}


def _table(
    task: Callable[[], sweep.Task],
    losses: Functions = CLASSIFICATION_LOSSES,
    metric: str = "accuracy",
) -> TaskSpec:
    first_loss = next(iter(losses))
    defaults = {"loss": [first_loss], "steps": 200, "batch_size": [32]}
    return TaskSpec(task, losses, metric, "optimizer", COMPARE_OPTIMIZERS | defaults)


TASKS = {
    "digits": TaskSpec(
        tasks.digits,
        CLASSIFICATION_LOSSES,
        metric="accuracy",
        compare_by="optimizer",
        defaults=COMPARE_OPTIMIZERS,
    ),
    "breast-cancer": _table(tasks.breast_cancer),
    "wine": _table(tasks.wine),
    "iris": _table(tasks.iris),
    "diabetes": _table(tasks.diabetes, REGRESSION_LOSSES, metric="r2"),
    "digits-embedding": TaskSpec(
        tasks.digits_embedding,
        EMBEDDING_LOSSES,
        metric="recall_at_1",
        compare_by="loss",
        defaults=COMPARE_LOSSES
        | {
            "loss": [
                "nt_xent",
                "supcon_loss",
                "multi_similarity_loss",
                "margin_loss",
                "batch_contrastive_loss",
                "batch_hard_triplet_loss",
            ],
            "learning_rate": np.geomspace(1e-4, 1e-1, 7).tolist(),
            "steps": 200,
        },
    ),
    "digits-segmentation": TaskSpec(
        tasks.digits_segmentation,
        SEGMENTATION_LOSSES,
        metric="mean_iou",
        compare_by="loss",
        defaults=COMPARE_LOSSES
        | {
            "loss": [*SEGMENTATION_LOSSES],
            "learning_rate": [0.01, 0.03, 0.1],
            "schedule": ["warmup_cosine"],
            "steps": 400,
            "batch_size": [4],
        },
    ),
    "digits-convnet": TaskSpec(
        tasks.digits_convnet,
        CLASSIFICATION_LOSSES,
        metric="accuracy",
        compare_by="optimizer",
        defaults=COMPARE_LARGE | {"batch_size": [32], "steps": 200},
    ),
    "text": TaskSpec(
        tasks.text,
        {"cross_entropy": losses.cross_entropy, "focal_loss": losses.focal_loss},
        metric="accuracy",
        compare_by="optimizer",
        defaults=COMPARE_LARGE | {"steps": 600},
    ),
}
SUITES = {
    "valley": Suite(
        ["digits", "breast-cancer", "wine", "iris", "diabetes"],
        {
            "optimizer": _without_hyperparams(*OPTIMIZERS),
            "schedule": [*SCHEDULES],
            "activation": ["relu"],
            "loss": None,  # the first of each task
            "learning_rate": np.geomspace(1e-4, 1.0, 8).tolist(),
            "seeds": 7,
            "steps": 200,
            "batch_size": [32],
            "shared_batches": True,
        },
    )
}


def make_optimizer(
    name: str, hyperparams: Iterable[str]
) -> Callable[[sweep.Point], Any]:
    """Makes the function of a point that makes the optimizer.

    Args:
        name: Of the optimizer.
        hyperparams: Those that are columns of the point; others keep their defaults.
    """
    optimizer = find_optimizer(name)

    def from_point(point: sweep.Point) -> Any:
        rate, schedule = point["learning_rate"], point["schedule"]
        values = {hyperparam: point[hyperparam] for hyperparam in hyperparams}
        return optimizer(
            lambda step: rate * schedule(step).astype(rate.dtype), **values
        )

    return from_point


def find_optimizer(name: str) -> Callable[..., Any]:
    """The optimizer of this name, or the factory of a name like `optax:adam`."""
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    module, _, factory = name.partition(":")
    return getattr(importlib.import_module(module), factory)


def sweepable_hyperparams(name: str) -> list[str]:
    """The arguments of an optimizer, after the first, whose default is a float."""
    _, *others = inspect.signature(find_optimizer(name)).parameters.values()
    return [p.name for p in others if isinstance(p.default, float)]
