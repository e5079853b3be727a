"""Poses of real hands: read as they are kept, varied within limits, and kept out of the test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.hand.kinematics import FINGER_LIMITS, THUMB_LIMITS
from hpe_jax.synthetic import make_source, poses
from hpe_jax.synthetic.bank import PoseBank, draw_poses, read_bank

# A pointing hand and one that grips, each at some limits.
FINGERS = np.radians(
    [
        [[90, 0, 108, 60], [90, 0, 108, 60], [90, 0, 108, 60], [-25, 0, 0, 0]],
        [[60, 0, 70, 40], [60, 0, 70, 40], [60, 0, 70, 40], [60, 0, 70, 40]],
    ]
).astype(np.float32)
THUMB = np.radians([[-25, 60, 0, 65, 85], [20, 40, 30, 20, 20]]).astype(np.float32)
ARRAYS = {"fingers": FINGERS, "thumb": THUMB, "error_mm": np.full((2, 14), 0.5, "f4")}


@pytest.fixture
def file(tmp_path):
    def write(name="angles.npz", axes="template", **changes):
        np.savez(tmp_path / name, axes=np.array(axes), **(ARRAYS | changes))
        return str(tmp_path / name)

    return write


def config(**synthetic):
    data = dict(
        dataset="nyu",
        centre="gt",
        cube_mm=250.0,
        patch=64,
        extent_mm=340.0,
        centre_jitter_mm=0.0,
        synthetic=dict(sensor=False, forearm=True) | synthetic,
    )
    return ConfigDict(data)


def joints_of(source, count):
    """Of the first frames; depth, which nobody looks at, is not even compiled."""
    step = jax.jit(lambda loaded: source.expand(loaded)["joints"])
    return np.asarray(step(source.load(np.arange(count))))


def test_files_follow_one_another_without_frames_that_have_no_pose(file):
    gap = FINGERS.copy()
    gap[0, 2, 1] = np.nan
    far = ARRAYS["error_mm"].copy()
    far[1, 5], far[0, 2] = 25.0, np.nan  # One joint out of reach, one that is not labelled.
    more = file("more.npz", fingers=gap), file("far.npz", error_mm=far)
    bank = read_bank(f"{file()}, {', '.join(more)}")
    assert [len(a) for a in bank] == [4, 4]
    np.testing.assert_array_equal(bank.fingers, FINGERS[[0, 1, 1, 0]])
    np.testing.assert_array_equal(bank.thumb, THUMB[[0, 1, 1, 0]])


def test_bad_files_are_one_clear_line(file, tmp_path):
    none = file("none.npz", thumb=np.full_like(THUMB, np.nan))
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", fingers=FINGERS)
    np.save(tmp_path / "array.npy", FINGERS)
    (tmp_path / "empty.npz").write_bytes(b"")
    # As joints_to_angles writes it, but for some bytes of the first array.
    np.savez_compressed(tmp_path / "damaged.npz", axes=np.array("template"), **ARRAYS)
    whole = bytearray((tmp_path / "damaged.npz").read_bytes())
    begun = 30 + whole[26] + 256 * whole[27] + whole[28]  # after the member's header
    whole[begun : begun + 20] = b"\xff" * 20
    (tmp_path / "damaged.npz").write_bytes(whole)
    bad = {
        none: "no frame has a pose",
        file("own.npz", axes="own"): "axes of one subject's hand",
        file("shapes.npz", thumb=THUMB[:, :4]): "arrays of other shapes",
        file("long.npz", thumb=THUMB[:1]): "arrays of other shapes",
        file("few.npz", error_mm=np.zeros((1, 14))): "arrays of other shapes",
        str(tmp_path / "text.npz"): "expected angles.npz",
        str(tmp_path / "other.npz"): "expected angles.npz",
        str(tmp_path / "array.npy"): "expected angles.npz",
        str(tmp_path / "empty.npz"): "expected angles.npz",
        str(tmp_path / "damaged.npz"): "expected angles.npz",
        str(tmp_path / "missing.npz"): "cannot be read, expected angles.npz",
        str(tmp_path): "cannot be read, expected angles.npz",
    }
    for path, message in bad.items():
        with pytest.raises(InputError, match=message) as caught:
            read_bank(f"{file()},{path}")
        assert str(caught.value).startswith(path) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected angles.npz"):
        make_source(config(poses=none), "train", 0)


def test_poses_are_varied_within_the_limits(file):
    bank = read_bank(file())
    fingers, thumb = jax.jit(jax.vmap(lambda k: draw_poses(bank, k, 6)))(
        jax.random.split(jax.random.key(0), 300)
    )
    assert fingers.shape == (300, 6, 4, 4) and thumb.shape == (300, 6, 5)
    assert (fingers >= FINGER_LIMITS[:, 0]).all() and (fingers <= FINGER_LIMITS[:, 1]).all()
    assert (thumb >= THUMB_LIMITS[:, 0]).all() and (thumb <= THUMB_LIMITS[:, 1]).all()
    assert (fingers == FINGER_LIMITS[:, 1]).any() and (thumb == THUMB_LIMITS[:, 1]).any()
    # The first is the pose but for a few degrees, and both poses are as likely.
    first = np.asarray(fingers)[:, 0]
    off = np.abs(first[:, None] - FINGERS).max((2, 3))
    assert np.degrees(off.min(1)).max() < 25 and 0.4 < (off.argmin(1) == 0).mean() < 0.6
    own = FINGERS[off.argmin(1)]
    assert 2 < np.degrees(np.std(first - own)) < 5
    # The others open step by step.
    bends = np.degrees(np.asarray(fingers)[..., 2].mean((0, 2)))
    assert (np.diff(bends) < 0).all() and bends[5] > 0.8 * bends[0]


def test_the_thumb_rises_from_the_palm_from_candidate_to_candidate():
    # Far from its limits, which would hide how far.
    bank = PoseBank(jnp.asarray(FINGERS[1:]), jnp.radians(jnp.array([[20.0, 20, 30, 20, 20]])))
    _, thumb = jax.jit(jax.vmap(lambda k: draw_poses(bank, k, 6)))(
        jax.random.split(jax.random.key(0), 300)
    )
    rise = np.diff(np.degrees(np.asarray(thumb)[..., 1].mean(0)))
    np.testing.assert_allclose(rise, 4.0, atol=1.0)


def test_sampled_hands_keep_limits_and_take_the_free_candidate(file):
    bank = read_bank(file())
    view = poses.VIEWS["nyu"]
    keys = jax.random.split(jax.random.key(2), 200)

    def one(key):
        shape = poses.sample_shape(jax.random.fold_in(key, 9), held_out=False)
        pose, points, depth = poses.sample_hand(key, shape, view, bank)
        drawn = draw_poses(bank, jax.random.split(key, 4)[0], poses.CANDIDATES)
        every = jax.vmap(lambda f, t: poses.overlap(shape, poses.palm_points(shape, f, t)))(*drawn)
        return pose, depth, every

    pose, depth, every = jax.jit(jax.vmap(one))(keys)
    assert (pose.fingers >= FINGER_LIMITS[:, 0]).all() and (pose.thumb <= THUMB_LIMITS[:, 1]).all()
    free = np.asarray(every < 3.0).any(1)
    assert 0.1 < free.mean() < 0.95  # both kinds of hand are among them
    assert (np.asarray(depth)[free] < 3.0).all()
    np.testing.assert_allclose(np.asarray(depth)[~free], np.asarray(every).min(1)[~free], atol=1e-3)
    # The viewpoint is that of the procedural pose with the same key.
    shape = poses.sample_shape(jax.random.key(1), held_out=False)
    with_bank = jax.jit(lambda k: poses.sample_hand(k, shape, view, bank)[0])(keys[0])
    without = jax.jit(lambda k: poses.sample_hand(k, shape, view)[0])(keys[0])
    np.testing.assert_array_equal(with_bank.rotation, without.rotation)
    np.testing.assert_array_equal(with_bank.wrist, without.wrist)


def test_training_frames_show_the_bank_and_test_frames_do_not(file):
    fist = read_bank(file(fingers=FINGERS[[1, 1]], thumb=THUMB[[1, 1]]))
    path = file("fist.npz", **{k: np.asarray(v) for k, v in fist._asdict().items()})

    def reach(split, test_poses="", **synthetic):
        """How far fingertips are from the palm, mm (NYU's joints 0, 2, 4, 6 and 13)."""
        source = make_source(config(**synthetic), split, 0, test_poses=test_poses)
        joints = joints_of(source, 16)
        return joints, np.linalg.norm(joints[:, :8:2] - joints[:, 13:], axis=-1)

    banked, far = reach("train", poses=path)
    plain, usual = reach("train")
    assert np.isfinite(banked).all() and far.std(1).max() < 15 < usual.std(1).max()
    np.testing.assert_array_equal(
        reach("test", poses=path)[0], reach("test")[0], "the test split is procedural"
    )
    assert reach("test", test_poses=path)[1].std(1).max() < 15, "unless it is told otherwise"
    known = [make_source(config(poses=p), "train", 0).files for p in (path, path, file())]
    assert known[0] == known[1] != known[2] and known[0].keys() == {"data.synthetic.poses"}


def test_bank_is_a_pytree_that_can_be_an_argument():
    bank = PoseBank(jnp.asarray(FINGERS), jnp.asarray(THUMB))
    one = jax.jit(draw_poses, static_argnums=2)(bank, jax.random.key(0), 2)
    assert [a.shape for a in one] == [(2, 4, 4), (2, 5)]
