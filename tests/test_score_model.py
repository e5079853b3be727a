"""A model is scored on a data set of which nothing but the test split is there."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from hpe_jax import methods
from hpe_jax.camera import NYU, flip_y, uvd_to_xyz
from hpe_jax.defaults import experiment
from hpe_jax.hand.skeletons import NYU_COLUMNS
from hpe_jax.methods.base import Method
from hpe_jax.metrics.files import read_joints
from hpe_jax.settings import to_json
from hpe_jax.training.checkpoints import Checkpoints
from launch import score_model

CAMERA = NYU.intrinsics.astype(np.float64)
MIDDLE = np.array([320.0, 240.0, 800.0])


@pytest.fixture
def uvd():
    return MIDDLE + np.random.default_rng(0).uniform(-30, 30, (3, 36, 3))


@pytest.fixture
def root(tmp_path, uvd):
    """Three frames of a square hand in NYU's layout, without those to train on."""
    folder = tmp_path / "nyu" / "test"
    folder.mkdir(parents=True)
    depth = np.full((480, 640), 2001)
    depth[180:300, 260:380] = 800
    packed = np.stack([0 * depth, depth // 256, depth % 256], -1).astype(np.uint8)
    for i in range(3):
        Image.fromarray(packed).save(folder / f"depth_1_{i + 1:07d}.png")
    xyz_up = flip_y(uvd_to_xyz(uvd, CAMERA))
    labels = {"joint_uvd": np.stack([uvd] * 3), "joint_xyz": np.stack([xyz_up] * 3)}
    savemat(folder / "joint_data.mat", labels)
    return tmp_path / "nyu"


@pytest.fixture
def workdir(tmp_path, uvd, monkeypatch):
    """A run on synthetic hands whose model puts the first frame's joints about any centre."""
    joints = uvd_to_xyz(uvd[0, list(NYU_COLUMNS)], CAMERA)
    offsets = jnp.asarray(joints - joints.mean(0), jnp.float32)

    def predict(variables, batch):
        return batch["centre"][:, None] + variables["params"]["offsets"]

    toy = Method(lambda key: {}, lambda *_: None, predict)
    monkeypatch.setitem(methods.METHODS, "toy", lambda config, skeleton: toy)
    monkeypatch.setenv("HPE_JAX_CACHE", "")
    config = experiment("nyu")
    config.method.name = "toy"
    config.batch = 2
    state = {"step": jnp.zeros((), jnp.int32), "params": {"offsets": offsets}}
    info = {"step": 1, "steps": 1, "config": to_json(config), "source": "synthetic-nyu"}
    with Checkpoints(tmp_path / "run" / "checkpoints", 1) as checkpoints:
        checkpoints.save(state | {"rest": {}, "opt_state": {}, "ema": {}}, info)
    return tmp_path / "run"


def score(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["score_model", *map(str, arguments)])
    return score_model.main()


def test_only_the_test_split_is_read(workdir, root, tmp_path, uvd, monkeypatch, capsys):
    given = (f"--workdir={workdir}", f"--root={root}", f"--out={tmp_path / 'out'}")
    before = sorted(workdir.rglob("*"))
    assert score(monkeypatch, *given, "--centre=gt") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    expected = {"dataset": "nyu", "frames": 3, "centre": "gt", "trained_on": "synthetic-nyu"}
    assert expected.items() <= metrics.items() and metrics["parts"] == {}
    written = read_joints(tmp_path / "out" / "predictions.txt", 14)
    np.testing.assert_allclose(written.values[0], uvd[0, list(NYU_COLUMNS)], atol=0.02)
    assert metrics["mean_error_mm"] > 1  # of the two other frames, whose joints are others
    assert "mean error" in capsys.readouterr().out
    assert sorted(workdir.rglob("*")) == before  # the run is left as it is

    assert score(monkeypatch, *given) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["centre"] == "com"
    # A test that cannot be begun takes nothing away.
    assert score(monkeypatch, *given, "--centre=file", f"--centre_file={root / 'none.txt'}") == 2
    assert "none.txt: no such file" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics


def test_flags_that_mean_nothing_are_refused(workdir, root, tmp_path, monkeypatch, capsys):
    given = (f"--workdir={workdir}", f"--root={root}", f"--out={tmp_path / 'out'}")
    for flag, message in (
        ("--frames=-5", "--frames=-5: expected a number of frames"),
        ("--centre_file=c.txt", "--centre_file: centres are 'com', expected --centre=file"),
        ("--centre_model=runs/c", "--centre_model: centres are 'com', expected --centre=refined"),
    ):
        assert score(monkeypatch, *given, flag) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_run_is_not_written_over(workdir, root, monkeypatch, capsys):
    assert score(monkeypatch, f"--workdir={workdir}", f"--root={root}", f"--out={workdir}") == 2
    assert "the folder of a training run, expected another one" in capsys.readouterr().err
