"""Analysis and report of a record: equal to plain loops, and failures are counted."""

import base64
import html.parser
import itertools
import math
import re

import numpy as np
import pytest
from scipy import stats

from jaxml import sweep


def record(scores, *, status=None, curves=None, **columns):
    """A record of [configs seeds] scores; each column has a value per configuration."""
    num_configs, num_seeds = scores.shape
    points = {n: np.repeat(np.asarray(c), num_seeds) for n, c in columns.items()}
    points["seed"] = np.tile(np.arange(num_seeds), num_configs)
    status = np.full(scores.size, "ok", "<U10") if status is None else status.ravel()
    final = {"valid_accuracy": scores.ravel()}
    steps = np.array([10, 20, 40])
    curves = {} if curves is None else {"valid_accuracy": curves, "train_loss": curves}
    return sweep.Record(points, status, final, steps, curves)


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def names(count):
    return [f"optimizer_{i}" for i in range(count)]


# ---- calibration after tuning ------------------------------------------------------

TRUE_SCORES = {  # at six learning rates
    "one best rate": np.array([-4.0, -2.0, 0.0, -1.0, -3.0, -9.0]),
    "three good rates": np.array([-2.0, -0.7, 0.0, -0.7, -2.0, -9.0]),
    "equal rates": np.zeros(6),
}


def coverage_and_bias(num_seeds, true_scores, *, same_seeds):
    """Coverage and mean error of the interquartile mean of 400 tuned optimizers."""
    num_rates = len(true_scores)
    noise = draws(400 * num_rates, num_seeds, seed=num_seeds)
    run = record(
        np.tile(true_scores, 400)[:, None] + noise,
        optimizer=np.repeat(names(400), num_rates),
        learning_rate=np.tile(np.arange(num_rates), 400),
    )
    covered, errors = [], []
    for standing in sweep.standings(run, "valid_accuracy"):
        rates = run.points["learning_rate"][[*standing.model_ids.values()]]
        value, low, high = standing.interquartile_mean
        if same_seeds:  # the best configuration, scored on the seeds that selected it
            rates = standing.settings["learning_rate"]
            models = run.points["optimizer"] == standing.name
            models &= run.points["learning_rate"] == rates
            scores = run.final["valid_accuracy"][models]
            value, low, high = sweep.interquartile_mean(scores)
        truth = np.mean(true_scores[rates])
        covered.append(low <= truth <= high)
        errors.append(value - truth)
    return np.mean(covered), np.mean(errors)


@pytest.mark.parametrize(("n", "min_coverage"), [(5, 0.90), (10, 0.93), (20, 0.93)])
def test_tuning_does_not_bias_the_scores(n, min_coverage) -> None:
    covered, errors = zip(
        *(coverage_and_bias(n, t, same_seeds=False) for t in TRUE_SCORES.values())
    )
    assert min_coverage <= np.mean(covered) <= 0.97
    assert np.max(np.abs(errors)) < 0.1  # four standard errors at five seeds


def test_selecting_and_scoring_on_the_same_seeds_is_biased() -> None:
    covered, error = coverage_and_bias(10, np.zeros(6), same_seeds=True)
    assert covered < 0.93 and error > 0.3


# ---- standings and ranks ------------------------------------------------------------


def test_no_seed_selects_the_configuration_that_it_scores() -> None:
    scores = draws(6, 5)
    run = record(scores, optimizer=["a"] * 3 + ["b"] * 3, learning_rate=[1, 2, 3] * 2)
    for standing in sweep.standings(run, "valid_accuracy"):
        table = scores[:3] if standing.name == "a" else scores[3:]
        for seed in range(5):
            other_half = [s for s in range(5) if s % 2 != seed % 2]
            best = max(range(3), key=lambda i: table[i, other_half].mean())
            assert standing.scores[seed] == table[best, seed]
            model_id = standing.model_ids[seed]
            assert run.points["learning_rate"][model_id] == best + 1
            assert run.points["seed"][model_id] == seed
        rate = 1 + max(range(3), key=lambda i: table[i].mean())
        assert standing.settings == {"optimizer": standing.name, "learning_rate": rate}


def test_tuned_on_selects_and_lower_may_be_better() -> None:
    run = record(np.array([[1.0] * 5, [2.0] * 5]), optimizer=["a"] * 2, rate=[1, 2])
    run.final["valid_loss"] = np.repeat([0.1, 0.9], 5)
    (standing,) = sweep.standings(run, "valid_loss", higher_is_better=False)
    assert standing.settings["rate"] == 1
    for metric in ("valid_accuracy", "valid_loss"):
        (standing,) = sweep.standings(run, metric, tuned_on="valid_loss")
        assert standing.settings["rate"] == 2


