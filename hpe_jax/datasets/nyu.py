"""The NYU hand data set (Tompson et al. 2014), read as it is published.

Layout, below a root that may also be the folder holding `dataset/`:

    {train,test}/depth_{1,2,3}_{1-based, 7 digits}.png    green * 256 + blue mm, 2001 = nothing
    {train,test}/joint_data.mat                           joint_uvd, joint_xyz (3, N, 36, 3)

Only the files of one camera (`data.view`, 1 is the frontal one that everybody evaluates) are
read. Of the 36 joints the 14 evaluation joints are kept, in their usual order. The labels'
xyz count y up; joints are taken from the uvd labels with the constants of `camera.NYU`, with
which the field's tables are computed, after checking that both kinds of label agree.

Test frames from 2,440 on show a second subject, unseen in training and smaller: the hand's
cube is 5/6 of the configured one there.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.camera import uvd_to_xyz
from hpe_jax.datasets.centres import read_centres
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.datasets.patches import empty_cube, find_hand, hand_patch, outside_frame
from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.hand.skeletons import NYU_COLUMNS

SECOND_SUBJECT = 2440
SECOND_SUBJECT_CUBE = 5 / 6
CENTRES = ("gt", "com", "file")

# uvd and xyz labels differ by the rounding of the constants (0.05 mm); a flipped axis or
# another camera's labels differ by centimetres.
_AGREE_MM = 2.0
_MAX_SKIPS = 1000
_THREADS = min(16, 2 * (os.cpu_count() or 1))

log = logging.getLogger(__name__)


def make_source(data: Any, split: str, seed: int) -> Source:
    """NYU as a `Source`.

    Args:
      data: the config's `data` section. Used here: `root`, `centre` ("gt", the mean of the
        14 joints; "com", `kernels.localise` on the whole frame; "file", with `centre_file`,
        in which "{split}" is replaced by the split's name, y up as published), `cube_mm`,
        `patch`, `extent_mm`, `centre_jitter_mm`, `skip_unreadable`, `view` (default 1).
      split: "train" or "test". Only training centres are jittered, and only training frames
        may be skipped.
      seed: with an example's number (see `frames`), decides that example's jitter.

    Raises:
      InputError: data that is missing, not where it is expected, or inconsistent. A frame
        that cannot be used raises it from `load`, unless it may be skipped.
    """
    view = int(data.get("view", 1))
    folder = find_split(data.root, split, view)
    joints = read_labels(folder / "joint_data.mat", view)
    frames = list_split(folder, view, len(joints))
    examples = _Examples(data, split, seed, frames, joints)
    name = "nyu" if view == 1 else f"nyu-view{view}"
    return Source(
        name=name,
        split=split,
        size=len(frames),
        centre=data.centre,
        skeleton="nyu",
        camera=cameras.NYU.intrinsics,
        load=examples.load,
        expand=lambda loaded: loaded,
        skipped=examples.skipped,
    )


def find_split(root: str | Path, split: str, view: int = 1) -> Path:
    """The folder of one split; InputError with what was expected where if there is none."""
    if view not in (1, 2, 3):
        raise InputError(f"data.view={view}: NYU has the cameras 1, 2 and 3")
    roots = [Path(root), Path(root) / "dataset"]
    wanted = ["joint_data.mat", _frame_name(view, 0)]
    for candidate in roots:
        if all((candidate / split / name).is_file() for name in wanted):
            return candidate / split
    missing = [roots[0] / split / n for n in wanted if not (roots[0] / split / n).is_file()]
    if roots[1].is_dir():
        missing = [roots[1] / split / n for n in wanted if not (roots[1] / split / n).is_file()]
    raise InputError(
        f"data.root={root}: not the NYU data set; expected {' and '.join(map(str, missing))} "
        f"(a root holds train/ and test/, or dataset/train/ and dataset/test/)"
    )


def list_split(folder: Path, view: int, labels: int) -> list[Path]:
    """The frames of one camera, in order; InputError unless they are 1..`labels`."""
    prefix = f"depth_{view}_"
    with os.scandir(folder) as entries:
        found = {e.name for e in entries if e.name.startswith(prefix) and e.name.endswith(".png")}
    names = [_frame_name(view, i) for i in range(labels)]
    missing = next((name for name in names if name not in found), None)
    if len(found) != labels or missing is not None:
        raise InputError(
            f"{folder}: {len(found)} frames {prefix}*.png, expected {labels}, one for each row "
            f"of joint_data.mat" + (f" (first missing: {missing})" if missing else "")
        )
    return [folder / name for name in names]


def read_labels(path: Path, view: int = 1) -> Float[np.ndarray, "N 14 3"]:
    """The 14 evaluation joints of one camera from a `joint_data.mat`, mm, y down.

    Raises:
      InputError: the file is unreadable, its arrays have another shape, a label is not a
        finite number or lies behind the camera, or joint_uvd and joint_xyz disagree.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["joint_uvd", "joint_xyz"])
        uvd, xyz = content["joint_uvd"], content["joint_xyz"]
    except KeyError as error:
        raise InputError(f"{path}: expected the variables joint_uvd and joint_xyz") from error
    except Exception as error:  # scipy raises whatever the broken bytes lead it to
        raise InputError(
            f"{path}: unreadable, expected a MATLAB file with joint_uvd and joint_xyz "
            f"({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    for name, labels in (("joint_uvd", uvd), ("joint_xyz", xyz)):
        if labels.ndim != 4 or labels.shape[0] != 3 or labels.shape[2:] != (36, 3):
            raise InputError(f"{path}: {name} is {labels.shape}, expected (3, frames, 36, 3)")
    if uvd.shape != xyz.shape:
        raise InputError(f"{path}: joint_uvd is {uvd.shape} but joint_xyz {xyz.shape}")
    uvd = uvd[view - 1][:, list(NYU_COLUMNS)].astype(np.float64)
    xyz = xyz[view - 1][:, list(NYU_COLUMNS)].astype(np.float64)
    for name, labels in (("joint_uvd", uvd), ("joint_xyz", xyz)):
        bad = ~np.isfinite(labels).all((1, 2)) | (labels[..., 2] <= 0).any(1)
        if bad.any():
            raise InputError(
                f"{path}: {name}: {bad.sum()} frames with a joint that is NaN or not in front of "
                f"the camera, the first is frame {int(np.argmax(bad)) + 1}"
            )
    joints = np.asarray(uvd_to_xyz(uvd, cameras.NYU.intrinsics.astype(np.float64)))
    apart = np.abs(joints - cameras.flip_y(xyz)).max((1, 2)) > _AGREE_MM
    # A handful of slips is the annotators' business; more means another camera or y sign.
    if apart.mean() > 0.01:
        raise InputError(
            f"{path}: joint_uvd and joint_xyz (y up) disagree by more than {_AGREE_MM:g} mm in "
            f"{apart.sum()} of {len(apart)} frames, the first is frame {int(np.argmax(apart)) + 1}"
        )
    if apart.any():
        log.warning("%s: joint_uvd and joint_xyz disagree in %d frames", path, apart.sum())
    return joints.astype(np.float32)


class _Examples:
    """The examples of a split; `load` reads any of them through grain's reader threads."""

    def __init__(self, data: Any, split: str, seed: int, frames: list[Path], joints: np.ndarray):
        self.patch, self.extent_mm = int(data.patch), float(data.extent_mm)
        self.jitter_mm = float(data.centre_jitter_mm) if split == "train" else 0.0
        self.skip = bool(data.skip_unreadable) and split == "train"
        self.seed, self.frames, self.joints = seed, frames, joints
        self.cube = np.full(len(frames), data.cube_mm, np.float32)
        if split == "test":
            self.cube[SECOND_SUBJECT:] *= SECOND_SUBJECT_CUBE
        self.centre = self._centre_source(data, split)
        self.centre_name = str(data.centre_file if data.centre == "file" else data.centre)
        self.skipped: set[int] = set()
        self.lock = threading.Lock()  # grain reads from several threads

    def _centre_source(
        self, data: Any, split: str
    ) -> Callable[[int, np.ndarray], Float[np.ndarray, "3"]]:
        camera = cameras.NYU.intrinsics
        if data.centre == "gt":
            return lambda i, depth: self.joints[i].mean(0)
        if data.centre == "file":
            if not data.centre_file:
                raise InputError("data.centre=file: expected data.centre_file to name a file")
            path = str(data.centre_file).replace("{split}", split)
            centres = read_centres(path, y_up=True, frames=len(self.frames))

            def from_file(i: int, depth: np.ndarray) -> np.ndarray:
                if np.isnan(centres[i]).any():
                    raise InputError(f"{path}: line {i + 1}: no centre for {self.frames[i]}")
                return centres[i]

            return from_file
        if data.centre == "com":
            found = np.full((len(self.frames), 3), np.nan, np.float32)

            def from_depth(i: int, depth: np.ndarray) -> np.ndarray:
                # Found once; two threads that both look find the same.
                if np.isnan(found[i]).any():
                    centre = find_hand(depth, camera, float(self.cube[i]))
                    if centre is None:
                        raise InputError(f"{self.frames[i]}: no hand found in this frame")
                    found[i] = centre
                return found[i]

            return from_depth
        if data.centre == "refined":
            raise InputError(
                "data.centre=refined: not built yet; expected one of " + ", ".join(CENTRES)
            )
        raise InputError(f"data.centre={data.centre}: expected one of {', '.join(CENTRES)}")

    def read(self, number: int) -> dict[str, np.ndarray]:
        """One example; InputError naming the frame if it cannot be used."""
        index = number % len(self.frames)
        size = (cameras.NYU.height, cameras.NYU.width)
        depth = read_depth(self.frames[index], size=size)
        centre = np.asarray(self.centre(index, depth), np.float32)
        if outside_frame(centre, cameras.NYU.intrinsics, depth.shape):
            raise InputError(
                f"{self.frames[index]}: its centre {np.round(centre).tolist()} mm "
                f"({self.centre_name}) is outside the frame"
            )
        if self.jitter_mm:
            # By (seed, number): a resumed run sees the same centre, another epoch another one.
            noise = np.random.default_rng([self.seed, number]).normal(0, self.jitter_mm, 3)
            centre = centre + noise.astype(np.float32)
        example = hand_patch(
            depth, centre, cameras.NYU.intrinsics, patch=self.patch, extent_mm=self.extent_mm
        )
        if empty_cube(example, float(self.cube[index])):
            raise InputError(
                f"{self.frames[index]}: empty crop, no reading within "
                f"{self.cube[index]:g} mm about the {np.round(centre).tolist()} mm centre"
            )
        return example | {
            "joints": self.joints[index],
            "joint_valid": np.ones(self.joints.shape[1], bool),
            "cube": self.cube[index],
        }

    def read_or_next(self, number: int) -> dict[str, np.ndarray]:
        """Like `read`; where skipping is allowed, the next usable frame stands in."""
        epoch, index = divmod(number, len(self.frames))
        for attempt in range(_MAX_SKIPS):
            candidate = (index + attempt) % len(self.frames)
            try:
                return self.read(epoch * len(self.frames) + candidate)
            except InputError as error:
                if not self.skip:
                    raise
                with self.lock:
                    new = candidate not in self.skipped
                    self.skipped.add(candidate)
                if new:
                    log.warning("skipped %s (%d frames skipped so far)", error, len(self.skipped))
        raise InputError(f"{self.frames[index]}: {_MAX_SKIPS} unusable frames in a row")

    def load(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`Source.load`: the examples of these numbers, stacked along a leading axis."""
        wanted = [int(i) for i in indices]
        options = grain.ReadOptions(
            num_threads=min(_THREADS, len(wanted)), prefetch_buffer_size=max(1, len(wanted))
        )
        examples = (
            grain.MapDataset.source(wanted)
            .map(self.read_or_next)
            .to_iter_dataset(options)
            .batch(len(wanted), batch_fn=_stack)
        )
        return next(iter(examples))


def _stack(examples: Any) -> dict[str, np.ndarray]:
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def _frame_name(view: int, index: int) -> str:
    return f"depth_{view}_{index + 1:07d}.png"
