"""Where the bones of a hand lie and how they are turned: frames to hang skin on.

Frames are those of the palm, of the three bones of each finger (little … index, thumb) and of the
forearm, in this order. A bone's origin is its first pivot, its y leads to the second, its x is the
axis about which the finger bends, as in the palm frame of `hand.kinematics`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.hand.kinematics import HandShape, palm_points
from hpe_jax.synthetic.surface import WRIST, forearm_direction

PALM, FOREARM, BONES = 0, 16, 17


def bone(finger: int, i: int) -> int:
    """The number of the i-th bone of a finger."""
    return 1 + 3 * finger + i


def bone_frames(
    shape: HandShape,
    fingers: Float[Array, "4 4"],
    thumb: Float[Array, "5"],
    wrist: Float[Array, "2"],
) -> Float[Array, "17 4 4"]:
    """Frames of the bones in the palm frame, mm; angles as in `hand.kinematics.HandPose`.

    The matrices take homogeneous points of a bone to the palm frame.
    """
    points = palm_points(shape, fingers, thumb)
    # A finger that bends by a right angle at its first free joint shows the plane it bends in.
    square = palm_points(
        shape,
        jnp.array([0.0, 0.0, jnp.pi / 2, 0.0]) + jnp.array([0.0, 1.0, 0.0, 0.0]) * fingers,
        jnp.concatenate([thumb[:3], jnp.array([jnp.pi / 2, 0.0])]),
    )
    x = _unit(jnp.cross(square[:, 1] - square[:, 0], square[:, 2] - square[:, 1]))[:, None]
    y = _unit(jnp.diff(points, axis=1))
    x = jnp.broadcast_to(x, y.shape)
    four = _frame(x, y, jnp.cross(x, y), points[:, :3]).reshape(15, 4, 4)
    y = -forearm_direction(wrist)
    side = jnp.stack([jnp.cos(wrist[1]), jnp.sin(wrist[1]), 0.0 * wrist[1]])
    # The arm is wide along `side`, which is only nearly square to it when both angles are large.
    x = _unit(side - (side @ y) * y)
    arm = _frame(x, y, jnp.cross(x, y), shape.palm * shape.scale * WRIST)
    return jnp.concatenate([jnp.eye(4)[None], four, arm[None]])


def _unit(v: Array) -> Array:
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)


def _frame(x: Array, y: Array, z: Array, origin: Array) -> Array:
    rows = jnp.stack([x, y, z, origin], -1)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (*rows.shape[:-2], 1, 4))
    return jnp.concatenate([rows, last], -2)
