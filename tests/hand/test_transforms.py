"""Composed transforms: the same pivots and labels as in closed form, rigid, differentiable."""

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.hand import kinematics as kin
from hpe_jax.hand import transforms as tf
from hpe_jax.hand.markers import markers_of, observe, subject_of
from hpe_jax.hand.skeletons import SKELETONS

root_frame = jax.jit(tf.root_frame)

LOW, HIGH = np.asarray(tf.LIMITS).T


@jax.jit
def both(shape, fingers, thumb):
    bones = tf.bones_of(shape)
    composed = tf.pivots(bones, tf.bone_transforms(bones, fingers, thumb))
    return kin.palm_points(shape, fingers, thumb), composed


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), edge=st.booleans())
def test_pivots_are_those_of_the_closed_form(seed, edge):
    rng = np.random.default_rng(seed)
    where = rng.integers(0, 2, 21) if edge else rng.uniform(0, 1, 21)
    angles = (LOW + where * (HIGH - LOW)).astype(np.float32)
    shape = hands.subject_shape(jax.random.key(seed), False)
    closed, composed = both(shape, angles[:16].reshape(4, 4), angles[16:])
    np.testing.assert_allclose(composed, closed, atol=1e-3)


def slow_chain(base, rotation, flexions, lengths):
    """Equation 3, one finger, one 4x4 product after the other."""
    here = np.eye(4)
    here[:3, :3], here[:3, 3] = rotation, base
    out = [here[:3, 3]]
    for k, length in enumerate(lengths):
        if k:
            c, s = np.cos(flexions[k - 1]), np.sin(flexions[k - 1])
            here = here @ np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
        step = np.eye(4)
        step[1, 3] = length
        here = here @ step
        out.append(here[:3, 3])
    return np.array(out)


