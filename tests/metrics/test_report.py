"""The report shows a fair choice of frames and every picture that was promised."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hpe_jax import camera as cameras
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import NYU
from hpe_jax.metrics import report
from hpe_jax.metrics.errors import errors

PICTURES = ["per_joint.png", "skeletons.png", "success_curve.png", "training_curve.png"]


@pytest.fixture
def run() -> dict:
    rng = np.random.default_rng(0)
    count, kept = 60, 20
    true = rng.uniform(-60, 60, (count, 14, 3)) + [0, 0, 700]
    pred = true + rng.normal(0, 1, true.shape) * rng.uniform(1, 30, (count, 1, 1))
    camera = cameras.decimate(cameras.NYU.intrinsics, 4)
    index = rng.permutation(count)[:kept]
    corner = np.stack(
        [cameras.patch_corner(true[n].mean(0), camera.astype(float), 64) for n in index]
    )
    depth = np.where(rng.random((kept, 64, 64)) < 0.5, 700, 0).astype(np.float32)
    frames = {
        "depth": depth,
        "corner": corner,
        "camera": np.tile(camera, (kept, 1)),
        "index": index,
    }
    history = [{"step": s, "loss": 1.0 / (s + 1), "error_mm": 40.0 - s} for s in range(10)]
    return {
        "pred": pred,
        "true": true,
        "valid": np.ones((count, 14), bool),
        "skeleton": NYU,
        "source_name": "synthetic-nyu",
        "frames": frames,
        "history": history,
        "centre": "com",
    }


def test_writes_every_picture(tmp_path, run):
    folder = report.write_report(tmp_path, **run)
    assert folder == tmp_path / "report"
    assert sorted(p.name for p in folder.iterdir()) == PICTURES
    assert all(Image.open(folder / name).size[0] > 400 for name in PICTURES)
    run["skeleton"] = "nyu"  # by name, over what is there
    report.write_report(tmp_path, **run)


def test_titles_say_source_frames_and_centre(tmp_path, run, monkeypatch):
    titles = []
    monkeypatch.setattr(report.plots, "success_curve", lambda *a: titles.append(a[2]))
    monkeypatch.setattr(report, "grid", lambda *a: titles.append(a[3]) or np.zeros((4, 4, 3), "u1"))
    report.write_report(tmp_path, **run)
    for title in titles:
        assert "synthetic-nyu: 60 frames, centre com" in title
    assert "12 of 20 frames" in titles[1] and "from best to worst" in titles[1]


def test_each_cell_and_its_caption_are_of_one_frame(tmp_path, run, monkeypatch):
    drawn, pages = [], []
    monkeypatch.setattr(report, "overlay", lambda *a: drawn.append(a) or len(drawn) - 1)
    monkeypatch.setattr(report, "grid", lambda *a: pages.append(a) or np.zeros((4, 4, 3), "u1"))
    report.write_report(tmp_path, **run)
    pred, true, index = run["pred"], run["true"], run["frames"]["index"]
    mean = errors(pred, true).mean(1)
    cells, captions, _, title, headings = pages[0]
    assert headings == ("predicted (dashed: true)", "true")
    assert f"mean of all frames {mean.mean():.1f} mm" in title
    order = index[np.argsort(mean[index])]
    shown = [int(caption.split()[1].rstrip(":")) for caption in captions]
    assert (shown[0], shown[-1], len(shown)) == (order[0], order[-1], 12)
    for n, (left, right), caption in zip(shown, cells, captions, strict=True):
        assert f"frame {n}: {mean[n]:.1f} mm" in caption
        assert f"({100 * (mean < mean[n]).mean():.0f} % of all are better)" in caption
        for cell, joints, dashed in ((left, pred[n], true[n]), (right, true[n], None)):
            np.testing.assert_array_equal(drawn[cell][3], joints)
            np.testing.assert_array_equal(drawn[cell][5], dashed)


def test_without_frames_there_is_no_grid(tmp_path, run):
    run["frames"] = {}
    folder = report.write_report(tmp_path, **run)
    assert not (folder / "skeletons.png").exists()


def test_without_labels_on_the_kept_frames_there_is_no_grid(tmp_path, run):
    run["valid"][run["frames"]["index"]] = False
    folder = report.write_report(tmp_path, **run)
    assert sorted(p.name for p in folder.iterdir()) == [p for p in PICTURES if "skel" not in p]


def test_invalid_joints_are_neither_scored_nor_drawn(tmp_path, run):
    run["valid"][:, 3] = False
    run["valid"][run["frames"]["index"][0]] = False
    run["true"][~run["valid"]] = np.nan
    folder = report.write_report(tmp_path, **run)
    assert sorted(p.name for p in folder.iterdir()) == PICTURES


def test_predictions_that_are_not_finite_are_refused(tmp_path, run):
    run["pred"][5, 5] = np.nan
    with pytest.raises(InputError, match="frame 5, joint 5"):
        report.write_report(tmp_path, **run)


def test_spread_takes_best_worst_and_evenly_between():
    error = np.array([5.0, 1.0, np.nan, 9.0, 3.0, 7.0])
    np.testing.assert_array_equal(report.spread(error, 3), [1, 0, 3])
    np.testing.assert_array_equal(report.spread(error, 99), [1, 4, 0, 5, 3])
    big = np.random.default_rng(0).random(1000)
    picked = big[report.spread(big, 12)]
    assert picked[0] == big.min() and picked[-1] == big.max()
    np.testing.assert_allclose(picked, np.quantile(big, np.linspace(0, 1, 12)), atol=0.01)


def test_the_window_holds_the_joints_and_keeps_their_pixels(run):
    frames, true = run["frames"], run["true"]
    for i, n in enumerate(frames["index"]):
        depth, corner, camera = (frames[k][i] for k in ("depth", "corner", "camera"))
        part, first = report._around(depth, corner, camera, true[n])
        u, v = (first - corner).astype(int)
        assert part.shape[0] == part.shape[1]
        np.testing.assert_array_equal(part, depth[v : v + len(part), u : u + len(part)])
        uv = cameras.xyz_to_uvd(true[n], camera.astype(float))[:, :2] - first
        assert (uv > -0.5).all() and (uv < len(part) - 0.5).all()
