"""Runs that are interrupted, killed, resumed, halved, or split over processes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sweep import CHOICES, OPTIMIZERS, bitwise_equal, make_points, make_task

from jaxml import sweep

pytestmark = pytest.mark.xdist_group("resume")  # its tests share trained grids
COMMAND = [sys.executable, "-m", "jaxml", "sweep", "iris", "--activation", "tanh"]
COMMAND += ["--optimizer", "sgd,adam", "--learning-rate", "log:1e-3:1:8"]
COMMAND += ["--seeds", "8", "--steps", "3000", "--compilation-cache"]
COMMAND += [os.path.join(tempfile.gettempdir(), "jaxml-tests")]


def make_wide_task() -> sweep.Task:
    """Has 2,000 unused weights, so that 32 models do not fit in a cache."""
    task = make_task()

    def init(key, point):
        return {**task.init(key, point), "unused": jnp.zeros(2000, jnp.float32)}

    return task._replace(init=init)


@pytest.fixture(scope="module")
def plan():
    """720 models in eight blocks, which one device trains one after another."""
    plan = sweep.plan(
        make_wide_task(),
        make_points(seed=range(40)),
        optimizers=OPTIMIZERS,
        choices=CHOICES,
        steps=20,
        batch_size=8,
        devices=jax.local_devices()[:1],
    )
    assert plan.blocks().shape == (8, 3, 2, 16)
    return plan


@pytest.fixture(scope="module")
def record(plan):
    return sweep.run(plan, keep_params=True)


def interrupt(num_models, record):
    raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, plan, record) -> None:
    def interrupt_after_200(num_models, record):
        if np.sum(record.status != "unfinished") > 200:
            raise KeyboardInterrupt

    partial = sweep.run(plan, checkpoint_dir=tmp_path, callback=interrupt_after_200)
    finished = partial.status == "ok"
    assert 200 < finished.sum() < len(finished)
    assert set(partial.status) == {"ok", "unfinished"}
    resumed = sweep.run(plan, checkpoint_dir=tmp_path, resume=True)
    assert bitwise_equal(resumed, record)


@pytest.mark.slow
@pytest.mark.parametrize("halving", [False, True])
def test_a_run_resumes_on_another_number_of_devices(
    halving, tmp_path, plan, record
) -> None:
    options = {"checkpoint_dir": tmp_path, "keep_params": True}
    if halving:
        rungs = sweep.SuccessiveHalving("valid_loss", 1.5, 1, higher_is_better=False)
        plan = plan._replace(halving=rungs)
        record = sweep.run(plan, keep_params=True)
    counts = []

    def interrupt_after_200(num_models, record):
        counts.append(num_models)
        if np.sum(record.status == "ok") > 200:
            raise KeyboardInterrupt

    partial = sweep.run(plan, callback=interrupt_after_200, **options)
    other = sweep.plan(
        make_wide_task(),
        make_points(seed=range(40)),
        optimizers=OPTIMIZERS,
        choices=CHOICES,
        steps=20,
        batch_size=8,
        halving=plan.halving,
        devices=jax.local_devices()[:2],
    )
    assert set(partial.status) >= {"ok", "unfinished"}
    counts.clear()
    resumed = sweep.run(
        other, resume=True, callback=lambda n, _: counts.append(n), **options
    )
    assert counts == sorted(counts)
    assert counts[-1] == pytest.approx(720)
    assert bitwise_equal(resumed, record)
    assert (resumed.status == record.status).all()


def test_a_running_block_resumes_to_the_same_bits(tmp_path, plan, record) -> None:
    counts = []

    def interrupt_fifth(num_models, record):
        counts.append(num_models)
        if len(counts) == 4:
            time.sleep(1.1)  # states are saved every second
        if len(counts) == 5:
            raise KeyboardInterrupt

    partial = sweep.run(plan, checkpoint_dir=tmp_path, callback=interrupt_fifth)
    assert set(partial.status) == {"unfinished"}
    assert list(tmp_path.glob("running-*.npz"))
    resumed_counts = []
    resumed = sweep.run(
        plan,
        checkpoint_dir=tmp_path,
        resume=True,
        callback=lambda num_models, _: resumed_counts.append(num_models),
    )
    assert resumed_counts[0] == counts[3]  # four chunks are not trained again
    assert bitwise_equal(resumed, record)


def test_a_directory_of_other_settings_is_refused(tmp_path, plan) -> None:
    directory = {"checkpoint_dir": tmp_path}
    sweep.run(plan, keep_params=True, callback=interrupt, **directory)
    with pytest.raises(ValueError, match="checkpoint_dir must have no results unless"):
        sweep.run(plan, **directory)
    with pytest.raises(ValueError, match=r"run: keep_params must be as in the run"):
        sweep.run(plan, resume=True, **directory)
    longer = plan._replace(steps=plan.steps + 1)
    with pytest.raises(ValueError, match=r"run: steps must be as in the run that"):
        sweep.run(longer, resume=True, keep_params=True, **directory)
    points = {**plan.points, "seed": plan.points["seed"] + 1}
    with pytest.raises(ValueError, match=r"run: points must be as in the run that"):
        sweep.run(plan._replace(points=points), resume=True, **directory)


def test_a_full_disk_loses_no_finished_block(
    tmp_path, plan, record, monkeypatch
) -> None:
    fsync = os.fsync

    def full_fsync(file):
        if len(list(tmp_path.glob("done-*.npz"))) == 2:
            raise OSError(28, "No space left on device")
        fsync(file)

    monkeypatch.setattr(os, "fsync", full_fsync)
    with pytest.raises(OSError, match="No space left"):
        sweep.run(plan, checkpoint_dir=tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("done-*.npz"))) == 2
    resumed = sweep.run(plan, checkpoint_dir=tmp_path, resume=True)
    assert bitwise_equal(resumed, record)


def test_halving_keeps_the_best_models_of_a_whole_run(plan, record) -> None:
    halving = sweep.SuccessiveHalving(
        "valid_loss", reduction_factor=3.0, rungs=2, higher_is_better=False
    )
    halved = sweep.run(plan._replace(halving=halving))
    first, second = halving.rung_indices(plan.steps)
    curves = record.curves["valid_loss"]
    third = np.argsort(curves[:, first], kind="stable")[:240]
    ninth = third[np.argsort(curves[third, second], kind="stable")[:80]]
    assert set(np.flatnonzero(halved.status == "ok")) == set(ninth)
    assert np.sum(halved.status == "stopped") == 640
    for name in halved.final:
        result, expected = halved.final[name][ninth], record.final[name][ninth]
        assert result.tobytes() == expected.tobytes(), name


def test_halving_concatenates_the_states_of_a_rung_once(plan, monkeypatch) -> None:
    concatenate, calls = np.concatenate, []

    def counting_concatenate(arrays):
        calls.append(arrays)
        return concatenate(arrays)

    monkeypatch.setattr(np, "concatenate", counting_concatenate)
    halving = sweep.SuccessiveHalving(
        "valid_loss", reduction_factor=1.5, rungs=1, higher_is_better=False
    )
    sweep.run(plan._replace(halving=halving))
    assert len(calls) == plan.programs.init.out_tree.num_leaves


@pytest.mark.slow
def test_memory_is_bounded_or_refused(no_xla_optimizations) -> None:
    def make_plan(memory):
        return sweep.plan(
            make_task(),
            make_points(optimizer=["sgd"], activation=["tanh"], seed=range(40)),
            optimizers={"sgd": OPTIMIZERS["sgd"]},
            choices=CHOICES,
            steps=20,
            memory=memory,
        )

    unbounded = make_plan(None)
    assert unbounded.shape[-1] > 16
    bounded = make_plan(unbounded.bytes // 2)
    assert bounded.bytes <= unbounded.bytes // 2
    with pytest.raises(ValueError, match=r"memory must be at least .* bytes, got 10"):
        make_plan(10)


def test_the_best_model_is_loaded(tmp_path, record) -> None:
    record.save(tmp_path)
    loaded = sweep.Record.load(tmp_path)
    task = make_wide_task()
    like = task.init(jax.random.key(0), {})
    params, settings, final, _ = loaded.best(
        "valid_loss", higher_is_better=False, like=like
    )
    assert final["valid_loss"] == record.final["valid_loss"].min()
    worst = loaded.best("valid_loss").final["valid_loss"]
    assert worst == record.final["valid_loss"].max()
    point = {**settings, "activation": CHOICES["activation"][settings["activation"]]}
    loss = task.metrics(params, task.valid, point)["loss"]
    np.testing.assert_allclose(loss, final["valid_loss"], rtol=1e-5)
    with pytest.raises(ValueError, match=r"best: metric must name one of .*valid_loss"):
        loaded.best("loss")
    with pytest.raises(ValueError, match="params must be kept by run, got none"):
        record._replace(params={}).best("valid_loss")


def start_command(folder, *arguments, environment=None):
    return subprocess.Popen(
        [*COMMAND, "--out", str(folder), *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait(process) -> int:
    process.communicate(timeout=200)
    return process.returncode


def wait_until(condition, process) -> None:
    while not condition():
        assert process.poll() is None
        time.sleep(0.05)


def kill(process) -> None:
    process.send_signal(signal.SIGKILL)
    assert wait(process) == -signal.SIGKILL


def last_save_time(folder) -> float:
    return max((f.stat().st_mtime for f in folder.glob("parts/*/*.npz")), default=0.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert wait(start_command(folder)) == 0
    return (folder / "table.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 1.0])
def test_an_interrupt_while_compiling_prints_one_line(tmp_path, seconds) -> None:
    folder = tmp_path / "results"
    process = start_command(folder, "--optimizer", "all", "--compilation-cache", "none")
    wait_until(folder.exists, process)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.count(b"\n") == 1
    assert b"--resume continues" in output


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_table(tmp_path, table) -> None:
    folder = tmp_path / "results"
    process = start_command(folder)
    wait_until(folder.exists, process)
    kill(process)
    for _ in range(2):
        last = last_save_time(folder)
        process = start_command(folder, "--resume")
        wait_until(lambda last=last: last_save_time(folder) != last, process)
        kill(process)
    assert wait(start_command(folder, "--resume")) == 0
    assert (folder / "table.csv").read_bytes() == table


def start_two_processes(folder, *arguments, devices=(1, 1)):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = "--coordinator", address, "--processes", "2"
    return [
        start_command(
            folder, *shared, f"--process-id={i}", f"--devices={count}", *arguments
        )
        for i, count in enumerate(devices)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)], ids=str)
def test_another_number_of_processes_completes_a_run(tmp_path, table, counts) -> None:
    def start(number: int, *arguments: str) -> list:
        if number == 2:
            return start_two_processes(tmp_path, *arguments)
        return [start_command(tmp_path, *arguments)]

    before, after = counts
    processes = start(before)
    wait_until(lambda: list(tmp_path.glob("parts/*/done-*.npz")), processes[-1])
    for process in processes:
        process.send_signal(signal.SIGKILL)
        wait(process)
    (tmp_path / "table.csv").unlink(missing_ok=True)  # the kill may come too late
    finished = last_save_time(tmp_path)
    assert [wait(process) for process in start(after, "--resume")] == [0] * after
    assert (tmp_path / "table.csv").read_bytes() == table
    assert finished


@pytest.mark.slow
def test_the_processes_of_a_slurm_job_find_each_other(tmp_path, table) -> None:
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    processes = [
        start_command(
            tmp_path,
            *("--distributed", "--devices", "1"),
            environment=job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
        )
        for i in range(2)
    ]
    assert [wait(process) for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("*"))) > 3
    assert (tmp_path / "table.csv").read_bytes() == table


def test_a_process_outside_of_a_job_is_refused_in_one_line(tmp_path) -> None:
    process = start_command(tmp_path / "results", "--distributed")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.count(b"\n") == 1
    assert b"--distributed: must run in a job of Slurm, MPI, Kubernetes" in output


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(tmp_path, table) -> None:
    """One of them is stopped for longer than JAX waits for a connection."""
    processes = start_two_processes(tmp_path)
    second = processes[1]
    wait_until(lambda: list(tmp_path.glob("parts/*/settings-1.json")), second)
    second.send_signal(signal.SIGSTOP)
    time.sleep(45)
    second.send_signal(signal.SIGCONT)
    assert [wait(process) for process in processes] == [0, 0]
    assert (tmp_path / "table.csv").read_bytes() == table


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(1, 1), (2, 1)], ids=str)
def test_halving_in_two_processes_writes_the_table_of_one(tmp_path, devices) -> None:
    """Models that one process has started train on in the other."""
    halving = "--halving", "2", "--steps", "600"
    assert wait(start_command(tmp_path / "one", *halving)) == 0
    processes = start_two_processes(tmp_path / "two", *halving, devices=devices)
    assert [wait(process) for process in processes] == [0, 0]
    one, two = (tmp_path / name / "table.csv" for name in ("one", "two"))
    assert two.read_bytes() == one.read_bytes()
