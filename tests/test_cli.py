"""The command line: what it writes, prints and rejects."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxml import cli, sweep
from jaxml.cli.console import ProgressBar
from jaxml.cli.options import parse_options
from jaxml.cli.registry import ACTIVATIONS, OPTIMIZERS, SCHEDULES, SUITES, TASKS

SMALL_GRID = [
    *("sweep", "digits", "--optimizer", "sgd,adam", "--learning-rate", "0.01,0.1"),
    *("--activation", "relu", "--loss", "cross_entropy", "--seeds", "2"),
]


def test_sweep_writes_a_table_curves_and_figures(tmp_path, capsys) -> None:
    folder = tmp_path / "results"
    arguments = [*SMALL_GRID, "--steps", "40", "--out", str(folder)]
    # Only the main thread may set signal handlers, so `cli.main` must not.
    with ThreadPoolExecutor() as threads:
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

    table = (folder / "table.csv").read_bytes()
    assert cli.main([*SMALL_GRID, "--out", str(folder), "--resume"]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}/ is finished")
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*SMALL_GRID, "--out", str(folder)])
    assert exit_info.value.code == 2
    assert (folder / "table.csv").read_bytes() == table


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", [["--halving", "2"], ["--hyperband", "2", "--target", "0.9"]]
)
def test_the_settings_reproduce_the_table(search, tmp_path, capsys) -> None:
    options = ["--optimizer", "sgd,adam:b1=0.9,0.95,b2=0.99,optax:lion"]
    options += ["--learning-rate", "log:0.01:0.1:2", "--seeds", "2", *search]
    options += ["--batch-size", "full,16", "--schedule", "constant,cosine"]
    folders = tmp_path / "first", tmp_path / "second"
    assert cli.main(["sweep", "iris", *options, "--out", str(folders[0])]) == 0
    assert re.search(r"compiled in \d+\.\d s, training", capsys.readouterr().out)
    settings = json.loads((folders[0] / "settings.json").read_text())
    assert settings["versions"]["jax"] == jax.__version__
    program, *words = shlex.split(settings["command"])
    assert program == "jaxml"
    assert cli.main([*words, "--out", str(folders[1])]) == 0
    tables = [(folder / "table.csv").read_bytes() for folder in folders]
    assert tables[0] == tables[1]
    again = json.loads((folders[1] / "settings.json").read_text())
    assert again == settings
    has_target = "--target" in search
    report = (folders[0] / "report.html").read_text()
    assert ("Time to target" in report) is has_target


@pytest.mark.slow
def test_schedules_and_batch_sizes_are_columns_of_one_table(tmp_path, capsys) -> None:
    options = ["--steps", "30", "--schedule", "constant,linear,one_cycle"]
    options += ["--batch-size", "full,8", "--out", str(tmp_path)]
    assert cli.main([*SMALL_GRID, *options]) == 0
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]][:3] == ["batch_size", "optimizer", "schedule"]
    settings = "batch_size", "schedule", "optimizer", "learning_rate", "seed"
    losses = {tuple(row[name] for name in settings): row["valid_loss"] for row in rows}
    assert len(rows) == len(losses) == 2 * 3 * 2 * 2 * 2
    assert len(set(losses.values())) == len(losses)  # every setting has an effect
    assert len(list(tmp_path.glob("*.png"))) == 3
    output = capsys.readouterr().out
    assert "batch size" in output and "schedule" in output


@pytest.mark.slow
def test_any_optimizer_by_name(tmp_path) -> None:
    names = "adam:b1=0.8,optax:adam:b1=0.8,0.9,optax.contrib:muon,my_optimizers:mine"
    (tmp_path / "my_optimizers.py").write_text(
        "from jaxml.optimizers import sgd as mine"
    )
    command = [sys.executable, "-m", "jaxml", "sweep", "iris", "--optimizer", names]
    command += ["--learning-rate", "0.03", "--seeds", "2", "--out", "results"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    with open(tmp_path / "results" / "table.csv") as file:
        rows = {
            (row["optimizer"], row["b1"], row["seed"]): row
            for row in csv.DictReader(file)
        }
    assert len(rows) == 2 * (1 + 2 + 1 + 1)
    assert {row["status"] for row in rows.values()} == {"ok"}
    ours, theirs = (
        float(rows[name, "0.8", "0"]["valid_loss"]) for name in ("adam", "optax:adam")
    )
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert rows["optax:adam", "0.9", "0"]["valid_loss"] != f"{theirs}"


@pytest.mark.slow
def test_a_suite_makes_one_table_with_ranks(tmp_path, capsys, monkeypatch) -> None:
    suite = SUITES["valley"]._replace(tasks=["wine", "diabetes"])
    monkeypatch.setitem(SUITES, "valley", suite)
    options = ["--optimizer", "sgd,adam:b1=0.9,0.95", "--schedule", "constant,cosine"]
    options += ["--learning-rate", "0.1", "--seeds", "2", "--steps", "20"]
    options += ["--no-shared-batches", "--out", str(tmp_path)]
    assert cli.main(["sweep", "valley", *options]) == 0
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
        *("table.csv", "record.npz", "report.html", "ranks.png", "profiles.png"),
        "settings.json",
    }
    assert "mean rank" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*TASKS, *SUITES])
def test_defaults_are_names_that_the_registry_knows(name) -> None:
    options = parse_options(["sweep", name])
    assert options.optimizer.keys() <= OPTIMIZERS.keys()
    assert {*options.activation} <= ACTIVATIONS.keys()
    assert {*options.schedule} <= SCHEDULES.keys()
    for task, losses in options.tasks.items():
        assert {*losses} <= TASKS[task].losses.keys()


def test_schedules_peak_at_1_and_have_the_stated_end_points() -> None:
    schedules = {name: make(70) for name, make in SCHEDULES.items()}
    ends = {name: (float(f(0)), float(f(70))) for name, f in schedules.items()}
    assert ends["constant"] == (1, 1)
    assert ends["linear"] == ends["cosine"] == ends["polynomial"] == (1, 0)
    assert ends["warmup_cosine"] == ends["warmup_linear"] == (0, 0)
    for name, schedule in schedules.items():
        values = [float(schedule(step)) for step in range(71)]
        assert max(values) == pytest.approx(1), name
        assert min(values) >= 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
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
            "adam has no hyperparameter 'b3'; its hyperparameters are: b1, b2, eps",
        ),
        (["digits", "--optimizer", "adam:b1="], "must be like sgd,adam:b1=0.9,0.95"),
        (
            ["digits", "--optimizer", "adadelta:learning_rate=0.1"],
            "adadelta has no hyperparameter 'learning_rate'; its hyperparameters are: "
            "decay, eps",
        ),
        (
            ["digits", "--optimizer", "sgd,adam:b1=0.9,1.5"],
            "adam: b1 must be in [0, 1), got 1.5.",
        ),
        (["digits", "--optimizer", "adam:0.9"], "must be like sgd,adam:b1=0.9,0.95"),
        (
            ["digits", "--optimizer", "optacks:adam"],
            "'optacks:adam' must be MODULE:FACTORY, but No module named 'optacks'",
        ),
        (
            ["digits", "--optimizer", "optax:adamm"],
            "optax has no optimizer 'adamm'; the nearest names are adam",
        ),
        (
            ["digits", "--optimizer", "optax:global_norm"],
            "'optax:global_norm' must return an optax transformation for a learning",
        ),
        (
            ["digits", "--optimizer", "optax:adam:b4=0.5"],
            "optax:adam has no hyperparameter 'b4'; its hyperparameters are: b1, b2",
        ),
        (["digits", "--memory", "2"], "must be like 500MB or 2GB, got '2'"),
        (["digits", "--halving", "1"], "must be greater than 1, got '1'"),
        (["digits", "--hyperband", "x"], "must be greater than 1, got 'x'"),
        (
            ["digits", "--halving", "2", "--hyperband", "2"],
            "--hyperband: not allowed with argument --halving",
        ),
        (["digits", "--target", "high"], "--target: must be a number, got 'high'"),
        (["digits", "--resume"], "must come with --out"),
        (["digits", "--distributed"], "must come with --out, one for all"),
        (
            ["digits", "--distributed", "--coordinator", "host:1", "--out", "x"],
            "--distributed: must come without --coordinator",
        ),
        (["digits", "--coordinator", "host:1"], "must come with --out, one for all"),
        (["digits", "--processes", "2"], "must come with --coordinator"),
        (["digits", "--process-id", "1"], "must be from 0 to 0, got 1"),
    ],
)
def test_wrong_options_are_rejected_in_one_line(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["sweep", *arguments])
    assert exit_info.value.code == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert message in output


def test_the_progress_bar_shows_the_best_metric_of_the_current_task() -> None:
    record = sweep.Record({}, np.array(["ok"]), {}, np.array([1, 2]), {})
    bar = ProgressBar(2, Console(quiet=True), start_time=0.0)
    for value, best in ((1.0, "best 100.0%"), (-0.2, "best -20.0%"), (np.nan, "/s")):
        curves = {"valid_r2": np.array([[np.nan, value]])}
        bar.update(1.0, record._replace(curves=curves), "valid_r2")
        assert bar.progress.tasks[0].fields["note"].endswith(best)
    assert "after 0.0 s of compilation" not in bar.summary()


@pytest.mark.slow
def test_sweep_uses_the_requested_number_of_devices(capsys) -> None:
    assert jax.device_count() == 8  # of the process, before the command chooses
    iris = ["sweep", "iris", "--optimizer", "sgd", "--learning-rate", "0.1"]
    iris += ["--seeds", "1", "--activation", "relu", "--plan", "--devices"]
    assert cli.main([*iris, "1"]) == 0
    assert "on 1 device" in capsys.readouterr().out
    assert cli.main([*iris, "9"]) == 2
    message = "argument --devices: must be at most the 8 that this process has, got 9"
    assert message in capsys.readouterr().err


def test_an_unwritable_out_directory_is_reported_in_one_line(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main([*SMALL_GRID, "--out", str(tmp_path / "file" / "results")]) == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "must be a writable directory" in output


@pytest.mark.slow
def test_an_unwritable_cache_is_reported_in_one_line(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    cache = ["--compilation-cache", str(tmp_path / "file" / "cache")]
    assert cli.main([*SMALL_GRID, *cache, "--plan"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "--compilation-cache must be a writable directory" in captured.err
    assert "digits: 8 models" in captured.out
    assert cli.main([*SMALL_GRID, "--compilation-cache", "none", "--plan"]) == 0
    captured = capsys.readouterr()
    assert "cache" not in captured.out + captured.err


@pytest.mark.slow
def test_the_second_command_compiles_nothing_and_a_spoiled_cache_is_harmless(
    tmp_path,
) -> None:
    cache, tables = tmp_path / "cache", []

    def sweep_iris(out: str) -> str:
        command = [sys.executable, "-m", "jaxml", "sweep", "iris", "--seeds", "1"]
        command += ["--optimizer", "sgd", "--compilation-cache", str(cache)]
        result = subprocess.run(
            [*command, "--out", str(tmp_path / out)],
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            check=True,
            text=True,
        )
        tables.append((tmp_path / out / "table.csv").read_bytes())
        return result.stdout

    assert f"Compiled programs are cached in {cache}/jax-" in sweep_iris("first")
    entries = {path: path.stat().st_mtime_ns for path in cache.rglob("*-cache")}
    assert len(entries) > 3
    sweep_iris("second")
    found = {path: path.stat().st_mtime_ns for path in cache.rglob("*-cache")}
    assert found == entries
    for path in entries:
        path.write_bytes(path.read_bytes()[:100])
    sweep_iris("third")
    assert tables[0] == tables[1] == tables[2]
