"""Forward kinematics by composed 4x4 transforms (Deng et al. 2017, equation 3).

A hand is its `Bones` (one subject) and a `HandPose`. Every bone has a frame of its own: the
origin at its proximal pivot, y along the bone to the next pivot, and bending turns y towards z
about x. The sixteen bones are the palm (0) and, for the finger f in the order of
`skeletons.FINGERS` (little … index, thumb) and the part k from the palm outwards, 1 + 3 f + k.
A pose sends each bone's frame into the camera; the chain of a bone multiplies its ancestors'
transforms, root first. Millimetres and radians.

`kinematics.palm_points` gives the same pivots in closed form for a `HandShape`; here a subject
may also have been measured, with knuckles tilted as its labels say.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpe_jax.hand.kinematics import (
    CMC,
    CONVERGE,
    FINGER_LIMITS,
    MCP,
    PHALANGES,
    SPLAY,
    THUMB,
    THUMB_LIMITS,
    HandPose,
    HandShape,
)

BONES = 16
# The 21 angles of a pose in one row: fingers (4, 4), then the thumb.
LIMITS = np.concatenate([np.tile(FINGER_LIMITS, (4, 1)), THUMB_LIMITS])


class Bones(NamedTuple):
    """One subject's skeleton.

    Attributes:
      base: (5, 3), mcp pivots of little … index and cmc pivot of the thumb in the palm frame, mm.
      frame: (5, 3, 3), axes in which a finger's abduction and flexion are counted, as columns in
        the palm frame. The identity for hands made from a `HandShape`.
      splay: (4,), abduction of the fingers at rest, positive = radial.
      lean: (4,), how far the planes of flexion lean to the thumb.
      lengths: (5, 3), from the palm outwards, mm.
    """

    base: Float[Array, "5 3"]
    frame: Float[Array, "5 3 3"]
    splay: Float[Array, "4"]
    lean: Float[Array, "4"]
    lengths: Float[Array, "5 3"]


def bones_of(shape: HandShape) -> Bones:
    """The skeleton of a synthetic subject; the pivots are those of `kinematics.palm_points`."""
    stretch = shape.palm * shape.scale
    lengths = jnp.concatenate([jnp.asarray(PHALANGES), jnp.asarray(THUMB)[None]])
    return Bones(
        base=stretch * jnp.concatenate([jnp.asarray(MCP), jnp.asarray(CMC)[None]]),
        frame=jnp.broadcast_to(jnp.eye(3), (5, 3, 3)),
        splay=jnp.asarray(SPLAY),
        lean=jnp.asarray(CONVERGE),
        lengths=(shape.scale * shape.fingers[:, None]) * lengths,
    )


def rigid(
    rotation: Float[Array, "*b 3 3"], position: Float[Array, "*b 3"]
) -> Float[Array, "*b 4 4"]:
    """The 4x4 transform that rotates and then moves."""
    top = jnp.concatenate([rotation, position[..., None]], -1)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, last], -2)


def turn(axis: int, angle: Float[Array, "*b"]) -> Float[Array, "*b 3 3"]:
    """The rotation about an axis (0, 1, 2: x, y, z) by an angle in radians."""
    c, s = jnp.cos(angle), jnp.sin(angle)
    o, i = jnp.zeros_like(c), jnp.ones_like(c)
    rows = {
        0: [i, o, o, o, c, -s, o, s, c],
        1: [c, o, s, o, i, o, -s, o, c],
        2: [c, -s, o, s, c, o, o, o, i],
    }[axis]
    return jnp.stack(rows, -1).reshape(*c.shape, 3, 3)


def thumb_twist(angles: Float[Array, "3"]) -> Float[Array, ""]:
    """How far the thumb's metacarpal is turned about itself so that it bends as its radial and
    palmar abduction and its pronation say (radians)."""
    radial, palmar, pronation = angles[0], angles[1], angles[2]
    return jnp.arctan2(
        -jnp.cos(pronation) * jnp.cos(radial),
        jnp.cos(pronation) * jnp.sin(palmar) * jnp.sin(radial)
        + jnp.sin(pronation) * jnp.cos(palmar),
    )


def _first_rotations(
    bones: Bones, fingers: Float[Array, "4 4"], thumb: Float[Array, "5"]
) -> Float[Array, "5 3 3"]:
    """Rotations of the proximal phalanges and the thumb's metacarpal in the palm."""
    sideways = bones.splay + fingers[:, 1]
    # The plane of flexion leans: twist about the finger until z lies in it.
    twist = jnp.arctan2(jnp.sin(bones.lean) * jnp.cos(sideways), jnp.cos(bones.lean))
    four = turn(2, -sideways) @ turn(1, twist) @ turn(0, fingers[:, 0])

    radial, palmar, twist = thumb[0], thumb[1], thumb_twist(thumb[:3])
    fifth = turn(2, -radial) @ turn(0, palmar) @ turn(1, twist)
    return bones.frame @ jnp.concatenate([four, fifth[None]])


