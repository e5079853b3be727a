"""Inverse kinematics: exact where zero can be reached, within limits always, fault by fault."""

from functools import partial

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares as scipy_least_squares

from hpe_jax.errors import InputError
from hpe_jax.hand import inverse as ik
from hpe_jax.hand.guess import State
from hpe_jax.hand.markers import Subject, subject_of
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.hand.slopes import label_slopes
from hpe_jax.hand.solve import frames_to_poses
from hpe_jax.hand.swarm import aligned
from hpe_jax.hand.transforms import LIMITS

# Jitted: compiled once a shape, instead of each of their operations on its own.
labels_of, label_slopes = jax.jit(ik.labels_of), jax.jit(label_slopes)
moved, rotation_step, aligned = (jax.jit(f) for f in (ik.moved, ik.rotation_step, aligned))

LOW, HIGH = np.asarray(LIMITS).T
N = 8  # one shape for all tests of a skeleton: compiling takes longer than solving


def people(skeleton, seed=0, frames=N):
    shape = hands.subject_shape(jax.random.key(seed), False)
    subject = subject_of(shape, skeleton)
    poses, _, _ = hands.draw(jax.random.split(jax.random.key(seed + 1), frames), shape, "msra")
    return subject, poses, hands.observed(subject, poses)


def angles_of(solution):
    pose = solution.pose
    return np.concatenate([np.asarray(pose.fingers).reshape(-1, 16), np.asarray(pose.thumb)], 1)


def check_limits(solution):
    angles = angles_of(solution)[solution.solved]
    assert (angles >= LOW).all() and (angles <= HIGH).all()
    turns = np.asarray(solution.pose.rotation)[solution.solved]
    np.testing.assert_allclose(
        turns @ turns.swapaxes(1, 2), np.tile(np.eye(3), (len(turns), 1, 1)), atol=1e-5
    )
    assert (np.linalg.det(turns) > 0).all()


@pytest.mark.parametrize("solver,bound", [("lm", 0.01), ("swarm", 3.0), ("track", 0.05)])
def test_poses_are_found_again(solver, bound):
    subject, poses, joints = people("msra")
    solution = frames_to_poses(subject, joints, "msra", solver=solver)
    assert solution.error.mean() < bound and not solution.problems and not solution.remarks
    np.testing.assert_allclose(
        np.linalg.norm(solution.joints - joints, axis=-1), solution.error, atol=1e-3
    )
    check_limits(solution)
    if solver == "lm":  # All pivots are labelled: what they fix is found again.
        np.testing.assert_allclose(solution.pose.position, poses.position, atol=0.02)
        np.testing.assert_allclose(solution.pose.rotation, poses.rotation, atol=2e-3)
        bends = np.asarray(poses.fingers)[..., 2:]
        np.testing.assert_allclose(np.asarray(solution.pose.fingers)[..., 2:], bends, atol=0.01)


def test_sparse_labels_are_reached_too():
    subject, _, joints = people("nyu", seed=3)
    solution = frames_to_poses(subject, joints, "nyu")
    assert np.median(solution.error) < 0.05 and solution.error.mean() < 1.0
    check_limits(solution)


def test_impossible_hands_stay_within_the_limits():
    subject, _, joints = people("msra", seed=5)
    wild = joints + np.random.default_rng(0).normal(0, 25, joints.shape).astype(np.float32)
    wild[0] = joints[0].mean(0) + 3 * (joints[0] - joints[0].mean(0))  # three times the size
    for solver in ("lm", "swarm", "track"):
        solution = frames_to_poses(subject, wild, "msra", solver=solver)
        assert solution.solved.all()
        check_limits(solution)
        assert (
            "out of reach" in solution.remarks[0]
            and "expected at most 20 mm" in solution.remarks[0]
        )


