"""`launch.write_centres` on a small source and a toy network."""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax.datasets.centres import read_centres
from hpe_jax.frames import Source
from hpe_jax.methods.base import Method
from hpe_jax.training.sources import CentreModel
from launch import write_centres

MODEL = CentreModel(
    ConfigDict({"dataset": "nyu", "centre_jitter_mm": 10.0, "root": ""}),
    Method(lambda key: {}, lambda *_: None, lambda variables, batch: batch["centre"][:, None] + 1),
    {},
)


def make_source(data, split, seed):
    """100 frames; the third shows no hand."""

    assert data.stand_in and data.skip_unreadable
    skipped = set()

    def load(indices):
        """The frame before it stands in."""
        gone = np.asarray(indices) == 2
        skipped.update(np.asarray(indices)[gone].tolist())
        return {"centre": np.stack([indices - gone] * 3, -1).astype(np.float32)}

    size = 100 if split == "test" else None
    given = ("nyu", split, size, "com", "nyu", np.ones(4), load, lambda loaded: loaded)
    return Source(*given, centres_y_up=True, skipped=skipped)


def test_writes_what_the_network_finds(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(write_centres, "load_centre_model", lambda workdir: MODEL)
    monkeypatch.setattr(write_centres, "make_source", make_source)
    monkeypatch.setattr(sys, "argv", ["x", "--workdir=w", "--root=r", f"--out={tmp_path}"])
    assert write_centres.main() == 0
    assert "1 of 100 frames invalid" in capsys.readouterr().out
    centres = read_centres(tmp_path / "center_test_refined.txt", y_up=True, frames=100)
    assert np.isnan(centres[2]).all()
    usable = np.delete(np.arange(100), 2)
    np.testing.assert_allclose(centres[usable], np.stack([usable + 1.0] * 3, -1))


def test_centres_of_rendered_frames_say_so_and_have_y_down(monkeypatch, tmp_path):
    """Those of a made data set's test are the built-in ones."""

    def rendered(*given):
        return dataclasses.replace(make_source(*given), name="synthetic-nyu", centres_y_up=False)

    monkeypatch.setattr(write_centres, "load_centre_model", lambda workdir: MODEL)
    monkeypatch.setattr(write_centres, "make_source", rendered)
    monkeypatch.setattr(sys, "argv", ["x", "--workdir=w", "--root=r", f"--out={tmp_path}"])
    assert write_centres.main() == 0
    centres = read_centres(tmp_path / "center_synthetic_test_refined.txt", frames=100)
    assert centres[5, 1] == 6.0


def test_an_endless_split_has_no_file(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(write_centres, "load_centre_model", lambda workdir: MODEL)
    monkeypatch.setattr(write_centres, "make_source", make_source)
    monkeypatch.setattr(sys, "argv", ["x", "--workdir=w", "--splits=train", f"--out={tmp_path}"])
    assert write_centres.main() == 2
    assert "the train split is endless" in capsys.readouterr().err


def test_splits_are_looked_at_before_any_frame(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--workdir=w", "--splits=test,", f"--out={tmp_path}"])
    assert write_centres.main() == 2
    assert capsys.readouterr().err == "error: --splits=test,: expected train, test or train,test\n"


@pytest.mark.parametrize("rows", [1, 64, 65])
def test_every_frame_gets_its_own_centre(rows):
    def load(indices):
        return {"centre": jnp.stack([jnp.asarray(indices, jnp.float32)] * 3, -1)}

    source = Source("nyu", "test", rows, "com", "nyu", np.ones(4), load, lambda loaded: loaded)
    np.testing.assert_array_equal(write_centres.find(MODEL, source)[:, 0], np.arange(rows) + 1)
