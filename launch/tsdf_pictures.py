"""Slices of distance volumes, side by side (`launch.check_tsdf`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.metrics.overlay import overlay

CELL = 2.1  # inches
DEPTH_PIXELS = 240


def page(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes (rows, columns), the last two columns for colour bars."""
    width, height = CELL * columns + 2.0, CELL * rows + 1.0
    figure = Figure((width, height), dpi=90)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.04, 0.02, 1 - 1.7 / width, 1 - 0.85 / height, 0.08, 0.16)
    ratios = {"width_ratios": [1.0] * columns + [0.06, 0.06]}
    axes = figure.subplots(rows, columns + 2, squeeze=False, gridspec_kw=ratios)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes


def cut(volume: Float[np.ndarray, "D H W"], plane: str, index: int) -> Float[np.ndarray, "A B"]:
    """The slice at a voxel: "xy" is seen by the camera, "xz" from above, the camera at its top."""
    return volume[index] if plane == "xy" else volume[:, index]


def show(
    ax: Axes,
    values: Float[np.ndarray, "A B"],
    limit: float,
    *,
    zero: Float[np.ndarray, "A B"] | None = None,
    difference: bool = False,
    line: float | None = None,
) -> None:
    """One slice in diverging colours, white at 0.

    Args:
      ax: where.
      values: mm.
      limit: of the colours, mm.
      zero: the distances whose zero is drawn as a black line; by default `values`.
      difference: other colours, so that nobody takes it for distances.
      line: row at which the other plane cuts this one.
    """
    ax.imshow(values, "PuOr" if difference else "RdBu", vmin=-limit, vmax=limit)
    zero = values if zero is None else zero
    if zero.min() < 0 < zero.max():
        ax.contour(zero, [0.0], colors="black", linewidths=0.9)
    if line is not None:
        ax.axhline(line, color="0.45", linewidth=0.7, linestyle=(0, (4, 4)))


def heading(figure: Figure, axes: np.ndarray, titles: list[str], text: str) -> None:
    """Titles above the first row, and one above everything."""
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=8.5)
    figure.suptitle(text, fontsize=10, y=1 - 0.12 / figure.get_size_inches()[1])


def bars(figure: Figure, axes: np.ndarray, limits: tuple[float, float]) -> None:
    """Colour bars of distances and differences in the last two columns."""
    for ax in axes[:, -2:].flat:
        ax.set_visible(False)
    for column, colours, limit, text in (
        (-2, "RdBu", limits[0], "distance, mm (red: in or behind)"),
        (-1, "PuOr", limits[1], "difference, mm"),
    ):
        width, height = figure.get_size_inches()
        left = 1 - (1.65 if column == -2 else 0.8) / width
        ax = figure.add_axes((left, 0.5 - 1.8 / height, 0.12 / width, 3.6 / height))
        figure.colorbar(ScalarMappable(Normalize(-limit, limit), colours), cax=ax)
        ax.tick_params(labelsize=6.5, pad=1)
        ax.set_ylabel(text, fontsize=7.5, labelpad=2)


def hand(
    depth: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, " 2"],
    camera: Float[np.ndarray, " 4"],
    centre: Float[np.ndarray, " 3"],
    cube_mm: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """The part of a depth patch that the middle of the cube covers, as a shaded surface."""
    fx, fy, cx, cy = camera
    edge = np.array([fx, fy]) * cube_mm / centre[2]
    middle = np.array([fx, fy]) * centre[:2] / centre[2] + [cx, cy] - corner
    low = np.maximum(np.round(middle - edge / 2), 0).astype(int)
    high = np.maximum(np.round(middle + edge / 2), low + 1).astype(int)
    part = depth[low[1] : high[1], low[0] : high[0]]
    scale = DEPTH_PIXELS / max(part.shape)
    return overlay(
        part, corner + low, camera, None, SKELETONS["nyu"], scale=scale, middle_mm=float(centre[2])
    )


def busiest(flesh: Bool[np.ndarray, "D H W"]) -> tuple[int, int]:
    """(z, y) of the slices to show, the xy and the xz slice that hold most separate pieces of
    `flesh` on their lines along x (fingers side by side), among those the one with most of it."""
    inside = np.asarray(flesh, int)
    starts = (np.diff(inside, axis=2, prepend=0) == 1).sum(2)
    z = starts.sum(1) * inside.size + inside.sum((1, 2))
    y = starts.max(0) * inside.size + inside.sum((0, 2))
    return int(z.argmax()), int(y.argmax())


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, format="png")
