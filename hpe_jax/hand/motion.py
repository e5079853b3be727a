"""Hand motion as Biovision hierarchy files (BVH), written and read.

Deng et al. (2017, section 3.3 and supplement B.2) keep recovered poses in such files: the root's
position, the relative angles of each joint, and the bone lengths as offsets. The file's root is
the palm; its children are the sixteen bones of `transforms`, named by their proximal pivots, and
an end site at each tip. Offsets and positions are millimetres in the camera's axes (x right,
y down, z forward); rotations are degrees in the order Z, X, Y, each joint's whole rotation, so
that a reader needs nothing but the file.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hpe_jax.atomic import write_atomic
from hpe_jax.errors import InputError
from hpe_jax.hand.bvh import Motion, euler_zxy
from hpe_jax.hand.kinematics import HandPose
from hpe_jax.hand.skeletons import FINGERS
from hpe_jax.hand.transforms import Bones, hand_transforms

_PARTS = {f: ("cmc", "mcp", "ip") if f == "thumb" else ("mcp", "pip", "dip") for f in FINGERS}
# Joints and end sites in file order, and the parent of each.
NODES = ("palm", *(f"{f}_{part}" for f in FINGERS for part in (*_PARTS[f], "tip")))
PARENTS = (-1, *(p for i in range(5) for p in (0, *range(1 + 4 * i, 4 + 4 * i))))
_ROOT_CHANNELS = ("Xposition", "Yposition", "Zposition", "Zrotation", "Xrotation", "Yrotation")
_BONE_NODES = [i for i, name in enumerate(NODES) if not name.endswith("_tip")]
_transforms = jax.jit(jax.vmap(hand_transforms, (None, 0)))


def write_bvh(
    path: str | Path, bones: Bones, pose: HandPose, frame_seconds: float = 1 / 30
) -> None:
    """Write poses (leading axis T) of one subject.

    Raises:
      InputError: a pose that is not finite, which it names; nothing is written.
    """
    with jax.default_matmul_precision("highest"):  # accelerators would take fewer bits
        world = np.asarray(_transforms(bones, pose), np.float64)
    bad = ~np.isfinite(world).all((1, 2, 3))
    if bad.any():
        raise InputError(f"{path}: frame {int(np.argmax(bad))} to be written is not finite")
    turns = world[..., :3, :3]
    parent = np.array([0 if k % 3 == 0 else k for k in range(15)])
    local = turns.copy()
    local[:, 1:] = turns[:, parent].swapaxes(-1, -2) @ turns[:, 1:]
    angles = np.degrees(euler_zxy(local))
    rows = np.concatenate([world[:, 0, :3, 3], angles.reshape(len(world), -1)], 1)
    lines = ["HIERARCHY", *_hierarchy(bones), "MOTION", f"Frames: {len(rows)}"]
    lines.append(f"Frame Time: {frame_seconds:.9g}")
    lines += [" ".join(f"{value:.6f}" for value in row) for row in rows]
    write_atomic(path, "\n".join(lines) + "\n")


def _hierarchy(bones: Bones) -> list[str]:
    base, lengths = np.asarray(bones.base), np.asarray(bones.lengths)

    def offset(values: np.ndarray) -> str:
        return "OFFSET " + " ".join(f"{float(v):.6f}" for v in values)

    lines = ["ROOT palm", "{", "\tOFFSET 0 0 0", f"\tCHANNELS 6 {' '.join(_ROOT_CHANNELS)}"]
    for f, finger in enumerate(FINGERS):
        for k, part in enumerate(_PARTS[finger]):
            tab = "\t" * (k + 1)
            at = base[f] if k == 0 else np.array([0, lengths[f, k - 1], 0])
            lines += [f"{tab}JOINT {finger}_{part}", tab + "{", f"{tab}\t{offset(at)}"]
            lines.append(f"{tab}\tCHANNELS 3 {' '.join(_ROOT_CHANNELS[3:])}")
        end = offset(np.array([0, lengths[f, 2], 0]))
        lines += ["\t\t\t\tEnd Site", "\t\t\t\t{", f"\t\t\t\t\t{end}", "\t\t\t\t}"]
        lines += ["\t" * k + "}" for k in (3, 2, 1)]
    return [*lines, "}"]


def hand_points(motion: Motion) -> Float[np.ndarray, "T 21 3"]:
    """Palm origin, then mcp, pip, dip, tip (cmc … tip) of little … index, thumb; mm.

    Raises:
      InputError: the file's hierarchy is not that of `write_bvh`.
    """
    for i, (name, parent) in enumerate(zip(NODES, PARENTS, strict=True)):
        if i >= len(motion.names):
            raise InputError(
                f"{motion.path}: {len(motion.names)} joints and end sites, expected "
                f"{len(NODES)}: the palm and five fingers"
            )
        if (motion.names[i], motion.parents[i]) != (name, parent):
            below = f" below {NODES[parent]!r}" if parent >= 0 else " as the root"
            raise InputError(
                f"{motion.path}: joint {i} is {motion.names[i]!r}, expected {name!r}{below} (the "
                "hierarchy of a hand: the palm, then little, ring, middle, index, thumb)"
            )
    if len(motion.names) > len(NODES):
        raise InputError(f"{motion.path}: joint {motion.names[len(NODES)]!r} is not a hand's")
    return motion.transforms[:, :, :3, 3]


def poses_of(motion: Motion, bones: Bones) -> HandPose:
    """The joint angles of a file written by `write_bvh` for this subject (leading axis T).

    Raises:
      InputError: another hierarchy, or offsets that are not this subject's bones.
    """
    hand_points(motion)
    want = np.zeros((21, 3))
    want[1::4] = np.asarray(bones.base)
    for k in range(3):
        want[2 + k :: 4, 1] = np.asarray(bones.lengths)[:, k]
    off = np.asarray(np.abs(motion.offsets[1:] - want[1:]).max(1))
    if off.max() > 1e-2:
        worst = 1 + int(np.argmax(off))
        raise InputError(
            f"{motion.path}: offset of {NODES[worst]!r} is {off.max():.2f} mm off the subject's "
            "bones, expected the subject for which the file was written"
        )
    turns = motion.transforms[:, _BONE_NODES, :3, :3]
    root = turns[:, :1]
    palm = (root.swapaxes(-1, -2) @ turns)[:, 1:].reshape(-1, 5, 3, 3, 3)
    first = np.asarray(bones.frame, np.float64).swapaxes(-1, -2) @ palm[:, :, 0]

    def bend(child: np.ndarray, parent: np.ndarray) -> np.ndarray:
        step = parent.swapaxes(-1, -2) @ child
        return np.arctan2(step[..., 2, 1], step[..., 1, 1])

    second, third = bend(palm[:, :, 1], palm[:, :, 0]), bend(palm[:, :, 2], palm[:, :, 1])
    # Fingers: first = Rz(-s) Ry(twist) Rx(a); the column x does not know a.
    four = first[:, :4]
    sideways = np.arctan2(-four[..., 1, 0], four[..., 0, 0])
    c, s = np.cos(sideways), np.sin(sideways)
    unturned = np.stack(
        [
            c * four[..., 0, 1] - s * four[..., 1, 1],
            s * four[..., 0, 1] + c * four[..., 1, 1],
            four[..., 2, 1],
        ],
        -1,
    )
    lean, splay = np.asarray(bones.lean, np.float64), np.asarray(bones.splay, np.float64)
    twist = np.arctan2(np.sin(lean) * c, np.cos(lean))
    inward = np.sin(twist) * unturned[..., 0] + np.cos(twist) * unturned[..., 2]
    flexion = np.arctan2(inward, unturned[..., 1])
    fingers = np.stack([flexion, sideways - splay, second[:, :4], third[:, :4]], -1)
    # Thumb: first = Rz(-radial) Rx(palmar) Ry(twist), and the twist follows from pronation.
    along, x, z = (first[:, 4, :, i] for i in (1, 0, 2))
    radial, palmar = np.arctan2(along[:, 0], along[:, 1]), np.arcsin(np.clip(along[:, 2], -1, 1))
    twist = np.arctan2(-x[:, 2], z[:, 2])
    side = np.sin(twist) * np.sin(palmar) * np.sin(radial) + np.cos(twist) * np.cos(radial)
    pronation = np.arctan2(side, -np.sin(twist) * np.cos(palmar))
    thumb = np.stack([radial, palmar, pronation, second[:, 4], third[:, 4]], -1)
    wrist = np.zeros((len(fingers), 2))
    parts = (fingers, thumb, wrist, root[:, 0], motion.transforms[:, 0, :3, 3])
    return HandPose._make(jnp.asarray(part, jnp.float32) for part in parts)
