"""How far predicted joints are from the true ones, in NumPy.

Everything starts from the per-joint errors of `errors`, an (N, J) array in mm that is NaN where
a joint is not scored. A frame without any scored joint counts nowhere. Means are taken over all
scored joints of all frames, so in a set with every joint valid they are means over frames too.

A *success curve* is the fraction (0-1) of frames, or of joints, whose error is at most t for
t = 0, 1 ... 80 mm. `auc_0_80` is the area under the worst-joint curve by the trapezoidal rule,
divided by 80 mm, hence 1 for perfect predictions. Some papers sum bars or stop elsewhere: compare
areas only if they were computed alike.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from hpe_jax.errors import InputError

THRESHOLDS = np.arange(81, dtype=np.float64)
"""Where success curves are sampled, mm."""

Per = Literal["worst", "mean", "joint"]


def errors(
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"] | None = None,
) -> Float[np.ndarray, "N J"]:
    """Distance of each joint from its true place, in the unit of the input (mm).

    Args:
      pred: predicted joints, camera space.
      true: true joints, camera space.
      valid: which joints are scored; all of them by default.

    Returns:
      (N, J) float64, NaN where `valid` is False.

    Raises:
      InputError: the shapes differ, or a scored joint is not finite.
    """
    offset, _ = _offsets(pred, true, valid)
    return np.linalg.norm(offset, axis=-1)


def aligned_errors(
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"] | None = None,
) -> tuple[Float[np.ndarray, "N J"], Float[np.ndarray, " N"]]:
    """Pose and localisation told apart.

    Returns:
      the errors left when each frame's mean offset is removed, (N, J), and the length of that
      offset, (N,); NaN as in `errors`.
    """
    offset, valid = _offsets(pred, true, valid)
    count = valid.sum(1)[:, None]
    total = np.where(valid[..., None], offset, 0.0).sum(1)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.linalg.norm(offset - mean[:, None], axis=-1), np.linalg.norm(mean, axis=-1)


def frame_errors(
    error: Float[np.ndarray, "N J"], per: Literal["worst", "mean"] = "worst"
) -> Float[np.ndarray, " M"]:
    """The worst or the mean joint error of every frame that has a scored joint (M <= N)."""
    scored = error[~np.isnan(error).all(1)]
    return np.nanmax(scored, 1) if per == "worst" else np.nanmean(scored, 1)


def success(
    error: Float[np.ndarray, "N J"],
    thresholds: Float[np.ndarray, " T"] = THRESHOLDS,
    per: Per = "worst",
) -> Float[np.ndarray, " T"]:
    """Fraction (0-1) within each threshold (inclusive).

    Args:
      error: from `errors`.
      thresholds: mm.
      per: of frames by their worst joint, of frames by their mean, or of joints.
    """
    values = error[~np.isnan(error)] if per == "joint" else frame_errors(error, per)
    ordered = np.sort(values)
    return np.searchsorted(ordered, thresholds, side="right") / len(ordered)


def area(curve: Float[np.ndarray, " T"], thresholds: Float[np.ndarray, " T"] = THRESHOLDS) -> float:
    """Area under a success curve as a fraction (0-1) of the greatest possible."""
    return float(np.trapezoid(curve, thresholds) / (thresholds[-1] - thresholds[0]))


def summary(
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"] | None = None,
) -> dict[str, Any]:
    """The field's figures, ready for JSON; mm, and fractions (0-1) of frames.

    Returns:
      `frames` (scored ones), `mean_error_mm`, `median_error_mm` (of all joint errors),
      `auc_0_80`, `success_20mm`, `success_40mm`, `success_50mm` (worst joint),
      `success_mean_20mm`, `success_mean_40mm` (mean joint), `joints_within_20mm`,
      `joints_within_40mm`, `mean_aligned_mm`, `translation_mm` and `per_joint_mm` (a list in joint
      order, None for a joint that is never scored).

    Raises:
      InputError: as in `errors`, or no joint is scored at all.
    """
    error = errors(pred, true, valid)
    scored = ~np.isnan(error)
    if not scored.any():
        raise InputError("no valid joint to score, expected at least one")
    aligned, translation = aligned_errors(pred, true, valid)
    at = np.array([20.0, 40.0, 50.0])
    worst, mean, joint = (success(error, at, per) for per in ("worst", "mean", "joint"))
    return {
        "frames": int(scored.any(1).sum()),
        "mean_error_mm": float(np.nanmean(error)),
        "median_error_mm": float(np.nanmedian(error)),
        "auc_0_80": area(success(error)),
        "success_20mm": float(worst[0]),
        "success_40mm": float(worst[1]),
        "success_50mm": float(worst[2]),
        "success_mean_20mm": float(mean[0]),
        "success_mean_40mm": float(mean[1]),
        "joints_within_20mm": float(joint[0]),
        "joints_within_40mm": float(joint[1]),
        "mean_aligned_mm": float(np.nanmean(aligned)),
        "translation_mm": float(np.nanmean(translation)),
        "per_joint_mm": per_joint_errors(error),
    }


def per_joint_errors(error: Float[np.ndarray, "N J"]) -> list[float | None]:
    """Mean error of each joint over its scored frames, None for one that has none."""
    columns = (error[~np.isnan(error[:, j]), j] for j in range(error.shape[1]))
    return [float(c.mean()) if len(c) else None for c in columns]


def split_summary(
    pred: Float[np.ndarray, "N J 3"],
    true: Float[np.ndarray, "N J 3"],
    parts: dict[str, slice],
    valid: Bool[np.ndarray, "N J"] | None = None,
) -> dict[str, dict[str, Any]]:
    """`summary` of each named part (subject, sequence) of the frames."""
    return {
        name: summary(pred[part], true[part], None if valid is None else valid[part])
        for name, part in parts.items()
    }


def _offsets(
    pred: np.ndarray, true: np.ndarray, valid: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Checked `pred - true`, float64, NaN where not valid; and the full mask."""
    pred, true = np.asarray(pred, np.float64), np.asarray(true, np.float64)
    if pred.shape != true.shape or pred.ndim != 3 or pred.shape[-1] != 3:
        raise InputError(
            f"predictions {pred.shape} against ground truth {true.shape}, expected the same "
            "(frames, joints, 3)"
        )
    mask = np.ones(pred.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if mask.shape != pred.shape[:2]:
        raise InputError(f"valid mask {mask.shape}, expected {pred.shape[:2]}")
    offset = pred - true
    bad = mask & ~np.isfinite(offset).all(-1)
    if bad.any():
        frame, joint = np.argwhere(bad)[0]
        raise InputError(
            f"frame {frame}, joint {joint}: predicted {pred[frame, joint]} against "
            f"{true[frame, joint]}, expected finite numbers"
        )
    return np.where(mask[..., None], offset, np.nan), mask
