"""The synthetic benchmark's command on two tiny experiments that share their training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

TINY = """
from configs.v2v_nyu import get_config as v2v

def get_config(variant=""):
    config = v2v("quick")
    config.method.input = config.method.canvas = 16
    config.method.widths = (2, 2, 2, 2)
    config.method.decode = variant or "subvoxel"
    config.batch, config.test_frames, config.eval_batch = 2, 12, 12
    return config
"""


def run(*arguments):
    command = [sys.executable, "-m", "launch.compare_methods", *arguments]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_table_of_one_training_read_in_two_ways(tmp_path):
    config, out = tmp_path / "tiny.py", tmp_path / "out"
    config.write_text(TINY)
    names = f"--configs={config},{config}:argmax"
    result = run(names, f"--out={out}", "--examples=8", "--config.log_every=2")
    assert result.returncode == 0, result.stdout + result.stderr
    one, two = (json.loads((out / n / "metrics.json").read_text()) for n in ("tiny", "tiny-argmax"))
    assert one["examples_seen"] == 8 and two["trained_in"].endswith("tiny")
    assert not (out / "tiny-argmax" / "checkpoints").exists()
    assert one["mean_error_mm"] != two["mean_error_mm"]
    truth = [np.loadtxt(out / n / "groundtruth.txt") for n in ("tiny", "tiny-argmax")]
    np.testing.assert_array_equal(*truth)
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == 6 and table[2].startswith("| `tiny` |")
    assert f"{two['mean_error_mm']:.2f} mm" in table[3] and "12 test frames" in table[5]
    assert (out / "success.png").stat().st_size > 5000


def test_mistakes_are_named(tmp_path):
    for names, message in (
        (f"{tmp_path}/none.py", "none.py: expected a config file"),
        (f"{ROOT}/configs/v2v_nyu.py:fast", "no variant 'fast'"),
    ):
        result = run(f"--configs={names}", f"--out={tmp_path}")
        assert result.returncode and message in result.stderr
    assert "unexpected '--examlpes=3'" in run("--configs=a", "--out=b", "--examlpes=3").stderr
