"""How well predicted joints fit a depth frame that nobody has labelled."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.kernels.localise import HAND_MM, segment_hand

# Joints lie inside the flesh: at the surface at the least, a thick hand behind it at most.
DEPTH_BEHIND_MM = 40.0


HAND_CM2 = (30.0, 300.0)
"""What `seen_cm2` is of hands. Measured with a forearm in view: 38 to 272 of 512 hands of the
synthetic test split, 92 to 209 on the Kinect, 141 to 181 on the SR305; a wall has 370 to 630, a
ball as large as a head 260."""


def seen_cm2(
    depth: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, "2"],
    camera: Float[np.ndarray, "4"],
    centre: Float[np.ndarray, "3"],
) -> float:
    """Area of what is seen in a hand's cube about `centre`, each reading as if it faced the camera.

    Arguments as for `joints_inside`; the cube is the localiser's, whatever a model's.
    """
    hand = segment_hand(depth, corner, camera, centre, HAND_MM)
    pixels = np.square(depth[hand], dtype=np.float64) / float(camera[0] * camera[1])
    return float(pixels.sum() / 100)


def joints_inside(
    joints: Float[np.ndarray, "J 3"],
    depth: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, "2"],
    camera: Float[np.ndarray, "4"],
    centre: Float[np.ndarray, "3"],
    cube_mm: float,
) -> Bool[np.ndarray, " J"]:
    """Which joints project onto the hand and lie 0-40 mm behind its surface.

    Args:
      joints: mm, camera space.
      depth: mm, 0 = no reading; a whole frame or a patch of it.
      corner: pixel (u, v) of `depth[0, 0]`.
      camera: fx, fy, cx, cy of the image that `corner` counts pixels of.
      centre: mm, the middle of the hand's cube.
      cube_mm: edge of that cube, which segments the hand (`segment_hand`).

    Returns:
      A joint whose nearest pixel is outside the patch, has no reading, or shows something other
      than the hand is not inside.
    """
    corner, camera, centre = np.asarray(corner), np.asarray(camera), np.asarray(centre)
    hand = segment_hand(depth, corner, camera, centre, cube_mm)
    joints = np.asarray(joints, np.float64)
    visible = joints[:, 2] > 0
    # A joint behind the camera projects nowhere; 1 only keeps the division defined.
    safe = np.where(visible[:, None], joints, 1.0)
    uvd = np.asarray(xyz_to_uvd(safe, np.asarray(camera, np.float64)))
    uv = np.round(uvd[:, :2] - np.asarray(corner))
    height, width = depth.shape
    visible &= (uv >= 0).all(1) & (uv[:, 0] < width) & (uv[:, 1] < height)
    u, v = (np.where(visible, uv[:, axis], 0).astype(int) for axis in (0, 1))
    behind = joints[:, 2] - depth[v, u]
    return visible & hand[v, u] & (behind >= 0) & (behind <= DEPTH_BEHIND_MM)


def inside_hand(
    joints: Float[np.ndarray, "J 3"],
    depth: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, "2"],
    camera: Float[np.ndarray, "4"],
    centre: Float[np.ndarray, "3"],
    cube_mm: float,
) -> float:
    """Share of joints inside the hand, 0-1; arguments as for `joints_inside`."""
    return float(joints_inside(joints, depth, corner, camera, centre, cube_mm).mean())
