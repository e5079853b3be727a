"""Where a data set's labels sit on the bones of a hand.

A label is a point of one bone: some millimetres in the bone's frame (`transforms`), plus a share
of the bone's length along it, so that a tip stays a tip when bone lengths change.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hpe_jax.hand.kinematics import (
    ICVL_PALM,
    IP_BEYOND,
    PALM_LABEL,
    PIP_BEYOND,
    THUMB_MCP_BEYOND,
    WRIST_LABELS,
    HandPose,
    HandShape,
)
from hpe_jax.hand.skeletons import FINGERS, SKELETONS
from hpe_jax.hand.transforms import Bones, bone_transforms, bones_of

# NYU's palm points beyond the 14, as measured on its published labels (see `kinematics`).
NYU_PALM = {
    "palm": PALM_LABEL,
    "wrist_ulnar": WRIST_LABELS[0],
    "wrist_radial": WRIST_LABELS[1],
    "palm_ulnar": np.array([-24, 70, 11], np.float32),
    "palm_low": np.array([0, 52, -1], np.float32),
    "wrist": np.array([0, -6, -4], np.float32),
    "thumb_k1b": np.array([12, 24, 24], np.float32),
}
# Which joints span the root frame: W1, W2, C, M1 of supplement B.1. MSRA15's wrist is one point,
# so the frame opens towards the knuckles there, which swaps its sides; the 14 joints of NYU have
# no M1 (None): the direction from the wrist to the palm stands in.
ROOTS: dict[str, tuple[str, str, str, str | None]] = {
    "nyu": ("wrist_ulnar", "wrist_radial", "palm", None),
    "nyu36": ("wrist_ulnar", "wrist_radial", "palm", "middle_k1b"),
    "icvl": ("index_root", "little_root", "palm", "middle_root"),
}
_PIVOT_ROOT = ("index_mcp", "little_mcp", "wrist", "middle_mcp")


class Markers(NamedTuple):
    """A data set's labels on one subject.

    Attributes:
      bone: (J,), index of the bone (`transforms`).
      offset: (J, 3), mm in the bone's frame.
      along: (J,), share of the bone's length that is added along it.
      root: (4,), joints W1, W2, C and M1 of the root frame; M1 is -1 where there is none.
    """

    bone: Int[Array, " J"]
    offset: Float[Array, "J 3"]
    along: Float[Array, " J"]
    root: Int[Array, "4"]


class Subject(NamedTuple):
    """One subject as a data set labels it: the bones and where the labels sit on them."""

    bones: Bones
    markers: Markers


def _place(name: str, skeleton: str) -> tuple[int, float, float]:
    """Bone, offset along it (template mm) and share of its length, for a label on a finger."""
    finger, part = name.split("_")
    f = FINGERS.index(finger)
    parts = ("cmc", "mcp", "ip") if f == 4 else ("mcp", "pip", "dip")
    if skeleton == "icvl":  # the middle of a bone
        k, offset, along = ("root", "mid", "tip").index(part), 0.0, 0.5
    elif part == "tip":
        k, offset, along = 2, 0.0, 1.0
    elif skeleton in ("nyu", "nyu36"):
        k, offset, along = {
            "k3b": (2, 9.0, 0.0),
            "k2a": (1, -5.0, 1.0),
            "pip": (1, PIP_BEYOND, 0.0),
            "k1a": (0, -5.0, 1.0),
            "k1b": (0, 8.0, 0.0),
            "ip": (2, IP_BEYOND, 0.0),
            "mcp": (1, THUMB_MCP_BEYOND, 0.0),
        }[part]
    else:
        k, offset, along = parts.index(part), 0.0, 0.0
    return 1 + 3 * f + k, offset, along


def markers_of(shape: HandShape, skeleton: str) -> Markers:
    """A data set's labels on a synthetic subject: the points of `kinematics.labels`.

    Raises:
      ValueError: an unknown skeleton.
    """
    if skeleton not in SKELETONS or skeleton == "centre":
        known = ", ".join(k for k in SKELETONS if k != "centre")
        raise ValueError(f"no label definition for skeleton {skeleton!r}; known: {known}")
    names = SKELETONS[skeleton].joints
    palm: dict[str, np.ndarray] = (
        NYU_PALM
        if skeleton.startswith("nyu")
        else {"palm": ICVL_PALM, "wrist": np.zeros(3, np.float32)}
    )
    bone, offset, along = [], [], []
    for name in names:
        if name in palm:
            place, at, share = 0, shape.palm * palm[name], 0.0
        else:
            place, y, share = _place(name, skeleton)
            at = jnp.array([0.0, y, 0.0])
        bone.append(place)
        offset.append(shape.scale * at)
        along.append(share)
    root = [-1 if name is None else names.index(name) for name in ROOTS.get(skeleton, _PIVOT_ROOT)]
    return Markers(
        jnp.array(bone), jnp.stack(offset).astype(jnp.float32), jnp.array(along), jnp.array(root)
    )


@partial(jax.jit, static_argnames="skeleton")
def subject_of(shape: HandShape, skeleton: str) -> Subject:
    """A synthetic subject as a data set labels it.

    Raises:
      ValueError: an unknown skeleton.
    """
    return Subject(bones_of(shape), markers_of(shape, skeleton))


def marker_points(subject: Subject, transforms: Float[Array, "16 4 4"]) -> Float[Array, "J 3"]:
    """The labels on a posed hand, in the space of `transforms` (mm)."""
    markers = subject.markers
    lengths = jnp.concatenate([jnp.zeros(1), subject.bones.lengths.reshape(15)])
    step = (markers.along * lengths[markers.bone])[:, None] * jnp.array([0.0, 1.0, 0.0])
    on_bone = transforms[markers.bone]
    local = markers.offset + step
    return (on_bone[:, :3, :3] @ local[..., None])[..., 0] + on_bone[:, :3, 3]


def observe(subject: Subject, pose: HandPose) -> Float[Array, "J 3"]:
    """The labels of a pose in the camera, in the order of the data set's skeleton (mm)."""
    local = marker_points(subject, bone_transforms(subject.bones, pose.fingers, pose.thumb))
    return local @ pose.rotation.T + pose.position
