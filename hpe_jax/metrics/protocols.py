"""How the field scores NYU, ICVL and MSRA15: cameras, frames, joints, subjects.

The cameras are the rounded ones with which the published tables were made; a prediction file
scored with another one gives another number (ICVL: 240.99 against 241.42 is 0.1 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import NYU_COLUMNS, SKELETONS, Skeleton
from hpe_jax.metrics.files import Format, JointFile, read_joints


@dataclass(frozen=True)
class Protocol:
    """One data set's way of scoring.

    Attributes:
      name: key into `PROTOCOLS`.
      camera: fx, fy, cx, cy of the published tables, all positive (y down).
      skeleton: the scored joints, in file order.
      parts: name and number of frames of each subject or sequence, in file order.
      columns: scored joints by the number of joints a file may hold.
    """

    name: str
    camera: tuple[float, float, float, float]
    skeleton: Skeleton
    parts: tuple[tuple[str, int], ...]
    columns: dict[int, tuple[int, ...]]

    @property
    def frames(self) -> int:
        """Number of frames of the published test split."""
        return sum(count for _, count in self.parts)

    def slices(self, frames: int) -> dict[str, slice]:
        """Where each part lies; empty if `frames` are not the published test split."""
        if frames != self.frames:
            return {}
        ends = list(accumulate(count for _, count in self.parts))
        return {
            name: slice(end - count, end)
            for (name, count), end in zip(self.parts, ends, strict=True)
        }

    def read(self, path: str | Path, form: Format = "uvd") -> JointFile:
        """Read a file of this data set, keeping the scored joints."""
        read = read_joints(path, tuple(self.columns), form)
        return JointFile(
            read.path, read.values[:, list(self.columns[read.values.shape[1]])], read.names
        )


def _protocol(
    name: str, parts: tuple[tuple[str, int], ...], more: dict[int, tuple[int, ...]] | None = None
) -> Protocol:
    skeleton = SKELETONS[name]
    spec = cameras.CAMERAS[name]
    columns = {len(skeleton): tuple(range(len(skeleton))), **(more or {})}
    return Protocol(name, (spec.fx, spec.fy, spec.cx, spec.cy), skeleton, parts, columns)


# The second NYU subject is not in the training set, and about twice as hard for every method.
# MSRA15 has nine subjects, each tested with a model that was trained on the other eight.
_MSRA_FRAMES = (8499, 8492, 8412, 8488, 8500, 8497, 8497, 8498, 8492)
PROTOCOLS = {
    "nyu": _protocol("nyu", (("subject_1", 2440), ("subject_2", 5812)), {36: NYU_COLUMNS}),
    "icvl": _protocol("icvl", (("test_seq_1", 702), ("test_seq_2", 894))),
    "msra": _protocol("msra", tuple((f"P{i}", n) for i, n in enumerate(_MSRA_FRAMES))),
}


def to_xyz(
    values: Float[np.ndarray, "N J 3"],
    camera: tuple[float, float, float, float],
    form: Format,
) -> Float[np.ndarray, "N J 3"]:
    """File values to camera space, y down, mm.

    Args:
      values: (u, v, depth) or (x, y, z).
      camera: fx, fy, cx, cy. The sign of fy is a convention about xyz only: negative means that
        the numbers have y up (NYU as shipped: v = cy - |fy| y / z). Pixels have no such choice.
      form: what `values` are.
    """
    fx, fy, cx, cy = camera
    values = np.asarray(values, np.float64)
    if form == "xyz":
        return np.asarray(cameras.flip_y(values)) if fy < 0 else values
    return np.asarray(cameras.uvd_to_xyz(values, np.array([fx, abs(fy), cx, cy])))


def to_uvd(
    xyz: Float[np.ndarray, "N J 3"], camera: tuple[float, float, float, float] | np.ndarray
) -> Float[np.ndarray, "N J 3"]:
    """Camera space, y down, mm, to the (u, v, depth) of prediction files."""
    fx, fy, cx, cy = (float(c) for c in camera)
    xyz = np.asarray(xyz, np.float64)
    return np.asarray(cameras.xyz_to_uvd(xyz, np.array([fx, abs(fy), cx, cy])))


def read_groundtruth(protocol: Protocol, paths: list[str], form: Format = "uvd") -> JointFile:
    """Ground truth from one file, or several that follow each other (ICVL).

    Raises:
      InputError: some files name their frames and others do not, a joint is not in front of the
        camera, or frames are named after another part of the published split than the one that
        they stand in.
    """
    files = [protocol.read(path, form) for path in paths]
    if len({file.names is None for file in files}) > 1:
        raise InputError(
            f"{paths[0]}: ground truth files with and without frame names, expected one kind"
        )
    for file in files:
        behind = (file.values[..., 2] <= 0).any(1)
        if behind.any():
            raise InputError(
                f"{file.path}: frame {int(np.argmax(behind))} has a joint that is not in front of "
                "the camera, expected positive depths (z forward)"
            )
    names = None if files[0].names is None else [n for f in files for n in f.names or ()]
    for part, where in protocol.slices(len(names or ())).items():
        for name in (names or [])[where]:
            other = Path(name).parts[0]
            if other != part and other in dict(protocol.parts):
                raise InputError(
                    f"{','.join(paths)}: frame {name} stands where {part} belongs, expected the "
                    f"order {', '.join(dict(protocol.parts))}"
                )
    return JointFile(",".join(paths), np.concatenate([file.values for file in files]), names)


def check_same_frames(predictions: JointFile, truth: JointFile) -> None:
    """Refuse predictions of other frames than the ground truth's.

    Raises:
      InputError: another number of frames, or, where both files name their frames, other names.
    """
    have, want = len(predictions.values), len(truth.values)
    if have != want:
        raise InputError(f"{predictions.path}: {have} frames, expected {want} as in {truth.path}")
    if predictions.names is None or truth.names is None:
        return
    for i, (mine, theirs) in enumerate(zip(predictions.names, truth.names, strict=True)):
        if mine != theirs:
            raise InputError(
                f"{predictions.path}: frame {i + 1} is named {mine}, expected {theirs} as in "
                f"{truth.path}"
            )
