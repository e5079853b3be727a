"""How a hand's labels move with each degree of freedom: the Jacobian, by geometry.

Turning a joint moves what hangs on it about the joint's axis: axis x (label - pivot). That takes
a fraction of the arithmetic of differentiating the chain of transforms once for each unknown.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpe_jax.hand.guess import FINGER_OF_ANGLE, FINGER_OF_BONE, State
from hpe_jax.hand.markers import Subject, marker_points
from hpe_jax.hand.transforms import Bones, bone_transforms, thumb_twist

# The first part of its finger that each angle moves, and the part that each bone is.
_PART_OF_ANGLE = np.array([0, 0, 1, 2] * 4 + [0, 0, 0, 1, 2])
_PART_OF_BONE = np.array([-1] + [0, 1, 2] * 5)


def joint_axes(
    bones: Bones, angles: Float[Array, "21"], transforms: Float[Array, "16 4 4"]
) -> Float[Array, "21 3"]:
    """The axis in the palm frame about which each angle turns (not always of length 1: spread
    and the thumb's first angles also twist the plane of flexion)."""
    first = transforms[1::3, :3, :3]
    x, y = first[:, :, 0], first[:, :, 1]
    aside = bones.splay + angles[1:16:4]
    c, s, lean = jnp.cos(aside), jnp.sin(aside), bones.lean
    tilt, level = jnp.sin(lean), jnp.cos(lean)
    twist = -tilt * s * level / ((tilt * c) ** 2 + level**2)
    forward = jnp.stack([s, c, jnp.zeros_like(s)], -1)
    straight = (bones.frame[:4] @ forward[..., None])[..., 0]
    spread = twist[:, None] * straight - bones.frame[:4, :, 2]
    four = jnp.stack([x[:4], spread, x[:4], x[:4]], 1).reshape(16, 3)

    radial = angles[16]
    slope = jax.grad(thumb_twist)(angles[16:19])
    across = bones.frame[4] @ jnp.stack([jnp.cos(radial), -jnp.sin(radial), 0.0 * radial])
    own = jnp.stack([-bones.frame[4, :, 2], across, jnp.zeros(3)])
    thumb = own + slope[:, None] * y[4]
    return jnp.concatenate([four, thumb, jnp.stack([x[4], x[4]])])


def label_slopes(
    subject: Subject, state: State
) -> tuple[Float[Array, "J 3"], Float[Array, "J 3 D"]]:
    """The labels of a state in the camera and their derivatives.

    Args:
      subject: bones and labels; where the state has factors of bone lengths beyond its 21
        angles, the bones before these factors.
      state: of one frame.
    Returns:
      labels, mm, and their derivatives by the unknowns of `inverse.moved`: the angles (and
      factors), a turn of the root about its own axes (radians), and its position.
    """
    angles, factors = state.angles[:21], state.angles[21:].reshape(-1, 3)
    lengths = subject.bones.lengths
    bones = subject.bones
    if len(factors):
        bones = bones._replace(lengths=lengths * factors)
    transforms = bone_transforms(bones, angles[:16].reshape(4, 4), angles[16:])
    local = marker_points(Subject(bones, subject.markers), transforms)
    finger = jnp.asarray(FINGER_OF_BONE)[subject.markers.bone]
    part = jnp.asarray(_PART_OF_BONE)[subject.markers.bone]

    pivot = transforms[1 + 3 * FINGER_OF_ANGLE + _PART_OF_ANGLE, :3, 3]
    axes = joint_axes(bones, angles, transforms)
    turns = jnp.cross(axes, local[:, None] - pivot)
    hangs = (finger[:, None] == FINGER_OF_ANGLE) & (part[:, None] >= _PART_OF_ANGLE)
    slopes = [jnp.where(hangs[..., None], turns, 0.0)]
    if len(factors):
        bone_finger, bone_part = FINGER_OF_BONE[1:], _PART_OF_BONE[1:]
        share = jnp.where(part[:, None] > bone_part, 1.0, 0.0)
        share = jnp.where(part[:, None] == bone_part, subject.markers.along[:, None], share)
        share = jnp.where(finger[:, None] == bone_finger, share, 0.0)
        stretch = lengths.reshape(15, 1) * transforms[1:, :3, 1]
        slopes.append(share[..., None] * stretch)
    slopes.append(jnp.cross(jnp.eye(3), local[:, None]))
    inside = jnp.concatenate(slopes, 1) @ state.rotation.T
    moved = jnp.broadcast_to(jnp.eye(3), (len(local), 3, 3))
    jacobian = jnp.concatenate([inside, moved], 1).swapaxes(1, 2)
    return local @ state.rotation.T + state.position, jacobian
