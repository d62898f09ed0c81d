"""The command line: what it writes, shows and refuses."""

import csv
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from rich.console import Console

from jaxml import cli, sweep

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
    monkeypatch.setattr("jaxml.cli.options.SUITES", suites)
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


def test_the_bar_shows_the_best_of_the_task_at_hand() -> None:
    record = sweep.Record({}, np.array(["ok"]), {}, np.array([1, 2]), {})
    bar = cli.Bar(2, Console(quiet=True), begun=0.0)
    for value, best in ((1.0, "best 100.0%"), (-0.2, "best -20.0%"), (np.nan, "/s")):
        curves = {"valid_r2": np.array([[np.nan, value]])}
        bar.watch(1.0, record._replace(curves=curves), "valid_r2")
        assert bar.progress.tasks[0].fields["note"].endswith(best)
    assert "after 0.0 s of compiling" not in bar.summary()


@pytest.mark.slow
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
