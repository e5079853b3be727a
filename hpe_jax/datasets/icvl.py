"""The ICVL hand data set (Tang et al. 2014), read as it is published.

Layout, below the root:

    Training/labels.txt      Training/Depth/SESSION/image_NNNN.png
    Testing/test_seq_1.txt   Testing/Depth/test_seq_1/image_NNNN.png    and the same for 2

A line of a label file is a path below `Depth/` and 16 times u, v, d (pixels, pixels, mm), y
down. Depth is a 16-bit PNG in mm, 0 where there is none. Besides some 22,000 recorded frames,
in sessions named by a date such as 201403121135, `Training` holds them rotated in the image
in folders with short names such as `-90`: 331,006 in all. Of those only the recorded ones are
used unless `data.rotated` asks for all.

Hands are left ones in the sense of `hpe_jax.camera`, and stay so; their labels are the middles of
bones, those called tips too.

Some training images are missing in the published archives: `data.skip_unreadable` replaces
those, and counts them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.camera import uvd_to_xyz
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.datasets.labels import leave_out_bad
from hpe_jax.datasets.recorded import Recording, recorded_source, replacing
from hpe_jax.errors import InputError
from hpe_jax.frames import Source

FOLDERS = {"train": "Training", "test": "Testing"}
LABELS = {"train": ("labels.txt",), "test": ("test_seq_1.txt", "test_seq_2.txt")}
JOINTS = 16

# Rotated copies lie in folders with names of at most so many characters.
_SHORT = 6


def make_source(data: Any, split: str, seed: int) -> Source:
    """ICVL as a `Source`.

    Args:
      data: the config's `data` section. Used here: `root`, `cube_mm`, `rotated` (default
        False), and what `recorded.recorded_source` uses.
      split: "train" or "test".
      seed: of the jitter of training centres.

    Raises:
      InputError: label files that are missing, not where they are expected, or wrong, or images
        that are missing and may not be skipped. A frame that cannot be used raises it from
        `load`, unless it may be skipped.
    """
    folder = find_split(data.root, split)
    option, gaps = replacing(data, split)
    skip = gaps and split == "train"
    names: list[Path] = []
    labels: list[np.ndarray] = []
    for name in LABELS[split]:
        paths, uvd = read_labels(folder / name, skip=skip)
        names += paths
        labels.append(uvd)
    uvd = np.concatenate(labels)
    listed = None
    if split == "train" and not data.get("rotated", False):
        listed = np.array([len(f.parts[0]) > _SHORT for f in names])
        names = [f for f, keep in zip(names, listed, strict=True) if keep]
        uvd = uvd[listed]
        if not names:
            raise InputError(
                f"{folder / LABELS[split][0]}: all frames lie in folders with short names, as "
                "rotated copies do, expected some in dated ones; data.rotated=True takes all"
            )
    frames = [folder / "Depth" / name for name in names]
    if not gaps:
        _check_there(frames, option)
    camera = cameras.ICVL.intrinsics.astype(np.float64)
    joints = np.asarray(uvd_to_xyz(uvd, camera), np.float32)
    size = (cameras.ICVL.height, cameras.ICVL.width)
    recording = Recording(
        name="icvl",
        skeleton="icvl",
        camera=cameras.ICVL,
        frames=frames,
        read=lambda i: read_depth(frames[i], size=size),
        joints=joints,
        joint_valid=np.all(np.isfinite(joints), -1),
        cube=np.full(len(frames), data.cube_mm, np.float32),
        centres_y_up=False,
        listed=listed,
    )
    return recorded_source(data, split, seed, recording)


def find_split(root: str | Path, split: str) -> Path:
    """The folder of one split; InputError with what was expected where if there is none."""
    folder = Path(root) / FOLDERS[split]
    missing = [str(folder / name) for name in LABELS[split] if not (folder / name).is_file()]
    if not (folder / "Depth").is_dir():
        missing.append(f"{folder / 'Depth'}/")
    if missing:
        raise InputError(
            f"data.root={root}: not the ICVL data set; expected {' and '.join(missing)} "
            "(a root holds Training/ and Testing/)"
        )
    return folder


def _check_there(frames: list[Path], option: str) -> None:
    """InputError now, and not hours later, if an image is missing."""
    there = {f: set(os.listdir(f)) if f.is_dir() else set() for f in {p.parent for p in frames}}
    missing = [path for path in frames if path.name not in there[path.parent]]
    if missing:
        raise InputError(
            f"{missing[0]}: no such depth frame, the first of {len(missing)} missing ones of the "
            f"{len(frames)} that the labels name; data.{option}=True lets others stand in"
        )


def read_labels(
    path: Path, *, skip: bool = False
) -> tuple[list[Path], Float[np.ndarray, "N 16 3"]]:
    """Frames (relative paths) and uvd labels (pixels, pixels, mm) of a label file.

    With `skip`, joints that are not finite numbers with a positive depth are NaN.

    Raises:
      InputError: the file is unreadable or empty, or a line is not a path and 48 finite numbers
        with positive depths.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text file of labels") from error
    paths: list[Path] = []
    rows: list[np.ndarray] = []
    numbers: list[int] = []
    for i, line in enumerate(lines):
        words = line.split()
        if not words:
            continue  # The published files have blank lines.
        try:
            row = np.array([float(word) for word in words[1:]])
        except ValueError:
            row = np.empty(0)
        if row.shape != (3 * JOINTS,) or Path(words[0]).is_absolute():
            raise InputError(
                f"{path}: line {i + 1}: expected a relative path and {JOINTS} times u, v, d, "
                f"found {line[:60]!r}"
            )
        paths.append(Path(words[0]))
        rows.append(row)
        numbers.append(i + 1)
    if not rows:
        raise InputError(f"{path}: holds no label")
    uvd = np.stack(rows).reshape(-1, JOINTS, 3)
    good = np.isfinite(uvd).all(-1) & (uvd[..., 2] > 0)
    return paths, leave_out_bad(uvd, good, path, lambda i: f"line {numbers[i]}", skip=skip)
