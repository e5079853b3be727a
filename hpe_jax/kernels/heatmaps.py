"""Target heatmaps of joints and bones on a grid (voxel centres at integers, see `voxels`).

One definition for volumes and images: points with three coordinates (x, y, z) give maps
`(D, H, W, J)`, points with two (x, y) give `(H, W, J)`. `vmap` for batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_heatmaps(voxels: Float[Array, "J N"], size: int, sigma: float) -> Float[Array, "*S J"]:
    """Un-normalised Gaussians `exp(-d^2 / 2 sigma^2)`, 1 at the joint.

    Args:
      voxels: continuous voxel coordinates of the joints; may lie outside.
      size: voxels along an edge.
      sigma: voxels.

    Returns:
      `size` along each of N axes, the last coordinate first, and the joints. A Gaussian is
      separable, so only N * size * J exponentials are computed.
    """
    steps = jnp.arange(size, dtype=jnp.float32)[:, None, None]
    axes = jnp.exp(-((steps - voxels) ** 2) / (2 * sigma**2))
    maps = axes[..., 0]
    for i in range(1, voxels.shape[1]):
        maps = axes[..., i].reshape(size, *(1,) * i, -1) * maps[None]
    return maps


def bone_heatmaps(
    voxels: Float[Array, "J N"], bones: Sequence[tuple[int, int]], size: int, sigma: float
) -> Float[Array, "*S B"]:
    """Gaussians of the distance to bones, the segments between two joints; 1 along the bone.

    Args:
      voxels, size, sigma: as for `gaussian_heatmaps`.
      bones: pairs of joints.

    Returns:
      `size` along each of N axes, the last coordinate first, and the bones.
    """
    first, second = (voxels[jnp.array([bone[i] for bone in bones])] for i in (0, 1))
    along = second - first
    length = jnp.maximum(jnp.sum(along**2, -1), 1e-12)
    n = voxels.shape[1]
    steps = jnp.arange(size, dtype=jnp.float32)
    # What is left of each axis's coordinate; the last axis comes first.
    offsets = [
        steps.reshape(*(size if axis == n - 1 - i else 1 for axis in range(n)), 1) - first[:, i]
        for i in range(n)
    ]
    share = sum(offset * along[:, i] for i, offset in enumerate(offsets)) / length
    share = jnp.clip(share, 0.0, 1.0)
    apart = sum((offset - share * along[:, i]) ** 2 for i, offset in enumerate(offsets))
    return jnp.exp(-apart / (2 * sigma**2))
