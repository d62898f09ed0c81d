"""The sweep: right, independent of its neighbours, and honest about what failed."""

import csv
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from scipy import stats

from jaxml import cli, optimizers, sweep, tasks

OPTIMIZERS = {
    "sgd": lambda point: optimizers.sgd(point["learning_rate"]),
    "adam": lambda point: optimizers.adam(point["learning_rate"]),
    "momentum": lambda point: optimizers.momentum(point["learning_rate"]),
}
CHOICES = {"activation": {"tanh": jnp.tanh, "identity": lambda x: x}}
HOW = "watch", "folder", "resume", "keep_params"
ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
TARGETS = np.tanh(ROWS @ np.array([1.0, -2.0, 0.5], np.float32))


def task() -> sweep.Task:
    """Regression on one layer of three weights."""

    def init(key, point):
        return {"w": jax.random.normal(key, (3,), jnp.float32)}

    def loss(params, batch, point):
        x, y = batch
        return jnp.mean((point["activation"](x @ params["w"]) - y) ** 2)

    def metrics(params, data, point):
        return {"loss": loss(params, data, point)}

    data = jnp.asarray(ROWS), jnp.asarray(TARGETS)
    return sweep.Task(init, loss, metrics, data, data)


def points(**axes):
    default = {
        "optimizer": list(OPTIMIZERS),
        "activation": list(CHOICES["activation"]),
        "learning_rate": [0.01, 0.05, 0.1],
        "seed": range(9),
    }
    return sweep.grid(**{**default, **axes})


def run(table, **options):
    given = {"optimizers": OPTIMIZERS, "choices": CHOICES, "steps": 20, "batch_size": 8}
    how = {n: options.pop(n) for n in HOW if n in options}
    return sweep.run(sweep.plan(task(), table, **{**given, **options}), **how)


@pytest.fixture(scope="module")
def record():
    return run(points())


def same_bits(one, other, rows=slice(None)):
    """Of every column but the curve of the training loss, which chunks cut up."""
    pairs = [(one.final[name], other.final[name][rows]) for name in other.final]
    if len(one.steps) == len(other.steps):
        pairs += [(one.curves[name], other.curves[name][rows]) for name in other.curves]
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_a_model_is_what_a_plain_loop_makes_of_it(record) -> None:
    one = task()
    for i in (0, 50, 161):
        point = {name: column[i] for name, column in record.points.items()}
        point["activation"] = CHOICES["activation"][point["activation"]]
        optimizer = OPTIMIZERS[record.points["optimizer"][i]](point)
        init, draw = (
            jax.random.fold_in(jax.random.key(point["seed"]), j) for j in (0, 1)
        )
        params = one.init(init, point)
        state = optimizer.init(params)
        for step in range(20):
            drawn = jax.random.randint(jax.random.fold_in(draw, step), (8,), 0, 40)
            batch = jax.tree.map(lambda a, rows=drawn: a[rows], one.train)
            grads = jax.grad(one.loss)(params, batch, point)
            updates, state = optimizer.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        truth = one.metrics(params, one.valid, point)["loss"]
        np.testing.assert_allclose(record.final["valid_loss"][i], truth, rtol=1e-4)
        np.testing.assert_allclose(record.curves["valid_loss"][i, -1], truth, rtol=1e-4)


def test_alone_or_in_the_grid_the_bits_are_the_same(record) -> None:
    for i in (3, 100):
        alone = {name: column[i : i + 1] for name, column in record.points.items()}
        assert same_bits(run(alone), record, slice(i, i + 1))


def test_order_chunks_and_devices_change_no_bit(record) -> None:
    order = np.random.default_rng(1).permutation(len(record.status))
    shuffled = {name: column[order] for name, column in record.points.items()}
    assert same_bits(run(shuffled), record, order)
    one_device = run(record.points, devices=jax.local_devices()[:1])
    assert same_bits(one_device, record)
    assert same_bits(run(record.points, evaluations=1), record)


