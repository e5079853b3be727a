"""Random subjects, poses and viewpoints: plausible, varied and not self-intersecting.

Everything is a pure function of a key, for one hand; `vmap` makes a batch. A few candidate
poses are drawn and the first whose fingers and palm do not overlap is kept (the least
overlapping one if none is free), so that no frame needs a loop whose length depends on data.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hpe_jax.hand.kinematics import (
    FINGER_LIMITS,
    THUMB_LIMITS,
    HandPose,
    HandShape,
    hand_length,
    palm_points,
)
from hpe_jax.hand.transforms import turn
from hpe_jax.synthetic import draws
from hpe_jax.synthetic.bank import PoseBank, draw_poses
from hpe_jax.synthetic.surface import RADII, forearm_direction

CANDIDATES = 6
# Flexion and radial deviation, radians.
WRIST_LIMITS = np.array([[-1.5, 1.2], [-0.85, 0.65]], np.float32)
# Lengths of hands (`hand_length`) relative to the template's, which is large. The test split's
# subjects have shorter or longer hands than any in training.
TRAIN_LENGTH = (0.76, 1.06)
TEST_LENGTH = (0.72, 1.10)


class Spread(NamedTuple):
    """How far proportions lie from the template's, either way: of the whole palm, of each of its
    axes, of all fingers and of each; and the least and the greatest thickness."""

    palm: float
    axes: float
    fingers: float
    finger: float
    thickness: tuple[float, float]


# Test subjects are always "usual" ones. "wide" holds the hand of the Kinect v2 frames: as
# `launch.fit_hand` finds it, fingers are 1.2 times as long for the palm as the template's, where
# "usual" ends.
PROPORTIONS = {
    "usual": Spread(0.0, 0.08, 0.07, 0.04, (0.85, 1.2)),
    "wide": Spread(0.11, 0.07, 0.13, 0.05, (0.85, 1.3)),
}


class Thumbs(NamedTuple):
    """Habits of thumbs: how often each is drawn; the mean of its angles and their deviation,
    (habits, 5) degrees in the order of `THUMB_LIMITS`; and their limits (5, 2), radians."""

    shares: tuple[float, ...]
    mean: Float[np.ndarray, "H 5"]
    deviation: Float[np.ndarray, "H 5"]
    limits: Float[np.ndarray, "5 2"]


# Test frames always show "usual" ones, which bend along or out of the palm: real ones bend towards
# it, too, further, and wherever they are. "wide" was drawn up after the angles that fit MSRA15's
# joints, tracked hands and (`launch.fit_hand`) the Kinect v2 frames.
THUMBS = {
    # Away from the palm, along the index, across the palm.
    "usual": Thumbs(
        (0.4, 0.25, 0.35),
        np.array([[45, 10, 25, 8, 8], [22, 14, 30, 18, 15], [2, 38, 50, 32, 38]], np.float32),
        np.tile(np.array([14, 12, 18, 16, 24], np.float32), (3, 1)),
        np.radians([[-25, 70], [-15, 60], [0, 90], [-15, 65], [-25, 85]]).astype(np.float32),
    ),
    # The same and bent.
    "wide": Thumbs(
        (0.3, 0.2, 0.2, 0.3),
        np.array(
            [[50, 14, 15, 10, 10], [25, 20, 10, 20, 18], [12, 38, 25, 34, 40], [32, 24, 0, 44, 65]],
            np.float32,
        ),
        np.array([[14, 15, 26, 16, 24]] * 3 + [[20, 18, 26, 24, 22]], np.float32),
        THUMB_LIMITS,
    ),
}


class View(NamedTuple):
    """How far hands are from a data set's camera, and how far off its axis (mm, tangents)."""

    near: float
    far: float
    sideways: float


VIEWS = {
    "nyu": View(500.0, 1050.0, 0.35),
    "icvl": View(220.0, 460.0, 0.35),
    "msra": View(260.0, 520.0, 0.35),
}


def sample_shape(key: PRNGKeyArray, held_out: bool, proportions: str = "usual") -> HandShape:
    """A subject.

    Args:
      key: of one subject.
      held_out: whether its hand is shorter or longer than any in training; its proportions are
        usual.
      proportions: which of `PROPORTIONS` a training subject's are drawn from.
    """
    k = jax.random.split(key, 6)
    words = draws.bits(k, 5)
    spread = PROPORTIONS["usual" if held_out else proportions]

    def about_0(words: Array, most: float) -> Array:
        return draws.uniform(words, -most, most)

    if held_out:
        u = about_0(words[0, 0], 1.0)
        short = TRAIN_LENGTH[0] + (TRAIN_LENGTH[0] - TEST_LENGTH[0]) * jnp.minimum(u, 0.0)
        long = TRAIN_LENGTH[1] + (TEST_LENGTH[1] - TRAIN_LENGTH[1]) * jnp.maximum(u, 0.0)
        length = jnp.where(u < 0.0, short, long)
    else:
        length = draws.uniform(words[0, 0], *TRAIN_LENGTH)
    palm = 1.0 + about_0(words[1, :3], spread.axes)
    if spread.palm:
        palm += about_0(jax.random.bits(jax.random.fold_in(k[1], 1)), spread.palm)
    shape = HandShape(
        scale=jnp.ones(()),
        palm=palm,
        fingers=1.0 + about_0(words[2, 0], spread.fingers) + about_0(words[3], spread.finger),
        thickness=draws.uniform(words[4, 0], *spread.thickness),
        forearm=draws.uniform(words[5, :2], (0.85, 0.8), (1.35, 1.5)),
    )
    template = shape._replace(palm=jnp.ones(3), fingers=jnp.ones(5))
    # Proportions alone would make some hands of the test split as long as those of training.
    return shape._replace(scale=length * hand_length(template) / hand_length(shape))


