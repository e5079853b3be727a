"""What a depth camera does to a perfect depth image.

Structured-light cameras fray silhouettes and lose pixels there; time-of-flight cameras mix what
is in front of an edge with what is behind it. Both lose surfaces seen at a grazing angle, tear
holes, and answer in steps whose noise grows with the square of the distance.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from hpe_jax.synthetic import draws

CLUMPS = 28  # patches of one error along an image's side, some 12 mm wide


def _bits(words: UInt32[Array, "2"], shape: tuple[int, int]) -> UInt32[Array, "H W"]:
    """32 random bits a pixel: a multiply-and-shift hash of its number and two words of a key.

    `jax.random` would take longer for these pixels than the renderer does.
    """
    start, stride = words
    x = jnp.arange(shape[0] * shape[1], dtype=jnp.uint32).reshape(shape)
    x = x * (stride | 1) + start
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def _uniform(words: UInt32[Array, "2"], shape: tuple[int, int]) -> Float[Array, "H W"]:
    return (_bits(words, shape) >> 8).astype(jnp.float32) / (1 << 24)


def _normal(words: UInt32[Array, "2"], shape: tuple[int, int]) -> Float[Array, "H W"]:
    """Nearly normal numbers: the sum of four random bytes, centred and scaled."""
    bits = _bits(words, shape)
    total = jnp.zeros(shape)
    for shift in (0, 8, 16, 24):
        total += ((bits >> shift) & 255).astype(jnp.float32)
    return (total - 510.0) / 147.8


def around(z: Float[Array, "H W"]) -> Float[Array, "4 H W"]:
    """Each pixel's four neighbours; beyond the image's rim, which is no edge, it repeats."""
    below, above = jnp.concatenate([z[1:], z[-1:]]), jnp.concatenate([z[:1], z[:-1]])
    right = jnp.concatenate([z[:, 1:], z[:, -1:]], 1)
    left = jnp.concatenate([z[:, :1], z[:, :-1]], 1)
    return jnp.stack([below, above, right, left])


def _in_steps(z: Float[Array, "H W"], step: Float[Array, ""]) -> Float[Array, "H W"]:
    """Depth of whole numbers of disparity, `step` mm apart at 700 mm."""
    per_mm = 700.0**2 / step
    return per_mm / jnp.maximum(jnp.round(per_mm / jnp.maximum(z, 1.0)), 1.0)


def _curtain(words: UInt32[Array, "3 6"], z: Float[Array, "H W"]) -> Float[Array, "H W"]:
    """Mixed pixels: at silhouettes a reading lies between the hand and what is behind it.

    The pixels on an edge, and in most images those just outside it, are put back by lengths
    that are exponentially distributed.
    """
    h, w = z.shape
    draw = draws.uniform(words[0, :3])
    outside, inside = jnp.where(draw[0] < 0.75, 0.95, 0.0), draw[1]
    length = 4.0 + 50.0 * draw[2] ** 2
    neighbours = around(z)
    trail = -length * jnp.log1p(-_uniform(words[1, :2], (h, w)))
    beside = neighbours.max(0)  # What a pixel just outside would mix with the background.
    u = _uniform(words[2, :2], (h, w))
    edge = ((neighbours == 0.0) | (neighbours > z + 25.0)).any(0)
    fringe = jnp.where((beside > 0.0) & (u < outside), beside + trail, 0.0)
    return jnp.where(z > 0.0, z + jnp.where(edge & (u < inside), trail, 0.0), fringe)


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
    k = jax.random.split(key, 12)
    words = draws.bits(k, 6)
    strength, kind = draws.uniform(words[8, :2])
    # Time-of-flight cameras trail curtains from edges that are clean; the others fray them.
    flight = kind < 0.5
    # Fraying: a pixel reads the depth a little beside it.
    fringe = jnp.where(flight, 0.3, 0.5 + 2.0 * strength) / pixel_mm
    down, right = (jnp.round(fringe * _normal(words[i, :2], (h, w))).astype(int) for i in (0, 7))
    row = jnp.clip(jnp.arange(h)[:, None] + down, 0, h - 1)
    column = jnp.clip(jnp.arange(w)[None, :] + right, 0, w - 1)
    z = depth[row, column]
    z = jnp.where(flight, _curtain(words[9:12], z), z)
    seen = z > 0.0
    # Drop-outs: at frayed edges often, on steep surfaces sometimes, anywhere rarely.
    steep = jnp.abs(around(z) - z).max(0) / jnp.maximum(pixel_mm, 1e-3)
    at_edge, on_slope = jnp.where(flight, 0.05, 0.3), jnp.clip(0.06 * (steep - 1.5), 0.0, 0.2)
    lose = 0.004 + strength * jnp.where(steep > 6.0, at_edge, on_slope)
    seen &= _uniform(words[1, :2], (h, w)) > lose
    # Holes: a few small discs.
    at = draws.uniform(words[2].reshape(3, 2), 0.0, (h, w))
    radius = draws.uniform(words[3, :3], -16.0, 12.0 + 12.0 * strength) / pixel_mm
    rows, columns = jnp.arange(h)[:, None, None], jnp.arange(w)[None, :, None]
    far = jnp.hypot(rows - at[:, 0], columns - at[:, 1])
    seen &= (far > radius).all(-1)
    # Noise in clumps (sensors smooth), then the sensor's depth steps.
    scale = (z / 700.0) ** 2
    fine = 0.6 * _normal(words[4, :2], (h, w))
    clumps = jax.random.normal(k[5], (CLUMPS, CLUMPS)) * (0.5 + 2.5 * strength)
    coarse = jax.image.resize(clumps, (h, w), "linear")
    z = z + scale * (fine + coarse)
    z = _in_steps(z, draws.uniform(words[6, 0], 0.125, 1.6))
    return jnp.where(seen, z, 0.0)
