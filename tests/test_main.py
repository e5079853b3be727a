"""The command itself: flags, one clear line for mistakes, and one tiny run from end to end."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpe_jax.training.sources import make_source

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "--config=configs/v2v_nyu.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    command = [sys.executable, "-m", "hpe_jax.main", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def get_config(variant: str, data_set: str = "nyu"):
    return importlib.import_module(f"configs.v2v_{data_set}").get_config(variant)


def test_help_needs_no_accelerator():
    # Naming a platform that does not exist makes any use of a device fail.
    result = run("--help", JAX_PLATFORMS="none")
    assert result.returncode == 0, result.stderr
    assert "--workdir" in result.stdout and "--config" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        ([CONFIG], "--workdir is missing"),
        ([CONFIG + ":slow"], "no variant 'slow'"),
        (["--config=configs/v2v_uyn.py:quick"], "there is no configs/v2v_uyn.py, expected FILE"),
        (
            ["--config=configs/hand3d_nyu.py:quick", "--config.steps=3"],
            "expected --config.stages.STAGE.KEY, STAGE refine or pose or end_to_end",
        ),
        ([CONFIG, "--config.method.inptu=3"], "unknown config key 'inptu', did you mean 'input'?"),
        ([CONFIG, "--config.data.nope=3"], "--config.data.nope=3: unknown config key 'nope'"),
        (["--config", "configs/nowhere.py"], "there is no configs/nowhere.py, expected FILE"),
        ([CONFIG, "--config.method.input=wide"], "--config.method.input=wide"),
        ([CONFIG, "--config.method.name=v3v"], "method.name='v3v' is unknown"),
        ([CONFIG, "--config.data.root=/nowhere"], "/nowhere"),
        (
            [CONFIG, "--data.root=/nowhere"],
            "flag 'data.root'; fields of the config are given as --",
        ),
        ([CONFIG, "--config.method.decode=mean"], "method.decode: unknown decode 'mean'"),
        ([CONFIG, "--config.method.input=30"], "method.input=30: expected a multiple of 8"),
        ([CONFIG, "--config.data.centre=mean"], "data.centre='mean': expected one of gt, com"),
        ([CONFIG, "--config.data.dataset=nuy"], "data.dataset='nuy': expected one of nyu"),
        ([CONFIG, "--config.log_every=-1"], "log_every=-1, expected at least 1"),
        ([CONFIG, "--config.data.synthetic.subjects=-1"], "subjects=-1: expected at least 0"),
        (["--config=hpe_jax/errors.py", "--config.batch=3"], "no attribute 'get_config'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path):
    workdir = [f"--workdir={tmp_path}"] if len(arguments) > 1 or ":" in "".join(arguments) else []
    result = run(*arguments, *workdir)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr


def test_want_of_memory_is_one_line_and_other_faults_of_the_device_are_not(tmp_path):
    """The device's faults stand in for a batch that is too large, which no CPU here refuses."""
    program = (
        "import sys, jax; from hpe_jax import main; from hpe_jax.training import stages\n"
        "fault = jax.errors.JaxRuntimeError(sys.argv.pop())\n"
        "def run(*_): raise fault\n"
        "stages.run = run; sys.exit(main.main(sys.argv))"
    )
    command = [sys.executable, "-c", program, CONFIG, f"--workdir={tmp_path}"]
    errors = []
    for fault in ("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nA long list", "INTERNAL"):
        env = {**os.environ, "JAX_PLATFORMS": "cpu"}
        ran = subprocess.run([*command, fault], cwd=ROOT, env=env, capture_output=True, text=True)
        errors.append((ran.returncode, ran.stderr))
    assert errors[0][0] == 2 and errors[0][1].count("\n") == 1, errors[0]
    assert "Out of memory allocating 8 bytes: expected a smaller batch" in errors[0][1]
    assert errors[1][0] == 1 and "JaxRuntimeError: INTERNAL" in errors[1][1]