@pytest.mark.parametrize("solver", ["lm", "swarm"])
def test_faults_are_named_and_touch_no_other_frame(solver):
    subject, _, joints = people("msra")
    clean = frames_to_poses(subject, joints, "msra", solver=solver)
    names = SKELETONS["msra"].joints
    faulty = joints.copy()
    faulty[1, names.index("wrist")] = np.nan
    faulty[2, 1:4] = np.nan  # a finger less its tip
    faulty[2, 0] = joints[2, 0]
    faulty[3] = np.linspace(0, 1, 21)[:, None] * [10.0, 20, 30] + [0, 0, 400]
    faulty[4, :] = np.nan
    faulty[5, 5] = np.inf
    solution = frames_to_poses(subject, faulty, "msra", solver=solver)
    assert set(solution.problems) == {1, 2, 3, 4, 5}
    assert solution.problems[1].startswith("no wrist, expected all joints of the root: index_mcp")
    assert "no index_mcp" in solution.problems[2] and "no middle_mcp" in solution.problems[5]
    assert "on a line" in solution.problems[3]
    assert np.isnan(angles_of(solution)[1:6]).all() and np.isnan(solution.error[1:6]).all()
    for frame in (0, 6, 7):
        np.testing.assert_allclose(
            solution.joints[frame], clean.joints[frame], atol=0.05 if solver == "lm" else 1.0
        )


def test_a_missing_finger_rests_and_the_others_are_exact():
    subject, _, joints = people("msra")
    gone = joints.copy()
    gone[:, 14:17] = np.nan  # the little finger beyond its mcp
    solution = frames_to_poses(subject, gone, "msra")
    assert np.nanmean(solution.error) < 0.01 and np.isnan(solution.error[:, 14:17]).all()
    rest = np.radians([8, 0, 12, 7])
    np.testing.assert_allclose(
        np.asarray(solution.pose.fingers)[:, 0], np.tile(rest, (N, 1)), atol=0.02
    )


def test_a_sequence_starts_from_the_frame_before_and_passes_gaps():
    subject, poses, _ = people("msra")
    blend = np.linspace(0, 1, N, dtype=np.float32)

    def at(t):
        mix = lambda a: (1 - t) * a[0] + t * a[1]  # noqa: E731
        return poses._replace(
            fingers=mix(poses.fingers),
            thumb=mix(poses.thumb),
            wrist=poses.wrist[0],
            rotation=poses.rotation[0],
            position=mix(poses.position),
        )

    joints = hands.observed(subject, jax.vmap(at)(jnp.asarray(blend)))
    joints[3] = np.nan
    solution = frames_to_poses(subject, joints, "msra", solver="track")
    assert set(solution.problems) == {3}
    assert np.nanmean(solution.error) < 0.02
    steps = np.abs(np.diff(angles_of(solution)[[0, 1, 2, 4, 5, 6, 7]], axis=0))
    assert np.nanmax(steps[:, :16]) < 0.6
    check_limits(solution)


def test_a_joint_that_comes_and_goes_does_not_move_what_tracking_begins_from():
    """Joints are counted from the mean of those that are valid, which is another one then."""
    subject, _, joints = people("msra")
    valid = np.ones((N, 21), bool)
    valid[1::2, 10:17] = False  # All of two fingers but the root's joints.

    @partial(jax.jit, static_argnums=1)
    def tracked(path, iterations):
        state = ik.track(subject, path, valid, np.ones(N, bool), iterations=iterations)
        return ik.labels_of_frames(subject, state)

    for hand in joints[:4]:
        path = np.tile(hand, (N, 1, 1))
        # The first frame begins from a guess, from which four iterations are enough.
        for iterations, since, least in ((3, 1, 0.02), (4, 0, 0.1)):
            apart = np.linalg.norm(tracked(path, iterations) - path, axis=-1)
            assert np.where(valid, apart, 0.0).mean(1)[since:].max() < least


