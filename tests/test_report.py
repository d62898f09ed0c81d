"""What a record says: right against loops, and honest about what failed."""

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
    """A record of [settings seeds] scores; a column has a value for each setting."""
    settings, seeds = scores.shape
    points = {n: np.repeat(np.asarray(c), seeds) for n, c in columns.items()}
    points["seed"] = np.tile(np.arange(seeds), settings)
    ended = np.full(scores.size, "ok", "<U10") if status is None else status.ravel()
    final = {"valid_accuracy": scores.ravel()}
    steps = np.array([10, 20, 40])
    curves = {} if curves is None else {"valid_accuracy": curves, "train_loss": curves}
    return sweep.Record(points, ended, final, steps, curves)


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def names(count):
    return [f"optimizer_{i}" for i in range(count)]


# ---- calibration after tuning ------------------------------------------------------

TRUTHS = {  # of six rates
    "one is best": np.array([-4.0, -2.0, 0.0, -1.0, -3.0, -9.0]),
    "two are near": np.array([-2.0, -0.7, 0.0, -0.7, -2.0, -9.0]),
    "all are equal": np.zeros(6),
}


def covered(n, truth, luck):
    """The share of 400 tuned optimizers whose interval covers, and the mean error."""
    scores = np.tile(truth, 400)[:, None] + draws(400 * len(truth), n, seed=n)
    run = record(
        scores,
        optimizer=np.repeat(names(400), len(truth)),
        learning_rate=np.tile(np.arange(len(truth)), 400),
    )
    inside, errors = [], []
    for own in sweep.standings(run, "valid_accuracy"):
        rates = run.points["learning_rate"][[*own.members.values()]]
        value, low, high = own.interquartile_mean
        if luck:  # the best setting judged by the seeds that chose it
            rates = own.settings["learning_rate"]
            mine = run.points["optimizer"] == own.name
            mine &= run.points["learning_rate"] == rates
            value, low, high = sweep.interquartile_mean(
                run.final["valid_accuracy"][mine]
            )
        inside.append(low <= np.mean(truth[rates]) <= high)
        errors.append(value - np.mean(truth[rates]))
    return np.mean(inside), np.mean(errors)


@pytest.mark.parametrize(("n", "least"), [(5, 0.90), (10, 0.93), (20, 0.93)])
def test_tuning_brings_no_luck_into_the_scores(n, least) -> None:
    inside, errors = zip(*(covered(n, t, luck=False) for t in TRUTHS.values()))
    assert least <= np.mean(inside) <= 0.97
    assert np.max(np.abs(errors)) < 0.1  # four standard errors at five seeds


def test_seeds_that_choose_what_they_judge_bring_luck() -> None:
    inside, error = covered(10, np.zeros(6), luck=True)
    assert inside < 0.93 and error > 0.3


# ---- standings and ranks ------------------------------------------------------------


def test_no_seed_chooses_the_setting_that_it_judges() -> None:
    scores = draws(6, 5)
    run = record(scores, optimizer=["a"] * 3 + ["b"] * 3, learning_rate=[1, 2, 3] * 2)
    for own in sweep.standings(run, "valid_accuracy"):
        mine = scores[:3] if own.name == "a" else scores[3:]
        for seed in range(5):
            others = [s for s in range(5) if s % 2 != seed % 2]
            best = max(range(3), key=lambda i: mine[i, others].mean())
            assert own.scores[seed] == mine[best, seed]
            at = own.members[seed]
            assert run.points["learning_rate"][at] == best + 1
            assert run.points["seed"][at] == seed
        rate = 1 + max(range(3), key=lambda i: mine[i].mean())
        assert own.settings == {"optimizer": own.name, "learning_rate": rate}


