"""Everything a finished run leaves in its directory beside checkpoints and logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from hpe_jax.atomic import write_atomic
from hpe_jax.frames import Source
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.metrics.errors import errors, split_summary, summary
from hpe_jax.metrics.files import write_joints
from hpe_jax.metrics.protocols import PROTOCOLS, to_uvd
from hpe_jax.metrics.report import skeletons, write_report
from hpe_jax.training.evaluation import Evaluation, constant_pose


def score(evaluation: Evaluation, source: Source) -> dict[str, Any]:
    """The figures of `metrics.json` that depend on the predictions.

    All are 3-D, as prediction files are scored; where no depth is estimated, `mean_error_xy_mm` and
    its baseline say what x and y alone are worth.
    """
    e = evaluation
    # A method that was not told where the hand is competes with a constant that was not, either.
    told = np.zeros_like(e.centre) if source.centre == "none" else e.centre
    constant = constant_pose(e.true, e.valid, told)
    figures = summary(e.pred, e.true, e.valid)
    result = {
        "dataset": source.name,
        "split": source.split,
        "frames": len(e.pred),
        "centre": source.centre,
        **({"files": dict(source.files)} if source.files else {}),
        "skeleton": source.skeleton,
        "joints": list(SKELETONS[source.skeleton].joints),
        "camera": [round(float(c), 4) for c in source.camera],
        "mean_error_mm": figures.pop("mean_error_mm"),
        "baseline_mean_error_mm": float(np.nanmean(errors(constant, e.true, e.valid))),
        **{name: value for name, value in figures.items() if name != "frames"},
    }
    if source.name in PROTOCOLS:  # The recorded data set itself; empty unless all of its frames.
        parts = PROTOCOLS[source.name].slices(len(e.pred)) if source.split == "test" else {}
        result["parts"] = split_summary(e.pred, e.true, parts, e.valid)
    if e.flat:
        pred, true, told = (a * np.array([1, 1, 0], np.float32) for a in (e.pred, e.true, told))
        result["estimates"] = "xy"
        for name, guess in (("", pred), ("baseline_", constant_pose(true, e.valid, told))):
            error = float(np.nanmean(errors(guess, true, e.valid)))
            result[f"{name}mean_error_xy_mm"] = error
    return result


def skeleton_grid(evaluation: Evaluation, source: Source) -> UInt8[np.ndarray, "H W 3"] | None:
    """Predicted beside true skeletons on the frames kept for pictures (RGB), if any is labelled."""
    e = evaluation
    if not e.valid[e.pictures["index"]].any():
        return None
    return skeletons(
        e.pred,
        e.true,
        e.valid,
        errors(e.pred, e.true, e.valid),
        SKELETONS[source.skeleton],
        e.pictures,
        f"{source.name}, {source.split} split, centres '{source.centre}'",
        len(e.pictures["index"]),
    )


def write_results(
    workdir: Path,
    evaluation: Evaluation,
    source: Source,
    history: list[dict[str, Any]],
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Write predictions, report and, last, `metrics.json`; returns its content."""
    e = evaluation
    metrics = {**score(e, source), **extra}
    write_joints(workdir / "predictions.txt", to_uvd(e.pred, source.camera))
    # Of recorded data, too: folds of a data set are pooled and scored again from these files. But
    # the format cannot say that a joint is not labelled.
    (workdir / "groundtruth.txt").unlink(missing_ok=True)
    if e.valid.all():
        write_joints(workdir / "groundtruth.txt", to_uvd(e.true, source.camera))
    write_report(
        workdir,
        pred=e.pred,
        true=e.true,
        valid=e.valid,
        skeleton=SKELETONS[source.skeleton],
        source_name=source.name,
        centre=source.centre,
        frames=e.pictures,
        history=history,
    )
    write_atomic(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def clear_results(workdir: Path) -> None:
    """Remove what `write_results` left: figures of another test would pass for those to come."""
    names = ("metrics.json", "predictions.txt", "groundtruth.txt", "report/*.png")
    for path in [path for name in names for path in workdir.glob(name)]:
        path.unlink()


def write_figures(
    workdir: Path, figures: dict[str, float], source: Source, extra: dict[str, Any]
) -> dict[str, Any]:
    """`metrics.json` of a stage that estimates no joints; returns its content."""
    about = {"dataset": source.name, "split": source.split, "centre": source.centre}
    metrics = {**about, **figures, **extra}
    write_atomic(workdir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def device_name() -> str:
    """For example "4 x NVIDIA H200" or "1 x cpu"."""
    devices = jax.devices()
    return f"{len(devices)} x {devices[0].device_kind}"
