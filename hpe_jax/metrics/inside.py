"""How well predicted joints fit a depth frame that nobody has labelled."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.kernels.localise import segment_hand

# Joints lie inside the flesh: at the surface at the least, a thick hand behind it at most.
DEPTH_BEHIND_MM = 40.0


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
    hand = np.asarray(segment_hand(depth, corner, camera, centre, cube_mm))
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
