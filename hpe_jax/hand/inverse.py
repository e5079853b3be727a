"""Inverse kinematics by damped least squares: joint angles within their limits from joints.

Minimises equation 1 of Deng et al. (2017), the sum of the distances of a hand's labels to given
joints, over 27 degrees of freedom: 21 angles, the root's rotation and its position. Distances,
rounded off within `SOFT`, are squares weighted anew in every iteration of Levenberg-Marquardt
(with Marquardt's scaling). Angles at a limit that a step would leave are held, the others
clipped, so no iterate ever violates a limit. `kinematics` and `transforms` say what the angles
mean; `solve.py` is the way in for frames with gaps.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hpe_jax.hand.guess import REST, State, first_guess, in_palm
from hpe_jax.hand.markers import Subject
from hpe_jax.hand.slopes import label_slopes
from hpe_jax.hand.transforms import LIMITS

# How strongly an angle is drawn to rest, mm per radian: enough to settle one that no label
# depends on, too little (1e-4 mm) to be seen where one does.
PRIOR = 0.1
ITERATIONS = 16
# Distances are counted as sqrt(d^2 + SOFT^2), mm, so that 0 has a slope.
SOFT = 0.1
TRACK_ITERATIONS = 6
# Bone lengths as unknowns of a frame: their share of the subject's.
LENGTH_LIMITS = (0.6, 1.5)


def rotation_step(omega: Float[Array, "3"]) -> Float[Array, "3 3"]:
    """The rotation of the quaternion (1, omega / 2): omega to first order, smooth at 0."""
    x, y, z = 0.5 * omega[0], 0.5 * omega[1], 0.5 * omega[2]
    square = x * x + y * y + z * z
    cross = jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]]) * z
    cross += jnp.array([[0.0, 0, 1], [0, 0, 0], [-1, 0, 0]]) * y
    cross += jnp.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]]) * x
    return jnp.eye(3) + 2.0 / (1.0 + square) * (cross + cross @ cross)


def moved(state: State, step: Float[Array, " D"]) -> State:
    """The state after a step: of the angles, then of the rotation (radians), then in mm."""
    a = state.angles.shape[0]
    return State(
        state.angles + step[:a],
        state.rotation @ rotation_step(step[a : a + 3]),
        state.position + step[a + 3 :],
    )


def stretched(subject: Subject, angles: Float[Array, " A"]) -> Subject:
    """The subject with its bones lengthened by the unknowns beyond the 21 angles, if any."""
    if angles.shape[0] == 21:
        return subject
    factors = angles[21:].reshape(5, 3)
    return subject._replace(bones=subject.bones._replace(lengths=subject.bones.lengths * factors))


def labels_of(subject: Subject, state: State) -> Float[Array, "J 3"]:
    """The labels of a state in the camera, mm."""
    local = in_palm(stretched(subject, state.angles), state.angles)
    return local @ state.rotation.T + state.position


# Of many frames: (N, J, 3) of states with a leading axis N.
labels_of_frames = jax.jit(jax.vmap(labels_of, (None, 0)))


def limits(unknowns: int) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
    """Lower and upper limits of 21 angles, or of these and 15 factors of bone lengths."""
    more = jnp.tile(jnp.array([LENGTH_LIMITS]), (unknowns - 21, 1))
    both = jnp.concatenate([LIMITS, more])
    return both[:, 0], both[:, 1]


def residuals(
    subject: Subject, state: State, joints: Float[Array, "J 3"], valid: Bool[Array, " J"]
) -> Float[Array, " R"]:
    """Differences in mm, and the weak pull to rest."""
    return _against(labels_of(subject, state), state, joints, valid)


def _against(labels: Array, state: State, joints: Array, valid: Array) -> Float[Array, " R"]:
    apart = jnp.where(valid[:, None], labels - joints, 0.0)
    rest = jnp.concatenate([jnp.asarray(REST), jnp.ones(state.angles.shape[0] - 21)])
    return jnp.concatenate([apart.ravel(), PRIOR * (state.angles - rest)])


def linearised(
    subject: Subject, state: State, joints: Float[Array, "J 3"], valid: Bool[Array, " J"]
) -> tuple[Float[Array, " R"], Float[Array, "R D"]]:
    """The residuals and their derivatives by a step (`moved`)."""
    labels, slopes = label_slopes(subject, state)
    slopes = jnp.where(valid[:, None, None], slopes, 0.0).reshape(-1, slopes.shape[-1])
    unknowns = state.angles.shape[0]
    jacobian = jnp.concatenate([slopes, PRIOR * jnp.eye(unknowns, unknowns + 6)])
    return _against(labels, state, joints, valid), jacobian


def _distances(r: Float[Array, " R"], joints: int) -> Float[Array, " J"]:
    return jnp.sqrt((r[: 3 * joints].reshape(joints, 3) ** 2).sum(-1) + SOFT**2)


def weights(r: Float[Array, " R"], joints: int) -> Float[Array, " R"]:
    """What residuals are multiplied with, so that their squares fall as the distances do."""
    near = jnp.repeat(jax.lax.rsqrt(_distances(r, joints)), 3)
    return jnp.concatenate([near, jnp.ones(r.shape[0] - 3 * joints)])


def cost(r: Float[Array, " R"], joints: int) -> Float[Array, ""]:
    """What is minimised, up to a constant factor: equation 1 and the weak pull to rest."""
    return 2.0 * _distances(r, joints).sum() + (r[3 * joints :] ** 2).sum()


def held(
    state: State, slope: Float[Array, " D"], low: Float[Array, " A"], high: Float[Array, " A"]
) -> Bool[Array, " D"]:
    """Which unknowns stand at a limit that a descent would leave."""
    x, g = state.angles, slope[: state.angles.shape[0]]
    at = ((x <= low) & (g > 0)) | ((x >= high) & (g < 0))
    return jnp.concatenate([at, jnp.zeros(6, bool)])


def descend(
    subject: Subject,
    joints: Float[Array, "J 3"],
    valid: Bool[Array, " J"],
    start: State,
    iterations: int,
) -> State:
    """Levenberg-Marquardt for one frame from `start`; see the module's docstring."""
    low, high = limits(start.angles.shape[0])

    def body(_: Array | int, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, damping = carry
        plain, jacobian = linearised(subject, state, joints, valid)
        weight = weights(plain, joints.shape[0])
        now, jacobian = plain * weight, jacobian * weight[:, None]
        slope = jacobian.T @ now
        free = jnp.where(held(state, slope, low, high), 0.0, 1.0)
        normal = (jacobian.T @ jacobian) * free * free[:, None]
        scale = jnp.diagonal(normal) * damping + (1.0 - free) + 1e-6
        factor = jax.scipy.linalg.cho_factor(normal + jnp.diag(scale), lower=True)
        step = -free * jax.scipy.linalg.cho_solve(factor, slope * free)
        tried = moved(state, step)
        tried = tried._replace(angles=jnp.clip(tried.angles, low, high))
        then = residuals(subject, tried, joints, valid)
        better = cost(then, joints.shape[0]) < cost(plain, joints.shape[0])
        damping = jnp.clip(damping * jnp.where(better, 0.2, 6.0), 1e-7, 1e4)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), tried, state)
        return kept, damping

    start = start._replace(angles=jnp.clip(start.angles, low, high))
    return jax.lax.fori_loop(0, iterations, body, (start, jnp.float32(1e-2)))[0]