def test_equation_1_is_minimised_as_a_slow_solver_does():
    subject, poses, joints = people("msra")
    noisy = joints + np.random.default_rng(1).normal(0, 6, joints.shape).astype(np.float32)
    solution = frames_to_poses(subject, noisy, "msra")
    for frame in (0, 1):
        pose = jax.tree.map(lambda a, frame=frame: a[frame], solution.pose)
        angles = jnp.asarray(angles_of(solution)[frame])
        state = State(angles, pose.rotation, pose.position)

        @jax.jit
        def apart(step, state=state, frame=frame):
            return labels_of(subject, moved(state, step)) - noisy[frame]

        def distances(step, apart=apart):
            d = np.asarray(apart(jnp.asarray(step, jnp.float32)), np.float64)
            return (np.square(d).sum(-1) + ik.SOFT**2) ** 0.25  # squared: the distance

        low = np.concatenate([LOW - state.angles - 1e-6, np.full(6, -50)])
        high = np.concatenate([HIGH - state.angles + 1e-6, np.full(6, 50)])
        rng = np.random.default_rng(frame)
        begin = np.clip(rng.normal(0, 0.02, 27), low + 1e-6, high - 1e-6)
        slow = scipy_least_squares(
            distances, begin, bounds=(low, high), diff_step=1e-3, max_nfev=200
        )
        mine, theirs = (distances(np.zeros(27)) ** 2).sum(), 2 * slow.cost
        assert mine < theirs * 1.01


@pytest.mark.parametrize("skeleton,lengths", [("msra", False), ("icvl", True), ("nyu36", True)])
def test_the_geometric_jacobian_is_that_of_differentiation(skeleton, lengths):
    subject, _, _ = people("msra")
    shape = hands.subject_shape(jax.random.key(4), False)
    subject = Subject(subject.bones, subject_of(shape, skeleton).markers)
    rng = np.random.default_rng(3)
    tilt = jax.vmap(rotation_step)(rng.normal(0, 0.2, (5, 3)).astype(np.float32))
    subject = subject._replace(bones=subject.bones._replace(frame=tilt))
    x = rng.uniform(LOW, HIGH)
    x = np.concatenate([x, rng.uniform(0.8, 1.2, 15)]) if lengths else x
    turn = rotation_step(jnp.asarray(rng.normal(size=3), jnp.float32))
    state = State(jnp.asarray(x, jnp.float32), turn, jnp.array([4.0, -7.0, 20.0]))
    points, slopes = label_slopes(subject, state)
    np.testing.assert_allclose(points, labels_of(subject, state), atol=1e-3)
    step = jnp.zeros(len(x) + 6)
    traced = jax.jit(jax.jacfwd(lambda d: labels_of(subject, moved(state, d))))(step)
    np.testing.assert_allclose(slopes, traced, atol=2e-3)


def test_rotation_steps_are_rotations():
    for omega in np.random.default_rng(0).normal(0, 0.5, (5, 3)):
        turn = np.asarray(rotation_step(jnp.asarray(omega, jnp.float32)))
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)
        angle = 2 * np.arctan(np.linalg.norm(omega) / 2)
        assert np.trace(turn) == pytest.approx(1 + 2 * np.cos(angle), abs=1e-5)
        np.testing.assert_allclose(turn @ omega, omega, atol=1e-5)
    x, y, z = slope = np.array([0.3, -0.2, 0.5])
    derivative = jax.jvp(rotation_step, (jnp.zeros(3),), (jnp.asarray(slope, jnp.float32),))[1]
    np.testing.assert_allclose(derivative, [[0, -z, y], [z, 0, -x], [-y, x, 0]], atol=1e-6)


def test_alignment_finds_a_rotation_and_never_a_reflection():
    rng = np.random.default_rng(2)
    local = rng.normal(0, 40, (21, 3)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    moved = (local @ turn.T + [5, -3, 400]).astype(np.float32)
    valid = jnp.arange(21) > 2
    rotation, position = aligned(jnp.asarray(local), jnp.asarray(moved), valid)
    np.testing.assert_allclose(rotation, turn, atol=1e-4)
    np.testing.assert_allclose(position, [5, -3, 400], atol=0.02)
    mirrored, _ = aligned(jnp.asarray(local * [-1, 1, 1]), jnp.asarray(moved), valid)
    assert np.linalg.det(np.asarray(mirrored)) == pytest.approx(1, abs=1e-4)


def test_another_skeleton_is_refused():
    subject, _, joints = people("msra")
    with pytest.raises(InputError, match=r"\(8, 14, 3\), expected \(frames, 21, 3\)"):
        frames_to_poses(subject, joints[:, :14], "msra")
