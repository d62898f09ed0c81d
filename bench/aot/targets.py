"""What the rows of `bench.devices` should reach, and what some do not reach yet.

A target is for an H100. A v5e may take twice as much where the target is relative or a
size, and twice as much times the ratio of the memory bandwidths where it is a time.

`not_reached.json` holds the rows that miss a target, with what they must not exceed
until they reach it: what they had when `python -m bench.devices --accept` was last run,
and a tenth more.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

NOT_REACHED = pathlib.Path(__file__).with_name("not_reached.json")
ALLOWANCE = 1.1
V5E_FACTOR, V5E_TIME_FACTOR = 2.0, 2.0 * 3.35e12 / 8.2e11
ROUNDING_MIB = 2.0
"""Temporaries that no target counts: those of sums and of other small results."""


class Measure(NamedTuple):
    """How a figure of a row reads in a sentence."""

    sentence: str
    factor_v5e: float


MEASURES = {
    "ms": Measure("takes {} ms by the model", V5E_TIME_FACTOR),
    "times": Measure("takes {} times the time of its peer by the model", V5E_FACTOR),
    "times_GiB": Measure("moves {} times the bytes of its peer", V5E_FACTOR),
    "MiB": Measure("holds {} MiB of temporaries", V5E_FACTOR),
    "times_inputs": Measure("holds temporaries of {} times its inputs", V5E_FACTOR),
    "launches": Measure("launches {} kernels", V5E_FACTOR),
    "compile_s": Measure("takes {} s to compile", 1.0),
    "Tflop": Measure("computes products of {} Tflop on each device", 1.0),
    "GiB_in_loops": Measure("communicates {} GiB in loops", 1.0),
    "GiB_outside": Measure("communicates {} GiB outside of loops", 1.0),
    "kernels_a_step": Measure("launches {} kernels a step", V5E_FACTOR),
    "decisions": Measure("waits for the host at {} places", 1.0),
    "us_a_model": Measure("takes {} µs a model by the model", V5E_TIME_FACTOR),
}
Bounds = dict[str, float]

EVERY_ROW: Bounds = {"compile_s": 20}
FEW_PASSES: Bounds = {"times_GiB": 1.05, "MiB": 64}
NO_COPY: Bounds = {"MiB": 64}
"""Less than a copy of the logits, which have 256 MiB."""
STEP: Bounds = {"times_GiB": 1.05, "MiB": 1}
TRAINING_STEP: Bounds = {"times": 1.02, "times_GiB": 1.02}
VIEWS: Bounds = {"times": 1.6, "MiB": 512}
LABELED: Bounds = {"times": 2.5, "MiB": 512}
PROXIES: Bounds = {"times": 1.7, "MiB": 600}
FOUR_INPUTS: Bounds = {"times_inputs": 4}
SMALL_TRIPLETS: Bounds = {"ms": 15, "MiB": 512}
LARGE_TRIPLETS: Bounds = {"ms": 1200, "MiB": 512}


def eighth(tflop: float, gib: float, gib_in_loops: float = 0.0) -> Bounds:
    """Of eight devices: 1.1 times an eighth of the products, and what may travel."""
    work = {"Tflop": 1.1 * tflop / 8}
    return work | {"GiB_outside": gib, "GiB_in_loops": gib_in_loops}


TARGETS: dict[str, Bounds] = {
    "cross_entropy": FEW_PASSES,
    "soft_cross_entropy": FEW_PASSES,
    "kl_divergence": FEW_PASSES,
    "poly_loss": FEW_PASSES,
    "hinge_loss": FEW_PASSES,
    "multiclass_hinge_loss": FEW_PASSES,
    "softmax": FEW_PASSES,
    "log_softmax": FEW_PASSES,
    "gelu": FEW_PASSES,
    "silu": FEW_PASSES,
    "nll_loss": NO_COPY,
    "focal_loss": NO_COPY,
    "generalized_cross_entropy": NO_COPY,
    "multi_margin_loss": NO_COPY,
    "glu": NO_COPY,
    "geglu": NO_COPY,
    "swiglu": NO_COPY,
    "reglu": NO_COPY,
    "multilabel_margin_loss": FOUR_INPUTS,
    "sparsemax_loss": FOUR_INPUTS,
    "sparsemax": FOUR_INPUTS,
    "vicreg_loss": FOUR_INPUTS,
    "ctc_loss": {"times": 2.0, "MiB": 256},
    "energy_score": {"ms": 40, "MiB": 700},
    "crps_loss": {"times_inputs": 16},
    "load_balance_loss": {"times_inputs": 7},
    "linear_cross_entropy": {"times": 1.4, "MiB": 512},
    "linear_log_prob": {"times": 1.4, "MiB": 512},
    "linear_kl_divergence": {"times": 1.5, "MiB": 512},
    "linear_js_divergence": {"times": 1.5, "MiB": 512},
    "info_nce": VIEWS,
    "clip_loss": VIEWS,
    "siglip_loss": VIEWS,
    "supcon_loss": LABELED,
    "nt_xent": LABELED,
    "multi_similarity_loss": LABELED,
    "circle_loss": LABELED,
    "batch_hard_triplet_loss": LABELED,
    "batch_contrastive_loss": LABELED,
    "margin_loss": LABELED,
    "nca_loss": LABELED,
    "batch_semihard_triplet_loss, n = 4096": SMALL_TRIPLETS,
    "batch_semihard_triplet_loss, n = 32768": LARGE_TRIPLETS,
    "batch_all_triplet_loss, n = 4096": SMALL_TRIPLETS,
    "batch_all_triplet_loss, n = 32768": LARGE_TRIPLETS,
    "lifted_structure_loss, n = 4096": SMALL_TRIPLETS,
    "lifted_structure_loss, n = 32768": LARGE_TRIPLETS,
    "angular_loss, n = 4096": {"ms": 50, "MiB": 512},
    "angular_loss, n = 32768": {"ms": 10_000, "MiB": 512},
    "smooth_ap_loss": {"ms": 300, "MiB": 512},
    "normalized_softmax_loss": PROXIES,
    "arcface_loss": PROXIES,
    "cosface_loss": PROXIES,
    "proxy_nca_loss": PROXIES,
    "lovasz_softmax_loss": {"ms": 25, "times_inputs": 4},
    "lovasz_hinge_loss": {"ms": 2, "times_inputs": 4},
    "cldice_loss": {"ms": 100, "times_inputs": 4},
    "euclidean": {"ms": 1.5},
    "lp": {"ms": 5},
    "has_positive": {"launches": 9},
    "has_negative": {"launches": 9},
    "sgd": STEP,
    "momentum": STEP,
    "lion": STEP,
    "adam": STEP,
    "adamw": STEP,
    "mlp_step": TRAINING_STEP,
    "transformer_step": TRAINING_STEP,
    "cross_entropy, classes in shard_map": eighth(0, 0.001),
    "linear_cross_entropy, rows": eighth(35.25, 2.1),
    "linear_cross_entropy, FSDP": eighth(35.25, 2.1, gib_in_loops=3.1),
    "linear_cross_entropy, classes": eighth(35.25, 0.6, gib_in_loops=0.01),
    "linear_cross_entropy, classes in shard_map": eighth(35.25, 0.6),
    "linear_log_prob, rows": eighth(35.25, 2.1),
    "linear_log_prob, classes in shard_map": eighth(35.25, 0.6),
    "linear_kl_divergence, rows": eighth(52.9, 2.1),
    "linear_kl_divergence, classes in shard_map": eighth(52.9, 0.6),
    "linear_js_divergence, rows": eighth(52.9, 2.1),
    "linear_js_divergence, classes in shard_map": eighth(52.9, 0.6, gib_in_loops=0.001),
    "info_nce, rows": eighth(3.3, 0.1),
    "info_nce, rows in shard_map": eighth(3.3, 0.1),
    "clip_loss, rows": eighth(4.4, 0.1),
    "clip_loss, rows in shard_map": eighth(4.4, 0.1),
    "siglip_loss, rows": eighth(4.4, 0.1),
    "siglip_loss, rows in shard_map": eighth(4.4, 0.1),
    "supcon_loss, rows": eighth(4.4, 0.1),
    "supcon_loss, rows in shard_map": eighth(4.4, 0.1),
    "batch_hard_triplet_loss, rows": eighth(2.2, 0.1),
    "batch_hard_triplet_loss, rows in shard_map": eighth(2.2, 0.1),
    "arcface_loss, rows": eighth(2.2, 0.3, gib_in_loops=0.3),
    "arcface_loss, classes": eighth(2.2, 0.1, gib_in_loops=0.1),
    "arcface_loss, classes in shard_map": eighth(2.2, 0.1),
    "vicreg_loss, rows in shard_map": eighth(2.2, 0.6),
    "barlow_twins_loss, rows in shard_map": eighth(1.65, 0.3),
    "sweep R": {"kernels_a_step": 30, "decisions": 0},
    "sweep T": {"kernels_a_step": 30, "decisions": 0, "us_a_model": 20},
    "sweep segmentation": {"kernels_a_step": 2000, "decisions": 0},
}
"""By the name of a row; a row of float32 inputs has those of its function."""


def figures(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a row that a target may bound."""
    if "kernels a step" in row:
        return {
            "kernels_a_step": row["kernels a step"],
            "decisions": row["decisions"],
            "us_a_model": 1e6 / row["models_per_s"],
        }

    def ratio(column: str, other: str) -> Any:
        values = row[column], row[other]
        is_known = all(isinstance(v, int | float) for v in values) and values[1]
        return values[0] / values[1] if is_known else None

    temporaries = max(0.0, row["MiB"] - ROUNDING_MIB)
    result = {
        "ms": row["ms"],
        "times": ratio("ms", "peer ms"),
        "times_GiB": ratio("GiB", "peer GiB"),
        "MiB": temporaries,
        "times_inputs": temporaries / max(row["inputs MiB"], ROUNDING_MIB),
        "launches": row["launches"],
        "compile_s": row["compile s"],
        "Tflop": row["Tflop"],
        "GiB_in_loops": row.get("GiB in loops", 0.0),
        "GiB_outside": row.get("GiB outside", 0.0),
    }
    return {name: value for name, value in result.items() if value is not None}


