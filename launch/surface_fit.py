"""A hand's sphere mesh fitted to depth frames that nobody has labelled; see `launch.fit_hand`."""

from __future__ import annotations

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.ndimage import map_coordinates
from scipy.ndimage import distance_transform_edt

from hpe_jax import camera as cameras
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
from hpe_jax.hand.skeletons import NYU
from hpe_jax.kernels.localise import segment_hand
from hpe_jax.synthetic.distance import signed_distance
from hpe_jax.synthetic.surface import HAND, HAND_AND_FOREARM, SphereMesh, hand_surface

POINTS = 600  # readings of a frame that the surface is fitted to
EDGE = 208  # pixels of the square about the hand that is looked at
FOREARM_MM = 230.0
WRIST_LIMITS = np.radians([[-85.0, 70.0], [-50.0, 40.0]])
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
    hand = np.asarray(segment_hand(depth, np.zeros(2, np.float32), camera, centre, cube))
    corner = np.asarray(cameras.patch_corner(centre, camera, EDGE))
    shown = cameras.cut_patch(np.where(hand, depth, 0.0).astype(np.float32), corner, 1, EDGE)
    steady = shown > 0  # readings at edges and holes mix two surfaces
    for axis in (0, 1):
        for shift in (1, -1):
            steady &= np.abs(np.roll(shown, shift, axis) - shown) < 15.0
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


def subject(logits: jax.Array) -> HandShape:
    """Proportions from twelve unknowns, 0 = the template's."""
    x = jnp.tanh(logits)
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
    logits: jax.Array,
    seen: Seen,
    camera: jax.Array,
    weights: tuple[float, float],
) -> jax.Array:
    """How badly a pose explains a frame, about mm^2: readings off the surface, flesh outside the
    silhouette or in front of readings; and, by the second weight, labels off the model's."""
    shape = subject(logits)
    pose, points, found = posed(x, start, shape)
    mesh = surface(points, shape, pose)
    off = rounded(signed_distance(seen.points, mesh, HAND_AND_FOREARM), 12.0)
    data = (off * seen.counts).sum() / jnp.maximum(seen.counts.sum(), 1)
    c, r = mesh.centres, mesh.radii
    a, b = HAND.cones[:, 0], HAND.cones[:, 1]
    c, r = (
        jnp.concatenate([c[:32], 0.5 * (c[a] + c[b])]),
        jnp.concatenate([r[:32], (r[a] + r[b]) / 2]),
    )
    uv = cameras.xyz_to_uvd(c, camera)[:, :2] - seen.corner
    beyond = map_coordinates(seen.outside, [uv[:, 1], uv[:, 0]], 1, mode="nearest") + r - 1.5
    pixel = jnp.clip(jnp.round(uv), 0, EDGE - 1).astype(int)
    read = seen.depth[pixel[:, 1], pixel[:, 0]]
    before = jnp.where(read > 0.0, read - (c[:, 2] - r) - 3.0, 0.0)
    free = 0.5 * (jnp.clip(beyond, 0, 40) ** 2).mean() + (jnp.clip(before, 0, 30) ** 2).mean()
    apart = jnp.sqrt(((found - seen.joints) ** 2).sum(-1) + 1e-3)
    rest = sum((part**2).sum() for part in (x.fingers, x.thumb, x.wrist))
    return weights[0] * (data + free) + weights[1] * rounded(apart, 20.0).mean() + 0.02 * rest


