"""A hand's sphere mesh fitted to depth frames that nobody has labelled; see `launch.fit_hand`."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from scipy.ndimage import distance_transform_edt

from hpe_jax import camera as cameras
from hpe_jax.errors import InputError
from hpe_jax.hand.inverse import rotation_step
from hpe_jax.hand.kinematics import (
    FINGER_LIMITS,
    THUMB_LIMITS,
    HandPoints,
    HandPose,
    HandShape,
    labels,
    palm_points,
    place,
)
from hpe_jax.hand.solve import frames_to_poses
from hpe_jax.hand.subject import template
from hpe_jax.kernels.localise import segment_hand
from hpe_jax.progress import time_left
from hpe_jax.synthetic.distance import signed_distance
from hpe_jax.synthetic.poses import WRIST_LIMITS
from hpe_jax.synthetic.sensor import around
from hpe_jax.synthetic.surface import HAND, HAND_AND_FOREARM, SphereMesh, hand_surface

POINTS = 600  # readings of a frame that the surface is fitted to
EDGE = 208  # pixels of the square about the hand that is looked at
FOREARM_MM = 230.0
SOFT = 3.0  # logits of starts: further out angles hardly move
# Thumbs (`kinematics.THUMB_LIMITS`, degrees) to start from: out, along the index, across the palm.
THUMBS = ((40, 30, 45, 10, 10), (0, 45, 60, 50, 60), (-15, 50, 80, 30, 20), (-5, 25, 40, 60, 75))
STEPS = 300


class Seen(NamedTuple):
    """What frames show, a leading axis each: points (N, P, 3) on the hand's surface, which of them
    count; of the square from `corner` (N, 2), in mm, how far pixels are outside the silhouette
    (negative inside) and the hand's depth (0 elsewhere); and a model's joints (N, 14, 3)."""

    points: jax.Array
    counts: jax.Array
    corner: jax.Array
    outside: jax.Array
    depth: jax.Array
    joints: jax.Array


class Unknowns(NamedTuple):
    """A pose: logits of angles between their limits, a turn (radians) of the start's rotation,
    and the wrist (cm, so that all unknowns are of one size)."""

    fingers: jax.Array
    thumb: jax.Array
    wrist: jax.Array
    turn: jax.Array
    position: jax.Array


def look(depth: np.ndarray, camera: np.ndarray, centre: np.ndarray, cube: float, seed: int) -> dict:
    """The fields of `Seen` but the joints, of one frame."""
    hand = segment_hand(depth, np.zeros(2, np.float32), camera, centre, cube)
    corner = np.asarray(cameras.patch_corner(centre, camera, EDGE))
    shown = cameras.cut_patch(np.where(hand, depth, 0.0).astype(np.float32), corner, 1, EDGE)
    # Readings at edges and holes mix two surfaces.
    steady = (shown > 0) & (np.abs(np.asarray(around(jnp.asarray(shown))) - shown) < 15.0).all(0)
    points = np.asarray(cameras.depth_to_points(shown, corner, camera))[steady]
    chosen = np.random.default_rng(seed).permutation(len(points))[:POINTS]
    padded = np.zeros((POINTS, 3), np.float32)
    padded[: len(chosen)] = points[chosen]
    outside = distance_transform_edt(shown == 0) - distance_transform_edt(shown > 0)
    return {
        "points": padded,
        "counts": np.arange(POINTS) < len(chosen),
        "corner": corner.astype(np.float32),
        "outside": (outside * centre[2] / camera[0]).astype(np.float32),
        "depth": shown,
    }


@jax.jit
def subject(size: jax.Array) -> HandShape:
    """Proportions from twelve unknowns, 0 = those of a usual hand."""
    x = jnp.tanh(size)
    return HandShape(
        scale=0.95 * jnp.exp(0.3 * x[0]),
        palm=1.0 + 0.15 * x[1:4],
        fingers=1.0 + 0.12 * x[4:9],
        thickness=jnp.exp(0.25 * x[9]),
        forearm=jnp.exp(0.3 * x[10:12]),
    )


def between(logits: jax.Array, limits: np.ndarray) -> jax.Array:
    """Angles within their limits, which no logit reaches."""
    return limits[:, 0] + (limits[:, 1] - limits[:, 0]) * jax.nn.sigmoid(logits)


@jax.jit
def logits(angles: jax.Array, limits: np.ndarray) -> jax.Array:
    """The inverse of `between`, at most `SOFT` either way."""
    share = (angles - limits[:, 0]) / (limits[:, 1] - limits[:, 0])
    return jnp.clip(jax.scipy.special.logit(jnp.clip(share, 1e-3, 1.0 - 1e-3)), -SOFT, SOFT)


def posed(x: Unknowns, start: jax.Array, shape: HandShape) -> tuple:
    """Pose, pivots and labels in the camera."""
    fingers, thumb = between(x.fingers, FINGER_LIMITS), between(x.thumb, THUMB_LIMITS)
    rotation = start @ rotation_step(x.turn)
    pose = HandPose(fingers, thumb, between(x.wrist, WRIST_LIMITS), rotation, 10.0 * x.position)
    points = place(palm_points(shape, fingers, thumb), pose)
    return pose, points, labels(points, shape, "nyu")


def surface(points: HandPoints, shape: HandShape, pose: HandPose) -> SphereMesh:
    """The mesh of a pose, with an arm of which frames show as much as they like."""
    return hand_surface(points, shape, pose.wrist, jnp.float32(FOREARM_MM))


def rounded(x: jax.Array, scale: float) -> jax.Array:
    """Squares that level off beyond `scale`, for outliers (Geman and McClure)."""
    return x * x / (x * x + scale * scale) * scale * scale


def misfit(
    x: Unknowns,
    start: jax.Array,
    size: jax.Array,
    seen: Seen,
    camera: jax.Array,
    weights: tuple[float, float],
) -> jax.Array:
    """How badly a pose explains a frame, about mm^2: readings off the surface, flesh outside the
    silhouette or in front of readings; and, by the second weight, labels off the model's."""
    shape = subject(size)
    pose, points, found = posed(x, start, shape)
    mesh = surface(points, shape, pose)
    off = rounded(signed_distance(seen.points, mesh, HAND_AND_FOREARM), 12.0)
    data = (off * seen.counts).sum() / jnp.maximum(seen.counts.sum(), 1)
    # The hand's spheres and those half way along its cones.
    ends = np.concatenate([np.stack([np.unique(HAND.cones)] * 2, 1), HAND.cones])
    c, r = mesh.centres[ends].mean(1), mesh.radii[ends].mean(1)
    uv = cameras.xyz_to_uvd(c, camera)[:, :2] - seen.corner
    beyond = map_coordinates(seen.outside, [uv[:, 1], uv[:, 0]], 1, mode="nearest") + r - 1.5
    pixel = jnp.clip(jnp.round(uv), 0, EDGE - 1).astype(int)
    read = seen.depth[pixel[:, 1], pixel[:, 0]]
    before = jnp.where(read > 0.0, read - (c[:, 2] - r) - 3.0, 0.0)
    free = 0.5 * (jnp.clip(beyond, 0, 40) ** 2).mean() + (jnp.clip(before, 0, 30) ** 2).mean()
    apart = jnp.sqrt(((found - seen.joints) ** 2).sum(-1) + 1e-3)
    rest = sum((part**2).sum() for part in (x.fingers, x.thumb, x.wrist))
    return weights[0] * (data + free) + weights[1] * rounded(apart, 20.0).mean() + 0.02 * rest