def test_a_measured_hand_equals_a_slow_reading():
    rng = np.random.default_rng(4)
    turns = np.linalg.qr(rng.normal(size=(5, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    bones = tf.Bones(
        rng.normal(0, 50, (5, 3)),
        turns,
        rng.normal(size=4),
        np.zeros(4),
        rng.uniform(10, 60, (5, 3)),
    )
    angles = rng.uniform(LOW, HIGH).astype(np.float32)
    fingers, thumb = angles[:16].reshape(4, 4), angles[16:]
    bones = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), bones)
    transforms = jax.jit(tf.bone_transforms)(bones, fingers, thumb)
    points = np.asarray(jax.jit(tf.pivots)(bones, transforms))
    first = np.asarray(transforms)[1::3, :3, :3]
    for f in range(5):
        flexions = fingers[f, 2:] if f < 4 else thumb[3:]
        slow = slow_chain(bones.base[f], first[f], flexions, np.asarray(bones.lengths)[f])
        np.testing.assert_allclose(points[f], slow, atol=1e-3)
    for f in range(4):  # Without a lean: abduction about the frame's z, then flexion about x.
        s, a = float(bones.splay[f]) + fingers[f, 1], fingers[f, 0]
        aside = [[np.cos(s), np.sin(s), 0], [-np.sin(s), np.cos(s), 0], [0, 0, 1]]
        bend = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        np.testing.assert_allclose(first[f], turns[f] @ np.array(aside) @ bend, atol=1e-5)


@pytest.mark.parametrize("skeleton", ["nyu", "icvl", "msra"])
def test_labels_are_those_of_the_closed_form(skeleton):
    @jax.jit
    def labelled(shape, pose, points):
        expected = kin.labels(kin.place(points, pose), shape, skeleton)
        return observe(subject_of(shape, skeleton), pose), expected

    for seed in range(4):
        shape = hands.subject_shape(jax.random.key(seed), True)
        drawn = hands.draw(jax.random.split(jax.random.key(seed + 4), 2), shape, skeleton)
        for one in range(2):
            pose, points, _ = jax.tree.map(lambda a, one=one: a[one], drawn)
            found, expected = labelled(shape, pose, points)
            np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("skeleton", sorted(set(SKELETONS) - {"centre"}))
def test_every_skeleton_has_its_markers(skeleton):
    shape = hands.subject_shape(jax.random.key(0), False)
    subject = subject_of(shape, skeleton)
    markers = subject.markers
    assert len(markers.bone) == len(SKELETONS[skeleton]) == len(markers.offset)
    rest = jax.jit(observe)(
        subject,
        kin.HandPose(jnp.zeros((4, 4)), jnp.zeros(5), jnp.zeros(2), jnp.eye(3), jnp.zeros(3)),
    )
    w1, w2, c, m1 = (rest[i] for i in markers.root)
    if markers.root[3] < 0:
        m1 = 2 * c - 0.5 * (w1 + w2)
    axes, spread = root_frame(w1, w2, c, m1)
    assert float(spread) > 0.1
    # The root frame of a hand at rest is the palm frame, but for the tilt of its landmarks.
    assert np.degrees(np.arccos((np.trace(axes) - 1) / 2)) < 40
    with pytest.raises(ValueError, match="known"):
        markers_of(shape, "no such skeleton")


def test_the_root_frame_is_the_supplement_s():
    rng = np.random.default_rng(0)
    w1, w2, c, m1 = rng.normal(0, 50, (4, 3)).astype(np.float32)
    axes, spread = root_frame(*map(jnp.asarray, (w1, w2, c, m1)))
    rx = np.cross(w1 - c, w2 - c)
    rx /= np.linalg.norm(rx)
    rz = (m1 - c) - (m1 - c) @ rx * rx
    rz /= np.linalg.norm(rz)
    np.testing.assert_allclose(axes, np.stack([np.cross(rz, rx), rz, rx], -1), atol=1e-5)
    assert np.linalg.det(axes) == pytest.approx(1, abs=1e-5) and 0 < spread <= 1
    line = [jnp.array([t, 2 * t, 3 * t]) for t in (1.0, 2.0, 3.0, 4.0)]
    axes, spread = root_frame(*line)
    assert float(spread) < 1e-3 and np.isfinite(axes).all()
    axes, spread = root_frame(*[jnp.array([1.0, 2.0, 300.0])] * 4)
    assert float(spread) == 0 and np.isfinite(axes).all()


def test_a_hand_in_the_camera_is_rigid_and_differentiable():
    shape = hands.subject_shape(jax.random.key(1), False)
    bones = jax.jit(tf.bones_of)(shape)
    drawn = hands.draw(jax.random.key(2)[None], shape, "nyu")
    pose, points, _ = jax.tree.map(lambda a: a[0], drawn)
    transforms = jax.jit(tf.hand_transforms)(bones, pose)
    placed = jax.jit(kin.place)(points, pose)
    np.testing.assert_allclose(jax.jit(tf.pivots)(bones, transforms), placed.fingers, atol=2e-3)
    np.testing.assert_allclose(transforms[0, :3, :3], placed.palm_axes.T, atol=1e-6)
    turns = np.asarray(transforms)[:, :3, :3]
    np.testing.assert_allclose(
        turns @ turns.swapaxes(1, 2), np.tile(np.eye(3), (16, 1, 1)), atol=1e-5
    )
    batched = jax.jit(jax.vmap(tf.hand_transforms, (None, 0)))(
        bones, jax.tree.map(lambda a: jnp.stack([a, a]), pose)
    )
    assert batched.shape == (2, 16, 4, 4)

    @jax.jit
    def reach(x):
        still = tf.bone_transforms(bones, x[:16].reshape(4, 4), x[16:])
        return tf.pivots(bones, still).sum()

    slope = jax.grad(reach)(jnp.zeros(21))
    assert np.isfinite(slope).all() and (np.abs(slope) > 0).sum() >= 20
    nudge = jnp.eye(21) * 1e-2
    centred = [(reach(d) - reach(-d)) / 2e-2 for d in nudge]
    np.testing.assert_allclose(slope, centred, rtol=2e-2, atol=0.5)