@partial(jax.jit, static_argnames="steps")
def descend(x, logits, start, seen, camera, *, weights, steps, rate, shared):
    """Adam on all frames at once; with `shared` 1, not 0, on the subject too.

    Returns both and each frame's misfit."""
    each = jax.vmap(partial(misfit, weights=weights), (0, 0, None, 0, None))

    def total(unknowns):
        x, logits = unknowns
        values = each(x, start, logits, seen, camera)
        return values.sum() + 1.5 * (logits**2).sum(), values

    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps, 0.05))

    def step(carry, _):
        unknowns, state = carry
        slopes, _ = jax.grad(total, has_aux=True)(unknowns)
        slopes = jax.tree.map(jnp.nan_to_num, slopes)
        slopes = (slopes[0], slopes[1] * shared)
        updates, state = optimiser.update(slopes, state)
        return (optax.apply_updates(unknowns, updates), state), None

    first = ((x, logits), optimiser.init((x, logits)))
    ((x, logits), _), _ = jax.lax.scan(step, first, None, length=steps)
    return x, logits, each(x, start, logits, seen, camera)


def palms(joints: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) from the palm's axes to the camera's, of NYU's palm and wrists."""
    ulnar, radial, palm = (joints[:, NYU.index(n)] for n in ("wrist_ulnar", "wrist_radial", "palm"))
    y = palm - 0.5 * (ulnar + radial)
    y /= np.linalg.norm(y, axis=-1, keepdims=True)
    x = radial - ulnar
    x -= (x * y).sum(-1, keepdims=True) * y
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1).astype(np.float32)


def fit(seen: Seen, camera: np.ndarray, steps: int = STEPS) -> tuple:
    """Poses (pose, pivots, labels), the subject and each frame's misfit."""
    joints = np.asarray(seen.joints)
    n = len(joints)
    starts = jnp.asarray(palms(joints))
    wrists = 0.5 * (joints[:, NYU.index("wrist_ulnar")] + joints[:, NYU.index("wrist_radial")])
    x = Unknowns(
        jnp.full((n, 4, 4), -0.7), jnp.zeros((n, 5)), jnp.zeros((n, 2)), jnp.zeros((n, 3)),
        jnp.asarray(wrists / 10.0, jnp.float32),
    )  # fmt: skip
    go = partial(descend, start=starts, seen=seen, camera=jnp.asarray(camera))
    x, logits, _ = go(x, jnp.zeros(12), weights=(0.0, 1.0), steps=steps, rate=0.05, shared=1.0)
    x, logits, _ = go(x, logits, weights=(1.0, 0.1), steps=steps, rate=0.03, shared=1.0)
    x, logits, least = go(x, logits, weights=(1.0, 0.0), steps=steps, rate=0.02, shared=1.0)
    say(f"fitted from the model's joints: misfit {least.mean():.1f}")
    random = np.random.default_rng(0)
    for number in range(2 * len(THUMBS)):
        tried = soft(x)
        if number % 2:  # the pose of the frame before or after it, where this one is
            shift = 1 if number % 4 == 1 else -1
            tried = neighbours(tried, starts, shift)
        else:
            low, high = THUMB_LIMITS.T
            share = np.clip((np.radians(THUMBS[number // 2]) - low) / (high - low), 0.06, 0.94)
            thumb = jnp.tile(jnp.asarray(np.log(share / (1 - share)), jnp.float32), (n, 1))
            stir = jnp.asarray(random.normal(0.0, 0.5, (n, 4, 4)), jnp.float32)
            tried = tried._replace(thumb=thumb, fingers=tried.fingers + stir)
        tried, _, value = go(
            tried, logits, weights=(1.0, 0.0), steps=steps // 2, rate=0.04, shared=0.0
        )
        better = value < least
        x = jax.tree.map(
            lambda new, old, b=better: jnp.where(b.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            tried,
            x,
        )
        least = jnp.minimum(value, least)
        of = f"{number + 1}/{2 * len(THUMBS)}"
        say(f"start {of}: better in {int(better.sum())} frames, misfit {least.mean():.1f}")
    shape = subject(logits)
    return jax.vmap(posed, (0, 0, None))(x, starts, shape), shape, least


def soft(x: Unknowns) -> Unknowns:
    """Angles a little away from their limits, where logits do not move."""
    clipped = {name: jnp.clip(getattr(x, name), -3, 3) for name in ("fingers", "thumb", "wrist")}
    return x._replace(**clipped)


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


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