def bone_transforms(
    bones: Bones, fingers: Float[Array, "4 4"], thumb: Float[Array, "5"]
) -> Float[Array, "16 4 4"]:
    """Each bone's frame to the palm frame (equation 3 without the root).

    Args:
      bones: the subject.
      fingers: (4, 4) angles, as in `HandPose`.
      thumb: (5,) angles.
    Returns:
      (16, 4, 4); the first, the palm's, is the identity.
    """
    first = rigid(_first_rotations(bones, fingers, thumb), bones.base)
    flexions = jnp.concatenate([fingers[:, 2:], thumb[None, 3:]])
    steps = bones.lengths[:, :2, None] * jnp.array([0.0, 1.0, 0.0])
    joint = rigid(turn(0, flexions), steps)
    second = first @ joint[:, 0]
    third = second @ joint[:, 1]
    chains = jnp.stack([first, second, third], 1).reshape(15, 4, 4)
    return jnp.concatenate([jnp.eye(4)[None], chains])


def hand_transforms(bones: Bones, pose: HandPose) -> Float[Array, "16 4 4"]:
    """Each bone's frame to the camera (equation 3): what a skin on these bones follows."""
    root = rigid(pose.rotation, pose.position)
    return root @ bone_transforms(bones, pose.fingers, pose.thumb)


def pivots(bones: Bones, transforms: Float[Array, "16 4 4"]) -> Float[Array, "5 4 3"]:
    """Pivots and tips in the space of `transforms`, as in `HandPoints.fingers` (mm)."""
    chains = transforms[1:].reshape(5, 3, 4, 4)
    tips = chains[:, 2, :3, 3] + bones.lengths[:, 2, None] * chains[:, 2, :3, 1]
    return jnp.concatenate([chains[..., :3, 3], tips[:, None]], 1)


def root_frame(
    first: Float[Array, "*b 3"],
    second: Float[Array, "*b 3"],
    palm: Float[Array, "*b 3"],
    middle: Float[Array, "*b 3"],
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b"]]:
    """The orientation of the root from four joints (supplement B.1).

    The paper's r_x = (W1 - C) x (W2 - C) is the palm's normal, r_z = M1 - C points to the root
    of the middle finger, r_y = r_z x r_x. The paper's r_z need not be perpendicular to r_x; here
    it is made so.

    Args:
      first: W1, the ulnar side of the wrist, mm.
      second: W2, the radial side.
      palm: C.
      middle: M1.
    Returns:
      the rotation, columns r_y, r_z, r_x: this library's palm axes x, y, n; and how far the
      joints are from collinear (the smaller of two sines, 0 to 1). The rotation is finite, but
      meaningless, where that is 0.
    """
    a, b, forward = first - palm, second - palm, middle - palm
    normal = jnp.cross(a, b)

    def length(v: Array) -> Array:
        return jnp.sqrt((v * v).sum(-1, keepdims=True) + 1e-12)

    spread = (length(normal) / (length(a) * length(b)))[..., 0]
    n = normal / length(normal)
    y = forward - (forward * n).sum(-1, keepdims=True) * n
    spread = jnp.minimum(spread, (length(y) / length(forward))[..., 0])
    # Points that coincide have no directions; their sines would be 1.
    shortest = jnp.minimum(jnp.minimum(length(a), length(b)), length(forward))[..., 0]
    spread = jnp.where(shortest > 1e-3, spread, 0.0)
    y = y / length(y)
    return jnp.stack([jnp.cross(y, n), y, n], -1), spread
