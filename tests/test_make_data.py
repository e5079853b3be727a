"""The command that makes data sets: one clear line for mistakes, killed and continued, Beam."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpe_jax.training.console import Log

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/v2v_nyu.py:quick"
SMALL = [CONFIG, "--config.data.patch=32", "--frames=960", "--shards=30"]


def start(*arguments: str) -> subprocess.Popen:
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "launch.make_data", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=env, **pipes)


def run(*arguments: str) -> subprocess.CompletedProcess:
    process = start(*arguments)
    out, err = process.communicate(timeout=600)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "log.txt"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    result = run(*SMALL, f"--out={out}")
    assert result.returncode == 0, result.stderr
    return out


def test_progress_is_told_and_logged(whole):
    log = (whole / "log.txt").read_text()
    assert "synthetic_nyu in" in log and "960 frames of seed 0, 0 of 30 shards are there" in log
    assert "shard 30/30, 960/960 frames, " in log and " frames/s, 0:00:00 left" in log
    assert "whole: 960 frames" in log and "bytes a frame" in log


def test_a_second_process_leaves_the_first_one_s_work_alone(whole, tmp_path):
    out = tmp_path / "set"
    shutil.copytree(whole, out)
    half = out / ".synthetic_nyu-train.array_record-00000-of-00030.1.part"
    half.write_bytes(b"half a shard")
    with Log(out / "log.txt"):
        result = run(*SMALL, f"--out={out}")
    assert result.returncode == 2 and "another process is at work there" in result.stderr
    assert half.read_bytes() == b"half a shard"
    assert run(*SMALL, f"--out={out}").returncode == 0 and not half.exists()


def test_killed_and_started_again_it_leaves_the_same_bytes(whole, tmp_path):
    out = tmp_path / "set"
    process = start(*SMALL, f"--out={out}")
    while not list(out.glob("synthetic_nyu-*")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    there = len(list(out.glob("synthetic_nyu-*")))
    assert process.returncode == -signal.SIGKILL and 0 < there < 30
    result = run(*SMALL, f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert f"{there} of 30 shards are there" in result.stdout
    assert contents(out) == contents(whole)


def test_beam_makes_the_same_bytes(whole, tmp_path):
    if importlib.util.find_spec("apache_beam") is None:
        pytest.skip("Apache Beam is not installed (pip install -e '.[beam]')")
    out = tmp_path / "set"
    result = run(*SMALL, f"--out={out}", "--beam", "--", "--direct_num_workers=1")
    assert result.returncode == 0, result.stderr
    assert contents(out) == contents(whole)


def test_without_beam_it_says_what_to_install(tmp_path):
    if importlib.util.find_spec("apache_beam") is not None:
        pytest.skip("Apache Beam is installed")
    result = run(*SMALL, f"--out={tmp_path / 'set'}", "--beam")
    assert result.returncode == 2 and "pip install -e '.[beam]'" in result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CONFIG, "--out=OUT"], "--frames is missing"),
        ([CONFIG, "--out=OUT", "--frames=0"], "--frames=0: expected at least 1"),
        ([CONFIG, "--out=OUT", "--frames=9", "--", "--runner=x"], "options after -- are for"),
        ([CONFIG, "--out=OUT", "--frames=9", "--config.data.pach=3"], "did you mean 'patch'"),
        (["--config=configs/none.py", "--out=OUT", "--frames=9"], "there is no configs/none.py"),
        (
            ["--config=configs/hand3d_nyu.py:quick", "--out=OUT", "--frames=9"],
            "no data section; of stages, expected one",
        ),
        ([CONFIG, "--out=README.md", "--frames=9"], "README.md"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    result = run(*(word.replace("OUT", str(tmp_path / "set")) for word in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert not (tmp_path / "set").exists()


def test_another_data_set_is_refused(whole):
    before = contents(whole)
    result = run(*SMALL, f"--out={whole}", "--seed=1")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert "config.json: another data set, seed is 0 there, 1 here" in result.stderr
    assert contents(whole) == before
