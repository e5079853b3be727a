"""What a depth camera does to a perfect depth image; every part can be left out.

Structured-light and time-of-flight cameras fray silhouettes, lose pixels at edges and on
surfaces seen at a grazing angle, tear holes, and answer in steps whose noise grows with the
square of the distance.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def sense(
    key: PRNGKeyArray, depth: Float[Array, "H W"], pixel_mm: Float[Array, ""]
) -> Float[Array, "H W"]:
    """A noisy reading of a perfect depth image (mm; 0 = no reading, in and out).

    Args:
      key: one per image.
      depth: perfect depth.
      pixel_mm: width of a pixel at the hand, so that slopes are known.
    """
    h, w = depth.shape
    k = jax.random.split(key, 9)
    strength = jax.random.uniform(k[8], ())
    # Fringe: a pixel reads the depth a little beside it.
    jitter = jax.random.normal(k[0], (2, h, w)) * (0.5 + 2.0 * strength) / pixel_mm
    row = jnp.clip(jnp.arange(h)[:, None] + jnp.round(jitter[0]).astype(int), 0, h - 1)
    column = jnp.clip(jnp.arange(w)[None, :] + jnp.round(jitter[1]).astype(int), 0, w - 1)
    z = depth[row, column]
    seen = z > 0.0
    # Drop-outs: at edges with high probability, on steep surfaces with some, anywhere rarely.
    steep = jnp.maximum(
        jnp.abs(z - jnp.roll(z, 1, 0)), jnp.abs(z - jnp.roll(z, 1, 1))
    ) / jnp.maximum(pixel_mm, 1e-3)
    lose = 0.004 + strength * jnp.where(steep > 6.0, 0.3, jnp.clip(0.06 * (steep - 1.5), 0.0, 0.2))
    seen &= jax.random.uniform(k[1], (h, w)) > lose
    # Holes: a few small discs.
    at = jax.random.uniform(k[2], (3, 2), maxval=jnp.array([h, w], jnp.float32))
    radius = jax.random.uniform(k[3], (3,), minval=-4.0, maxval=3.0 + 3.0 * strength)
    rows, columns = jnp.arange(h)[:, None, None], jnp.arange(w)[None, :, None]
    far = jnp.hypot(rows - at[:, 0], columns - at[:, 1])
    seen &= (far > radius).all(-1)
    # Noise in clumps (sensors smooth), then the sensor's depth steps.
    scale = (z / 700.0) ** 2
    fine = jax.random.normal(k[4], (h, w)) * 0.6
    coarse = jax.image.resize(jax.random.normal(k[5], (h // 4, w // 4)), (h, w), "linear") * (
        0.5 + 2.5 * strength
    )
    z = z + scale * (fine + coarse)
    step = jax.random.uniform(k[6], (), minval=0.125, maxval=1.6) * scale
    z = jnp.round(z / jnp.maximum(step, 0.1)) * jnp.maximum(step, 0.1)
    return jnp.where(seen, z, 0.0)