@jax.jit
def descend(x, size, start, seen, camera, *, weights, steps, rate, shared):
    """Adam on all frames at once; with `shared` 1, not 0, on the subject too.

    Its rate falls along a cosine to a twentieth. Returns both and each frame's misfit."""
    each = jax.vmap(partial(misfit, weights=weights), (0, 0, None, 0, None))

    def total(unknowns):
        x, size = unknowns
        return each(x, start, size, seen, camera).sum() + 1.5 * (size**2).sum()

    adam, falling = optax.scale_by_adam(), optax.cosine_decay_schedule(rate, 1.0, 0.05)

    def step(i, carry):
        unknowns, state = carry
        poses, sizes = jax.grad(total)(unknowns)
        updates, state = adam.update((poses, sizes * shared), state)
        updates = jax.tree.map(lambda u: -falling(i / steps) * u, updates)
        return optax.apply_updates(unknowns, updates), state

    # A loop whose length is a number, not a constant, is compiled once for all lengths.
    first = ((x, size), adam.init((x, size)))
    (x, size), _ = jax.lax.fori_loop(0, steps, step, first)
    return x, size, each(x, start, size, seen, camera)


def begin(joints: np.ndarray) -> tuple[Unknowns, jax.Array]:
    """Poses whose labels are nearest to a model's joints, and their rotations.

    Of an adult hand of that size: too little is known to measure this one on a model's answers.

    Raises:
      InputError: a palm that is a line.
    """
    solution = frames_to_poses(template(joints, "nyu"), joints, "nyu")
    if solution.problems:
        first, problem = next(iter(solution.problems.items()))
        raise InputError(f"frame {first + 1}: the model's {problem}")
    pose, n = solution.pose, len(joints)
    angles = (logits(pose.fingers, FINGER_LIMITS), logits(pose.thumb, THUMB_LIMITS))
    return Unknowns(
        *angles, jnp.zeros((n, 2)), jnp.zeros((n, 3)), pose.position / 10.0
    ), pose.rotation


