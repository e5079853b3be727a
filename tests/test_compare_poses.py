"""`launch.compare_poses`: a row for each model and kind of poses, and runs that it refuses."""

import sys

import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax.methods.base import Method
from launch import compare_poses

DATA = dict(
    dataset="nyu", root="", whole=False, target="joints", centre="gt", cube_mm=250.0, patch=32,
    extent_mm=340.0, centre_jitter_mm=0.0, synthetic=dict(sensor=False, forearm=False),
)  # fmt: skip
FIST = np.radians([[90, 0, 100, 60]] * 4), np.radians([20, 40, 30, 20, 20])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A model that knows the answer but for 30 mm in depth."""

    def predict(variables, batch):
        return batch["joints"] + np.array([0.0, 0.0, 30.0])

    fingers, thumb = FIST[0][None], FIST[1][None]
    file = dict(axes="template", fingers=fingers, thumb=thumb, error_mm=np.zeros((1, 14)))
    np.savez(tmp_path / "fist.npz", **file)
    monkeypatch.setitem(compare_poses.METHODS, "told", lambda *_: Method(predict, predict, predict))

    def start(*more, **data):
        config = ConfigDict({"method": {"name": "told"}, "data": DATA | data})
        monkeypatch.setattr(compare_poses, "load_model", lambda _: (config, {}))
        argv = ["compare_poses", "--models=runs/a,runs/b", f"--poses={tmp_path / 'fist.npz'}"]
        monkeypatch.setattr(sys, "argv", [*argv, f"--out={tmp_path / 'out'}", "--frames=8", *more])
        return compare_poses.main()

    return start


def test_a_table_of_models_and_poses(run, tmp_path):
    assert run() == 0
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:6]]
    fist = str(tmp_path / "fist.npz")
    assert [row[:2] for row in rows] == [[m, p] for m in "ab" for p in ("procedural", fist)]
    assert {row[2] for row in rows} == {"30.00 mm"} and {row[4] for row in rows} == {"100.0 %"}
    # A constant fist is further from hands of every pose than from fists.
    assert float(rows[0][3][:-3]) > float(rows[1][3][:-3]) > 10
    assert lines[-1] == "Synthetic hands, 8 test frames, centres `gt`."


def test_other_runs_are_refused(run, capsys):
    assert run(root="somewhere") == 2 and run(target="centre") == 2
    assert "runs/a: expected a run on patches of synthetic hands" in capsys.readouterr().err


def test_other_numbers_and_files_are_refused_at_once(run, capsys):
    assert run("--frames=-3") == 2 and run("--poses=nowhere.npz") == 2
    said = capsys.readouterr()
    assert "--frames=-3: expected at least 0" in said.err and "nowhere.npz" in said.err
    assert not said.out
