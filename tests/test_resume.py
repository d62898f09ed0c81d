"""Runs that are stopped, killed, resumed, halved, or split over processes."""

import os
import signal
import socket
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
from test_sweep import CHOICES, OPTIMIZERS, points, same_bits, task

from jaxml import sweep

COMMAND = [sys.executable, "-m", "jaxml", "sweep", "iris", "--activation", "tanh"]
COMMAND += ["--optimizer", "sgd,adam", "--learning-rate", "log:1e-3:1:8"]
COMMAND += ["--seeds", "8", "--steps", "3000"]


@pytest.fixture(scope="module")
def plan():
    """720 models in six blocks, one after another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxml.sweep.engine._layout.CACHE", 1)  # narrow groups
        yield sweep.plan(
            task(),
            points(seed=range(40)),
            optimizers=OPTIMIZERS,
            choices=CHOICES,
            steps=20,
            batch_size=8,
            devices=jax.local_devices()[:1],
        )


@pytest.fixture(scope="module")
def whole(plan):
    return sweep.run(plan, keep_params=True)


def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path, plan, whole) -> None:
    def interrupt(done, record):
        if np.sum(record.status != "unfinished") > 200:
            raise KeyboardInterrupt

    stopped = sweep.run(plan, folder=tmp_path, watch=interrupt)
    finished = stopped.status == "ok"
    assert 200 < finished.sum() < len(finished)
    assert set(stopped.status) == {"ok", "unfinished"}
    resumed = sweep.run(plan, folder=tmp_path, resume=True)
    assert same_bits(resumed, whole)


def test_a_paused_block_goes_on_to_the_same_bits(
    tmp_path, plan, whole, monkeypatch
) -> None:
    monkeypatch.setattr("jaxml.sweep.engine._checkpoint.OFTEN", 0.0)
    seen = []

    def interrupt(done, record):
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    stopped = sweep.run(plan, folder=tmp_path, watch=interrupt)
    assert set(stopped.status) == {"unfinished"}
    assert list(tmp_path.glob("running-*.npz"))
    seen = [*range(10)]
    resumed = sweep.run(plan, folder=tmp_path, resume=True)
    assert same_bits(resumed, whole)


def test_a_folder_of_other_settings_is_refused(tmp_path, plan) -> None:
    sweep.engine._checkpoint.Folder(tmp_path, plan, resume=False, keep_params=True)
    with pytest.raises(ValueError, match="folder must have no results unless resumed"):
        sweep.run(plan, folder=tmp_path)
    with pytest.raises(ValueError, match=r"run: keep_params must be as in the run"):
        sweep.run(plan, folder=tmp_path, resume=True)
    longer = plan._replace(steps=plan.steps + 1)
    with pytest.raises(ValueError, match=r"run: steps must be as in the run that"):
        sweep.run(longer, folder=tmp_path, resume=True, keep_params=True)
    other = {**plan.points, "seed": plan.points["seed"] + 1}
    with pytest.raises(ValueError, match=r"run: points must be as in the run that"):
        sweep.run(plan._replace(points=other), folder=tmp_path, resume=True)


def test_a_full_disk_loses_no_finished_block(
    tmp_path, plan, whole, monkeypatch
) -> None:
    written = sweep.engine._checkpoint.write

    def full(path, arrays):
        if len(list(tmp_path.glob("done-*"))) == 2:
            raise OSError(28, "No space left on device")
        written(path, arrays)

    monkeypatch.setattr("jaxml.sweep.engine._checkpoint.write", full)
    with pytest.raises(OSError, match="No space left"):
        sweep.run(plan, folder=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("done-*"))) == 2
    assert same_bits(sweep.run(plan, folder=tmp_path, resume=True), whole)


def test_halving_ends_with_the_models_that_a_whole_run_has(plan, whole) -> None:
    halving = sweep.Halving("valid_loss", eta=3.0, rungs=2, higher_is_better=False)
    halved = sweep.run(plan._replace(halving=halving))
    first, second = halving.stops(plan.steps)
    losses = whole.curves["valid_loss"]
    third = np.argsort(losses[:, first], kind="stable")[:240]
    ninth = third[np.argsort(losses[third, second], kind="stable")[:80]]
    assert set(np.flatnonzero(halved.status == "ok")) == set(ninth)
    assert np.sum(halved.status == "stopped") == 640
    for name in halved.final:
        same = halved.final[name][ninth].tobytes() == whole.final[name][ninth].tobytes()
        assert same, name


def test_processes_with_unlike_devices_are_refused(plan, monkeypatch) -> None:
    one, *_ = jax.local_devices()
    of_other = types.SimpleNamespace(process_index=1)
    monkeypatch.setattr("jax.devices", lambda: [one, of_other, of_other])
    with pytest.raises(ValueError, match=r"as many devices as the others, got \[1, 2"):
        sweep.run(plan)


def test_halving_joins_the_states_of_a_rung_once(plan, monkeypatch) -> None:
    joined, concatenate = [], np.concatenate

    def counted(arrays):
        joined.append(arrays)
        return concatenate(arrays)

    monkeypatch.setattr("jaxml.sweep.engine._halving.np.concatenate", counted)
    halving = sweep.Halving("valid_loss", eta=1.5, rungs=1, higher_is_better=False)
    sweep.run(plan._replace(halving=halving))
    assert len(joined) == plan.programs.init.out_tree.num_leaves


@pytest.mark.slow
def test_memory_is_bounded_or_refused(monkeypatch, no_xla_optimizations) -> None:
    monkeypatch.setattr("jaxml.sweep.engine._layout.CACHE", 2**16)

    def planned(memory):
        return sweep.plan(
            task(),
            points(optimizer=["sgd"], activation=["tanh"], seed=range(40)),
            optimizers={"sgd": OPTIMIZERS["sgd"]},
            choices=CHOICES,
            steps=20,
            memory=memory,
        )

    wide = planned(None)
    assert wide.shape[-1] > 16
    narrow = planned(wide.bytes // 2)
    assert narrow.bytes <= wide.bytes // 2
    monkeypatch.setattr("jaxml.sweep.engine._layout.CACHE", 1)
    with pytest.raises(ValueError, match=r"memory must be at least .* bytes, got 10"):
        planned(10)


def test_the_best_model_loads_again(tmp_path, whole) -> None:
    whole.save(tmp_path)
    loaded = sweep.Record.load(tmp_path)
    start = task().init(jax.random.key(0), {})
    params, settings, final = loaded.best(
        "valid_loss", higher_is_better=False, like=start
    )
    assert final["valid_loss"] == whole.final["valid_loss"].min()
    worst = loaded.best("valid_loss").final["valid_loss"]
    assert worst == whole.final["valid_loss"].max()
    point = {**settings, "activation": CHOICES["activation"][settings["activation"]]}
    again = task().metrics(params, task().valid, point)["loss"]
    np.testing.assert_allclose(again, final["valid_loss"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"best: metric must name one of .*valid_loss"):
        loaded.best("loss")
    with pytest.raises(ValueError, match="params must be kept by run, got none"):
        whole._replace(params={}).best("valid_loss")


def start(folder, *more):
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder), *more],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(process) -> int:
    process.communicate(timeout=200)
    return process.returncode


def killed(process) -> None:
    process.send_signal(signal.SIGKILL)
    assert ended(process) == -signal.SIGKILL


def last_saved(folder) -> float:
    return max((f.stat().st_mtime for f in folder.glob("parts/*/*.npz")), default=0.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert ended(start(folder)) == 0
    return (folder / "table.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_interrupted_while_it_compiles_it_ends_in_a_line(tmp_path, seconds) -> None:
    folder = tmp_path / "results"
    process = start(folder, "--optimizer", "all")
    while not folder.exists():
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    written, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert written.count(b"\n") == 1
    assert b"--resume goes on" in written


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_table(tmp_path, table) -> None:
    folder = tmp_path / "results"
    process = start(folder)
    while not folder.exists():
        time.sleep(0.05)
    killed(process)
    for _ in range(2):
        before = last_saved(folder)
        process = start(folder, "--resume")
        while last_saved(folder) == before:
            assert process.poll() is None
            time.sleep(0.05)
        killed(process)
    assert ended(start(folder, "--resume")) == 0
    assert (folder / "table.csv").read_bytes() == table


@pytest.mark.slow
def test_two_processes_make_the_table_of_one(tmp_path, table) -> None:
    """Though one of them stands still for longer than JAX waits to connect."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = ["--coordinator", address, "--processes", "2", "--devices", "1"]
    both = [start(tmp_path, *shared, "--process-id", str(i)) for i in range(2)]
    while not list(tmp_path.glob("parts/*/settings-1.json")):
        assert both[1].poll() is None
        time.sleep(0.05)
    both[1].send_signal(signal.SIGSTOP)
    time.sleep(45)
    both[1].send_signal(signal.SIGCONT)
    assert [ended(process) for process in both] == [0, 0]
    assert (tmp_path / "table.csv").read_bytes() == table