def test_another_column_may_choose_and_smaller_may_be_better() -> None:
    run = record(np.array([[1.0] * 5, [2.0] * 5]), optimizer=["a"] * 2, rate=[1, 2])
    run.final["valid_loss"] = np.repeat([0.1, 0.9], 5)
    assert (
        sweep.standings(run, "valid_loss", higher_is_better=False)[0].settings["rate"]
        == 1
    )
    for name in ("valid_accuracy", "valid_loss"):
        (own,) = sweep.standings(run, name, tuned_on="valid_loss")
        assert own.settings["rate"] == 2
    mirrored = record(-draws(3, 6), optimizer=names(3))
    plain = sweep.standings(record(draws(3, 6), optimizer=names(3)), "valid_accuracy")
    turned = sweep.standings(mirrored, "valid_accuracy", higher_is_better=False)
    assert [own.name for own in turned] == [own.name for own in plain]
    for one, other in zip(plain, turned):
        assert one.median == pytest.approx(
            (-other.median[0], *np.negative(other.median[:0:-1]))
        )
        assert one.improvement == other.improvement


def test_rivals_meet_on_the_seeds_that_both_have() -> None:
    of_seed = 9 * draws(12)  # far more than what the rivals differ by
    of_seed[10:] = -99
    rivals = {"a": (range(10), 0.1), "b": (range(11, 1, -1), 0.0)}
    rows = [(n, seed, of_seed[seed] + d) for n, (s, d) in rivals.items() for seed in s]
    optimizer, seed, score = map(np.array, zip(*rows))
    run = record(score[None], optimizer=["one"])
    run.points.update(optimizer=optimizer, seed=seed)
    first, second = sweep.standings(run, "valid_accuracy")
    assert (first.name, second.name) == ("a", "b")
    assert second.improvement.value == 1.0
    assert not second.tied


def test_ranks_are_places_by_seed_means_by_task() -> None:
    scores = np.round(draws(4, 3, 5), 1)  # with ties
    run = record(
        scores.reshape(12, 5),
        optimizer=np.repeat(names(4), 3),
        task=["iris", "wine", "digits"] * 4,
    )
    found = sweep.ranks(run, "valid_accuracy")
    places = np.zeros((4, 3, 5))
    for i, task, seed in np.ndindex(places.shape):
        own, others = scores[i, task, seed], scores[:, task, seed]
        ahead, equal = np.sum(others > own), np.sum(others == own)
        places[i, task, seed] = 1 + ahead + (equal - 1) / 2
    order = [names(4).index(name) for name in found.names]
    assert found.tasks == ["iris", "wine", "digits"]
    np.testing.assert_allclose(found.places, places[order].mean(axis=2))
    for i, estimate in zip(order, found.overall):
        parts = places[i].var(axis=1, ddof=1) / 5
        freedom = parts.sum() ** 2 / np.sum(parts**2 / 4)
        reach = stats.t.ppf(0.975, freedom) * math.sqrt(parts.sum()) / 3
        mean = places[i].mean()
        np.testing.assert_allclose(estimate, [mean, mean - reach, mean + reach])
    assert [e.value for e in found.overall] == sorted(e.value for e in found.overall)


def test_profiles_count_steps_to_what_others_reach() -> None:
    ends = np.array([[0.9], [0.8], [0.7]])
    curves = np.array([[0.1, 0.8, 0.9], [0.8, 0.8, 0.8], [0.1, 0.1, 0.7]])
    run = record(ends, optimizer=["late", "early", "last"], curves=curves)
    found = sweep.profiles(run, "valid_accuracy", highest=4.0)
    # the targets are 0.7, 0.8 and 0.8: late takes 20, 20, 20 steps, early 10 each
    assert found.names[0] == "early"
    assert found.problems == 3
    share = dict(zip(found.names, found.shares))
    np.testing.assert_allclose(found.ratios, [1, 2, 4])
    np.testing.assert_allclose(share["early"], [1, 1, 1])
    np.testing.assert_allclose(share["late"], [0, 1, 1])
    np.testing.assert_allclose(share["last"], [0, 0, 1 / 3])


# ---- what failed --------------------------------------------------------------------


def failed():
    """Three optimizers of six seeds: one diverged, one stopped, one unfinished once."""
    scores = draws(3, 6) * 0.01 + np.array([[0.9], [0.8], [0.7]])
    status = np.full((3, 6), "ok", "<U10")
    status[0, 1], status[1, 2], status[2, 3] = "diverged", "stopped", "unfinished"
    scores[0, 1], scores[2, 3] = np.nan, np.nan
    return record(scores, status=status, optimizer=["wild", "slow", "calm"])


