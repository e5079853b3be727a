"""Plots are written, hold what they should, and change with their data."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hpe_jax.metrics import plots
from hpe_jax.metrics.errors import area, success


@pytest.fixture
def error() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 6.0, (200, 14))


@pytest.fixture
def figures(monkeypatch) -> list:
    """Those drawn, none of which is written."""
    drawn = []
    monkeypatch.setattr(plots, "_save", lambda figure, *_: drawn.append(figure))
    return drawn


def _pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(pixels - rgb).max(-1) <= 2).any())


def test_each_result_has_its_line_and_bars(tmp_path, error):
    joints = [f"joint {i}" for i in range(14)]
    one, two = {"a": error}, {"a": error, "b": 2 * error}
    for draw, more in ((plots.success_curve, ()), (plots.per_joint, (joints,))):
        draw(tmp_path / "1.png", one, *more, "title")
        draw(tmp_path / "2.png", two, *more, "title")
        first, second = _pixels(tmp_path / "1.png"), _pixels(tmp_path / "2.png")
        assert _has_colour(first, "#0072B2") and not _has_colour(first, "#D55E00")
        assert _has_colour(second, "#0072B2") and _has_colour(second, "#D55E00")


def test_names_are_shown_as_they_are(tmp_path, error):
    plots.success_curve(tmp_path / "a.png", {"$x^$": error, "_b": error}, "$\\frac$")  # No formula.
    assert plots._text("_b") == " _b" and plots._text("a_b") == "a_b"  # "_b" has no legend.


def test_each_panel_has_its_own_curve(tmp_path, error, figures):
    plots.success_curve(tmp_path / "a.png", {"a": error})
    for ax, per in zip(figures[0].axes, ("worst", "mean"), strict=True):
        curve = success(error, per=per)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), 100 * curve)
        about = f"a  (area {area(curve):.3f}, mean {error.mean():.2f} mm)"
        assert ax.lines[0].get_label() == about


def test_bars_are_the_joints_means_and_that_of_all(tmp_path, error, figures):
    error *= np.arange(1, 15)
    plots.per_joint(tmp_path / "a.png", {"a": error}, [str(i) for i in range(14)])
    heights = [bar.get_height() for bar in figures[0].axes[0].patches]
    np.testing.assert_allclose(heights, [*error.mean(0), error.mean()])


def test_bars_leave_out_joints_never_scored(tmp_path, error):
    error[:, 3] = np.nan
    plots.per_joint(tmp_path / "a.png", {"a": error}, [str(i) for i in range(14)])
    assert _has_colour(_pixels(tmp_path / "a.png"), "#0072B2")


def test_training_curve_shows_what_was_recorded(tmp_path):
    steps = range(0, 3000, 10)
    history = [{"step": s, "loss": 1 / (s + 10), "error_mm": 50 - s / 100} for s in steps]
    history.append({"step": 3000, "test_error_mm": 30.0})
    plots.training_curve(tmp_path / "long.png", history, "t")
    plots.training_curve(tmp_path / "short.png", history[:5], "t")
    plots.training_curve(tmp_path / "loss.png", [{"step": 1, "loss": 0.0}], "t")
    plots.training_curve(tmp_path / "none.png", [], "t")
    shown = {
        name: _has_colour(_pixels(tmp_path / f"{name}.png"), "#0072B2")
        for name in ("long", "short", "none")
    }
    assert shown == {"long": True, "short": True, "none": False}
    assert (tmp_path / "loss.png").stat().st_size > 1000


def test_training_curve_has_each_record_in_its_line(tmp_path, figures):
    history = [{"step": 1, "error_mm": 9.0, "loss": 0.5}, {"step": 2, "test_error_mm": 7.0}]
    plots.training_curve(tmp_path / "a.png", history)
    lines = [line for ax in figures[0].axes for line in ax.lines]
    shown = {line.get_label(): line.get_xydata().tolist() for line in lines}
    assert shown == {"loss": [[1, 0.5]], "training batches": [[1, 9]], "test": [[2, 7]]}


def test_smoothing_is_a_centred_mean():
    values = np.random.default_rng(0).normal(size=400)
    smooth = plots._smooth(values)
    assert smooth[100] == pytest.approx(values[95:106].mean())
    assert smooth[0] == pytest.approx(values[:6].mean())
    np.testing.assert_allclose(plots._smooth(np.full(300, 3.0)), 3.0)
