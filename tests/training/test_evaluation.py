"""Evaluation of a whole split, the constant baseline, the figures kept of it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.errors import InputError
from hpe_jax.metrics.protocols import PROTOCOLS
from hpe_jax.training import results
from hpe_jax.training.evaluation import PICTURES, Evaluation, Evaluator, Measurer, constant_pose
from hpe_jax.training.results import score, write_results
from hpe_jax.training.step import make_mesh

METHOD = toy.make_method()


@pytest.mark.parametrize("batch", [5, 8, 64])
def test_every_frame_once_in_order(batch):
    source = toy.make_source("test", 37)
    variables = METHOD.init(jax.random.key(0))
    told, loaded = [], []

    def load(indices):
        loaded.append(len(indices))
        return source.load(indices)

    counted = dataclasses.replace(source, load=load)
    result = Evaluator(METHOD, counted, make_mesh(), batch=batch)(variables, told.append)
    assert set(loaded) == {min(batch, 37)}  # A batch of a million is no larger than the split.
    assert len(told) == -(-37 // batch) and told[-1].startswith("test split, 37/37 frames")
    whole = source.expand(source.load(np.arange(37)))
    np.testing.assert_allclose(result.true, whole["joints"], atol=1e-3)
    np.testing.assert_allclose(result.pred, METHOD.predict(variables, whole), atol=1e-3)
    shown = result.pictures["index"]
    assert len(shown) == PICTURES and shown[-1] == 36
    np.testing.assert_allclose(result.pictures["depth"], whole["depth"][shown], atol=1e-6)


def test_measures_count_every_frame_once():
    """Also where the last batch is filled up with frames that were measured before."""
    source, variables = toy.make_source("test", 5), METHOD.init(jax.random.key(0))
    method = dataclasses.replace(METHOD, measure=lambda _, batch: {"x": batch["joints"][:, 0, 0]})
    every = source.expand(source.load(np.arange(5)))["joints"][:, 0, 0]
    found = Measurer(method, source, make_mesh(), batch=4)(variables)
    assert found["x"] == pytest.approx(float(every.mean()), rel=1e-5)


def test_endless_sources_cannot_be_scored():
    with pytest.raises(InputError, match="endless"):
        Evaluator(METHOD, toy.make_source(), make_mesh(), batch=8)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_no_constant_beats_the_baseline(seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(30, 3)) * 50
    true = centre[:, None] + rng.normal(size=(30, 4, 3)) * rng.uniform(1, 40, (30, 1, 1))
    valid = rng.uniform(size=(30, 4)) > 0.3
    valid[0] = True

    def error(pose):
        return np.linalg.norm(pose - true, axis=-1)[valid].mean()

    best = constant_pose(true, valid, centre)
    assert np.ptp(best - centre[:, None], axis=0).max() < 1e-3
    mean = np.stack([(true - centre[:, None])[valid[:, j], j].mean(0) for j in range(4)])
    assert error(best) <= error(mean + centre[:, None]) + 1e-3
    for _ in range(5):
        assert error(best) <= error(best + rng.normal(size=(1, 4, 3))) + 1e-2


def test_without_a_centre_the_baseline_stands_in_the_cameras_space():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 1, 3)) * 200 + rng.normal(size=(toy.JOINTS, 3)) * 50
    evaluation = Evaluation(true, true, np.ones(true.shape[:2], bool), true[:, 0], {})
    told = toy.make_source("test", len(true))
    alone = dataclasses.replace(told, centre="none")
    assert score(evaluation, told)["baseline_mean_error_mm"] < 1e-3
    assert score(evaluation, alone)["baseline_mean_error_mm"] > 100


def test_the_recorded_data_set_is_split_by_subject():
    n = PROTOCOLS["nyu"].frames
    true = np.zeros((n, toy.JOINTS, 3)) + [0, 0, 600.0]
    pred = true + np.where(np.arange(n) < 2440, 3.0, 9.0)[:, None, None] * [1, 0, 0]
    valid = np.ones(true.shape[:2], bool)
    valid[5, 3], true[5, 3] = False, np.nan  # Not labelled, so not scored.
    source = dataclasses.replace(toy.make_source("test", n), name="nyu")
    parts = score(Evaluation(pred, true, valid, true[:, 0], {}), source)["parts"]
    assert parts["subject_1"]["mean_error_mm"] == pytest.approx(3)
    assert parts["subject_2"]["mean_error_mm"] == pytest.approx(9)


def test_without_depth_x_and_y_are_scored_alone():
    true = np.random.default_rng(0).normal(0, 60, (8, toy.JOINTS, 3)) + [0, 0, 600]
    valid = np.ones(true.shape[:2], bool)
    flat = Evaluation(true + [3, 4, 500], true, valid, true[:, 0], {}, flat=True)
    assert score(flat, toy.make_source("test", 8))["mean_error_xy_mm"] == pytest.approx(5)


def test_files_hold_the_predictions_in_pixels(tmp_path, monkeypatch):
    """And the truth if every joint is labelled: an earlier test's would not be of these frames."""
    monkeypatch.setattr(results, "write_report", lambda *_, **__: None)  # Its pictures take long.
    source = toy.make_source("test", 8)
    true = np.random.default_rng(0).normal(0, 60, (8, toy.JOINTS, 3)) + [0, 0, 600]
    pred, valid = true + [10, 20, 30], np.ones(true.shape[:2], bool)
    evaluation = Evaluation(pred, true, valid, true[:, 0], {})
    write_results(tmp_path, evaluation, source, [], {})
    for name, joints in (("predictions", pred), ("groundtruth", true)):
        found = np.loadtxt(tmp_path / f"{name}.txt").reshape(joints.shape)
        np.testing.assert_allclose(found, xyz_to_uvd(joints, source.camera), atol=1e-3)
    valid[2, 5] = False
    write_results(tmp_path, evaluation, source, [], {})
    assert not (tmp_path / "groundtruth.txt").exists()
