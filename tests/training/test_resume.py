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
CHANGES = json.dumps({"pause": 0.02})


def start(workdir: Path, changes: str = CHANGES, devices: int = 1) -> subprocess.Popen:
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, str(ROOT / "tests/training/toy.py"), str(workdir), changes]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(workdir: Path, changes: str = CHANGES, devices: int = 1) -> None:
    process = start(workdir, changes, devices)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err


def wait_for_training(workdir: Path, process: subprocess.Popen, compilations: int) -> None:
    """Until the log says for the n-th time that the step is being compiled."""
    log = workdir / "log.txt"
    for _ in range(6000):
        if log.exists() and log.read_text().count("compiling") >= compilations:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("training did not begin")


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


def _leaves(tree):
    for key in sorted(tree):
        if isinstance(tree[key], dict):
            yield from _leaves(tree[key])
        else:
            yield tree[key]


def test_killed_at_random_moments(uninterrupted, tmp_path):
    moments = random.Random()
    for kill in range(3):
        process = start(tmp_path)
        wait_for_training(tmp_path, process, kill + 1)
        time.sleep(moments.uniform(0.1, 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL or (tmp_path / "metrics.json").exists()
        if (tmp_path / "metrics.json").exists():  # It was quicker than the signal.
            break
    finish(tmp_path)
    assert_same(uninterrupted, tmp_path)


def test_sigterm_saves_and_exits_0(uninterrupted, tmp_path):
    process = start(tmp_path, json.dumps({"pause": 0.2}))
    wait_for_training(tmp_path, process, 1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "told to stop: saved step" in out
    assert not (tmp_path / "metrics.json").exists()
    assert any(p.name.isdigit() for p in (tmp_path / "checkpoints").iterdir())
    finish(tmp_path)
    assert "resuming at step" in (tmp_path / "log.txt").read_text()
    assert_same(uninterrupted, tmp_path)


def test_four_devices_follow_one(tmp_path):
    changes = {"steps": 20, "log_every": 1}
    losses = {}
    for devices in (1, 4):
        workdir = tmp_path / str(devices)
        finish(workdir, json.dumps(changes), devices)
        rows = [json.loads(x) for x in (workdir / "history.jsonl").read_text().splitlines()]
        losses[devices] = np.array([row["loss"] for row in rows])
        assert outcome(workdir)["device"] == f"{devices} x cpu"
    assert len(losses[1]) == 20 and np.ptp(losses[1]) > 0.1
    np.testing.assert_allclose(losses[4], losses[1], atol=1e-5, rtol=0)

    # What four devices saved, one continues.
    changes["steps"] = 22
    finish(tmp_path / "4", json.dumps(changes), 1)
    assert "resuming at step 20 of 22" in (tmp_path / "4" / "log.txt").read_text()


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
