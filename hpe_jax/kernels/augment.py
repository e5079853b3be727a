"""Random draws of the augmentation that `voxels.make_grid` folds into its affine map."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Affine(NamedTuple):
    """One example's augmentation, as `make_grid` takes it.

    Attributes:
      angle: (...,) radians.
      scale: (...,) enlargement.
      shift: (..., 3) voxels.
      aspect: (...,) width over height.
    """

    angle: Float[Array, "..."]
    scale: Float[Array, "..."]
    shift: Float[Array, "... 3"]
    aspect: Float[Array, "..."]


def draw_affine(
    key: Array,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    rotation_deg: float = 0.0,
    margin: int = 0,
    aspect: tuple[float, float] = (1.0, 1.0),
) -> Affine:
    """Draw one example's augmentation; `vmap` over keys for a batch.

    Args:
      key: random key of this example.
      scale: bounds of the uniform enlargement.
      rotation_deg: the in-plane rotation is uniform within plus and minus this.
      margin: canvas minus grid, in voxels. The grid is a crop of the canvas that starts at a
        whole voxel 0..margin, uniform for each axis; `margin / 2` would be the centre crop.
      aspect: bounds of the uniform ratio of width to height.
    """
    key_scale, key_angle, key_crop = jax.random.split(key, 3)
    # Not 0 to 2: `fold_in(key, i)` is `split(key, 3)[i]`.
    key_aspect = jax.random.fold_in(key, 3)
    limit = jnp.deg2rad(rotation_deg)
    start = jax.random.randint(key_crop, (3,), 0, margin + 1)
    return Affine(
        jax.random.uniform(key_angle, minval=-limit, maxval=limit),
        jax.random.uniform(key_scale, minval=scale[0], maxval=scale[1]),
        margin / 2 - start.astype(jnp.float32),
        jax.random.uniform(key_aspect, minval=aspect[0], maxval=aspect[1]),
    )