def test_lower_is_better_mirrors_higher_is_better() -> None:
    higher = sweep.standings(record(draws(3, 6), optimizer=names(3)), "valid_accuracy")
    negated = record(-draws(3, 6), optimizer=names(3))
    lower = sweep.standings(negated, "valid_accuracy", higher_is_better=False)
    assert [s.name for s in lower] == [s.name for s in higher]
    for one, other in zip(higher, lower):
        value, low, high = other.median
        assert one.median == pytest.approx((-value, -high, -low))
        assert one.improvement == other.improvement


def test_methods_are_compared_on_their_common_seeds() -> None:
    seed_effect = 9 * draws(12)  # much larger than the difference of the methods
    seed_effect[10:] = -99
    methods = {"a": (range(10), 0.1), "b": (range(11, 1, -1), 0.0)}
    rows = [(n, s, seed_effect[s] + x) for n, (ids, x) in methods.items() for s in ids]
    optimizer, seed, score = map(np.array, zip(*rows))
    run = record(score[None], optimizer=["one"])
    run.points.update(optimizer=optimizer, seed=seed)
    first, second = sweep.standings(run, "valid_accuracy")
    assert (first.name, second.name) == ("a", "b")
    assert second.improvement.value == 1.0
    assert not second.tied


def test_ranks_are_averaged_over_seeds_then_over_tasks() -> None:
    scores = np.round(draws(4, 3, 5), 1)  # with ties
    run = record(
        scores.reshape(12, 5),
        optimizer=np.repeat(names(4), 3),
        task=["iris", "wine", "digits"] * 4,
    )
    result = sweep.ranks(run, "valid_accuracy")
    ranks = np.zeros((4, 3, 5))
    for i, task, seed in np.ndindex(ranks.shape):
        score, others = scores[i, task, seed], scores[:, task, seed]
        better, equal = np.sum(others > score), np.sum(others == score)
        ranks[i, task, seed] = 1 + better + (equal - 1) / 2
    order = [names(4).index(name) for name in result.names]
    assert result.tasks == ["iris", "wine", "digits"]
    np.testing.assert_allclose(result.task_ranks, ranks[order].mean(axis=2))
    for i, estimate in zip(order, result.overall):
        variances = ranks[i].var(axis=1, ddof=1) / 5
        dof = variances.sum() ** 2 / np.sum(variances**2 / 4)
        half_width = stats.t.ppf(0.975, dof) * math.sqrt(variances.sum()) / 3
        mean = ranks[i].mean()
        truth = [mean, mean - half_width, mean + half_width]
        np.testing.assert_allclose(estimate, truth)
    assert [e.value for e in result.overall] == sorted(e.value for e in result.overall)


def test_profiles_count_the_steps_to_the_targets() -> None:
    ends = np.array([[0.9], [0.8], [0.7]])
    curves = np.array([[0.1, 0.8, 0.9], [0.8, 0.8, 0.8], [0.1, 0.1, 0.7]])
    run = record(ends, optimizer=["late", "early", "last"], curves=curves)
    result = sweep.profiles(run, "valid_accuracy", max_ratio=4.0)
    # the targets are 0.7, 0.8 and 0.8: late takes 20, 20, 20 steps, early 10 each
    assert result.names[0] == "early"
    assert result.problems == 3
    fractions = dict(zip(result.names, result.fractions))
    np.testing.assert_allclose(result.ratios, [1, 2, 4])
    np.testing.assert_allclose(fractions["early"], [1, 1, 1])
    np.testing.assert_allclose(fractions["late"], [0, 1, 1])
    np.testing.assert_allclose(fractions["last"], [0, 0, 1 / 3])


# ---- failures -----------------------------------------------------------------------


def record_with_failures():
    """Three optimizers on six seeds, with one diverged, stopped or unfinished model."""
    scores = draws(3, 6) * 0.01 + np.array([[0.9], [0.8], [0.7]])
    status = np.full((3, 6), "ok", "<U10")
    status[0, 1], status[1, 2], status[2, 3] = "diverged", "stopped", "unfinished"
    scores[0, 1], scores[2, 3] = np.nan, np.nan
    optimizers = ["diverging", "stopped", "unfinished"]
    return record(scores, status=status, optimizer=optimizers)