def test_a_diverged_model_touches_no_neighbour() -> None:
    table = points(learning_rate=[0.01, 1e30])
    record = run(table, keep_params=True)
    wild = table["learning_rate"] == 1e30
    linear = table["activation"] == "identity"  # nothing bounds it
    hopeless = wild & linear & (table["optimizer"] == "sgd")
    assert set(record.status[hopeless]) == {"diverged"}
    assert set(record.final["trained"][hopeless]) == {1}
    assert np.isfinite(record.params["['w']"][hopeless]).all()  # frozen as they were
    assert set(record.status[~wild]) == {"ok"}
    calm = {name: column[~wild] for name, column in table.items()}
    assert same_bits(run(calm), record, ~wild)
    ranked = sweep.leaderboard(record, "valid_loss", largest=False)
    assert ranked[0].diverged == 0
    assert ranked[-1].diverged > 0


def test_a_selection_is_the_function_of_its_name(quick_compilation) -> None:
    def scaled(point):
        return optimizers.sgd(point["scale"](point["learning_rate"]))

    shares = {"none": lambda x: 0 * x, "half": lambda x: 0.5 * x, "same": lambda x: x}
    axes = {"optimizer": ["sgd"], "activation": ["tanh"], "seed": [0]}
    record = run(
        points(**axes, learning_rate=[0.05, 0.1], scale=[*shares]),
        optimizers={"sgd": scaled},
        selections={"scale": shares},
    )
    (none, half, same), (still, slow, fast) = record.final["valid_loss"].reshape(2, 3)
    assert none == still and same == slow
    assert len({none, half, same, fast}) == 4


SEARCHING = {  # optimizers whose update takes the objective, or its value
    "newton": lambda point: optimizers.newton(),
    "newton_cg": lambda point: optimizers.newton_cg(radius=point["learning_rate"]),
    "lbfgs": lambda point: optax.lbfgs(),
    "plateau": lambda point: optax.chain(
        optax.sgd(point["learning_rate"] / 5), optax.contrib.reduce_on_plateau()
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHING)
def test_an_optimizer_may_look_at_the_objective(name) -> None:
    table = points(optimizer=[name], learning_rate=[0.5, 1.0], seed=range(2))
    given = {"optimizers": {name: SEARCHING[name]}, "batch_size": None, "steps": 12}
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        record = run(table, **given)
    assert set(record.status) == {"ok"}
    start, end = record.curves["train_loss"][:, [0, -1]].T
    assert np.all(end < start)
    if name != "plateau":  # the optimum, or nearly
        best = np.linalg.lstsq(ROWS, TARGETS)[0]
        lowest = np.mean((ROWS @ best - TARGETS) ** 2)
        straight = table["activation"] == "identity"
        found = record.final["valid_loss"][straight]
        np.testing.assert_allclose(found, lowest, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, 1])
def test_batch_and_stochastic_descent(batch_size) -> None:
    record = run(points(seed=range(2)), batch_size=batch_size, steps=50)
    assert set(record.status) == {"ok"}
    good = (record.points["activation"] == "tanh") & (
        record.points["learning_rate"] == 0.1
    )
    start, end = record.curves["train_loss"][good][:, [0, -1]].T
    assert end.mean() < start.mean() / 2


def test_outputs_are_kept_of_every_model_and_all_was_planned(compilations) -> None:
    one = task()._replace(outputs=lambda params, _: {"w": params["w"]})
    one = one._replace(valid=jax.tree.map(lambda a: a[:30], one.train))
    table = points(seed=range(2), activation=["tanh"])
    plan = sweep.plan(
        one, table, optimizers=OPTIMIZERS, choices=CHOICES, steps=3, batch_size=8
    )
    assert "devices: 5 programs" in str(plan)
    compilations.clear()
    record = sweep.run(plan)
    assert not compilations
    errors = np.tanh(ROWS @ record.outputs["w"].T) - TARGETS[:, None]
    np.testing.assert_allclose(
        np.mean(errors**2, 0), record.final["train_loss"], rtol=1e-4
    )


