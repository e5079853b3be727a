"""The MSRA15 hand gesture data set (Sun et al. 2015), read as it is published.

Layout, below a root that may also be the folder holding `cvpr15_MSRAHandGestureDB/`:

    P{0..8}/GESTURE/joint.txt           the number of frames, then 63 numbers a line, mm
    P{0..8}/GESTURE/{6 digits}_depth.bin

with the 17 gestures of `GESTURES`, at most 500 frames each: 76,375 in all. A `.bin` holds six
unsigned 32-bit integers (image width, height; left, top, right, bottom of a box, half open) and
the box's float32 mm, row by row, 0 where there is none. The labels' z is negative and their y
is up.

The protocol leaves one subject out: `data.subject` is tested with what was trained on the
other eight, and the errors of all nine folds are pooled. Some frames hold no hand, or only
shreds of one; the protocol counts them, so that an unusable test frame has to be answered
somehow (`data.stand_in`, see `recorded`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.datasets.labels import leave_out_bad
from hpe_jax.datasets.recorded import Recording, check_names, recorded_source, replacing
from hpe_jax.errors import InputError
from hpe_jax.frames import Source

SUBJECTS = 9
GESTURES = (*"123456789", "I", "IP", "L", "MP", "RP", "T", "TIP", "Y")
JOINTS = 21

# Edges in mm of the cubes that hold each subject's hand (Oberweger and Lepetit 2017), as shares
# of the largest.
CUBES = np.array([200, 200, 200, 180, 180, 180, 170, 160, 150], np.float32) / 200

_HEADER = np.dtype("<u4")
_DEPTH = np.dtype("<f4")


def make_source(data: Any, split: str, seed: int) -> Source:
    """MSRA15 as a `Source`.

    Args:
      data: the config's `data` section. Used here: `root`, `cube_mm` (of the largest hands;
        `CUBES` scales it, unless `cube_by_subject` is off), `subject` (default 0), the one that is
        left out, and what `recorded.recorded_source` uses.
      split: "train", the other eight subjects, or "test".
      seed: of the jitter of training centres.

    Raises:
      InputError: a subject, gesture or frame that is missing, or labels that are wrong. A frame
        that cannot be used raises it from `load`, unless another one may stand in.
    """
    left_out = int(data.get("subject", 0))
    if not 0 <= left_out < SUBJECTS:
        raise InputError(f"data.subject={left_out}: MSRA15 has the subjects 0 to {SUBJECTS - 1}")
    subjects = [s for s in range(SUBJECTS) if (s == left_out) == (split == "test")]
    root = find_root(data.root, subjects)
    gaps = replacing(data, split)[1]  # A frame that is not there is skipped like a torn one.
    frames: list[Path] = []
    labels: list[np.ndarray] = []
    cube: list[np.ndarray] = []
    for subject in subjects:
        for gesture in GESTURES:
            folder = root / f"P{subject}" / gesture
            joints = read_labels(folder / "joint.txt", skip=gaps and split == "train")
            frames += list_frames(folder, len(joints), gaps=gaps)
            labels.append(joints)
            share = CUBES[subject] if data.get("cube_by_subject", True) else 1.0
            cube.append(np.full(len(joints), data.cube_mm * share, np.float32))
    joints = np.concatenate(labels)
    recording = Recording(
        name="msra",
        skeleton="msra",
        camera=cameras.MSRA,
        frames=frames,
        read=lambda i: read_frame(frames[i]),
        joints=joints,
        joint_valid=np.all(np.isfinite(joints), -1),
        cube=np.concatenate(cube),
        centres_y_up=True,
    )
    return recorded_source(data, split, seed, recording)


def find_root(root: str | Path, subjects: list[int]) -> Path:
    """The folder of the subjects; InputError naming the first gesture that is not there."""
    roots = [Path(root), Path(root) / "cvpr15_MSRAHandGestureDB"]
    base = roots[1] if roots[1].is_dir() else roots[0]
    for subject in subjects:
        for gesture in GESTURES:
            if not (base / f"P{subject}" / gesture / "joint.txt").is_file():
                raise InputError(
                    f"data.root={root}: expected {base}/P{subject}/{gesture}/joint.txt "
                    f"(MSRA15 holds the subjects P0 to P8 with {len(GESTURES)} gestures each)"
                )
    return base


def list_frames(folder: Path, labels: int, *, gaps: bool = False) -> list[Path]:
    """A gesture's frames in order; `recorded.check_names` says which errors there are."""
    found = {path.name for path in folder.glob("[!.]*_depth.bin")}
    names = [f"{i:06d}_depth.bin" for i in range(labels)]
    check_names(folder, "*_depth.bin", found, names, "line of joint.txt", gaps)
    return [folder / name for name in names]


