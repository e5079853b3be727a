"""Finding the hand: nearest surface, then an iterated centre of mass.

The hand is taken to be the part of the scene nearest to the camera, as in every published
pipeline. `localise` is used on whole recorded frames and on rendered patches alike, so that
training sees the centres that prediction will make.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hpe_jax.camera import depth_to_points, points_by_axis

ITERATIONS = 4  # of the palm's cube; more slide along the arm
HAND_MM = 250.0  # edge of a cube that holds a hand, whatever cube a network looks at
# All in edges of that cube: the cubes that look for the nearest part and for the palm,
# the shell about the palm in which only an arm can be, and how far from the palm an arm begins
# to count less and where it does not count at all.
START = 0.8
PALM = 0.6
ARM = (0.56, 0.72)
WRIST = (0.11, 0.21)
# Of the cube's face: a surface in the shell that is as large is an arm for certain. A smaller
# one is an arm in part. A yes or no here moved one centre of ten by 20 mm and more from one
# frame to the next, or from one sampling of the same frame to another.
ARM_AREA = 0.032


def segment_hand(
    depth: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, "2"],
    camera: Float[np.ndarray, "4"],
    centre: Float[np.ndarray, "3"],
    cube_mm: float,
) -> Bool[np.ndarray, "H W"]:
    """The hand's pixels: readings inside the hand's cube about `centre`. Runs on the host."""
    inside = depth > 0
    for axis, along in enumerate(points_by_axis(depth, corner, camera)):
        inside &= np.asarray(abs(along - centre[axis]) <= 0.5 * cube_mm)
    return inside


def centre_of_mass(
    points: Float[Array, "N 3"],
    weight: Float[Array, " N"],
    start: Float[Array, "3"],
    cube_mm: float | Array,
    iterations: int = ITERATIONS,
) -> Float[Array, "3"]:
    """Weighted mean of the points inside a cube, moved to that mean again and again.

    Args:
      points: (N, 3) mm.
      weight: (N,) how much each point counts, not negative; 0 leaves it out.
      start: (3,) first centre.
      cube_mm: edge of the cube.
      iterations: how often the cube moves.
    Returns:
      (3,) centre; where a cube holds no point its centre stays.
    """

    def move(centre, _):
        inside = weight * (jnp.abs(points - centre) < 0.5 * cube_mm).all(-1)
        return _mean(points, inside, centre), None

    return jax.lax.scan(move, start, None, length=iterations)[0]


def _mean(points: Array, weight: Array, otherwise: Array) -> Array:
    total = weight.sum()
    some = total > 0.0
    return jnp.where(
        some, (points * weight[:, None]).sum(0) / jnp.where(some, total, 1.0), otherwise
    )


def nearest_surface(depth: Float[Array, "H W"]) -> tuple[Array, Array]:
    """Row and column of the nearest pixel that is not a stray one.

    A pixel counts only when its whole 3×3 neighbourhood has readings; its depth is then the
    farthest of the nine, so that single flying pixels do not win. When no pixel has a full
    neighbourhood the nearest reading of all is taken.
    """
    far = jnp.where(depth > 0.0, depth, jnp.inf)
    solid = jax.lax.reduce_window(far, -jnp.inf, jax.lax.max, (3, 3), (1, 1), "SAME")
    edge = jnp.zeros(depth.shape, bool).at[1:-1, 1:-1].set(True)
    solid = jnp.where(edge, solid, jnp.inf)
    score = jnp.where(jnp.isfinite(solid).any(), solid, far)
    index = jnp.argmin(score)
    return index // depth.shape[1], index % depth.shape[1]


def localise(
    depth: Float[Array, "H W"],
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
) -> Float[Array, "3"]:
    """Centre (mm) of the hand nearest to the camera.

    An arm in view would pull a plain centre of mass down to the elbow. So small cubes first
    find the palm, the widest part near the nearest surface; whatever lies too far from it to
    be a finger shows where the arm is; what is on the arm's side of the wrist counts the less
    the more there is of it: by degrees, so that frames that differ little seldom have centres
    that differ much.

    Args:
      depth: (H, W) mm, 0 = no reading.
      corner: pixel of the image's first pixel.
      camera: fx, fy, cx, cy.
    Returns:
      (3,) mm; (0, 0, 0) when the image holds no reading.
    """
    points = depth_to_points(depth, corner, camera)
    row, column = nearest_surface(depth)
    tip = points[row, column]
    flat, valid = points.reshape(-1, 3), depth.reshape(-1) > 0.0
    away = jnp.abs(flat - tip).max(-1) / (0.5 * START * HAND_MM)
    start = _mean(flat, valid * jnp.maximum(1.0 - away, 0.0), tip)
    palm = centre_of_mass(flat, valid.astype(flat.dtype), start, PALM * HAND_MM)
    offset = flat - palm
    far = jnp.linalg.norm(offset, axis=-1)
    beyond = valid & (far > ARM[0] * HAND_MM) & (far < ARM[1] * HAND_MM)
    arm = (offset * beyond[:, None]).sum(0)
    arm = arm / jnp.maximum(jnp.linalg.norm(arm), 1e-6)
    # The tips of long fingers reach the shell too, but they are small.
    surface = (jnp.square(flat[:, 2]) * beyond).sum() / (camera[0] * camera[1])
    certain = jnp.minimum(surface / (ARM_AREA * HAND_MM**2), 1.0)
    along = (offset @ arm) / HAND_MM
    on_the_arm = jnp.clip((along - WRIST[0]) / (WRIST[1] - WRIST[0]), 0.0, 1.0)
    centre = centre_of_mass(flat, valid * (1.0 - certain * on_the_arm), palm, HAND_MM, 3)
    return jnp.where(valid.any(), centre, 0.0)