def test_a_plan_counts_what_evaluations_hold(quick_compilation) -> None:
    def metrics(params, data, point):
        rows = jnp.sin(params["w"][0] * jnp.ones((1000, 1000), jnp.float32).cumsum(0))
        return {"loss": jnp.vdot(rows @ rows, rows)}  # 4 MB that nothing fuses away

    one, table = task()._replace(metrics=metrics), points(optimizer=["sgd"], seed=[0])
    given = {"optimizers": {"sgd": OPTIMIZERS["sgd"]}, "choices": CHOICES, "steps": 1}
    plan = sweep.plan(one, table, **given)
    assert "devices: 3 programs" in str(plan)  # both data are of one shape
    assert plan.bytes > 2 * 16 * 4e6
    halving = sweep.Halving("accuracy")
    with pytest.raises(ValueError, match=r"halving.metric must name one of train_loss"):
        sweep.plan(one, table, halving=halving, **given)


@pytest.mark.parametrize("name", cli.TASKS)
def test_a_task_has_numbers_for_its_losses_and_metrics(name) -> None:
    setup = cli.TASKS[name]
    one, key = setup.task(), jax.random.key(0)
    batch = jax.tree.map(lambda a: a[:8], one.train)
    for loss in setup.losses.values():
        point = {"activation": jax.nn.relu, "loss": loss}
        with jax.numpy_dtype_promotion("standard"):
            params = jax.eval_shape(lambda key, p=point: one.init(key, p), key)
            value = jax.eval_shape(lambda x, p=point: one.loss(x, batch, p), params)
            found = jax.eval_shape(lambda x, p=point: one.metrics(x, batch, p), params)
        assert value.shape == ()
        assert {"loss", setup.metric} <= set(found)


def test_scattered_digits_have_every_class_and_ink_where_a_label_is() -> None:
    for x, y in (tasks.digits_segmentation().train, tasks.digits_segmentation().valid):
        assert set(np.unique(y)) == set(range(11))
        assert x[..., 0][y > 0].mean() > 0.4 + x[..., 0][y == 0].mean()