def sample_fingers(
    key: PRNGKeyArray, thumbs: str = "usual"
) -> tuple[Float[Array, "4 4"], Float[Array, "5"]]:
    """Joint angles of the four fingers and the thumb.

    Four habits of hands are mixed: each finger stretched, half or fully curled on its own
    (counting, pointing, signs), all fingers curled alike (grasps, fists), an open hand, and
    fingers bent at the knuckles or hooked. Neighbours follow one another a little, and the
    last joint follows the middle one. Thumbs are those of `THUMBS`.
    """
    words = draws.bits(jax.random.split(key, 8), 16)
    habit = draws.choose(words[0, 0], (0.45, 0.2, 0.2, 0.15))
    state = draws.choose(words[1, :4], (0.5, 0.22, 0.28))
    own = jnp.array([0.03, 0.95, 0.5])[state]
    common = draws.uniform(words[2, 0])
    curl = jnp.select(
        [habit == 0, habit == 1, habit == 2],
        [own, jnp.full(4, common), jnp.full(4, 0.03)],
        jnp.full(4, common),
    )
    # Ring follows little and middle a little; nobody bends it alone.
    neighbours = 0.5 * (jnp.roll(curl, 1) + jnp.roll(curl, -1))
    curl = curl.at[1].set(0.8 * curl[1] + 0.2 * neighbours[1])
    knuckle, hook = jnp.where(
        habit == 3,
        jnp.where(draws.uniform(words[3, 0]) < 0.5, jnp.array([1.0, 0.12]), jnp.array([0.1, 1.0])),
        jnp.array([1.0, 1.0]),
    )
    noise = draws.normal(words[4]).reshape(4, 4) * jnp.radians(jnp.array([11.0, 5.0, 11.0, 8.0]))
    mcp = jnp.radians(-6.0 + 80.0 * curl * knuckle) + noise[:, 0]
    pip = jnp.radians(3.0 + 100.0 * curl * hook) + noise[:, 2]
    spread = draws.uniform(words[5, 0], -5.0, 26.0)
    fan = jnp.radians(spread * jnp.array([-1.2, -0.4, 0.2, 1.0]))
    # Bent knuckles leave no room for spreading.
    abduction = (fan + noise[:, 1]) * jnp.clip(jnp.cos(mcp), 0.15, 1.0)
    dip = 0.6 * pip + noise[:, 3]
    fingers = jnp.stack([mcp, abduction, pip, dip], -1)

    kind = THUMBS[thumbs]
    chosen = draws.choose(words[6, 0], kind.shares)
    mean, deviation = (jnp.radians(jnp.asarray(x)[chosen]) for x in (kind.mean, kind.deviation))
    thumb = mean + deviation * draws.normal(words[7, :5])
    fingers = jnp.clip(fingers, FINGER_LIMITS[:, 0], FINGER_LIMITS[:, 1])
    return fingers, jnp.clip(thumb, kind.limits[:, 0], kind.limits[:, 1])


# Points along the bones where overlap is measured, and their radii.
_AT = np.array([0.25, 0.6, 1.0], np.float32)
_PALM_PROBES = np.array(
    [[-30, 50, 10], [-12, 60, 6], [8, 62, 5], [26, 64, 4], [-24, 25, 10], [0, 30, 6]], np.float32
)
_PALM_PROBE_RADII = np.array([14.0, 15.0, 15.0, 14.0, 16.0, 17.0], np.float32)


def _separation_mask() -> np.ndarray:
    """Pairs of probes that can collide: not on one finger, not where parts grow together."""
    finger = np.repeat(np.arange(5), 9)
    part = np.tile(np.repeat(np.arange(3), 3), 5)
    mask = finger[:, None] != finger[None, :]
    mask &= ~((part[:, None] == 0) & (part[None, :] == 0))
    to_palm = np.tile((part >= 1)[:, None], (1, len(_PALM_PROBES)))
    top = np.concatenate([np.triu(mask), to_palm], 1)
    return top


_MASK = _separation_mask()


