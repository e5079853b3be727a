"""Forward kinematics: constant bones, limits, handedness, label definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.camera import CAMERAS
from hpe_jax.hand import kinematics as kin
from hpe_jax.hand.skeletons import SKELETONS

# Jitted: compiled once, instead of each of their operations on its own.
palm_points, place = jax.jit(kin.palm_points), jax.jit(kin.place)
labels = jax.jit(kin.labels, static_argnums=2)

SHAPE = kin.HandShape(jnp.float32(0.9), jnp.ones(3), jnp.ones(5), jnp.float32(1.0), jnp.ones(2))
FACING = jnp.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])


def pose(fingers, thumb):
    return kin.HandPose(
        jnp.asarray(fingers), jnp.asarray(thumb), jnp.zeros(2), FACING, jnp.array([0, 80.0, 700.0])
    )


def random_angles(seed):
    rng = np.random.default_rng(seed)
    fingers = rng.uniform(kin.FINGER_LIMITS[:, 0], kin.FINGER_LIMITS[:, 1], (4, 4))
    thumb = rng.uniform(kin.THUMB_LIMITS[:, 0], kin.THUMB_LIMITS[:, 1])
    return fingers.astype(np.float32), thumb.astype(np.float32)


def test_bones_keep_their_lengths():
    for seed in range(5):
        points = palm_points(SHAPE, *map(jnp.asarray, random_angles(seed)))
        bones = np.linalg.norm(np.diff(np.asarray(points), axis=1), axis=-1)
        np.testing.assert_allclose(bones[:4], 0.9 * kin.PHALANGES, rtol=1e-4)
        np.testing.assert_allclose(bones[4], 0.9 * kin.THUMB, rtol=1e-4)


def slow_finger(base, splay, converge, lengths, angles):
    """One finger, bone by bone, with rotation about the bending axis."""
    mcp, abduction, pip, dip = (float(a) for a in angles)
    forward = np.array([np.sin(splay + abduction), np.cos(splay + abduction), 0.0])
    lean = np.array([np.sin(converge), 0.0, np.cos(converge)])
    axis = np.cross(forward, lean)
    axis /= np.linalg.norm(axis)
    here, turned, out = base.astype(float), 0.0, [base.astype(float)]
    for bend, length in zip((mcp, pip, dip), lengths, strict=True):
        turned += bend
        # Rodrigues' formula; the axis is perpendicular to the bone.
        direction = np.cos(turned) * forward + np.sin(turned) * np.cross(axis, forward)
        here = here + length * direction
        out.append(here)
    return np.array(out)


def test_fingers_equal_a_slow_reading():
    fingers, thumb = random_angles(7)
    points = np.asarray(palm_points(SHAPE, jnp.asarray(fingers), jnp.asarray(thumb)))
    for f in range(4):
        slow = slow_finger(
            0.9 * kin.MCP[f], kin.SPLAY[f], kin.CONVERGE[f], 0.9 * kin.PHALANGES[f], fingers[f]
        )
        np.testing.assert_allclose(points[f], slow, atol=1e-2)


def test_flexion_goes_towards_the_palm():
    straight = palm_points(SHAPE, jnp.zeros((4, 4)), jnp.zeros(5))
    bent = palm_points(SHAPE, jnp.zeros((4, 4)).at[:, 0].set(1.0), jnp.zeros(5))
    assert (bent[:4, 3, 2] > straight[:4, 3, 2] + 20).all()


def test_a_right_hand_with_its_palm_to_the_camera_shows_its_thumb_on_the_right():
    p = pose(np.zeros((4, 4)), np.radians([45.0, 10, 20, 10, 5]))
    points = place(palm_points(SHAPE, p.fingers, p.thumb), p)
    joints = labels(points, SHAPE, "nyu")
    names = SKELETONS["nyu"].joints
    thumb, little = joints[names.index("thumb_tip")], joints[names.index("little_tip")]
    assert thumb[0] > little[0] + 50
    assert joints[names.index("middle_tip"), 1] < joints[names.index("palm"), 1]
    assert np.linalg.det(np.asarray(points.palm_axes)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", sorted(CAMERAS))
def test_every_data_set_has_its_joints_on_the_hand(name):
    fingers, thumb = random_angles(3)
    p = pose(fingers, thumb)
    points = place(palm_points(SHAPE, p.fingers, p.thumb), p)
    joints = np.asarray(labels(points, SHAPE, name))
    assert joints.shape == (len(SKELETONS[name]), 3)
    cloud = np.concatenate(
        [np.asarray(points.fingers).reshape(-1, 3), np.asarray(p.position)[None]]
    )
    assert (np.linalg.norm(joints[:, None] - cloud[None], axis=-1).min(1) < 50).all()
    with pytest.raises(ValueError, match="known"):
        labels(points, SHAPE, "no such skeleton")


def test_differentiable():
    fingers, thumb = random_angles(1)
    value = jax.grad(lambda f: palm_points(SHAPE, f, jnp.asarray(thumb)).sum())(
        jnp.asarray(fingers)
    )
    assert np.isfinite(value).all() and (np.abs(value) > 0).any()
