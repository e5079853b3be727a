"""Dense targets on the points of a depth image (Wan et al., CVPR 2018, section 3.1).

Maps are (h, w, J), unit vectors (h, w, J, 3). Equation 2 prints vectors that point away from the
joint while Algorithm 1 adds them to the point; here they point from the point to the joint.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def joint_field(
    points: Float[Array, "H W 3"],
    seen: Bool[Array, "H W"],
    joints: Float[Array, "J 3"],
    radius_mm: float,
) -> tuple[Float[Array, "H W J"], Float[Array, "H W J 3"]]:
    """3-D heatmaps and unit vectors, equations 1 and 2.

    Args:
      points: mm, of each pixel.
      seen: pixels without a reading get zeros.
      joints: mm, in the points' coordinates.
      radius_mm: theta: the field of a joint ends this far from it.

    Returns:
      `1 - distance / theta`, 1 at the joint and 0 from theta on, and directions of length 1
      towards the joint where the map is not 0 (zeros at the joint itself).
    """
    offset = joints - points[..., None, :]
    distance = jnp.sqrt(jnp.sum(offset**2, -1))
    near = seen[..., None] & (distance <= radius_mm)
    heat = jnp.where(near, 1.0 - distance / radius_mm, 0.0)
    unit = offset / jnp.maximum(distance, 1e-6)[..., None]
    return heat, jnp.where(near[..., None], unit, 0.0)


def image_heatmaps(pixels: Float[Array, "J 2"], size: int, radius: float) -> Float[Array, "S S J"]:
    """2-D heatmaps, equation 3: `1 - distance / radius` in pixels (x, y), 0 from the radius on."""
    steps = jnp.arange(size, dtype=jnp.float32)[:, None]
    x, y = ((steps - pixels[:, i]) ** 2 for i in (0, 1))
    return jnp.maximum(1.0 - jnp.sqrt(y[:, None] + x[None]) / radius, 0.0)


def vote(
    points: Float[Array, "H W 3"],
    heat: Float[Array, "H W J"],
    unit: Float[Array, "H W J 3"],
    radius_mm: float,
) -> Float[Array, "H W J 3"]:
    """Where each pixel believes the joints to be: Algorithm 1, step 1."""
    return points[..., None, :] + (radius_mm * (1.0 - heat))[..., None] * unit
