"""The bones that skin hangs on: those of `hand.transforms` and the forearm, in the palm frame.

The palm comes first, then the three bones of each finger (little … index, thumb), last the
forearm, whose y leads from the elbow to the wrist.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.hand.kinematics import HandShape
from hpe_jax.hand.transforms import bone_transforms, bones_of, rigid
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
    y = -forearm_direction(wrist)
    side = jnp.stack([jnp.cos(wrist[1]), jnp.sin(wrist[1]), 0.0 * wrist[1]])
    # The arm is wide along `side`, which is only nearly square to it when both angles are large.
    x = side - (side @ y) * y
    x = x / jnp.linalg.norm(x)
    arm = rigid(jnp.stack([x, y, jnp.cross(x, y)], -1), shape.palm * shape.scale * WRIST)
    return jnp.concatenate([bone_transforms(bones_of(shape), fingers, thumb), arm[None]])