def read_labels(path: Path, *, skip: bool = False) -> Float[np.ndarray, "N 21 3"]:
    """The joints of a `joint.txt`, mm, y down.

    With `skip`, joints that are not finite numbers with a negative z are NaN.

    Raises:
      InputError: the file is unreadable, its first line is not the number of the others, or a
        line is not 63 finite numbers with every z negative.
    """
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text file of joints") from error
    rows = [line.split() for line in lines if line.strip()]
    if not rows or len(rows[0]) != 1 or not rows[0][0].isdigit():
        raise InputError(f"{path}: expected the number of frames in the first line")
    if len(rows) - 1 != int(rows[0][0]):
        raise InputError(
            f"{path}: {len(rows) - 1} lines of joints, expected {rows[0][0]} as the first line says"
        )
    joints = np.empty((len(rows) - 1, JOINTS, 3))
    for i, row in enumerate(rows[1:]):
        try:
            values = np.array([float(word) for word in row])
        except ValueError:
            values = np.empty(0)
        if values.shape != (3 * JOINTS,):
            raise InputError(
                f"{path}: frame {i}: expected {JOINTS} times x, y, z, found {' '.join(row)[:60]!r}"
            )
        joints[i] = values.reshape(JOINTS, 3)
    joints = joints * np.array([1.0, -1.0, -1.0])
    good = np.isfinite(joints).all(-1) & (joints[..., 2] > 0)
    joints = leave_out_bad(joints, good, path, lambda i: f"frame {i}", skip=skip)
    return joints.astype(np.float32)


def read_frame(path: Path) -> Float[np.ndarray, "240 320"]:
    """The whole depth frame of a `.bin`, mm, 0 = no reading.

    Raises:
      InputError: the file is missing or truncated, holds another image, or a box that does not
        fit into it or into the file's length.
    """
    width, height = cameras.MSRA.width, cameras.MSRA.height
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: no such depth frame, or it cannot be read") from error
    if len(content) < 24:
        raise InputError(f"{path}: {len(content)} bytes, expected a header of 24 at least")
    w, h, left, top, right, bottom = (int(n) for n in np.frombuffer(content, _HEADER, 6))
    if (w, h) != (width, height):
        raise InputError(f"{path}: the frame is {w} x {h} pixels, expected {width} x {height}")
    if not (left <= right <= width and top <= bottom <= height):
        raise InputError(
            f"{path}: its box {left}, {top}, {right}, {bottom} (left, top, right, bottom) is not "
            f"inside {width} x {height} pixels"
        )
    size = (right - left) * (bottom - top)
    if len(content) != 24 + 4 * size:
        raise InputError(
            f"{path}: {len(content)} bytes, expected {24 + 4 * size} for its box of "
            f"{right - left} x {bottom - top} pixels"
        )
    box = np.frombuffer(content, _DEPTH, size, 24).reshape(bottom - top, right - left)
    depth = np.zeros((height, width), np.float32)
    depth[top:bottom, left:right] = np.where(np.isfinite(box) & (box > 0), box, 0)
    return depth