def test_what_failed_stands_behind_and_counts_as_the_worst() -> None:
    calm, slow, wild = board = sweep.standings(failed(), "valid_accuracy")
    assert [own.name for own in board] == ["calm", "slow", "wild"]
    assert [own.diverged for own in board] == [0, 0, 1]
    assert sorted(calm.scores) == [0, 1, 2, 4, 5]
    assert wild.scores[1] == wild.interquartile_mean.low == -np.inf
    assert np.isfinite(wild.median.value)
    assert not wild.tied
    assert slow.improvement.value == 0  # of the five seeds that both finished
    assert wild.improvement.value == 1 / 5
    rows = sweep.leaderboard(failed(), "valid_accuracy")
    assert [row.settings["optimizer"] for row in rows] == ["calm", "slow", "wild"]
    assert [(row.seeds, row.diverged) for row in rows] == [(5, 0), (6, 0), (5, 1)]
    assert sweep.ranks(failed(), "valid_accuracy").names == ["wild", "slow", "calm"]


def test_a_setting_that_diverged_is_chosen_last() -> None:
    status = np.full((2, 6), "ok", "<U10")
    status[0, 2] = "diverged"
    scores = np.array([[0.9] * 6, [0.8] * 6])
    run = record(scores, status=status, optimizer=["a", "a"], rate=[1, 2])
    (own,) = sweep.standings(run, "valid_accuracy")
    assert own.settings["rate"] == 2 and own.diverged == 0
    assert set(own.scores.values()) == {0.8}


def test_if_all_diverged_the_worst_is_all_there_is() -> None:
    status = np.full((2, 5), "diverged")
    run = record(np.full((2, 5), np.nan), status=status, optimizer=["a", "b"])
    for own in sweep.standings(run, "valid_accuracy"):
        assert own.tied and own.median.value == -np.inf and own.diverged == 5
    assert "diverged" in sweep.report(run, "valid_accuracy")
    sweep.plot_standings(run, "valid_accuracy")


def test_one_seed_has_no_interval_and_tells_none_apart() -> None:
    run = record(np.array([[0.5], [0.9]]), optimizer=["a", "b"])
    board = sweep.standings(run, "valid_accuracy")
    assert [own.name for own in board] == ["b", "a"]
    for own in board:
        assert own.tied and np.isnan(own.median.low) and np.isnan(own.median.high)
    assert np.isnan(sweep.ranks(run, "valid_accuracy").overall[0].low)
    assert "five are the fewest" in sweep.report(run, "valid_accuracy")


