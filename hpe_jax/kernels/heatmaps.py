"""Gaussian target heatmaps on a voxel grid (voxel centres at integers, see `voxels`)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_heatmaps(
    voxels: Float[Array, "J 3"], size: int, sigma: float
) -> Float[Array, "size size size J"]:
    """Un-normalised Gaussians `exp(-d^2 / 2 sigma^2)`, 1 at the joint.

    Args:
      voxels: continuous voxel coordinates (x, y, z) of the joints; may lie outside.
      size: voxels along an edge.
      sigma: voxels.

    Returns:
      (D, H, W, J) = (z, y, x, joint). A Gaussian is separable, so only 3 * size * J
      exponentials are computed. `vmap` for batches.
    """
    steps = jnp.arange(size, dtype=jnp.float32)[:, None, None]
    axes = jnp.exp(-((steps - voxels) ** 2) / (2 * sigma**2))
    x, y, z = axes[..., 0], axes[..., 1], axes[..., 2]
    return z[:, None, None] * (y[:, None] * x[None, :])
