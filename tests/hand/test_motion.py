"""BVH: the same motion comes back, also at gimbal lock; other files are read or refused."""

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.errors import InputError
from hpe_jax.hand import bvh, motion
from hpe_jax.hand import transforms as tf
from hpe_jax.hand.inverse import rotation_step

T = 30


@pytest.fixture(scope="module")
def hand():
    shape = hands.subject_shape(jax.random.key(0), False)
    axes = np.random.default_rng(0).normal(0, 0.2, (5, 3)).astype(np.float32)
    bones = jax.jit(tf.bones_of)(shape)._replace(frame=jax.jit(jax.vmap(rotation_step))(axes))
    pose, _, _ = hands.draw(jax.random.split(jax.random.key(1), T), shape, "nyu")
    # Gimbal lock: a knuckle at 90 degrees, with and without spread.
    fingers = pose.fingers.at[:10, :, 0].set(jnp.pi / 2).at[:5, :, 1].set(0.0)
    return bones, pose._replace(fingers=fingers)


def points(bones, pose):
    def one(pose):
        world = tf.hand_transforms(bones, pose)
        return tf.pivots(bones, world).reshape(20, 3), world

    pivots, world = jax.jit(jax.vmap(one))(pose)
    return np.concatenate([pose.position[:, None], pivots], 1), world


def test_the_same_motion_comes_back(hand, tmp_path):
    bones, pose = hand
    motion.write_bvh(tmp_path / "a.bvh", bones, pose, frame_seconds=0.04)
    read = bvh.read_bvh(tmp_path / "a.bvh")
    expected, world = points(bones, pose)
    np.testing.assert_allclose(motion.hand_points(read), expected, atol=5e-3)
    at = [read.names.index(n) for n in ("palm", "index_pip", "thumb_cmc")]
    np.testing.assert_allclose(
        read.transforms[:, at, :3, :3], np.asarray(world)[:, [0, 11, 13], :3, :3], atol=1e-5
    )
    assert read.frame_seconds == 0.04 and read.names == motion.NODES
    back = motion.poses_of(read, bones)
    np.testing.assert_allclose(back.fingers, pose.fingers, atol=1e-4)
    np.testing.assert_allclose(back.thumb, pose.thumb, atol=1e-4)
    np.testing.assert_allclose(back.rotation, pose.rotation, atol=1e-5)
    np.testing.assert_allclose(back.position, pose.position, atol=1e-3)


def slow_turn(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    rows = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[axis])


def test_euler_angles_are_continuous_through_gimbal_lock():
    through = np.radians(np.linspace(60, 120, 61))
    turns = np.stack(
        [slow_turn("Z", 0.3) @ slow_turn("X", x) @ slow_turn("Y", -0.2) for x in through]
    )
    angles = bvh.euler_zxy(turns[:, None])[:, 0]
    np.testing.assert_allclose(
        angles, np.stack([np.full(61, 0.3), through, np.full(61, -0.2)], -1), atol=1e-6
    )
    spin = np.radians(np.linspace(0, 720, 100))
    turns = np.stack([slow_turn("Z", z) for z in spin])
    np.testing.assert_allclose(bvh.euler_zxy(turns[:, None])[:, 0, 0], spin, atol=1e-6)


@pytest.mark.parametrize("short", [1e-2, 1e-3, 1e-5, 1e-7])
def test_rounded_rotations_near_gimbal_lock_come_back(short):
    rng = np.random.default_rng(0)
    around = rng.uniform(-3, 3, (200, 2))
    tilt = slow_turn("X", np.pi / 2 - short)
    exact = np.stack([slow_turn("Z", z) @ tilt @ slow_turn("Y", y) for z, y in around])
    turns = exact + rng.normal(0, 1e-7, exact.shape)  # as products in float32 leave them
    angles = bvh.euler_zxy(turns[:, None])[:, 0]
    back = [slow_turn("Z", z) @ slow_turn("X", x) @ slow_turn("Y", y) for z, x, y in angles]
    np.testing.assert_allclose(back, turns, atol=2e-6)


