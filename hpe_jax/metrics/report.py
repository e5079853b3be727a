"""The pictures that show what a model has learnt, written after an evaluation."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from hpe_jax.atomic import write_atomic
from hpe_jax.camera import xyz_to_uvd
from hpe_jax.hand.skeletons import SKELETONS, Skeleton
from hpe_jax.metrics import plots
from hpe_jax.metrics.errors import errors
from hpe_jax.metrics.overlay import grid, overlay

_LEAST_MM = 150.0
_CELL = 200  # pixels of each picture in the grid


def write_report(
    directory: str | Path,
    *,
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"] | None = None,
    skeleton: Skeleton | str,
    source_name: str,
    frames: Mapping[str, np.ndarray],
    history: Sequence[Mapping[str, Any]],
    centre: str = "unknown",
    shown: int = 12,
) -> Path:
    """Write success_curve.png, per_joint.png, training_curve.png and skeletons.png.

    Args:
      directory: the run's folder; pictures go to its `report/`.
      pred: predicted joints, mm.
      true: true joints, mm.
      valid: which joints are scored; all by default.
      skeleton: of the joints, or its key into `SKELETONS`.
      source_name: for example "synthetic-nyu", in every title.
      frames: frames at hand for the grid: `depth` (n, H, W), `corner` (n, 2), `camera` (n, 4) and
        `index` (n,) into `pred`. The grid shows `shown` of them, evenly spread by error from the
        best to the worst, so nobody is shown only good ones. No grid where none has a scored joint.
      history: training records with `step`, `loss`, `error_mm`; no curve of none.
      centre: where the hand centres come from, in every title.
      shown: number of frames in the grid.

    Returns:
      the folder of the pictures.

    Raises:
      InputError: predictions and truth do not fit or are not finite.
    """
    skeleton = SKELETONS[skeleton] if isinstance(skeleton, str) else skeleton
    folder = Path(directory) / "report"
    error = errors(pred, true, valid)
    title = f"{source_name}: {len(error)} frames, centre {centre}"
    plots.success_curve(folder / "success_curve.png", {source_name: error}, title)
    plots.per_joint(folder / "per_joint.png", {source_name: error}, skeleton.joints, title)
    if history:
        plots.training_curve(folder / "training_curve.png", history, f"{source_name}: training")
    if np.isfinite(error[np.asarray(frames.get("index", ()), int)]).any():
        picture = skeletons(pred, true, valid, error, skeleton, frames, title, shown)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="png", optimize=True)
        write_atomic(folder / "skeletons.png", buffer.getvalue())
    return folder


def skeletons(
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"] | None,
    error: Float[np.ndarray, "N J"],
    skeleton: Skeleton,
    frames: Mapping[str, np.ndarray],
    title: str,
    shown: int,
) -> np.ndarray:
    """Predicted beside true skeletons, from the best of the frames at hand to the worst (RGB)."""
    index = np.asarray(frames["index"])
    mean = _frame_means(error)
    chosen = spread(mean[index], shown)
    order = np.sort(mean[~np.isnan(mean)])
    cells, captions = [], []
    for i in chosen:
        n = int(index[i])
        mask = np.ones(true.shape[1], bool) if valid is None else np.asarray(valid[n], bool)
        seen = np.where(mask[:, None], true[n], np.nan)
        depth, corner = _around(
            np.asarray(frames["depth"][i]), frames["corner"][i], frames["camera"][i], seen
        )
        where = (depth, corner, frames["camera"][i])
        scale = _CELL / len(depth)
        cells.append(
            [
                overlay(*where, pred[n], skeleton, true[n], scale, mask),
                overlay(*where, seen, skeleton, None, scale),
            ]
        )
        rank = 100 * np.searchsorted(order, mean[n]) / len(order)
        captions.append(
            f"frame {n}: {mean[n]:.1f} mm, worst joint {np.nanmax(error[n]):.0f} mm "
            f"({rank:.0f} % of all are better)"
        )
    about = (
        f"{len(chosen)} of {len(index)} frames kept for this picture, evenly spread by error from "
        f"best to worst (not the best ones); mean of all frames {np.nanmean(error):.1f} mm"
    )
    return grid(cells, captions, 3, f"{title}\n{about}", ("predicted (dashed: true)", "true"))


def _around(
    depth: np.ndarray, corner: np.ndarray, camera: np.ndarray, joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The square of a patch that holds the joints with some room, and its corner.

    It shows at least `_LEAST_MM` of the scene, so that a single joint is seen on its hand.
    """
    uv = np.asarray(xyz_to_uvd(joints, np.asarray(camera, np.float64)))[:, :2] - corner
    low, high = np.nanmin(uv, 0), np.nanmax(uv, 0)
    least = max(16.0, _LEAST_MM * float(camera[0] / np.nanmean(joints[:, 2])))
    edge = int(np.ceil(np.clip(max(1.5 * (high - low).max(), least), 0, min(depth.shape))))
    first = np.clip(np.rint((low + high - edge) / 2), 0, np.array(depth.shape[::-1]) - edge)
    u, v = first.astype(int)
    return depth[v : v + edge, u : u + edge], np.asarray(corner) + first


def spread(frame_error: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """Indices of `count` frames (or all), evenly spread by error, best first; NaN is left out."""
    order = np.argsort(frame_error, kind="stable")
    order = order[~np.isnan(frame_error[order])]
    picks = np.unique(np.rint(np.linspace(0, len(order) - 1, min(count, len(order)))).astype(int))
    return order[picks]


def _frame_means(error: np.ndarray) -> np.ndarray:
    """Mean error of each frame, NaN for one without a scored joint."""
    scored = ~np.isnan(error)
    count = scored.sum(1)
    total = np.where(scored, error, 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(error), np.nan), where=count > 0)
