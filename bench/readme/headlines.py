"""The headline table: one row for each claim, with its baseline."""

from typing import Any, NamedTuple


class Headline(NamedTuple):
    """A row of the headline table: the largest value of a column in matching rows.

    It is compared with another column of these rows, or with the same column of other
    rows.
    """

    measured: str
    bench: str
    match: dict[str, Any]
    column: str
    baseline: str
    baseline_column: str | None = None
    baseline_match: dict[str, Any] | None = None


PML = "pytorch-metric-learning"
LOOP = {
    "baseline": "a loop of jitted runs",
    "baseline_match": {"way": "loop of jitted runs"},
}
HEADLINES = [
    Headline(
        "worst error of an activation, sampled float32 inputs (ulp)",
        "accuracy",
        {},
        "value",
        "jax.nn",
        "jax.nn value",
    ),
    Headline(
        "worst error of an activation's derivative (ulp)",
        "accuracy",
        {},
        "derivative",
        "jax.nn",
        "jax.nn derivative",
    ),
    Headline(
        "`cross_entropy` with its gradient (ms)",
        "losses",
        {"loss": "cross_entropy"},
        "ours_ms",
        "optax",
        "optax_ms",
    ),
    Headline(
        "first trace of `cross_entropy` and its gradient (ms)",
        "losses.first_trace",
        {},
        "ours_ms",
        "optax",
        "optax_ms",
    ),
    Headline(
        "memory of `info_nce` with its gradient, n = 8192 (MiB)",
        "metric",
        {"loss": "info_nce"},
        "ours_MiB",
        "dense, optax",
        "dense_MiB",
    ),
    Headline(
        "time of `info_nce` with its gradient, n = 8192 (s)",
        "metric",
        {"loss": "info_nce"},
        "ours_s",
        "dense, optax",
        "dense_s",
    ),
    Headline(
        "`batch_all_triplet_loss` with its gradient, n = 512 (ms)",
        "metric.pml",
        {"loss": "batch_all_triplet_loss"},
        "ours_ms",
        PML,
        "pml_ms",
    ),
    Headline(
        "error of the Lovász gradient, 16 M pixels",
        "segmentation.lovasz_gradient",
        {"pixels": 2**24},
        "ours",
        "the published code, PyTorch",
        "torch",
    ),
    Headline(
        "logistic regression to a gradient of 1e-7 (ms)",
        "second_order.logistic",
        {"solver": "newton"},
        "ms",
        "optax.lbfgs",
        baseline_match={"solver": "optax.lbfgs"},
    ),
    Headline(
        "networks trained per second (task R)",
        "sweep.R",
        {"way": "sweep, own batches"},
        "models_per_s",
        **LOOP,
    ),
    Headline(
        "tiny networks trained per second (task T)",
        "sweep.T",
        {"way": "sweep, own batches"},
        "models_per_s",
        **LOOP,
    ),
    Headline(
        "the same, with models of one seed sharing their batches",
        "sweep.T",
        {"way": "sweep, shared batches"},
        "models_per_s",
        **LOOP,
    ),
]