def test_equal_scores_tie_and_one_setting_stands_alone() -> None:
    run = record(np.full((3, 5), 0.5), optimizer=names(3))
    board = sweep.standings(run, "valid_accuracy")
    assert all(own.tied and own.improvement.value == 0.5 for own in board)
    np.testing.assert_array_equal(sweep.ranks(run, "valid_accuracy").places, 2)
    (only,) = sweep.standings(record(draws(1, 5), optimizer=["a"]), "valid_accuracy")
    assert only.tied and only.improvement.value == 0.5
    alike = np.array([[0.9] * 5, [0.8] * 5])  # never by differences of no spread
    assert sweep.tied_with_best(alike).tolist() == [True, False]
    assert sweep.tied_with_best(alike[:, :3]).tolist() == [True, True]


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            lambda r: sweep.standings(r, "accuracy"),
            "standings: metric must name one of",
        ),
        (lambda r: sweep.leaderboard(r, "x"), "leaderboard: metric must name one of"),
        (lambda r: sweep.ranks(r, "valid_accuracy", by="loss"), "ranks: by must name"),
        (lambda r: sweep.report(r, "valid_accuracy", by="x"), "report: by must name"),
        (lambda r: sweep.split(r), "split: by must name one of optimizer, seed"),
        (lambda r: sweep.profiles(r, "x"), "profiles: metric must name one of"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(ask, sentence) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as refusal:
        ask(record(draws(2, 5), optimizer=["a", "b"]))
    assert str(refusal.value).count("\n") == 0


def test_a_record_without_an_answer_is_refused_in_a_sentence() -> None:
    run = record(draws(2, 2), optimizer=["a", "b"], task=["iris", "wine"])
    with pytest.raises(ValueError, match="record must be of one task"):
        sweep.standings(run, "valid_accuracy")
    with pytest.raises(ValueError, match="must have a seed that every optimizer"):
        sweep.ranks(run, "valid_accuracy")
    assert "No seed is finished by every" in sweep.report(run, "valid_accuracy")
    nothing = run._replace(status=np.full(4, "unfinished"))
    for ask in (sweep.standings, sweep.ranks, sweep.profiles, sweep.report):
        with pytest.raises(ValueError, match="record must have a finished model"):
            ask(nothing, "valid_accuracy")


# ---- pictures and the page ----------------------------------------------------------


def several(optimizers=17, tasks=("iris", "wine")):
    """A record as of the command: optimizers x rates x tasks, with curves."""
    rates = np.geomspace(1e-3, 1, 4)
    grid = list(itertools.product(names(optimizers), tasks, rates))
    optimizer, task, rate = (list(column) for column in zip(*grid))
    scores = 0.8 + 0.02 * draws(len(grid), 5)
    curves = scores.reshape(-1, 1) * np.array([0.5, 0.9, 1.0])
    columns = {"optimizer": optimizer, "task": task, "learning_rate": rate}
    return record(scores, curves=curves, **columns)


def overlaps(texts) -> bool:
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.mark.slow
def test_labels_of_17_optimizers_do_not_overlap() -> None:
    run = several()
    one = sweep.split(run)["iris"]
    for figure in (
        sweep.plot_standings(one, "valid_accuracy", title="iris"),
        sweep.plot_ranks(run, "valid_accuracy"),
        sweep.plot_profiles(run, "valid_accuracy"),
        sweep.plot_sensitivity(one, "valid_accuracy"),
        sweep.plot_curves(one, "valid_accuracy"),
    ):
        figure.draw_without_rendering()
        labels = [axes.get_yticklabels() for axes in figure.axes]
        labels += [axes.get_xticklabels() for axes in figure.axes]
        labels += [legend.get_texts() for legend in figure.legends]
        titles = [axes.title for axes in figure.axes]
        assert not any(map(overlaps, [*labels, titles]))


def test_pictures_of_a_loss_are_of_its_smallest_settings() -> None:
    run = record(
        np.array([[0.1], [0.9]]),
        curves=np.array([[0.5, 0.2, 0.1], [0.9, 0.9, 0.9]]),
        optimizer=["adam", "adam"],
        activation=["relu", "tanh"],
        learning_rate=[0.1, 0.1],
    )
    for plot, panel in ((sweep.plot_sensitivity, 0), (sweep.plot_curves, 1)):
        for higher_is_better, end in ((False, 0.1), (True, 0.9)):
            axes = plot(run, "valid_accuracy", higher_is_better=higher_is_better).axes[
                panel
            ]
            assert axes.lines[0].get_ydata()[-1] == end


class Page(html.parser.HTMLParser):
    """Sources, links, words and tags of a page that must nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.sources, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [v for n, v in attributes if n in ("src", "href", "srcset")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_report_is_one_page_that_needs_nothing_else(tmp_path) -> None:
    path = tmp_path / "report.html"
    text = sweep.report(several(3), "valid_accuracy", title="Which?", path=path)
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    page = Page(text)
    assert not page.open
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    pictures = [s for s in page.sources if not s.startswith("#")]
    assert len(pictures) == 2 + 2 * 2
    for picture in pictures:
        start, data = picture.split(",")
        assert start == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    for link in set(page.sources) - set(pictures):
        assert f'id="{link[1:]}"' in text
    words = " ".join(page.words)
    for said in ("Which?", "120 models", "2 tasks", "All tasks", "wine", "jaxlib"):
        assert said in words


def test_the_report_says_what_failed_and_escapes_names() -> None:
    run = failed()
    run.points["optimizer"][run.points["optimizer"] == "calm"] = "<&>"
    page = Page(sweep.report(run, "valid_accuracy", title="a < b"))
    words = " ".join(page.words)
    for said in (
        "<&>",
        "a < b",
        "1 of 18 models diverged",
        "1 of 6 diverged",
        "stopped early",
    ):
        assert said in words
    assert "1 of 18 models are not finished" in words
    assert "img" not in page.tags  # no rates, no curves
