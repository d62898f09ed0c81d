"""Time to target and AlgoPerf's score: equal to sums that are visible."""

import numpy as np
import pytest

from jaxml import sweep


def make_record(**curves_by_task) -> sweep.Record:
    """Two methods, two rates and two seeds on each task; steps 10, 20 and 30."""
    space = sweep.grid(optimizer=["sgd", "adam"], rate=[0.1, 1.0], seed=[0, 1])
    points = sweep.product(sweep.grid(task=[*curves_by_task]), space)
    curves = np.concatenate([*curves_by_task.values()])
    status = np.full(len(curves), "ok")
    return sweep.Record(
        points, status, {}, np.array([10, 20, 30]), {"valid_accuracy": curves}
    )


def rise(*steps: float) -> np.ndarray:
    """Curves that are 1 from these steps on."""
    return (np.array([10, 20, 30]) >= np.array(steps)[:, None]).astype(float)


NEVER = 99
RECORD = make_record(
    # sgd: rate 0.1, seeds 0 and 1, rate 1.0; then adam
    first=rise(20, 30, NEVER, 10, 10, 10, NEVER, NEVER),
    second=rise(10, 10, 30, 30, NEVER, NEVER, 30, 30),
)


def test_the_steps_are_the_median_over_seeds_of_the_fastest_setting() -> None:
    scores = sweep.target_scores(RECORD, sweep.Target("valid_accuracy", 0.5))
    steps = {score.name: score.steps for score in scores}
    assert steps["sgd"] == {"first": (20 + 10) / 2, "second": 10}
    assert steps["adam"] == {"first": 10, "second": 30}


def test_the_score_is_the_area_under_the_profile() -> None:
    targets = {
        name: sweep.Target("valid_accuracy", 1.0) for name in ("first", "second")
    }
    scores = {s.name: s.score for s in sweep.target_scores(RECORD, targets)}
    # The ratios of sgd are 1.5 and 1, those of adam 1 and 3; the profile ends at 4.
    expected = {"sgd": (0.5 * 0.5 + 1 * 2.5) / 3, "adam": (0.5 * 2 + 1 * 1) / 3}
    assert scores == pytest.approx(expected, abs=2e-3)
    doubled = sweep.target_scores(RECORD, targets, max_ratio=2.0)
    assert {s.name: s.score for s in doubled} == pytest.approx(
        {"sgd": 0.75, "adam": 0.5}, abs=2e-3
    )


def test_a_target_that_is_never_reached_takes_forever() -> None:
    target = sweep.Target("valid_accuracy", 2.0)
    assert (target.steps(RECORD) == np.inf).all()
    scores = sweep.target_scores(RECORD, target)
    assert {s.score for s in scores} == {0.0}
    assert {s.steps["first"] for s in scores} == {np.inf}


def test_lower_may_be_better_and_diverged_models_never_arrive() -> None:
    record = RECORD._replace(status=np.array(["diverged"] * 8 + ["ok"] * 8))
    target = sweep.Target("valid_accuracy", 0.5, higher_is_better=False)
    steps = target.steps(record)
    assert (steps[:8] == np.inf).all()
    assert steps[8:].tolist() == [np.inf, np.inf, 10, 10, 10, 10, 10, 10]


def test_the_report_has_a_table_of_targets() -> None:
    final = {"valid_accuracy": RECORD.curves["valid_accuracy"][:, -1]}
    record = RECORD._replace(final=final)
    target = sweep.Target("valid_accuracy", 0.5)
    page = sweep.report(record, "valid_accuracy", target=target)
    assert "AlgoPerf score" in page
    assert "<td>0.917</td><td>15</td><td>10</td>" in page
    assert "AlgoPerf" not in sweep.report(record, "valid_accuracy")


def test_invalid_targets_are_refused_in_one_sentence() -> None:
    target = sweep.Target("accuracy", 0.5)
    for call, sentence in [
        (
            lambda: target.steps(RECORD),
            "Target: metric must name one of valid_accuracy, got 'accuracy'.",
        ),
        (
            lambda: sweep.target_scores(
                RECORD, {"first": target._replace(metric="valid_accuracy")}
            ),
            "target_scores: targets must have a target for 'second', got None.",
        ),
        (
            lambda: sweep.target_scores(RECORD, target, max_ratio=1.0),
            "target_scores: max_ratio must be above 1, got 1.0.",
        ),
        (
            lambda: sweep.target_scores(RECORD, target, by="loss"),
            "target_scores: by must name one of task, optimizer, rate, seed, got "
            "'loss'.",
        ),
    ]:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            call()
        assert str(error.value) == sentence