def test_watch_counts_every_model_once(record) -> None:
    seen = []
    run(record.points, watch=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == len(record.status)


def test_the_leaderboard_is_students_interval(record) -> None:
    rows = sweep.leaderboard(record, "valid_loss", largest=False)
    assert len(rows) == 18
    assert [row.mean for row in rows] == sorted(row.mean for row in rows)
    for row in rows[:3]:
        values = record.final["valid_loss"][row.members].astype(float)
        low, high = stats.t.interval(
            0.95, len(values) - 1, values.mean(), stats.sem(values)
        )
        np.testing.assert_allclose([row.low, row.high], [low, high])
    best = sweep.leaderboard(record, "valid_loss", largest=False, by=["optimizer"])
    assert sorted(row.settings["optimizer"] for row in best) == sorted(OPTIMIZERS)


def test_wrong_points_are_refused_in_a_sentence() -> None:
    for table, message in [
        (points(optimizer=["adamm"]), r"points\['optimizer'\] must name one of adam"),
        (points(activation=["tan"]), r"points\['activation'\] must name one of tanh"),
        ({"optimizer": np.array(["sgd"])}, "must have a column 'activation'"),
        ({**points(), "seed": np.arange(2)}, "must be equally long columns"),
        (
            points(loss=["huber"]),
            r"plan: points\['loss'\] must be numbers, or a column of choices or "
            r"selections, got 'huber'\.",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            run(table)
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        run(points(), steps=0)


def test_a_space_that_is_none_is_refused_in_a_sentence() -> None:
    rates, values = sweep.log(1e-3, 1e-1), "be several values, as [0.1, 0.2] or"
    for made, sentence in [
        (
            lambda: sweep.grid(rate=rates),
            f"grid: rate must {values} log(low, high, count), got (0.001, 0.1, True).",
        ),
        (
            lambda: sweep.grid(optimizer="adam"),
            f"grid: optimizer must {values} log(low, high, count), got 'adam'.",
        ),
        (
            lambda: sweep.grid(seed=5),
            f"grid: seed must {values} log(low, high, count), got 5.",
        ),
        (
            lambda: sweep.random(2, 0, optimizer="adam"),
            "random: optimizer must be several values, as [0.1, 0.2], or an interval, "
            "as log(low, high), got 'adam'.",
        ),
        (lambda: sweep.log(0.0, 1.0), "log: low must be above 0, got 0.0."),
        (
            lambda: sweep.product(sweep.grid(rate=[1], seed=[0]), sweep.grid(seed=[1])),
            "product: spaces must have no column in common, got 'seed'.",
        ),
    ]:
        with pytest.raises((TypeError, ValueError)) as refusal:
            made()
        assert str(refusal.value) == sentence


SHORT = ["sweep", "digits", "--optimizer", "sgd,adam", "--learning-rate", "0.01,0.1"]
SHORT += ["--activation", "relu", "--loss", "cross_entropy", "--seeds", "2"]


def test_the_command_writes_a_table_curves_and_pictures(tmp_path, capsys) -> None:
    folder = tmp_path / "results"
    arguments = [*SHORT, "--steps", "40", "--out", str(folder)]
    with ThreadPoolExecutor() as threads:  # no signal is set but by `jaxml` itself
        assert threads.submit(cli.main, arguments).result() == 0
    with open(folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    assert {row["status"] for row in rows} == {"ok"}
    assert max(float(row["valid_accuracy"]) for row in rows) > 0.8
    assert float(rows[0]["train_loss"]) > 0
    record = sweep.Record.load(folder)
    assert record.curves["valid_accuracy"].shape == (8, 10)
    assert record.best("valid_accuracy").params["['w1']"].shape == (32, 64)
    assert len(list(folder.glob("*.png"))) == 2
    assert "<html" in (folder / "report.html").read_text()
    assert not (folder / "parts").exists()
    assert "models/s" in capsys.readouterr().out

    before = (folder / "table.csv").read_bytes()
    assert cli.main([*SHORT, "--out", str(folder), "--resume"]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}/ is finished")
    with pytest.raises(SystemExit) as stop:
        cli.main([*SHORT, "--out", str(folder)])
    assert stop.value.code == 2
    assert (folder / "table.csv").read_bytes() == before


@pytest.mark.slow
def test_schedules_and_batch_sizes_are_axes_of_one_table(tmp_path, capsys) -> None:
    options = ["--steps", "30", "--schedule", "constant,linear,one_cycle"]
    options += ["--batch-size", "full,8", "--out", str(tmp_path)]
    assert cli.main([*SHORT, *options]) == 0
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]][:3] == ["batch_size", "optimizer", "schedule"]
    loss = {
        (
            r["batch_size"],
            r["schedule"],
            r["optimizer"],
            r["learning_rate"],
            r["seed"],
        ): r["valid_loss"]
        for r in rows
    }
    assert len(rows) == len(loss) == 2 * 3 * 2 * 2 * 2
    assert len(set(loss.values())) == len(loss)  # every axis counts for something
    assert len(list(tmp_path.glob("*.png"))) == 3
    written = capsys.readouterr().out
    assert "batch size" in written and "schedule" in written


@pytest.mark.slow
def test_several_tasks_make_one_table_with_ranks(tmp_path, capsys, monkeypatch) -> None:
    defaults = cli.TASKS["wine"].defaults | {"loss": ""}
    suites = {"valley": (["wine", "diabetes"], defaults)}
    monkeypatch.setattr("jaxml._arguments.SUITES", suites)
    options = ["--optimizer", "sgd,adam:b1=0.9,0.95", "--schedule", "constant,cosine"]
    options += ["--learning-rate", "0.1", "--seeds", "2", "--steps", "20"]
    options += ["--activation", "relu"]
    assert cli.main(["sweep", "valley", *options, "--out", str(tmp_path)]) == 0
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 * 2
    assert {row["task"]: row["loss"] for row in rows} == {
        "wine": "cross_entropy",
        "diabetes": "squared_error",
    }
    assert {row["b1"] for row in rows if row["optimizer"] == "sgd"} == {"nan"}
    assert {row["b1"] for row in rows if row["optimizer"] == "adam"} == {"0.9", "0.95"}
    assert len({row["valid_score"] for row in rows}) > 12
    assert {path.name for path in tmp_path.iterdir()} == {
        *("table.csv", "record.npz", "report.html", "ranks.png", "profiles.png")
    }
    assert "mean rank" in capsys.readouterr().out


def test_a_schedule_of_the_command_begins_and_ends_as_it_says() -> None:
    curves = {name: make(70) for name, make in cli.SCHEDULES.items()}
    ends = {name: (float(curve(0)), float(curve(70))) for name, curve in curves.items()}
    assert ends["constant"] == (1, 1)
    assert ends["linear"] == ends["cosine"] == ends["polynomial"] == (1, 0)
    assert ends["warmup_cosine"] == ends["warmup_linear"] == (0, 0)
    for name, curve in curves.items():
        values = [float(curve(step)) for step in range(71)]
        assert max(values) == pytest.approx(1), name
        assert min(values) >= 0, name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digits", "--optimizer", "nosuch"], "'nosuch' is not known; the nearest"),
        (["digits", "--activation", "rellu"], "relu"),
        (["digit"], "the nearest names are digits"),
        (["digits-segmentation", "--loss", "focal_loss"], "'focal_loss' is not known"),
        (["digits", "--learning-rate", "log:1:2"], "must be non-negative numbers"),
        (["digits", "--learning-rate", "-1"], "must be non-negative numbers"),
        (["digits", "--seeds", "0"], "must be a positive integer, got '0'"),
        (["digits", "--batch-size", "half"], "must be a positive integer, got 'half'"),
        (
            ["digits", "--optimizer", "adam:b3=1"],
            "adam has no number 'b3'; its numbers",
        ),
        (["digits", "--optimizer", "adam:b1="], "must be like sgd,adam:b1=0.9,0.95"),
        (
            ["digits", "--optimizer", "adadelta:learning_rate=0.1"],
            "adadelta has no number 'learning_rate'; its numbers are: decay, eps",
        ),
        (
            ["digits", "--optimizer", "sgd,adam:b1=0.9,1.5"],
            "adam: b1 must be in [0, 1), got 1.5.",
        ),
        (["digits", "--memory", "2"], "must be like 500MB or 2GB, got '2'"),
        (["digits", "--halving", "1"], "must be greater than 1, got '1'"),
        (["digits", "--resume"], "must come with --out"),
        (["digits", "--coordinator", "host:1"], "must come with --out, one for all"),
        (["digits", "--processes", "2"], "must come with --coordinator"),
        (["digits", "--process-id", "1"], "must be from 0 to 0, got 1"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, sentence, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", *arguments])
    assert stop.value.code == 2
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert sentence in written


def test_the_bar_shows_the_best_of_the_task_at_hand(record) -> None:
    bar = cli.Bar(2, Console(quiet=True), begun=0.0)
    for value, best in ((1.0, "best 100.0%"), (-0.2, "best -20.0%"), (np.nan, "/s")):
        curves = {"valid_r2": np.array([[np.nan, value]])}
        bar.watch(1.0, record._replace(curves=curves), "valid_r2")
        assert bar.progress.tasks[0].fields["note"].endswith(best)
    assert "after 0.0 s of compiling" not in bar.summary()


def test_the_command_trains_on_as_many_devices_as_it_is_told(capsys) -> None:
    iris = ["sweep", "iris", "--optimizer", "sgd", "--learning-rate", "0.1"]
    iris += ["--seeds", "1", "--activation", "relu", "--plan", "--devices"]
    assert cli.main([*iris, "1"]) == 0
    assert "on 1 device" in capsys.readouterr().out
    assert cli.main([*iris, "9"]) == 2
    sentence = "argument --devices: must be at most the 2 that this process has, got 9"
    assert sentence in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main([*SHORT, "--out", str(tmp_path / "file" / "results")]) == 2
    assert "must be a writable directory" in capsys.readouterr().err
