"""The table of Hand3D's ablation: the paper's metrics from a run's prediction files."""

import json
import sys

import numpy as np
import pytest

from hpe_jax.errors import InputError
from hpe_jax.metrics.errors import errors
from hpe_jax.metrics.files import write_joints
from launch import compare_hand3d

CAMERA = (500.0, 500.0, 100.0, 100.0)


def make_run(folder, apart):
    """A finished run whose joint j of frame i is apart[i][j] mm off, in depth along the axis."""
    apart = np.asarray(apart, float)
    true = np.full((*apart.shape, 3), (100.0, 100.0, 600.0))
    pred = true + apart[..., None] * [0.0, 0.0, 1.0]
    folder.mkdir(parents=True)
    write_joints(folder / "predictions.txt", pred)
    write_joints(folder / "groundtruth.txt", true)
    metrics = {"skeleton": "nyu", "camera": CAMERA}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_a_row_counts_worst_joints(tmp_path):
    # Worst joints of 10, 30, 45 and 60 mm; all others are 5 mm off.
    apart = np.full((4, 14), 5.0)
    apart[:, 3] = 10, 30, 45, 60
    make_run(tmp_path / "run", apart)
    _, pred, true = compare_hand3d.read_result(tmp_path / "run")
    error = errors(pred, true)
    np.testing.assert_allclose(error, apart, atol=1e-2)
    cells = [cell.strip() for cell in compare_hand3d.row("both", error).split("|")]
    assert cells[1:-1] == ["both", f"{apart.mean():.2f} mm", "25.0 %", "50.0 %", "75.0 %"]


def test_a_run_that_has_not_ended_is_named(tmp_path):
    with pytest.raises(InputError, match="metrics.json: missing, expected a run that has ended"):
        compare_hand3d.read_result(tmp_path)


def test_what_does_not_train_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_hand3d", f"--out={tmp_path}", "--config.bacth=2"])
    assert compare_hand3d.main() == 2
    assert "base: did not train" in capsys.readouterr().err


def test_settings_reach_every_stage():
    assert compare_hand3d.in_stages(["--config.data.root=a=b", "--config.batch=2"]) == [
        *(f"--config.stages.{s}.data.root=a=b" for s in ("refine", "pose", "end_to_end")),
        *(f"--config.stages.{s}.batch=2" for s in ("refine", "pose", "end_to_end")),
    ]