def fit(seen: Seen, camera: np.ndarray, steps: int = STEPS) -> tuple:
    """Poses (pose, pivots, labels), the subject and each frame's misfit; errors as `begin`."""
    x, starts = begin(np.asarray(seen.joints))
    n = len(starts)
    go = partial(descend, start=starts, seen=seen, camera=jnp.asarray(camera))
    x, size, _ = go(x, jnp.zeros(12), weights=(1.0, 0.1), steps=steps, rate=0.03, shared=1.0)
    x, size, least = go(x, size, weights=(1.0, 0.0), steps=steps, rate=0.02, shared=1.0)
    print(f"from the model's joints: misfit {least.mean():.1f}", file=sys.stderr, flush=True)
    random, begun = np.random.default_rng(0), time.monotonic()
    for number in range(2 * len(THUMBS)):
        tried = soft(x)
        if number % 2:  # the pose of the frame before or after it, where this one is
            tried = neighbours(tried, starts, 1 if number % 4 == 1 else -1)
        else:
            thumb = logits(jnp.radians(jnp.array(THUMBS[number // 2])), THUMB_LIMITS)
            stir = jnp.asarray(random.normal(0.0, 0.5, (n, 4, 4)), jnp.float32)
            tried = tried._replace(thumb=jnp.tile(thumb, (n, 1)), fingers=tried.fingers + stir)
        tried, _, value = go(
            tried, size, weights=(1.0, 0.0), steps=steps // 2, rate=0.04, shared=0.0
        )
        better = value < least

        def choose(new: jax.Array, old: jax.Array, better: jax.Array = better) -> jax.Array:
            return jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        x, least = jax.tree.map(choose, tried, x), jnp.minimum(value, least)
        done, of = number + 1, 2 * len(THUMBS)
        left = time_left((time.monotonic() - begun) / done * (of - done))
        line = f"start {done}/{of}: better in {int(better.sum())} frames, misfit {least.mean():.1f}"
        print(f"{line}, {left}", file=sys.stderr, flush=True)
    shape = subject(size)
    return jax.jit(jax.vmap(posed, (0, 0, None)))(x, starts, shape), shape, least


@jax.jit
def soft(x: Unknowns) -> Unknowns:
    """Angles a little away from their limits, where logits do not move."""
    names = ("fingers", "thumb", "wrist")
    clipped = {name: jnp.clip(getattr(x, name), -SOFT, SOFT) for name in names}
    return x._replace(**clipped)


@partial(jax.jit, static_argnames="shift")
def neighbours(x: Unknowns, starts: jax.Array, shift: int) -> Unknowns:
    """The poses of other frames, each at the place of its own."""
    turned = starts @ jax.vmap(rotation_step)(x.turn)
    relative = jnp.swapaxes(starts, 1, 2) @ jnp.roll(turned, shift, 0)
    # The inverse of `rotation_step`, whose quaternion is (1, turn / 2) up to its length.
    trace = jnp.maximum(1.0 + jnp.trace(relative, axis1=1, axis2=2), 0.1)
    axis = jnp.stack(
        [relative[:, i, j] - relative[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], -1
    )
    poses = jax.tree.map(lambda part: jnp.roll(part, shift, 0), x)
    return poses._replace(turn=2.0 * axis / trace[:, None], position=x.position)
