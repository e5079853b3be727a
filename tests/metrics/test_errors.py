"""Errors, success curves and their areas against plain loops and known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.errors import InputError
from hpe_jax.metrics.errors import (
    THRESHOLDS,
    aligned_errors,
    area,
    errors,
    frame_errors,
    split_summary,
    success,
    summary,
)


def _draw(seed: int, frames: int = 7, joints: int = 5, noise: float = 20.0):
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 50, (frames, joints, 3)) + [0, 0, 700]
    valid = rng.random((frames, joints)) < 0.7
    valid[0] = False  # a frame without any scored joint
    valid[1, 0] = True
    return true + rng.normal(0, noise, true.shape), true, valid


def _slow(pred, true, valid) -> dict:
    """The same figures, one joint at a time."""
    every, worst, means, aligned, shifts = [], [], [], [], []
    joints = [[] for _ in range(true.shape[1])]
    for n in range(len(true)):
        here, offsets = [], []
        for j in range(true.shape[1]):
            if valid[n, j]:
                offset = [pred[n, j, k] - true[n, j, k] for k in range(3)]
                here.append(math.sqrt(sum(o * o for o in offset)))
                joints[j].append(here[-1])
                offsets.append(offset)
        if not here:
            continue
        every += here
        worst.append(max(here))
        means.append(sum(here) / len(here))
        shift = [sum(o[k] for o in offsets) / len(offsets) for k in range(3)]
        shifts.append(math.sqrt(sum(s * s for s in shift)))
        aligned += [math.dist(o, shift) for o in offsets]
    curve = [sum(w <= t for w in worst) / len(worst) for t in range(81)]
    return {
        "frames": len(worst),
        "mean_error_mm": sum(every) / len(every),
        "median_error_mm": float(np.median(every)),
        "auc_0_80": sum((curve[t] + curve[t + 1]) / 2 for t in range(80)) / 80,
        "success_20mm": curve[20],
        "success_40mm": curve[40],
        "success_50mm": curve[50],
        "success_mean_20mm": sum(m <= 20 for m in means) / len(means),
        "success_mean_40mm": sum(m <= 40 for m in means) / len(means),
        "joints_within_20mm": sum(e <= 20 for e in every) / len(every),
        "joints_within_40mm": sum(e <= 40 for e in every) / len(every),
        "mean_aligned_mm": sum(aligned) / len(aligned),
        "translation_mm": sum(shifts) / len(shifts),
        "per_joint_mm": [sum(e) / len(e) if e else None for e in joints],
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 60.0))
def test_summary_equals_loops(seed: int, noise: float):
    pred, true, valid = _draw(seed, noise=noise)
    fast, slow = summary(pred, true, valid), _slow(pred, true, valid)
    assert fast.keys() == slow.keys()
    for key, value in slow.items():
        if key == "per_joint_mm":
            for mine, theirs in zip(fast[key], value, strict=True):
                assert (mine is None) == (theirs is None)
                assert mine is None or mine == pytest.approx(theirs, rel=1e-9)
        else:
            assert fast[key] == pytest.approx(value, rel=1e-9), key


def test_known_errors():
    true = np.zeros((2, 2, 3))
    pred = np.array([[[3, 4, 0], [0, 0, 20]], [[0, 0, 80], [0, 0, 80.5]]], float)
    error = errors(pred, true)
    np.testing.assert_allclose(error, [[5, 20], [80, 80.5]])
    np.testing.assert_allclose(frame_errors(error), [20, 80.5])
    curve = success(error)
    assert curve[19] == 0 and curve[20] == 0.5 and curve[80] == 0.5  # inclusive
    assert success(error, per="joint")[80] == 0.75
    assert success(error, per="mean")[12] == 0 and success(error, per="mean")[13] == 0.5


def test_area_runs_from_none_to_all():
    true = np.zeros((3, 4, 3))
    assert summary(true, true)["auc_0_80"] == 1.0
    assert summary(true + 100, true)["auc_0_80"] == 0.0
    # The step at 40 mm counts from the middle of its 1 mm cell.
    assert area((THRESHOLDS >= 40).astype(float)) == pytest.approx(40.5 / 80)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_alignment_removes_a_common_shift(seed: int):
    pred, true, valid = _draw(seed)
    shift = np.random.default_rng(seed).normal(0, 30, (len(true), 1, 3))
    here, _ = aligned_errors(pred, true, valid)
    there, length = aligned_errors(pred + shift, true, valid)
    np.testing.assert_allclose(here, there, atol=1e-9)
    pure, length = aligned_errors(true + shift, true, valid)
    assert np.nanmax(pure) < 1e-9
    scored = valid.any(1)
    np.testing.assert_allclose(length[scored], np.linalg.norm(shift[scored, 0], axis=-1))


def test_invalid_joints_may_hold_anything():
    pred, true, valid = _draw(3)
    spoilt, lost = pred.copy(), true.copy()
    spoilt[~valid], lost[~valid] = 1e9, np.nan
    assert summary(spoilt, lost, valid) == summary(pred, true, valid)


def test_split_is_summary_of_each_part():
    pred, true, _ = _draw(5)
    parts = {"a": slice(0, 3), "b": slice(3, 7)}
    split = split_summary(pred, true, parts)
    assert split["b"] == summary(pred[3:], true[3:])
    weighted = 3 * split["a"]["mean_error_mm"] + 4 * split["b"]["mean_error_mm"]
    assert weighted / 7 == pytest.approx(summary(pred, true)["mean_error_mm"])


def test_bad_input_is_refused():
    pred, true, valid = _draw(1)
    with pytest.raises(InputError, match=r"\(6, 5, 3\) against ground truth \(7, 5, 3\)"):
        errors(pred[1:], true)
    with pytest.raises(InputError, match="valid mask"):
        errors(pred, true, valid[:, 1:])
    with pytest.raises(InputError, match="no valid joint"):
        summary(pred, true, np.zeros_like(valid))
    pred[4, 2, 1] = np.nan
    with pytest.raises(InputError, match="frame 4, joint 2.*finite"):
        errors(pred, true)