def test_diverged_models_count_as_the_worst() -> None:
    run = record_with_failures()
    unfinished, stopped, diverging = results = sweep.standings(run, "valid_accuracy")
    order = ["unfinished", "stopped", "diverging"]
    assert [standing.name for standing in results] == order
    assert [standing.diverged for standing in results] == [0, 0, 1]
    assert sorted(unfinished.scores) == [0, 1, 2, 4, 5]
    assert diverging.scores[1] == diverging.interquartile_mean.low == -np.inf
    assert np.isfinite(diverging.median.value)
    assert not diverging.tied
    assert stopped.improvement.value == 0  # on the five seeds that both finished
    assert diverging.improvement.value == 1 / 5
    rows = sweep.leaderboard(run, "valid_accuracy")
    assert [row.settings["optimizer"] for row in rows] == order
    assert [(row.seeds, row.diverged) for row in rows] == [(5, 0), (6, 0), (5, 1)]
    assert sweep.ranks(run, "valid_accuracy").names == order[::-1]


def test_a_configuration_that_diverged_is_selected_last() -> None:
    status = np.full((2, 6), "ok", "<U10")
    status[0, 2] = "diverged"
    scores = np.array([[0.9] * 6, [0.8] * 6])
    run = record(scores, status=status, optimizer=["a", "a"], rate=[1, 2])
    (standing,) = sweep.standings(run, "valid_accuracy")
    assert standing.settings["rate"] == 2 and standing.diverged == 0
    assert set(standing.scores.values()) == {0.8}


def test_all_models_may_have_diverged() -> None:
    status = np.full((2, 5), "diverged")
    run = record(np.full((2, 5), np.nan), status=status, optimizer=["a", "b"])
    for standing in sweep.standings(run, "valid_accuracy"):
        assert standing.tied and standing.diverged == 5
        assert standing.median.value == -np.inf
    assert "diverged" in sweep.report(run, "valid_accuracy")
    sweep.plot_standings(run, "valid_accuracy")


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_diverged_methods_are_marked_at_the_worse_edge(higher_is_better) -> None:
    status = np.array([["ok"] * 5, ["diverged"] * 5])
    run = record(draws(2, 5), status=status, optimizer=["a", "b"])
    options = {"higher_is_better": higher_is_better}
    (axes,) = sweep.plot_standings(run, "valid_accuracy", **options).axes
    (mark,) = axes.texts
    assert "diverged" in mark.get_text()
    assert mark.get_position()[0] == axes.get_xlim()[0 if higher_is_better else 1]


def test_one_seed_has_no_interval_and_no_significance() -> None:
    run = record(np.array([[0.5], [0.9]]), optimizer=["a", "b"])
    results = sweep.standings(run, "valid_accuracy")
    assert [standing.name for standing in results] == ["b", "a"]
    for standing in results:
        assert standing.tied
        assert np.isnan(standing.median.low) and np.isnan(standing.median.high)
    assert np.isnan(sweep.ranks(run, "valid_accuracy").overall[0].low)
    assert "needs at least five seeds" in sweep.report(run, "valid_accuracy")


