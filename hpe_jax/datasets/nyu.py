"""The NYU hand data set (Tompson et al. 2014), read as it is published.

Layout, below a root that may also be the folder holding `dataset/`:

    {train,test}/depth_{1,2,3}_{1-based, 7 digits}.png    green * 256 + blue mm, 2001 = nothing
    {train,test}/joint_data.mat                           joint_uvd, joint_xyz (3, N, 36, 3)

Only the files of one camera (`data.view`, 1 is the frontal one that everybody evaluates) are
read. Of the 36 joints the 14 evaluation joints are kept, in their usual order. The labels'
xyz count y up; joints are taken from the uvd labels with the constants of `camera.NYU`, with
which the field's tables are computed, after checking that both kinds of label agree.

Test frames from 2,440 on show a second subject, unseen in training and smaller: the hand's
cube is 5/6 of the configured one there, unless `data.cube_by_subject` is off.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.camera import uvd_to_xyz
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.datasets.labels import leave_out_bad
from hpe_jax.datasets.matlab import read_variables
from hpe_jax.datasets.recorded import Recording, check_names, recorded_source, replacing
from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.hand.skeletons import NYU_COLUMNS

SECOND_SUBJECT = 2440
SECOND_SUBJECT_CUBE = 5 / 6

# uvd and xyz labels differ by the rounding of the constants (0.05 mm); a flipped axis or
# another camera's labels differ by centimetres.
_AGREE_MM = 2.0

log = logging.getLogger(__name__)


def make_source(data: Any, split: str, seed: int) -> Source:
    """NYU as a `Source`.

    Args:
      data: the config's `data` section. Used here: `root`, `cube_mm`, `view` (default 1),
        `cube_by_subject` (default True), and what `recorded.recorded_source` uses.
      split: "train" or "test".
      seed: of the jitter of training centres.

    Raises:
      InputError: data that is missing, not where it is expected, or inconsistent. A frame
        that cannot be used raises it from `load`, unless it may be skipped.
    """
    view = int(data.get("view", 1))
    _, gaps = replacing(data, split)  # A frame that is not there is skipped like a torn one.
    folder = find_split(data.root, split, view)
    joints = read_labels(folder / "joint_data.mat", view, skip=gaps and split == "train")
    frames = list_split(folder, view, len(joints), gaps=gaps)
    cube = np.full(len(frames), data.cube_mm, np.float32)
    if split == "test" and data.get("cube_by_subject", True):
        cube[SECOND_SUBJECT:] *= SECOND_SUBJECT_CUBE
    size = (cameras.NYU.height, cameras.NYU.width)
    recording = Recording(
        name="nyu" if view == 1 else f"nyu-view{view}",
        skeleton="nyu",
        camera=cameras.NYU,
        frames=frames,
        read=lambda i: read_depth(frames[i], size=size),
        joints=joints,
        joint_valid=np.all(np.isfinite(joints), -1),
        cube=cube,
        centres_y_up=True,
    )
    return recorded_source(data, split, seed, recording)


def find_split(root: str | Path, split: str, view: int = 1) -> Path:
    """The folder of one split, which holds its labels and any frame of the camera; InputError with
    what was expected where if there is none."""
    if view not in (1, 2, 3):
        raise InputError(f"data.view={view}: NYU has the cameras 1, 2 and 3")
    roots = [Path(root), Path(root) / "dataset"]
    wanted = ["joint_data.mat", _frame_name(view, 0)]
    for candidate in roots:
        folder = candidate / split
        first = (folder / wanted[1]).is_file() or any(folder.glob(f"depth_{view}_*.png"))
        if (folder / wanted[0]).is_file() and first:
            return folder
    missing = [roots[0] / split / n for n in wanted if not (roots[0] / split / n).is_file()]
    if roots[1].is_dir():
        missing = [roots[1] / split / n for n in wanted if not (roots[1] / split / n).is_file()]
    raise InputError(
        f"data.root={root}: not the NYU data set; expected {' and '.join(map(str, missing))} "
        f"(a root holds train/ and test/, or dataset/train/ and dataset/test/)"
    )


def list_split(folder: Path, view: int, labels: int, *, gaps: bool = False) -> list[Path]:
    """The frames of one camera, in order; `recorded.check_names` says which errors there are."""
    prefix = f"depth_{view}_"
    with os.scandir(folder) as entries:
        found = {e.name for e in entries if e.name.startswith(prefix) and e.name.endswith(".png")}
    names = [_frame_name(view, i) for i in range(labels)]
    check_names(folder, f"{prefix}*.png", found, names, "row of joint_data.mat", gaps)
    return [folder / name for name in names]


def read_labels(path: Path, view: int = 1, *, skip: bool = False) -> Float[np.ndarray, "N 14 3"]:
    """The 14 evaluation joints of one camera from a `joint_data.mat`, mm, y down.

    With `skip`, labels that are not finite numbers in front of the camera are NaN.

    Raises:
      InputError: the file is unreadable, its arrays have another shape, a label is not a
        finite number or lies behind the camera, or joint_uvd and joint_xyz disagree.
    """
    uvd, xyz = (labels[view - 1][:, list(NYU_COLUMNS)] for labels in _load(path))
    good = [np.isfinite(labels).all(-1) & (labels[..., 2] > 0) for labels in (uvd, xyz)]
    joints = np.asarray(uvd_to_xyz(uvd, cameras.NYU.intrinsics.astype(np.float64)))
    joints = leave_out_bad(joints, good[0] & good[1], path, lambda i: f"frame {i + 1}", skip=skip)
    apart = (np.abs(joints - cameras.flip_y(xyz)) > _AGREE_MM).any((1, 2))
    # A handful of slips is the annotators' business; more means another camera or y sign.
    if apart.mean() > 0.01:
        raise InputError(
            f"{path}: joint_uvd and joint_xyz (y up) disagree by more than {_AGREE_MM:g} mm in "
            f"{apart.sum()} of {len(apart)} frames, the first is frame {int(np.argmax(apart)) + 1}"
        )
    if apart.any():
        log.warning("%s: joint_uvd and joint_xyz disagree in %d frames", path, apart.sum())
    return joints.astype(np.float32)


def read_points(path: Path, view: int = 1) -> Float[np.ndarray, "N 36 3"]:
    """All labelled points of one camera from a `joint_data.mat`, mm, y down; NaN where missing.

    Raises:
      InputError: the file is unreadable, or its arrays have another shape.
    """
    uvd = _load(path)[0][view - 1]
    joints = np.asarray(uvd_to_xyz(uvd, cameras.NYU.intrinsics.astype(np.float64)))
    seen = np.isfinite(joints).all(-1, keepdims=True) & (uvd[..., 2:] > 0)
    return np.where(seen, joints, np.nan).astype(np.float32)


def _load(path: Path) -> tuple[Float[np.ndarray, "3 N 36 3"], Float[np.ndarray, "3 N 36 3"]]:
    """`joint_uvd` and `joint_xyz` of all cameras."""
    uvd, xyz = read_variables(path, "joint_uvd", "joint_xyz")
    for name, labels in (("joint_uvd", uvd), ("joint_xyz", xyz)):
        if labels.ndim != 4 or labels.shape[0] != 3 or labels.shape[2:] != (36, 3):
            raise InputError(f"{path}: {name} is {labels.shape}, expected (3, frames, 36, 3)")
    if uvd.shape != xyz.shape:
        raise InputError(f"{path}: joint_uvd is {uvd.shape} but joint_xyz {xyz.shape}")
    return uvd, xyz


def _frame_name(view: int, index: int) -> str:
    return f"depth_{view}_{index + 1:07d}.png"
