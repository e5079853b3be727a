"""A run that was killed, or told to stop, ends as an uninterrupted one: bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

ROOT = Path(__file__).resolve().parents[2]
STEPS, PAUSE = 50, 0.05
CHANGES = json.dumps({"steps": STEPS, "pause": PAUSE, "log_every": 1})


def launch(script: str, *arguments: str, devices: int = 1, **variables: str) -> subprocess.Popen:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        # Optimised a little: these programs also run for a while, and more compiles for as long.
        "XLA_FLAGS": "--xla_backend_optimization_level=1 "
        f"--xla_force_host_platform_device_count={devices}",
        **variables,
    }
    command = [sys.executable, str(ROOT / "tests/training" / script), *arguments]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen) -> None:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err


def start(workdir: Path, changes: str = CHANGES, devices: int = 1) -> subprocess.Popen:
    return launch("toy.py", str(workdir), changes, devices=devices)


def finish(workdir: Path, changes: str = CHANGES, devices: int = 1) -> None:
    end(start(workdir, changes, devices))


def count(workdir: Path, words: str) -> int:
    log = workdir / "log.txt"
    return log.read_text().count(words) if log.exists() else 0


def wait_for(workdir: Path, process: subprocess.Popen, words: str, times: int) -> None:
    """Until the log has said `words` so many times."""
    for _ in range(60_000):
        if count(workdir, words) >= times:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{words!r} was not said {times} times")


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def final_state(workdir: Path) -> dict:
    with ocp.training.Checkpointer(workdir / "checkpoints") as checkpoints:
        return checkpoints.load()


def outcome(workdir: Path) -> dict:
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics.pop("train_seconds") > 0
    return metrics


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    finish(workdir)
    return workdir


def assert_same(a: Path, b: Path) -> None:
    assert outcome(a) == outcome(b)
    for name in ("history.jsonl", "predictions.txt", "groundtruth.txt", "config.json"):
        assert (a / name).read_text() == (b / name).read_text(), name
    left, right = final_state(a), final_state(b)
    leaves = [np.asarray(x) for x in _leaves(left)]
    assert len(leaves) > 8
    for x, y in zip(leaves, _leaves(right), strict=True):
        np.testing.assert_array_equal(x, np.asarray(y))


def loss_curve(workdir: Path) -> np.ndarray:
    rows = (workdir / "history.jsonl").read_text().splitlines()
    return np.array([json.loads(row)["loss"] for row in rows])


def _leaves(tree):
    for key in sorted(tree):
        if isinstance(tree[key], dict):
            yield from _leaves(tree[key])
        else:
            yield tree[key]


def test_killed_at_five_random_moments(uninterrupted, tmp_path):
    seed = random.randrange(2**32)
    print(f"the moments are those of seed {seed}")  # shown where the test fails
    moments = random.Random(seed)
    for _ in range(5):
        # Checkpoints are 7 steps apart: five lives of 8 steps cannot reach the end.
        logged = count(tmp_path, " left, loss ") + moments.randint(1, 8)
        process = start(tmp_path)
        wait_for(tmp_path, process, " left, loss ", logged)
        time.sleep(moments.uniform(0, PAUSE))
        kill(process)
    assert not (tmp_path / "metrics.json").exists()
    finish(tmp_path)
    assert_same(uninterrupted, tmp_path)


def test_sigterm_saves_and_exits_0(uninterrupted, tmp_path):
    process = start(tmp_path, json.dumps({**json.loads(CHANGES), "pause": 0.2}))
    wait_for(tmp_path, process, "compiling", 1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "told to stop: saved step" in out
    assert not (tmp_path / "metrics.json").exists()
    assert any(p.name.isdigit() for p in (tmp_path / "checkpoints").iterdir())
    finish(tmp_path)
    assert "resuming at step" in (tmp_path / "log.txt").read_text()
    assert_same(uninterrupted, tmp_path)


def test_four_devices_follow_one(uninterrupted, tmp_path):
    changes = {"steps": 20, "log_every": 1}
    finish(tmp_path, json.dumps(changes), devices=4)
    assert outcome(tmp_path)["device"] == "4 x cpu"
    assert outcome(uninterrupted)["device"] == "1 x cpu"
    single = loss_curve(uninterrupted)[:22]
    assert np.ptp(single) > 0.1
    np.testing.assert_allclose(loss_curve(tmp_path), single[:20], atol=1e-5, rtol=0)

    # What four devices saved, one continues.
    changes["steps"] = 22
    finish(tmp_path, json.dumps(changes), 1)
    assert "resuming at step 20 of 22" in (tmp_path / "log.txt").read_text()
    np.testing.assert_allclose(loss_curve(tmp_path), single, atol=1e-5, rtol=0)


V2V_STEPS = 20


@pytest.fixture(scope="module")
def v2v_runs(tmp_path_factory) -> dict[int | str, Path]:
    """Directories of a small V2V's run on 1 and on 4 devices, and of their compiled steps."""
    runs: dict[int | str, Path] = {
        name: tmp_path_factory.mktemp(f"v2v_{name}") for name in (1, 4, "cache")
    }
    cache = str(runs["cache"])
    processes = [
        launch(
            "small_v2v.py",
            str(runs[devices]),
            str(V2V_STEPS),
            devices=devices,
            JAX_COMPILATION_CACHE_DIR=cache,
        )
        for devices in (1, 4)
    ]
    for process in processes:
        end(process)
    return runs


def test_v2v_killed(v2v_runs, tmp_path):
    arguments = ("small_v2v.py", str(tmp_path), str(V2V_STEPS))
    cache = {"JAX_COMPILATION_CACHE_DIR": str(v2v_runs["cache"])}
    process = launch(*arguments, **cache)
    wait_for(tmp_path, process, " left, loss ", random.randint(5, 15))
    kill(process)
    end(launch(*arguments, **cache))
    assert "resuming at step" in (tmp_path / "log.txt").read_text()
    assert_same(v2v_runs[1], tmp_path)


def test_v2v_on_four_devices_follows_one(v2v_runs):
    losses = {devices: loss_curve(v2v_runs[devices]) for devices in (1, 4)}
    assert outcome(v2v_runs[4])["device"] == "4 x cpu"
    assert len(losses[1]) == V2V_STEPS and np.ptp(losses[1]) > 0.1 * losses[1].mean()
    np.testing.assert_allclose(losses[4], losses[1], rtol=1e-10, atol=0)


def test_full_disk_leaves_the_last_checkpoint(tmp_path):
    finish(tmp_path, json.dumps({"steps": 7}))
    process = start(tmp_path, json.dumps({"steps": 40, "file_limit": 4000}))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "cannot write the checkpoint of step 14" in err.splitlines()[-1]
    assert "the checkpoint of step 7 is intact" in err
    finish(tmp_path, json.dumps({"steps": 14}))
    assert "resuming at step 7 of 14" in (tmp_path / "log.txt").read_text()


def test_not_finite_loss_stops_the_run(tmp_path):
    # Step 17 (counted from 1) is the first to see example 128 of batches of 8.
    process = start(tmp_path, json.dumps({"poison_at": 130}))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.splitlines()[-1].startswith("error: step 17: loss is nan (the last good one is 14)")
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [7, 14]
    assert all(np.isfinite(x).all() for x in map(np.asarray, _leaves(final_state(tmp_path))))