def test_equal_scores_are_tied() -> None:
    run = record(np.full((3, 5), 0.5), optimizer=names(3))
    results = sweep.standings(run, "valid_accuracy")
    assert all(s.tied and s.improvement.value == 0.5 for s in results)
    np.testing.assert_array_equal(sweep.ranks(run, "valid_accuracy").task_ranks, 2)
    (only,) = sweep.standings(record(draws(1, 5), optimizer=["a"]), "valid_accuracy")
    assert only.tied and only.improvement.value == 0.5
    constant = np.array([[0.9] * 5, [0.8] * 5])  # differences without variance
    assert sweep.tied_with_best(constant).tolist() == [True, False]
    assert sweep.tied_with_best(constant[:, :3]).tolist() == [True, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: sweep.standings(r, "x"), "standings: metric must name one of"),
        (lambda r: sweep.leaderboard(r, "x"), "leaderboard: metric must name one of"),
        (lambda r: sweep.ranks(r, "valid_accuracy", by="loss"), "ranks: by must name"),
        (lambda r: sweep.report(r, "valid_accuracy", by="x"), "report: by must name"),
        (lambda r: sweep.split(r), "split: by must name one of optimizer, seed"),
        (lambda r: sweep.profiles(r, "x"), "profiles: metric must name one of"),
    ],
)
def test_unknown_columns_raise(call, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(record(draws(2, 5), optimizer=["a", "b"]))
    assert str(error.value).count("\n") == 0


def test_records_that_cannot_be_compared_raise() -> None:
    run = record(draws(2, 2), optimizer=["a", "b"], task=["iris", "wine"])
    with pytest.raises(ValueError, match="record must be of one task"):
        sweep.standings(run, "valid_accuracy")
    with pytest.raises(ValueError, match="must have a seed that every optimizer"):
        sweep.ranks(run, "valid_accuracy")
    assert "No seed is finished by every" in sweep.report(run, "valid_accuracy")
    unfinished = run._replace(status=np.full(4, "unfinished"))
    for analyze in (sweep.standings, sweep.ranks, sweep.profiles, sweep.report):
        with pytest.raises(ValueError, match="record must have a finished model"):
            analyze(unfinished, "valid_accuracy")


# ---- figures and the report ---------------------------------------------------------


def large_record(num_optimizers=17, tasks=("iris", "wine")):
    """Optimizers x tasks x learning rates, five seeds each, with curves."""
    rates = np.geomspace(1e-3, 1, 4)
    configs = list(itertools.product(names(num_optimizers), tasks, rates))
    optimizer, task, rate = (list(column) for column in zip(*configs))
    scores = 0.8 + 0.02 * draws(len(configs), 5)
    curves = scores.reshape(-1, 1) * np.array([0.5, 0.9, 1.0])
    columns = {"optimizer": optimizer, "task": task, "learning_rate": rate}
    return record(scores, curves=curves, **columns)


def overlaps(texts) -> bool:
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.slow
def test_labels_of_17_optimizers_do_not_overlap() -> None:
    run = large_record()
    iris = sweep.split(run)["iris"]
    for figure in (
        sweep.plot_standings(iris, "valid_accuracy", title="iris"),
        sweep.plot_ranks(run, "valid_accuracy"),
        sweep.plot_profiles(run, "valid_accuracy"),
        sweep.plot_sensitivity(iris, "valid_accuracy"),
        sweep.plot_curves(iris, "valid_accuracy"),
    ):
        figure.draw_without_rendering()
        labels = [axes.get_yticklabels() for axes in figure.axes]
        labels += [axes.get_xticklabels() for axes in figure.axes]
        labels += [legend.get_texts() for legend in figure.legends]
        titles = [axes.title for axes in figure.axes]
        assert not any(map(overlaps, [*labels, titles]))


def test_figures_show_the_lowest_settings_if_lower_is_better() -> None:
    run = record(
        np.array([[0.1], [0.9]]),
        curves=np.array([[0.5, 0.2, 0.1], [0.9, 0.9, 0.9]]),
        optimizer=["adam", "adam"],
        activation=["relu", "tanh"],
        learning_rate=[0.1, 0.1],
    )
    for plot, panel in ((sweep.plot_sensitivity, 0), (sweep.plot_curves, 1)):
        for higher_is_better, last in ((False, 0.1), (True, 0.9)):
            figure = plot(run, "valid_accuracy", higher_is_better=higher_is_better)
            assert figure.axes[panel].lines[0].get_ydata()[-1] == last


class Page(html.parser.HTMLParser):
    """The tags, URLs and text of an HTML page, whose tags must nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.urls, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.urls += [v for n, v in attributes if n in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f" {data}"


def test_the_report_is_one_self_contained_page(tmp_path) -> None:
    path = tmp_path / "report.html"
    text = sweep.report(large_record(3), "valid_accuracy", title="Which?", path=path)
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    page = Page(text)
    assert not page.open
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    images = [url for url in page.urls if not url.startswith("#")]
    assert len(images) == 2 + 2 * 3  # over all tasks, and of each task
    for image in images:
        start, data = image.split(",")
        assert start == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    for link in set(page.urls) - set(images):
        assert f'id="{link[1:]}"' in text
    for part in ("Which?", "120 models", "2 tasks", "All tasks", "wine", "jaxlib"):
        assert part in page.text


def test_the_report_lists_failures_and_escapes_names() -> None:
    run = record_with_failures()
    run.points["optimizer"][run.points["optimizer"] == "unfinished"] = "<&>"
    page = Page(sweep.report(run, "valid_accuracy", title="a < b"))
    for part in ("<&>", "a < b", "1 of 6 diverged", "stopped early"):
        assert part in page.text
    assert "1 of 18 models diverged" in page.text
    assert "1 of 18 models are not finished" in page.text
    assert page.tags.count("img") == 1  # the standings: no learning rates, no curves
