"""Success curves, per-joint bars and training curves as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hpe_jax.atomic import write_atomic
from hpe_jax.metrics.errors import THRESHOLDS, Per, area, per_joint_errors, success

# Colours that stay apart in grey and for the colour-blind (Okabe and Ito's, reordered).
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
    "#56B4E9", "#000000", "#8B5E3C", "#7F7F7F", "#9467BD",
)  # fmt: skip


def success_curve(
    path: str | Path, results: Mapping[str, Float[np.ndarray, "N J"]], title: str = ""
) -> None:
    """Fraction of frames within a threshold, by their worst and by their mean joint.

    Args:
      path: PNG to write.
      results: name -> per-joint errors in mm (`errors.errors`), one line each.
      title: above the plot.
    """
    figure, axes = _figure(2, (11.0, 5.0 + 0.17 * len(results)))
    panels: tuple[tuple[Per, str], ...] = (
        ("worst", "worst joint within the threshold"),
        ("mean", "mean joint within the threshold"),
    )
    for ax, (per, text) in zip(axes, panels, strict=True):
        for i, (name, error) in enumerate(results.items()):
            curve = 100 * success(error, per=per)
            ax.plot(
                THRESHOLDS,
                curve,
                color=_colour(i),
                linestyle=_line(i),
                label=f"{_text(name)}  (area {area(curve) / 100:.3f}, "
                f"mean {np.mean(error[~np.isnan(error)]):.2f} mm)",
            )
        ax.set(xlim=(0, 80), ylim=(0, 100), xlabel="threshold (mm)", ylabel="frames (%)")
        ax.set_title(text, fontsize=10)
        ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.11))
    _save(figure, path, title)


def per_joint(
    path: str | Path,
    results: Mapping[str, Float[np.ndarray, "N J"]],
    joints: Sequence[str],
    title: str = "",
) -> None:
    """Mean error of every joint as bars, results side by side.

    Args:
      path: PNG to write.
      results: name -> per-joint errors in mm.
      joints: their names.
      title: above the plot.
    """
    figure, (ax,) = _figure(1, (11.0, 5.2))
    place = np.arange(len(joints) + 1)
    width = 0.8 / len(results)
    for i, (name, error) in enumerate(results.items()):
        means = [np.nan if m is None else m for m in per_joint_errors(error)]
        bars = ax.bar(
            place + (i - (len(results) - 1) / 2) * width,
            [*means, float(np.mean(error[~np.isnan(error)]))],
            width,
            color=_colour(i),
            label=_text(name),
        )
        if len(results) == 1:
            ax.bar_label(bars, fmt="%.1f", fontsize=8)
    ax.set_xticks(place, [*joints, "mean"], rotation=45, ha="right", fontsize=8)
    ax.axvline(len(joints) - 0.5, color="0.6", linewidth=0.8)
    ax.set_ylabel("mean error (mm)")
    ax.grid(axis="x", visible=False)
    if len(results) > 1:
        ax.legend(fontsize=7.5, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _save(figure, path, title)


def training_curve(path: str | Path, history: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Loss (logarithmic) and running error by step.

    Args:
      path: PNG to write.
      history: records with `step` and any of `loss`, `error_mm` and `test_error_mm`; in the
        order of training.
      title: above the plot.
    """
    panels = [
        [(key, label) for key, label in panel if any(key in record for record in history)]
        for panel in (
            [("loss", "loss")],
            [("error_mm", "training batches"), ("test_error_mm", "test")],
        )
    ]
    panels = [panel for panel in panels if panel]
    figure, axes = _figure(max(len(panels), 1), (11.0, 4.4))
    if not panels:
        axes[0].text(0.5, 0.5, "no training history", ha="center", va="center")
    for ax, panel in zip(axes, panels, strict=False):
        for i, (key, label) in enumerate(panel):
            steps, values = _series(history, key)
            faint = len(values) > 100
            ax.plot(
                steps,
                values,
                color=_colour(i),
                linewidth=0.6 if faint else 1.4,
                alpha=0.35 if faint else 1.0,
                label=None if faint else label,
            )
            if faint:
                ax.plot(steps, _smooth(values), color=_colour(i), label=f"{label} (smoothed)")
            if key == "loss" and values.size and np.nanmin(values) > 0:
                ax.set_yscale("log")
        ax.set_xlabel("step")
        ax.set_ylabel("loss" if panel[0][0] == "loss" else "mean error (mm)")
        if ax.get_yscale() == "linear":
            ax.set_ylim(bottom=0)
        ax.legend(fontsize=8)
    _save(figure, path, title)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    have = [(r["step"], r[key]) for r in history if r.get(key) is not None]
    return np.array([s for s, _ in have], float), np.array([v for _, v in have], float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over 1/40 of the curve, shorter at its ends."""
    half = max(len(values) // 80, 1)
    total = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    low, high = np.maximum(i - half, 0), np.minimum(i + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _figure(columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    # Figures without pyplot: no global state, no display, safe in any thread.
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.grid(color="0.9", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: str | Path, title: str) -> None:
    if title:
        figure.suptitle(_text(title), fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())


def _text(name: str) -> str:
    """A name as it is: no formula between dollars, and a legend leaves out what begins with "_"."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _line(i: int) -> str:
    return ("-", "--", ":")[i // len(_COLOURS) % 3]
