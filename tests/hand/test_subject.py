"""A subject's bones are measured on joints: lengths by their mean, the rest by least squares."""

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.datasets.msra import read_labels
from hpe_jax.errors import InputError
from hpe_jax.hand.markers import Subject, subject_of
from hpe_jax.hand.solve import frames_to_poses
from hpe_jax.hand.subject import mean_lengths, measure
from launch.joints_to_angles import read_frames

FRAMES = 64


@pytest.fixture(scope="module")
def recorded():
    """A hand with a thumb that turns 15 mm deeper in the palm than it is labelled."""
    shape = hands.subject_shape(jax.random.key(7), False)
    bones, markers = subject_of(shape, "msra")
    lengths = bones.lengths.at[4, 0].add(15.0)
    base = bones.base.at[4].add(jnp.array([-5.0, -12.0, -4.0]))
    markers = markers._replace(offset=markers.offset.at[17].set(jnp.array([1.0, 15.0, 0.5])))
    subject = Subject(bones._replace(lengths=lengths, base=base), markers)
    poses, _, _ = hands.draw(jax.random.split(jax.random.key(8), FRAMES), shape, "msra")
    return subject, hands.observed(subject, poses)


def test_mean_lengths_are_a_slow_mean(recorded):
    subject, joints = recorded
    lengths = mean_lengths(joints, "msra")
    # Middle finger, second phalanx: joints 6 (pip) and 7 (dip) of MSRA15.
    slow = np.mean([np.sqrt(((frame[7] - frame[6]) ** 2).sum()) for frame in joints])
    assert lengths[2, 1] == pytest.approx(slow, rel=1e-5)
    np.testing.assert_allclose(lengths[:4], subject.bones.lengths[:4], atol=0.01)
    assert np.isnan(mean_lengths(np.zeros((2, 14, 3)), "nyu")).all()
    joints = joints.copy()
    joints[0, 7] = np.nan
    assert mean_lengths(joints, "msra")[2, 1] == pytest.approx(slow, rel=1e-4)


def test_a_measured_hand_explains_its_joints(recorded):
    subject, joints = recorded
    found = measure(joints, "msra", frames=FRAMES)
    np.testing.assert_allclose(found.bones.lengths[:4], subject.bones.lengths[:4], atol=0.01)
    np.testing.assert_allclose(found.bones.base, subject.bones.base, atol=1.0)
    np.testing.assert_allclose(found.bones.lengths[4], subject.bones.lengths[4], atol=1.0)
    turns = np.asarray(found.bones.frame)
    np.testing.assert_allclose(
        turns @ turns.swapaxes(1, 2), np.tile(np.eye(3), (5, 1, 1)), atol=1e-5
    )
    assert np.nanmean(frames_to_poses(found, joints, "msra").error) < 0.1


def test_axes_of_the_template_make_angles_those_of_any_hand():
    """Of a hand whose knuckles are not tilted, but whose wrist is labelled elsewhere."""
    shape = hands.subject_shape(jax.random.key(7), False)
    bones, markers = subject_of(shape, "freihand")
    moved = markers._replace(offset=markers.offset.at[0].set(jnp.array([9.0, 4.0, 0.0])))
    subject = Subject(bones, moved)
    poses, _, _ = hands.draw(jax.random.split(jax.random.key(8), FRAMES), shape, "nyu")
    joints = hands.observed(subject, poses)

    def off(axes):
        found = measure(joints, "freihand", frames=FRAMES, axes=axes)
        solution = frames_to_poses(found, joints, "freihand")
        assert np.nanmean(solution.error) < 1.0
        angles = np.degrees(np.asarray(solution.pose.fingers) - np.asarray(poses.fingers))
        return np.asarray(found.bones.frame), np.median(np.abs(angles[..., 1]))

    frame, apart = off("template")
    np.testing.assert_allclose(frame, np.tile(np.eye(3), (5, 1, 1)), atol=1e-3)
    assert apart < 3.5 and apart < off("own")[1]


def test_a_real_hand_labelled_at_the_middles_of_its_bones(shared_data):
    """ICVL's first test subject: the template's proportions, label by label within a millimetre."""
    path = shared_data / "published" / "icvl" / "test_seq_1.txt"
    joints, skeleton, _ = read_frames("icvl", str(path), "uvd", None)
    joints = joints[::8]
    found = measure(joints, skeleton, frames=FRAMES, axes="template")
    solution = frames_to_poses(found, joints, skeleton)
    assert solution.solved.all() and solution.error.mean() < 1.0
    usual = subject_of(hands.subject_shape(jax.random.key(0), True), skeleton).bones.lengths
    share = np.asarray(found.bones.lengths / usual)
    np.testing.assert_allclose(share, np.median(share), rtol=0.2)


def test_slips_of_labels_are_not_measured(recorded):
    subject, joints = recorded
    slips = joints.copy()
    slips[::10, 20, 2] += 200.0  # The tip of the thumb: the bone before it and its own.
    slips[5, 3] += [0.0, 400.0, 0.0]
    found = measure(slips, "msra", frames=FRAMES)
    clean = measure(joints, "msra", frames=FRAMES)
    np.testing.assert_allclose(found.bones.lengths, clean.bones.lengths, atol=0.5)
    error = frames_to_poses(found, slips, "msra").error
    assert np.median(error) < 0.2 and error[5].max() > 100
    np.testing.assert_allclose(found.bones.lengths[:4], subject.bones.lengths[:4], atol=0.01)


def test_bones_of_no_hand_are_refused(recorded):
    _, joints = recorded
    joints = joints.copy()
    joints[:, 4] += 5 * (joints[:, 4] - joints[:, 3])
    with pytest.raises(InputError, match="bones of the index measure .* mm, expected about"):
        measure(joints, "msra", frames=FRAMES)


def test_nothing_to_measure_is_said(recorded):
    _, joints = recorded
    with pytest.raises(InputError, match="64 frames of joints: expected at least one"):
        measure(np.full_like(joints, np.nan), "msra", frames=FRAMES)
    line = np.zeros_like(joints) + np.arange(21)[:, None]
    with pytest.raises(InputError, match="not on a line"):
        measure(line, "msra", frames=FRAMES)


def test_real_hands_with_constant_bones_are_explained(shared_data):
    joints = read_labels(shared_data / "msra14" / "joint.txt")[::6][:FRAMES]
    subject = measure(joints, "msra", frames=FRAMES)
    solution = frames_to_poses(subject, joints, "msra")
    assert solution.solved.all() and solution.error.mean() < 1.0
    np.testing.assert_allclose(subject.bones.lengths[3], [30.8, 23.1, 20.9], atol=0.01)