def centred(joints: Float[Array, "*b J 3"], valid: Bool[Array, "*b J"]) -> tuple[Array, Array]:
    """Joints about their mean, so that float32 counts in micrometres; NaN becomes 0."""
    joints = jnp.where(valid[..., None], joints, 0.0)
    count = jnp.maximum(valid.sum(-1, keepdims=True), 1)
    middle = joints.sum(-2) / count
    return jnp.where(valid[..., None], joints - middle[..., None, :], 0.0), middle


@partial(jax.jit, static_argnames=("iterations", "lengths"))
def least_squares(
    subject: Subject,
    joints: Float[Array, "N J 3"],
    valid: Bool[Array, "N J"],
    *,
    iterations: int = ITERATIONS,
    lengths: bool = False,
) -> tuple[State, Float[Array, " N"]]:
    """Poses of frames that have nothing to do with each other.

    Args:
      subject: bones and labels.
      joints: camera, mm; anything where not valid.
      valid: which joints count.
      iterations: of Levenberg-Marquardt.
      lengths: give every frame 15 factors of bone lengths of its own, too.
    Returns:
      a state with a leading axis N, and the spread of each frame's root joints (`first_guess`).
    """
    near, middle = centred(joints, valid)

    def one(joints: Array, valid: Array) -> tuple[State, Array]:
        start, spread = first_guess(subject, joints, valid)
        if lengths:
            start = start._replace(angles=jnp.concatenate([start.angles, jnp.ones(15)]))
        return descend(subject, joints, valid, start, iterations), spread

    state, spread = jax.vmap(one)(near, valid)
    return state._replace(position=state.position + middle), spread


@partial(jax.jit, static_argnames=("iterations",))
def track(
    subject: Subject,
    joints: Float[Array, "T J 3"],
    valid: Bool[Array, "T J"],
    usable: Bool[Array, " T"],
    *,
    iterations: int = TRACK_ITERATIONS,
) -> State:
    """Poses of consecutive frames, each begun from the one before it.

    A frame begins afresh where that is nearer to its joints (after a cut or a gap), and a
    frame that is not usable is passed over: the next begins from the last one solved.

    Args:
      subject: bones and labels.
      joints: camera, mm, in order of time; anything where not valid.
      valid: which joints count.
      usable: frames that can be solved.
      iterations: of Levenberg-Marquardt a frame.
    Returns:
      a state with a leading axis T; what it holds for frames that are not usable means nothing.
    """
    near, middle = centred(joints, valid)
    fresh = jax.vmap(lambda j, v: first_guess(subject, j, v)[0])(near, valid)

    def badness(state: State, joints: Array, valid: Array) -> Array:
        return cost(residuals(subject, state, joints, valid), joints.shape[0])

    def one(last: Any, frame: Any) -> tuple[Any, Any]:
        previous, origin = last
        joints, middle, valid, usable, new = frame
        old = previous._replace(position=previous.position + origin - middle)
        stay = badness(old, joints, valid) < badness(new, joints, valid)
        start = jax.tree.map(lambda a, b: jnp.where(stay, a, b), old, new)
        found = descend(subject, joints, valid, start, iterations)
        kept = jax.tree.map(lambda a, b: jnp.where(usable, a, b), found, old)
        return (kept, middle), kept

    begin = (jax.tree.map(lambda a: a[0], fresh), middle[0])
    _, state = jax.lax.scan(one, begin, (near, middle, valid, usable, fresh))
    return state._replace(position=state.position + middle)
