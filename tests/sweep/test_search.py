"""Hyperband, population-based training and Sobol sequences."""

import jax
import numpy as np
import pytest
from scipy.stats import qmc
from test_sweep import CHOICES, OPTIMIZERS, bitwise_equal, make_points, make_task

from jaxml import sweep

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("search")]


def make_plan(**options) -> sweep.Plan:
    options = {"points": make_points(seed=range(12)), "num_evals": 9, **options}
    return sweep.plan(
        make_task(),
        optimizers=OPTIMIZERS,
        choices=CHOICES,
        steps=27,
        batch_size=8,
        **options,
    )


@pytest.fixture(scope="module")
def whole() -> sweep.Record:
    return sweep.run(make_plan())


def halve_and_perturb(rng, columns):
    rates = columns["learning_rate"]
    return {"learning_rate": rates * rng.choice([0.8, 1.25], len(rates))}


def test_hyperband_halves_each_bracket_as_successive_halving_does(whole) -> None:
    hyperband = sweep.Hyperband("valid_loss", brackets=3, higher_is_better=False)
    plan = make_plan(halving=hyperband)
    record = sweep.run(plan)
    brackets = hyperband.bracket_models(plan.num_models)
    assert sorted(np.concatenate(brackets)) == [*range(216)]
    assert [len(ids) for ids in brackets] == [39, 59, 118]
    assert set(record.status[brackets[0]]) == {"ok"}
    curve = whole.curves["valid_loss"]
    for s, rungs in ((1, [2]), (2, [0, 2])):  # steps 9, and 3 and 9 of 27
        best = brackets[s]
        for rung in rungs:
            count = -(-len(best) // 3)
            best = best[np.argsort(curve[best, rung], kind="stable")[:count]]
        assert set(np.flatnonzero(record.status == "ok")) & {*brackets[s]} == {*best}
    ok = record.status == "ok"
    for name in record.final:
        assert record.final[name][ok].tobytes() == whole.final[name][ok].tobytes()


def test_hyperband_takes_new_points_without_compiling(compilations) -> None:
    plan = make_plan(halving=sweep.Hyperband("valid_loss", higher_is_better=False))
    compilations.clear()
    assert set(plan.evaluate(make_points(seed=range(5))).status) == {"ok", "stopped"}
    assert not compilations


def test_a_model_that_copies_has_the_state_of_its_source() -> None:
    """All copy the best of their population and then stand still."""
    population = sweep.PopulationBasedTraining(
        "valid_loss",
        explore=lambda rng, columns: {"learning_rate": 0 * columns["learning_rate"]},
        every=5,
        exploit=lambda rng, scores: np.full(len(scores), np.argmax(scores)),
        higher_is_better=False,
    )
    points = make_points(optimizer=["sgd", "adam"], seed=range(12))
    plan = make_plan(points=points, population=population)
    record = sweep.run(plan, keep_params=True)
    losses, rates = record.curves["valid_loss"], record.curves["learning_rate"]
    for optimizer in ("sgd", "adam"):
        for activation in CHOICES["activation"]:
            ids = np.flatnonzero(
                (points["optimizer"] == optimizer)
                & (points["activation"] == activation)
            )
            best = ids[np.argmin(losses[ids, 4])]
            others = np.setdiff1d(ids, [best])
            assert (rates[others, :5] == points["learning_rate"][others, None]).all()
            assert (rates[others, 5:] == 0).all()
            assert (rates[best] == points["learning_rate"][best]).all()
            assert (losses[others, 5:] == losses[best, 4]).all()


def run_population(**options) -> sweep.Record:
    population = sweep.PopulationBasedTraining(
        "valid_loss", halve_and_perturb, every=2, seed=1, higher_is_better=False
    )
    run_options = {
        n: options.pop(n)
        for n in ("checkpoint_dir", "callback", "resume")
        if n in options
    }
    return sweep.run(make_plan(population=population, **options), **run_options)


@pytest.fixture(scope="module")
def evolved() -> sweep.Record:
    return run_population()


def test_a_population_finds_better_rates(whole, evolved) -> None:
    assert set(evolved.status) == {"ok"}
    worst = [np.max(r.final["valid_loss"]) for r in (evolved, whole)]
    assert worst[0] < worst[1]
    assert len(np.unique(evolved.curves["learning_rate"])) > 12


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 3])
def test_a_population_has_the_same_bits_on_any_devices(num_devices, evolved) -> None:
    record = run_population(devices=jax.local_devices()[:num_devices])
    assert bitwise_equal(record, evolved)


def test_a_population_resumes_to_the_same_bits(tmp_path, evolved) -> None:
    def interrupt(num_models, record):
        curve = record.curves.get("valid_loss")
        if curve is not None and np.isfinite(curve[:, 5]).any():
            raise KeyboardInterrupt

    partial = run_population(checkpoint_dir=tmp_path, callback=interrupt)
    assert set(partial.status) == {"unfinished"}
    record = run_population(checkpoint_dir=tmp_path, resume=True)
    assert bitwise_equal(record, evolved)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_plan(halving=sweep.Hyperband("loss")),
            "plan: halving.metric must name one of train_loss, valid_loss, got 'loss'.",
        ),
        (
            lambda: make_plan(halving=sweep.Hyperband("valid_loss", brackets=0)),
            "Hyperband: brackets must be at least 1, got 0.",
        ),
        (
            lambda: make_plan(
                population=sweep.PopulationBasedTraining("loss", halve_and_perturb)
            ),
            "plan: population.metric must name one of train_loss, valid_loss, got "
            "'loss'.",
        ),
        (
            lambda: make_plan(
                population=sweep.PopulationBasedTraining(
                    "valid_loss", halve_and_perturb, every=0
                )
            ),
            "PopulationBasedTraining: every must be at least 1, got 0.",
        ),
        (
            lambda: sweep.run(
                make_plan(
                    population=sweep.PopulationBasedTraining(
                        "valid_loss", lambda rng, columns: {"rate": np.zeros(0)}
                    )
                )
            ),
            "PopulationBasedTraining: explore must return columns of learning_rate, "
            "got 'rate'.",
        ),
    ],
)
def test_invalid_searches_are_refused_in_one_sentence(make, message) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert str(error.value) == message


def test_random_settings_fill_the_space_evenly() -> None:
    axes = {name: sweep.linear(0.0, 1.0) for name in "abc"}
    space = np.stack([*sweep.random(64, 3, **axes).values()], 1)
    independent = np.random.default_rng(3).random((64, 3))
    assert qmc.discrepancy(space) < qmc.discrepancy(independent) / 3
    assert (np.bincount((space[:, 1] * 16).astype(int)) == 4).all()
    fewer = sweep.random(10, 3, **axes)
    np.testing.assert_array_equal(np.stack([*fewer.values()], 1), space[:10])
    other = sweep.random(64, 4, **axes)
    assert not np.isin(other["a"], space[:, 0]).any()
    names = sweep.random(64, 0, name=["x", "y"], rate=sweep.log(0.1, 10.0))
    assert (names["name"] == "x").sum() == 32
    assert (names["rate"] < 1.0).sum() == 32
