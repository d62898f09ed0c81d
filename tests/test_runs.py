"""Runs that are stopped, killed, resumed, halved, or split over processes."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_sweep import CHOICES, OPTIMIZERS, points, run, same_bits, task

from jaxml import sweep

COMMAND = [sys.executable, "-m", "jaxml", "sweep", "iris", "--activation", "tanh"]
COMMAND += ["--optimizer", "sgd,adam", "--learning-rate", "log:1e-3:1:8"]
COMMAND += ["--seeds", "8", "--steps", "4000", "--devices", "2"]


def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path) -> None:
    table = points(seed=range(40))
    whole = run(table)

    def interrupt(done, record):
        if np.sum(record.status != "unfinished") > 200:
            raise KeyboardInterrupt

    stopped = run(table, folder=tmp_path, watch=interrupt)
    assert 0 < np.sum(stopped.status == "ok") < len(stopped.status)
    resumed = run(table, folder=tmp_path, resume=True)
    assert same_bits(resumed, whole)
    assert (
        resumed.curves["train_loss"].tobytes() == whole.curves["train_loss"].tobytes()
    )


def test_a_paused_block_goes_on_to_the_same_bits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("jaxml.sweep._folder.OFTEN", 0.0)
    seen = []

    def interrupt(done, record):
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    stopped = run(points(), folder=tmp_path, watch=interrupt)
    assert set(stopped.status) == {"unfinished"}
    assert list(tmp_path.glob("running-*.npz"))
    resumed = run(points(), folder=tmp_path, resume=True)
    assert same_bits(resumed, run(points()))


def test_a_folder_of_other_settings_is_refused(tmp_path) -> None:
    run(points(seed=range(2)), folder=tmp_path)
    with pytest.raises(ValueError, match="folder must have no results unless resumed"):
        run(points(seed=range(2)), folder=tmp_path)
    with pytest.raises(ValueError, match=r"run: steps must be as in the run that"):
        run(points(seed=range(2)), folder=tmp_path, resume=True, steps=21)
    with pytest.raises(ValueError, match=r"run: points must be as in the run that"):
        run(points(seed=range(1, 3)), folder=tmp_path, resume=True)


def test_a_full_disk_loses_no_finished_block(tmp_path, monkeypatch) -> None:
    table = points(seed=range(40))
    written = sweep._folder.write

    def full(path, arrays):
        if len(list(tmp_path.glob("done-*"))) == 2:
            raise OSError(28, "No space left on device")
        written(path, arrays)

    monkeypatch.setattr("jaxml.sweep._folder.write", full)
    with pytest.raises(OSError, match="No space left"):
        run(table, folder=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("done-*"))) == 2
    assert same_bits(run(table, folder=tmp_path, resume=True), run(table))


def test_halving_ends_with_the_models_that_a_whole_run_has(tmp_path) -> None:
    halving = sweep.Halving("valid_loss", eta=3.0, rungs=2, largest=False)
    table = points()
    whole, halved = run(table), run(table, halving=halving, folder=tmp_path)
    count = len(whole.status)
    assert [np.sum(halved.status == s) for s in ("ok", "stopped")] == [
        count // 9,
        count - count // 9,
    ]
    left = halved.status == "ok"
    for name in whole.final:
        assert halved.final[name][left].tobytes() == whole.final[name][left].tobytes()
    best = whole.final["valid_loss"][left].mean()
    assert best < np.sort(whole.final["valid_loss"])[: count // 3].mean()
    first, second = halving.stops(whole.steps)
    order = np.argsort(whole.curves["valid_loss"][:, first], kind="stable")
    rest = np.sort(order[: count // 3])
    values = whole.curves["valid_loss"][rest, second]
    np.testing.assert_array_equal(
        np.flatnonzero(left), np.sort(rest[np.argsort(values)[: count // 9]])
    )


def test_memory_is_bounded_or_refused() -> None:
    given = {"optimizers": {}, "choices": {}, "steps": 20}
    table = points(optimizer=["sgd"], seed=range(200))
    given |= {"optimizers": OPTIMIZERS, "choices": CHOICES}
    wide = sweep.plan(task(), table, **given)
    assert wide.shape[-1] > 16
    narrow = sweep.plan(task(), table, memory=wide.bytes // 2, **given)
    assert narrow.bytes <= wide.bytes // 2
    with pytest.raises(ValueError, match="memory must be at least .* bytes, got 10"):
        sweep.plan(task(), table, memory=10, **given)


def test_the_best_model_loads_again(tmp_path) -> None:
    import jax

    record = run(points(seed=range(2)), keep_params=True)
    record.save(tmp_path)
    loaded = sweep.Record.load(tmp_path)
    start = task().init(jax.random.key(0), {})
    params, settings, final = loaded.best("valid_loss", largest=False, like=start)
    assert final["valid_loss"] == np.nanmin(record.final["valid_loss"])
    point = {**settings, "activation": CHOICES["activation"][settings["activation"]]}
    again = task().metrics(params, task().valid, point)["loss"]
    np.testing.assert_allclose(again, final["valid_loss"], rtol=1e-5)


def start(folder, *more):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder), *more],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def table_of(folder):
    with open(folder / "table.csv") as file:
        return sorted(map(tuple, csv.reader(file)))


def test_killed_at_any_moment_it_goes_on_to_the_same_table(tmp_path) -> None:
    whole = start(tmp_path / "whole")
    assert whole.wait(200) == 0
    killed = tmp_path / "killed"
    more = []
    for seconds in (0.5, 1.5, 0.2):
        process = start(killed, *more)
        while process.poll() is None and not list(killed.glob("parts/*/running-*")):
            time.sleep(0.05)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        more = ["--resume"]
    assert start(killed, "--resume").wait(200) == 0
    assert table_of(killed) == table_of(tmp_path / "whole")
