"""A kinematic hand: bone lengths, joint angles, limits, and where data sets put their labels.

The palm frame has its origin at the middle of the wrist, x from the little finger to the
index (radial), y from the wrist to the fingers and n = x × y out of the palm, so that this
is a right hand. All lengths are millimetres, all angles radians.

The proportions (`MCP` to `WRIST_LABELS` below) are those of an adult hand, 215 mm long from
the wrist to the tip of the middle finger. They were measured on NYU's published test
*labels*, whose 36 points are rigid on each bone: the pivots between bones follow from them by
least squares, and with them the places on the bones where NYU puts its 14 evaluated points.
No depth image and no pose of any data set went into this file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Fingers in the order little, ring, middle, index (as in skeletons.FINGERS).
MCP = np.array([[-41, 86, 10], [-18, 100, 7], [6, 105, 5], [28, 98, 3]], np.float32)
PHALANGES = np.array([[36, 28, 21], [44, 27, 27], [48, 34, 27], [50, 31, 26]], np.float32)
SPLAY = np.radians([-9, -3, 1, 4]).astype(np.float32)  # at rest, positive = radial
CONVERGE = np.radians([14, 6, 0, -5]).astype(np.float32)  # flexion planes lean to the thumb
CMC = np.array([18, 20, 23], np.float32)
THUMB = np.array([51, 48, 31], np.float32)
PALM_LABEL = np.array([0, 79, 0], np.float32)
WRIST_LABELS = np.array([[-17.5, 0, 0], [17.5, 0, 0]], np.float32)
# How far beyond the pivot NYU's labels of these joints lie, and ICVL's palm.
PIP_BEYOND, IP_BEYOND, THUMB_MCP_BEYOND = 6.0, 5.0, 9.0
ICVL_PALM = np.array([2, 62, 6], np.float32)

# Joint limits (radians): finger (mcp flexion, abduction, pip flexion, dip flexion) and
# thumb (radial abduction, palmar abduction, pronation, mcp flexion, ip flexion). Pronation turns
# the plane in which the thumb bends: 0 is along the palm, 90 degrees out of it, and one that stands
# off the palm bends back towards it, as MSRA15's and tracked hands do (by -40 to 0 degrees).
FINGER_LIMITS = np.radians([[-25, 95], [-32, 30], [-5, 110], [-10, 80]]).astype(np.float32)
THUMB_LIMITS = np.radians(
    [[-25, 75], [-25, 60], [-50, 90], [-15, 85], [-25, 95]]
).astype(np.float32)  # fmt: skip


class HandShape(NamedTuple):
    """One subject.

    Attributes:
      scale: (), multiplies everything.
      palm: (3,), factors along x, y, n of the palm.
      fingers: (5,), length factor of each finger (little … index, thumb).
      thickness: (), factor of every radius of the surface.
      forearm: (2,), radius factor near the wrist and near the elbow.
    """

    scale: Float[Array, ""]
    palm: Float[Array, "3"]
    fingers: Float[Array, "5"]
    thickness: Float[Array, ""]
    forearm: Float[Array, "2"]


class HandPose(NamedTuple):
    """Joint angles: fingers (4, 4), thumb (5,) as in the limits above; wrist (2,) is the
    forearm's flexion and radial deviation against the palm; `rotation` (3, 3) turns the palm
    frame into camera axes and `position` (3,) is the wrist in the camera (mm)."""

    fingers: Float[Array, "4 4"]
    thumb: Float[Array, "5"]
    wrist: Float[Array, "2"]
    rotation: Float[Array, "3 3"]
    position: Float[Array, "3"]


class HandPoints(NamedTuple):
    """Pivots in the palm frame or the camera: `fingers` (5, 4, 3) mcp/pip/dip/tip of little …
    index and cmc/mcp/ip/tip of the thumb; `palm_axes` (3, 3) rows x, y, n; `origin` (3,).
    Those of a left hand are all mirrored."""

    fingers: Float[Array, "5 4 3"]
    palm_axes: Float[Array, "3 3"]
    origin: Float[Array, "3"]


def hand_length(shape: HandShape) -> Float[Array, ""]:
    """From the wrist to the tip of the middle finger when it is stretched, mm."""
    middle = 2
    palm = jnp.linalg.norm(shape.palm * MCP[middle])
    return shape.scale * (palm + shape.fingers[middle] * PHALANGES[middle].sum())


def _chain(
    base: Float[Array, "... 3"],
    forward: Float[Array, "... 3"],
    inward: Float[Array, "... 3"],
    flexions: Float[Array, "... K"],
    lengths: Float[Array, "... K"],
) -> Float[Array, "... K+1 3"]:
    """Pivots of a finger that bends in the plane of `forward` and `inward`."""
    angle = jnp.cumsum(flexions, -1)[..., None]
    step = jnp.cos(angle) * forward[..., None, :] + jnp.sin(angle) * inward[..., None, :]
    points = base[..., None, :] + jnp.cumsum(step * lengths[..., None], -2)
    return jnp.concatenate([base[..., None, :], points], -2)


def palm_points(shape: HandShape, fingers: Array, thumb: Array) -> Float[Array, "5 4 3"]:
    """Forward kinematics in the palm frame.

    Args:
      shape: the subject.
      fingers: (4, 4) angles.
      thumb: (5,) angles.
    Returns:
      (5, 4, 3) pivots, mm, as in `HandPoints.fingers`.
    """
    stretch = shape.palm * shape.scale
    sideways = SPLAY + fingers[:, 1]
    zero = jnp.zeros(4)
    forward = jnp.stack([jnp.sin(sideways), jnp.cos(sideways), zero], -1)
    inward = jnp.stack([jnp.sin(CONVERGE), zero, jnp.cos(CONVERGE)], -1)
    inward = inward - (inward * forward).sum(-1, keepdims=True) * forward
    inward = inward / jnp.linalg.norm(inward, axis=-1, keepdims=True)
    lengths = (shape.scale * shape.fingers[:4, None]) * PHALANGES
    four = _chain(stretch * MCP, forward, inward, fingers[:, jnp.array([0, 2, 3])], lengths)

    radial, palmar, pronation, mcp, ip = (thumb[i] for i in range(5))
    along = jnp.stack(
        [
            jnp.cos(palmar) * jnp.sin(radial),
            jnp.cos(palmar) * jnp.cos(radial),
            jnp.sin(palmar),
        ]
    )
    bend = jnp.stack([-jnp.cos(pronation), 0.0 * pronation, jnp.sin(pronation)])
    bend = bend - (bend * along).sum() * along
    bend = bend / jnp.linalg.norm(bend)
    flexions = jnp.stack([0.0 * mcp, mcp, ip])
    fifth = _chain(stretch * CMC, along, bend, flexions, shape.scale * shape.fingers[4] * THUMB)
    return jnp.concatenate([four, fifth[None]])


def place(points: Float[Array, "5 4 3"], pose: HandPose) -> HandPoints:
    """Move palm-frame pivots into the camera."""
    world = points @ pose.rotation.T + pose.position
    return HandPoints(world, pose.rotation.T, pose.position)


def _between(a: Array, b: Array, mm: Array | float) -> Array:
    """The point `mm` from a towards b."""
    d = b - a
    return a + d * (mm / jnp.maximum(jnp.linalg.norm(d, axis=-1, keepdims=True), 1e-6))


def labels(points: HandPoints, shape: HandShape, skeleton: str) -> Float[Array, "J 3"]:
    """The joints of a data set on this hand, in the order of its `Skeleton` (mm, camera).

    NYU's points are rigid on the bones, a little beyond the pivots (see the module's docstring);
    ICVL's lie at the middle of the bones, those of tips too; MSRA's are the pivots.
    """
    p, s = points.fingers, shape.scale

    def palm(local: np.ndarray) -> Array:
        return (shape.palm * s * local) @ points.palm_axes + points.origin

    if skeleton == "nyu":
        pip = _between(p[:4, 1], p[:4, 2], PIP_BEYOND * s)
        four = jnp.stack([p[:4, 3], pip], 1).reshape(8, 3)
        thumb = jnp.stack(
            [
                p[4, 3],
                _between(p[4, 2], p[4, 3], IP_BEYOND * s),
                _between(p[4, 1], p[4, 2], THUMB_MCP_BEYOND * s),
            ]
        )
        return jnp.concatenate([four, thumb, palm(WRIST_LABELS), palm(PALM_LABEL)[None]])
    if skeleton == "icvl":
        order = jnp.array([4, 3, 2, 1, 0])
        middles = 0.5 * (p[order, :-1] + p[order, 1:])
        return jnp.concatenate([palm(ICVL_PALM)[None], middles.reshape(15, 3)])
    if skeleton == "msra":
        order = jnp.array([3, 2, 1, 0, 4])
        return jnp.concatenate([points.origin[None], p[order].reshape(20, 3)])
    raise ValueError(f"no label definition for skeleton {skeleton!r}; known: nyu, icvl, msra")
