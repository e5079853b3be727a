"""What all recorded data sets do alike: centres, jitter, patches, skipping, reading in threads.

A data set's own file knows its layout and fills in a `Recording`; `recorded_source` makes a
`Source` of it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Float

from hpe_jax.camera import CameraSpec, flip_y
from hpe_jax.datasets.centres import centre_path, read_centres
from hpe_jax.datasets.patches import (
    empty_cube,
    find_hand,
    hand_patch,
    outside_frame,
    whole_frame,
)
from hpe_jax.errors import InputError
from hpe_jax.frames import Source, centre_noise, content_hash
from hpe_jax.hand.skeletons import SKELETONS

CENTRES = ("gt", "com", "file")

_MAX_SKIPS = 1000
_TOLD = 20  # unusable frames that are named; of more, every thousandth
_THREADS = min(16, 2 * (os.cpu_count() or 1))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """The frames of one split as a data set stores them.

    Attributes:
      name: of the source, printed on every result.
      skeleton: key into `hand.skeletons.SKELETONS`.
      camera: of the whole frames.
      frames: N files, for messages.
      read: depth (mm, 0 = no reading) of frame i, the whole frame.
      joints: (N, J, 3) mm, y down.
      joint_valid: (N, J); False entries are neither trained on nor scored.
      cube: (N,) mm, edge of each frame's hand cube.
      centres_y_up: whether the data set's published centre files count y up.
      listed: of frames that are part of a longer published list, which of that list they are;
        a centre file may have a line for each frame of the list.
    """

    name: str
    skeleton: str
    camera: CameraSpec
    frames: Sequence[Path]
    read: Callable[[int], Float[np.ndarray, "H W"]]
    joints: Float[np.ndarray, "N J 3"]
    joint_valid: Bool[np.ndarray, "N J"]
    cube: Float[np.ndarray, " N"]
    centres_y_up: bool
    listed: Bool[np.ndarray, " M"] | None = None


def recorded_source(data: Any, split: str, seed: int, recording: Recording) -> Source:
    """A `Source` of recorded frames.

    Args:
      data: the config's `data` section. Used here: `centre` ("gt", the mean of the joints;
        "com", `kernels.localise` on the whole frame; "file", with `centre_file`, in which
        "{split}" is replaced by the split's name, y as published), `patch`, `extent_mm`,
        `centre_jitter_mm`, `skip_unreadable` (in training the next usable frame replaces an
        unusable one, and joints whose labels are unusable are left out), `stand_in` (default
        False; in a test the frame before it is looked at instead, which still counts).
      split: "train" or "test". Only training centres are jittered.
      seed: with an example's number (see `frames`), decides that example's jitter.
      recording: the frames.

    Raises:
      InputError: no frame, labels of other shapes or not in front of the camera, or centres that
        cannot be had. A frame that cannot be used raises it from `load`, unless another may
        replace it; `Source.skipped` collects those.
    """
    if not recording.frames:
        raise InputError(f"data.root={data.root}: holds no frame of the {split} split")
    _check(recording)
    examples = _Examples(data, split, seed, recording)
    labels = (recording.joints, recording.joint_valid, recording.cube)
    files = {"data.root": content_hash(*(array.tobytes() for array in labels))}
    if data.centre == "file":
        files["data.centre_file"] = content_hash(centre_path(data, split))
    return Source(
        name=recording.name,
        split=split,
        size=len(recording.frames),
        centre=data.centre,
        skeleton=recording.skeleton,
        camera=recording.camera.intrinsics,
        load=examples.load,
        expand=lambda loaded: loaded,
        centres_y_up=recording.centres_y_up,
        skipped=examples.skipped,
        files=files,
    )


def replacing(data: Any, split: str) -> tuple[str, bool]:
    """The option that lets another frame stand in for an unusable one, and whether it is on."""
    option = "skip_unreadable" if split == "train" else "stand_in"
    return option, bool(data.get(option, False))


def check_names(
    folder: Path, pattern: str, found: set[str], names: list[str], of: str, gaps: bool
) -> None:
    """Compare the frames that are there with those that the labels are of.

    Args:
      folder, pattern: where and how `found` were found, for messages.
      names: one for each `of`.
      gaps: whether some may be missing; reading one of these raises.

    Raises:
      InputError: one is missing, or there is one that nobody expects.
    """
    extra = sorted(found.difference(names))
    missing = next((name for name in names if name not in found), None)
    if not extra and (gaps or missing is None):
        return
    told = f"first not expected: {extra[0]}" if extra else ""
    if missing:
        told = (
            f"first missing: {missing} (with data.skip_unreadable=True in training and "
            f"data.stand_in=True in a test others stand in){'; ' if extra else ''}{told}"
        )
    raise InputError(
        f"{folder}: {len(found)} frames {pattern}, expected {len(names)}, one for each {of}; {told}"
    )


def _check(recording: Recording) -> None:
    """InputError unless every frame has labels that can be trained on."""
    count, joints = len(recording.frames), len(SKELETONS[recording.skeleton])
    for name, shape in (
        ("joints", (count, joints, 3)),
        ("joint_valid", (count, joints)),
        ("cube", (count,)),
    ):
        found = getattr(recording, name).shape
        if found != shape:
            raise InputError(
                f"data set {recording.name}: {name} of shape {found}, expected {shape} for {count} "
                f"frames of the skeleton {recording.skeleton!r}"
            )
    good = np.isfinite(recording.joints).all(-1) & (recording.joints[..., 2] > 0)
    bad = (recording.joint_valid & ~good).any(1)
    if bad.any():
        raise InputError(
            f"{recording.frames[int(np.argmax(bad))]}: a joint that counts as labelled is not in "
            "front of the camera"
        )
    if not recording.joint_valid.any():
        raise InputError(
            f"data set {recording.name}: no joint of its {count} frames from "
            f"{recording.frames[0]} on is labelled, expected some"
        )


def _check_centres(path: Path, centres: Float[np.ndarray, "N 3"], recording: Recording) -> None:
    """InputError if most centres of a file are not at the labelled hands."""
    labels = np.where(recording.joint_valid[..., None], recording.joints, np.nan)
    labelled = recording.joint_valid.any(1)
    means, centres = np.nanmean(labels[labelled], 1), centres[labelled]

    def apart(centres: np.ndarray) -> float:
        distance = np.linalg.norm(centres - means, axis=-1)
        distance = distance[np.isfinite(distance)]
        return float(np.median(distance)) if len(distance) else 0.0

    away, cube = apart(centres), float(np.median(recording.cube))
    flipped = apart(flip_y(centres))
    # Hands in the middle of the picture are near with either sign.
    if not (away > cube or (away > cube / 10 and flipped < away / 2)):
        return
    up = "up" if recording.centres_y_up else "down"
    reason = f"expected mm in camera space, y {up} as published for {recording.name}"
    if flipped < cube:
        reason += "; they fit with the other sign of y"
    elif apart(1000.0 * centres) < cube:
        reason += "; they fit if they are metres"
    raise InputError(
        f"{path}: its centres lie {away:,.0f} mm from the labelled hands (median); {reason}"
    )


class _Examples:
    """The examples of a split; `load` reads any of them through grain's reader threads."""

    def __init__(self, data: Any, split: str, seed: int, recording: Recording):
        self.patch_px, self.extent_mm = int(data.patch), float(data.extent_mm)
        self.whole = bool(data.get("whole", False))
        self.training = split == "train"
        self.jitter_mm = float(data.centre_jitter_mm) if self.training else 0.0
        self.option, self.replace = replacing(data, split)
        self.seed, self.recording, self.frames = seed, recording, recording.frames
        self.camera = recording.camera.intrinsics
        self.centre = self._centre_source(data, split)
        self.centre_name = centre_path(data, split) if data.centre == "file" else data.centre
        self.skipped: set[int] = set()
        self.warned = False  # by `compare`
        self.lock = threading.Lock()  # grain reads from several threads

    def _centre_source(
        self, data: Any, split: str
    ) -> Callable[[int, np.ndarray], Float[np.ndarray, "3"]]:
        joints, valid = self.recording.joints, self.recording.joint_valid
        if data.centre == "gt":

            def from_labels(i: int, depth: np.ndarray) -> np.ndarray:
                if not valid[i].any():
                    raise InputError(f"{self.frames[i]}: no joint is labelled, so no mean of them")
                return joints[i][valid[i]].mean(0)

            return from_labels
        if data.centre == "file":
            path = Path(centre_path(data, split))
            y_up, listed = self.recording.centres_y_up, self.recording.listed
            counts = [len(self.frames), *([] if listed is None else [len(listed)])]
            centres = read_centres(path, y_up=y_up, frames=counts, camera=self.camera)
            if listed is not None and len(centres) == len(listed):
                centres = centres[listed]
            _check_centres(path, centres, self.recording)
            missing = np.flatnonzero(np.isnan(centres).any(1) & valid.any(1))
            if len(missing) and not self.replace:  # Now, and not after an hour of training.
                raise InputError(
                    f"{path}: no centre for {self.frames[missing[0]]}, the first of {len(missing)} "
                    f"such frames; data.{self.option}=True lets others stand in"
                )

            def from_file(i: int, depth: np.ndarray) -> np.ndarray:
                if np.isnan(centres[i]).any():
                    raise InputError(f"{path}: no centre for {self.frames[i]}")
                return centres[i]

            return from_file
        if data.centre == "com":
            found = np.full((len(self.frames), 3), np.nan, np.float32)

            def from_depth(i: int, depth: np.ndarray) -> np.ndarray:
                # Found once; two threads that both look find the same.
                if np.isnan(found[i]).any():
                    centre = find_hand(depth, self.camera)
                    if centre is None:
                        raise InputError(f"{self.frames[i]}: no hand found in this frame")
                    found[i] = centre
                return found[i]

            return from_depth
        raise InputError(f"data.centre={data.centre}: expected one of {', '.join(CENTRES)}")

    def patch(self, number: int) -> dict[str, np.ndarray]:
        """One example without its labels; InputError naming the frame if it cannot be used."""
        index = number % len(self.frames)
        cube = self.recording.cube[index]
        depth = self.recording.read(index)
        size = (self.recording.camera.height, self.recording.camera.width)
        if depth.shape != size:
            raise InputError(f"{self.frames[index]}: {depth.shape} pixels, expected {size}")
        centre = np.asarray(self.centre(index, depth), np.float32)
        self.compare(index, centre)
        if outside_frame(centre, self.camera, depth.shape):
            raise InputError(
                f"{self.frames[index]}: its centre {np.round(centre).tolist()} mm "
                f"({self.centre_name}) is outside the frame"
            )
        if self.jitter_mm:
            # A resumed run sees the same centre, another epoch another one.
            centre = centre + centre_noise(self.jitter_mm, self.seed, number)
        if self.whole:
            return whole_frame(depth, centre, self.camera) | {"cube": cube}
        example = hand_patch(
            depth, centre, self.camera, patch=self.patch_px, extent_mm=self.extent_mm
        )
        if empty_cube(example, float(cube)):
            raise InputError(
                f"{self.frames[index]}: empty crop, no reading within "
                f"{cube:g} mm about the {np.round(centre).tolist()} mm centre"
            )
        return example | {"cube": cube}

    def compare(self, index: int, centre: np.ndarray) -> None:
        """Warn, once, of labels that lie elsewhere than the hand: in other units or axes?"""
        valid = self.recording.joint_valid[index]
        if self.warned or not valid.any():
            return
        apart = np.linalg.norm(self.recording.joints[index][valid].mean(0) - centre)
        if apart <= self.recording.cube[index]:
            return
        with self.lock:
            first, self.warned = not self.warned, True
        if first:
            log.warning(
                "%s: its joints lie %.0f mm from the hand's centre (%s), expected mm in camera "
                "space, y down (said once)",
                *(self.frames[index], apart, self.centre_name),
            )

    def read(self, number: int) -> dict[str, np.ndarray]:
        """One example; InputError naming the frame if it cannot be used."""
        labels = self.labels(number % len(self.frames))
        return self.patch(number) | labels

    def labels(self, index: int) -> dict[str, np.ndarray]:
        valid = self.recording.joint_valid[index]
        if self.training and not valid.any():  # In a test it counts nowhere.
            raise InputError(f"{self.frames[index]}: no usable joint is labelled in this frame")
        return {"joints": self.recording.joints[index], "joint_valid": valid}

    def read_or_other(self, number: int) -> dict[str, np.ndarray]:
        """Like `read`; where that is allowed, another frame is used for an unusable one.

        In training the next usable frame takes its place, labels and all. In a test every label
        counts: there the last usable frame before it (after it, for the first) is looked at.
        """
        count = len(self.frames)
        epoch, index = divmod(number, count)
        attempts = min(_MAX_SKIPS, count)
        for attempt in range(attempts):
            candidate = (index + attempt if self.training else abs(index - attempt)) % count
            try:
                if self.training:
                    return self.read(epoch * count + candidate)
                return self.patch(candidate) | self.labels(index)
            except InputError as error:
                if not self.replace:
                    raise InputError(
                        f"{error}; data.{self.option}=True lets another frame stand in"
                    ) from error
                with self.lock:
                    new = candidate not in self.skipped
                    self.skipped.add(candidate)
                    so_far = len(self.skipped)
                if new and (so_far <= _TOLD or so_far % 1000 == 0):
                    rest = "; of others every thousandth is told" if so_far == _TOLD else ""
                    log.warning("skipped %s (%d frames skipped so far%s)", error, so_far, rest)
        raise InputError(f"{self.frames[index]}: {attempts} unusable frames in a row")

    def load(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`Source.load`: the examples of these numbers, stacked along a leading axis."""
        wanted = [int(i) for i in indices]
        options = grain.ReadOptions(
            num_threads=min(_THREADS, len(wanted)), prefetch_buffer_size=max(1, len(wanted))
        )
        examples = (
            grain.MapDataset.source(wanted)
            .map(self.read_or_other)
            .to_iter_dataset(options)
            .batch(len(wanted), batch_fn=stacked)
        )
        return next(iter(examples))


def stacked(examples: Any) -> dict[str, np.ndarray]:
    """A batch of examples."""
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}
