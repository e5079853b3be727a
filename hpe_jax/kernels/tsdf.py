"""Truncated signed distances of a voxel grid to the surface that a depth camera saw.

As in B. Curless and M. Levoy, SIGGRAPH 1996, and section 3.1 of X. Deng et al., "Hand3D", 2017:
distances are those along the line of sight, which overstate the nearest distance to a slanted
surface. Voxels are those of `kernels.voxels`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.kernels.voxels import Grid, to_mm


def tsdf(
    depth: Float[Array, "H W"],
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
    grid: Grid,
    size: int,
    truncation_mm: float,
) -> Float[Array, "size size size"]:
    """How far each voxel's centre lies in front of the surface, over the truncation.

    Args:
      depth: (H, W) mm, 0 = no reading.
      corner: pixel of the image's first pixel.
      camera: fx, fy, cx, cy.
      grid: of one example (no batch axes); `vmap` for more.
      size: voxels along an edge.
      truncation_mm: distances beyond it count as it.

    Returns:
      (D, H, W) = (z, y, x), float32: 1 in free space, 0 on the surface, -1 behind it, where the
      camera cannot see. Lines of sight without a reading, and those that pass beside the image,
      are free: in a segmented image they are the background, and a hole in the hand becomes a
      shaft through it, which is what refinement is to close.
    """
    axis = jnp.arange(size, dtype=jnp.float32)
    z, y, x = jnp.meshgrid(axis, axis, axis, indexing="ij")
    centres = to_mm(jnp.stack([x, y, z], -1).reshape(-1, 3), grid)
    uvd = xyz_to_uvd(centres, camera)
    at = jnp.floor(uvd[:, :2] - corner + 0.5)
    limit = jnp.array(depth.shape[::-1]) - 1
    column, row = jnp.moveaxis(jnp.clip(at, 0, limit).astype(jnp.int32), -1, 0)
    reading = depth[row, column]
    seen = jnp.all((at >= 0) & (at <= limit), -1) & (reading > 0) & (uvd[:, 2] > 0)
    # One millimetre of depth is this many along the line of sight.
    along = jnp.linalg.norm(centres, axis=-1) / uvd[:, 2]
    distance = (reading - uvd[:, 2]) * along
    value = jnp.where(seen, jnp.clip(distance / truncation_mm, -1.0, 1.0), 1.0)
    return value.reshape(size, size, size)