ARM = """HIERARCHY
ROOT hip
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Yrotation Xrotation Zrotation
  JOINT knee
  {
    OFFSET 0 -10 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 -5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0333333
0 0 0 0 0 0 0 0 0
5 6 7 10 20 30 40 50 60
"""


def test_any_file_is_read(tmp_path):
    (tmp_path / "arm.bvh").write_text(ARM)
    read = bvh.read_bvh(tmp_path / "arm.bvh")
    assert read.names == ("hip", "knee", "knee_end") and read.parents == (-1, 0, 1)
    np.testing.assert_allclose(read.transforms[0, :, :3, 3], [[0, 0, 0], [0, -10, 0], [0, -15, 0]])
    y, x, z, z2, y2, x2 = np.radians([10, 20, 30, 40, 50, 60])
    hip = slow_turn("Y", y) @ slow_turn("X", x) @ slow_turn("Z", z)
    knee = np.array([5, 6, 7]) + hip @ [0, -10, 0]
    end = knee + hip @ slow_turn("Z", z2) @ slow_turn("Y", y2) @ slow_turn("X", x2) @ [0, -5, 0]
    np.testing.assert_allclose(read.transforms[1, :, :3, 3], [[5, 6, 7], knee, end], atol=1e-9)
    with pytest.raises(InputError, match="joint 0 is 'hip', expected 'palm' as the root"):
        motion.hand_points(read)


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("HIERARCHY", "", "line 2: 'ROOT', expected HIERARCHY"),
        (
            "OFFSET 0 -10 0",
            "OFFSET 0 -10",
            "line 9: 'CHANNELS', expected three numbers of an OFFSET",
        ),
        (
            "Zrotation Yrotation Xrotation",
            "Zrotation Yrotation",
            "line 10: 'End', expected a channel",
        ),
        ("CHANNELS 3", "CHANNELS x", "line 9: 'x', expected the number of channels"),
        ("Frames: 2", "Frames: 3", "2 lines of motion, expected 3"),
        ("5 6 7 10", "5 6 10", "line 20: frame 1: 8 words, expected 9 finite numbers"),
        ("5 6 7 10", "5 nan 7 10", "line 20: frame 1: 9 words, expected 9 finite"),
        ("Frames: 2", "Frames: 1.5", "line 17: '1.5', expected a whole number"),
        (ARM[100:], "", "expected"),
    ],
)
def test_faults_are_named(tmp_path, old, new, message):
    (tmp_path / "bad.bvh").write_text(ARM.replace(old, new, 1))
    with pytest.raises(InputError, match="bad.bvh") as error:
        bvh.read_bvh(tmp_path / "bad.bvh")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_hands_of_others_are_refused(hand, tmp_path):
    bones, pose = hand
    with pytest.raises(InputError, match="none.bvh: expected a readable"):
        bvh.read_bvh(tmp_path / "none.bvh")
    lost = pose._replace(position=pose.position.at[4].set(jnp.nan))
    with pytest.raises(InputError, match="frame 4"):
        motion.write_bvh(tmp_path / "b.bvh", bones, lost)
    assert not (tmp_path / "b.bvh").exists()
    motion.write_bvh(tmp_path / "c.bvh", bones, pose)
    read = bvh.read_bvh(tmp_path / "c.bvh")
    with pytest.raises(InputError, match="offset of 'little_pip' is 5.00 mm off"):
        motion.poses_of(read, bones._replace(lengths=bones.lengths.at[0, 0].add(5.0)))
    text = (tmp_path / "c.bvh").read_text().replace("ring_pip", "ring_knee")
    (tmp_path / "d.bvh").write_text(text)
    with pytest.raises(
        InputError, match="joint 6 is 'ring_.*', expected 'ring_pip' below 'ring_mcp'"
    ):
        motion.hand_points(bvh.read_bvh(tmp_path / "d.bvh"))