def targets(row: dict[str, Any], device: str) -> dict[str, float]:
    """The targets of a row on a device."""
    name = row["program"]
    of_program = TARGETS.get(name, TARGETS.get(name.removesuffix(", f32"), {}))
    return {
        measure: bound * (MEASURES[measure].factor_v5e if device == "v5e" else 1.0)
        for measure, bound in (EVERY_ROW | of_program).items()
    }


def not_reached() -> dict[str, dict[str, Bounds]]:
    return json.loads(NOT_REACHED.read_text()) if NOT_REACHED.exists() else {}


def violations(row: dict[str, Any], device: str) -> Iterator[str]:
    """One sentence for each bound that a row exceeds."""
    name = row["program"]
    allowed = not_reached().get(device, {}).get(name, {})
    if not has_compiled(row):
        if allowed.get("does_not_compile", 0) == 0:
            yield f"{device}: {name} does not compile: {row['error']}."
        return
    actual = figures(row)
    for measure, target in targets(row, device).items():
        bound = max(target, allowed.get(measure, 0))
        if actual.get(measure, 0) > bound:
            sentence = MEASURES[measure].sentence.format(f"{actual[measure]:.3g}")
            yield f"{device}: {name} {sentence}, and may have {bound:.3g}."


def accept(row: dict[str, Any], device: str) -> None:
    """Lets a row have what it has, until it reaches its targets."""
    table = not_reached()
    rows = table.setdefault(device, {})
    if has_compiled(row):
        actual = figures(row)
        missed = {
            measure: float(f"{ALLOWANCE * actual[measure]:.3g}")
            for measure, target in targets(row, device).items()
            if actual.get(measure, 0) > target
        }
    else:
        missed = {"does_not_compile": 1}
    rows.pop(row["program"], None)
    rows |= {row["program"]: missed} if missed else {}
    NOT_REACHED.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")


def has_compiled(row: dict[str, Any]) -> bool:
    """Whether the program has figures; its peer may have none."""
    return isinstance(row["ms"], float)