def overlap(shape: HandShape, points: Float[Array, "5 4 3"]) -> Float[Array, ""]:
    """Deepest overlap (mm) of two parts of the hand that should not touch; <= 0 when free."""
    a, b = points[:, :-1, None], points[:, 1:, None]
    probes = (a + (b - a) * _AT[:, None]).reshape(45, 3)
    ra, rb = RADII[:, :-1, None], RADII[:, 1:, None]
    radii = (ra + (rb - ra) * _AT).reshape(45) * shape.thickness * shape.scale
    palm = _PALM_PROBES * shape.palm * shape.scale
    palm_radii = _PALM_PROBE_RADII * shape.thickness * shape.scale
    others = jnp.concatenate([probes, palm])
    other_radii = jnp.concatenate([radii, palm_radii])
    distance = jnp.linalg.norm(probes[:, None] - others[None] + 1e-6, axis=-1)
    depth = radii[:, None] + other_radii[None] - distance
    return jnp.where(_MASK, depth, -1e3).max()


def sample_rotation(key: PRNGKeyArray) -> Float[Array, "3 3"]:
    """Palm axes in the camera: mostly a raised hand whose palm faces the camera, turned about
    its own axis by any angle now and then, tilted, and rolled in the image. The tilt is spread
    as in NYU's test labels: fingertips nearer than the wrist by some 20 degrees."""
    words = draws.bits(jax.random.split(key, 5), 1)[:, 0]
    facing = jnp.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
    front = jnp.radians(32.0) * draws.normal(words[0])
    around = draws.uniform(words[4], -np.pi, np.pi)
    yaw = jnp.where(draws.uniform(words[1]) < 0.3, around, front)
    pitch = jnp.radians(10.0 + 28.0 * draws.normal(words[2]))
    roll = jnp.radians(30.0) * draws.normal(words[3])
    return turn(2, roll) @ turn(0, pitch) @ turn(1, yaw) @ facing


def sample_wrist(key: PRNGKeyArray) -> Float[Array, "2"]:
    """Flexion and radial deviation: relaxed, or bent back so that the arm hides behind the palm."""
    words = draws.bits(jax.random.split(key, 2), 2)
    wrist = jnp.radians(jnp.array([28.0, 24.0])) * draws.normal(words[0])
    behind = draws.uniform(words[1, 0]) < 0.35
    wrist = jnp.where(behind, wrist + jnp.array([-1.1, 0.0]), wrist)
    return jnp.clip(wrist, WRIST_LIMITS[:, 0], WRIST_LIMITS[:, 1])


def sample_hand(
    key: PRNGKeyArray,
    shape: HandShape,
    view: View,
    bank: PoseBank | None = None,
    thumbs: str = "usual",
) -> tuple[HandPose, Float[Array, "5 4 3"], Float[Array, ""]]:
    """A pose of a subject in front of a camera.

    Args:
      key: of one frame.
      shape: the subject.
      view: where the hand is.
      bank: poses to take instead of those of `sample_fingers`; the viewpoint does not depend on it.
      thumbs: key into `THUMBS`.
    Returns:
      the pose, the pivots in the palm frame, and the remaining overlap in mm.
    """
    k = jax.random.split(key, 4)
    if bank is None:
        draw = partial(sample_fingers, thumbs=thumbs)
        fingers, thumb = jax.vmap(draw)(jax.random.split(k[0], CANDIDATES))
    else:
        fingers, thumb = draw_poses(bank, k[0], CANDIDATES)
    points = jax.vmap(lambda f, t: palm_points(shape, f, t))(fingers, thumb)
    depth = jax.vmap(lambda p: overlap(shape, p))(points)
    # The first candidate that is free of overlap, so that the mixture of habits survives.
    best = jnp.where((depth < 3.0).any(), jnp.argmax(depth < 3.0), jnp.argmin(depth))
    rotations = jax.vmap(sample_rotation)(jax.random.split(k[1], CANDIDATES))
    wrists = jax.vmap(sample_wrist)(jax.random.split(k[2], CANDIDATES))
    # The arm belongs to somebody behind the hand: it goes away from the camera, seldom up, and
    # the hand is nearer than the arm, as everything that looks for hands assumes.
    arms = jnp.einsum("kij,kj->ki", rotations, jax.vmap(forearm_direction)(wrists))
    away = arms[:, 2] - 0.5 * jnp.maximum(-arms[:, 1] - 0.3, 0.0)
    good = jnp.minimum(away - 0.2, 0.35 - rotations[:, 2, 1])
    pick = jnp.where((good > 0.0).any(), jnp.argmax(good > 0.0), jnp.argmax(good))
    rotation, wrist = rotations[pick], wrists[pick]
    place_at = jax.random.uniform(k[3], (3,), minval=-1.0, maxval=1.0)
    z = 0.5 * (view.near + view.far) + 0.5 * (view.far - view.near) * place_at[2]
    middle = jnp.stack([view.sideways * z * place_at[0], view.sideways * z * place_at[1], z])
    position = middle - rotation @ (points[best].reshape(-1, 3).mean(0))
    pose = HandPose(fingers[best], thumb[best], wrist, rotation, position)
    return pose, points[best], depth[best]