def test_ctrl_c_before_training_is_one_line(tmp_path):
    program = (
        "import sys; from hpe_jax import main; from hpe_jax.training import stages\n"
        "def run(*_): raise KeyboardInterrupt\n"
        "stages.run = run; sys.exit(main.main(sys.argv))"
    )
    command = [sys.executable, "-c", program, CONFIG, f"--workdir={tmp_path}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    expected = f"error: {tmp_path}: interrupted, the same command continues\n"
    assert (ran.returncode, ran.stderr) == (-signal.SIGINT, expected)


def test_variants_differ_as_documented():
    paper, quick, subvoxel = (get_config(v) for v in ("", "quick", "subvoxel"))
    assert (paper.method.input, paper.method.canvas, paper.method.sigma) == (88, 96, 1.7)
    assert (paper.optimizer.name, paper.optimizer.lr, paper.batch) == ("rmsprop", 2.5e-4, 8)
    assert paper.method.decode == "argmax" and subvoxel.method.decode == "subvoxel"
    subvoxel.method.decode = "argmax"
    assert paper == subvoxel
    assert quick.method.input < paper.method.input and quick.steps > 0
    with pytest.raises(ValueError, match="no variant 'fast'"):
        get_config("fast")


@pytest.mark.parametrize(
    ("data_set", "own", "examples"),
    [
        ("icvl", {"rotated": True}, 331_006),
        ("msra", {"cube_by_subject": False, "stand_in": True, "skip_unreadable": True}, 67_900),
    ],
)
def test_other_data_sets_train_the_same_network(data_set, own, examples):
    for variant in ("", "quick", "long", "subvoxel"):
        there, nyu = get_config(variant, data_set), get_config(variant)
        assert own.items() <= there.data.to_dict().items() and there.epoch_examples == examples
        assert there.method == nyu.method and there.optimizer == nyu.optimizer
        assert (there.steps, there.batch, there.epochs) == (nyu.steps, nyu.batch, nyu.epochs)
        assert (there.data.dataset, there.data.cube_mm) == (data_set, 200.0)
        assert there.data.patch == (128 if variant in ("quick", "long") else 320)
        assert make_source(there, "train").skeleton == data_set
    with pytest.raises(ValueError, match="no variant 'fast'"):
        get_config("fast", data_set)


def test_tiny_run_leaves_everything(tmp_path):
    small = ["--config.method.input=16", "--config.method.canvas=18", "--config.steps=4"]
    small += ["--config.method.widths=(2,2,2,2)", "--config.log_every=2", "--config.batch=2"]
    small += ["--config.test_frames=12", "--config.eval_batch=12", "--config.checkpoint_every=2"]
    result = run(CONFIG + ":quick", f"--workdir={tmp_path}", *small)
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["dataset"] == "synthetic-nyu" and metrics["split"] == "test"
    assert metrics["frames"] == 12 and metrics["examples_seen"] == 8
    assert metrics["centre"] == "com" and len(metrics["per_joint_mm"]) == 14
    expected = {"mean_error_mm", "baseline_mean_error_mm", "median_error_mm", "auc_0_80"}
    expected |= {"success_20mm", "success_40mm", "train_seconds", "device"}
    assert expected | {"split", "joints", "camera", "skeleton", "frames_skipped"} <= set(metrics)
    assert all(np.isfinite(metrics[k]) for k in expected - {"device"})
    for name in ("predictions.txt", "groundtruth.txt"):
        assert np.loadtxt(tmp_path / name).shape == (12, 14 * 3)
    pictures = {p.name for p in (tmp_path / "report").iterdir()}
    assert pictures >= {
        *("success_curve.png", "per_joint.png", "training_curve.png", "skeletons.png")
    }
    assert json.loads((tmp_path / "config.json").read_text())["method"]["input"] == 16
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"2", "4"}
    assert list((tmp_path / "tensorboard").iterdir())
    assert "mean error" in (tmp_path / "log.txt").read_text()

    # A finished run is evaluated again, not trained; another model is refused.
    result = run(CONFIG + ":quick", f"--workdir={tmp_path}", *small, "--config.method.sigma=2.0")
    assert result.returncode == 2
    assert "method.sigma is 1.5 there, 2.0 here" in result.stderr
