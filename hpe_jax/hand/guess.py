"""Where inverse kinematics begins: the root from the palm's joints, the fingers from a few poses.

The root's position and orientation come from four joints (supplement B.1 of Deng et al. 2017).
With them known each finger is on its own: of a few typical bends, spreads and opposed thumbs,
the one nearest to the finger's labels is taken.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from hpe_jax.hand.kinematics import HandPose
from hpe_jax.hand.markers import Subject, marker_points
from hpe_jax.hand.transforms import bone_transforms, root_frame


def _typical() -> np.ndarray:
    degrees = np.array(
        [
            (mcp, aside, pip, 0.6 * pip)
            for mcp, pip, aside in itertools.product((0, 45, 85), (5, 50, 95), (-12, 0, 12))
        ]
    )
    thumbs = np.array(list(itertools.product((10, 45), (0, 35), (20, 60), (5, 35), (5, 50))))
    rows = len(thumbs)
    fingers = np.tile(degrees[np.arange(rows) % len(degrees)], (1, 4))
    return np.radians(np.concatenate([fingers, thumbs], 1)).astype(np.float32)


TYPICAL = _typical()
# Angles that no label depends on stay near these.
REST = np.radians([8, 0, 12, 7] * 4 + [35, 12, 30, 10, 12]).astype(np.float32)
# The finger that each of the 21 angles moves, and that of each bone (-1 is the palm).
FINGER_OF_ANGLE = np.array([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 5)
FINGER_OF_BONE = np.array([-1] + [f for f in range(5) for _ in range(3)])


class State(NamedTuple):
    """A pose while it is being solved: `angles` (21,), as `transforms.LIMITS` orders them, and
    any further bounded unknowns; `rotation` (3, 3) and `position` (3,) of the root."""

    angles: Float[Array, " A"]
    rotation: Float[Array, "3 3"]
    position: Float[Array, "3"]

    def pose(self) -> HandPose:
        """As a `HandPose`; the wrist, which no label shows, is straight."""
        x = self.angles
        return HandPose(x[:16].reshape(4, 4), x[16:21], jnp.zeros(2), self.rotation, self.position)


def in_palm(subject: Subject, angles: Float[Array, " A"]) -> Float[Array, "J 3"]:
    """The labels of a `State`'s angles in the palm frame, mm."""
    transforms = bone_transforms(subject.bones, angles[:16].reshape(4, 4), angles[16:21])
    return marker_points(subject, transforms)


def by_finger(values: Float[Array, "*b J"], bone: Int[Array, " J"]) -> Float[Array, "*b 5"]:
    """Sums over the labels of each finger; those of the palm count for none."""
    member = jnp.asarray(FINGER_OF_BONE)[bone][:, None] == jnp.arange(5)
    return values @ member.astype(values.dtype)


def _landmarks(subject: Subject, joints: Float[Array, "J 3"]) -> tuple[Array, ...]:
    root = subject.markers.root
    w1, w2, palm = (joints[root[i]] for i in range(3))
    middle = jnp.where(root[3] < 0, 2 * palm - 0.5 * (w1 + w2), joints[root[3]])
    return w1, w2, palm, middle


def place_root(
    subject: Subject, joints: Float[Array, "J 3"], local: Float[Array, "J 3"]
) -> tuple[Float[Array, "3 3"], Float[Array, "3"], Float[Array, ""]]:
    """The root that brings the four root joints of `local` (palm frame) onto those of `joints`.

    Returns:
      rotation, position (mm), and how far the root joints are from collinear (`root_frame`).
    """
    seen, own = _landmarks(subject, joints), _landmarks(subject, local)
    axes, spread = root_frame(*seen)
    rest, _ = root_frame(*own)
    rotation = axes @ rest.T
    return rotation, seen[2] - rotation @ own[2], spread


def first_guess(
    subject: Subject, joints: Float[Array, "J 3"], valid: Bool[Array, " J"]
) -> tuple[State, Float[Array, ""]]:
    """A pose to begin with.

    Args:
      subject: bones and labels.
      joints: mm, camera; numbers (not NaN) also where they are not valid.
      valid: which joints count.
    Returns:
      the state, and the spread of the root joints (`root_frame`): below about 0.05 they do not
      tell where the palm looks, and the guess is worthless.
    """
    local = jax.vmap(lambda a: in_palm(subject, a))(jnp.asarray(TYPICAL))
    rest = in_palm(subject, jnp.asarray(REST))
    rotation, position, spread = place_root(subject, joints, rest)
    seen = (joints - position) @ rotation
    apart = ((local - seen) ** 2).sum(-1) * valid
    nearest = by_finger(apart, subject.markers.bone).argmin(0)
    angles = jnp.asarray(TYPICAL)[nearest[FINGER_OF_ANGLE], jnp.arange(21)]
    has = by_finger(valid.astype(jnp.float32), subject.markers.bone)[FINGER_OF_ANGLE] > 0
    return State(jnp.where(has, angles, REST), rotation, position), spread
