"""Depth images of triangle meshes, inside `jit` and batched by `vmap`.

Every triangle is tested against the pixels of a small window at the corner of its bounding box,
and what it covers is folded into the image by a scatter of least depths. Triangles larger than
the window are met with further windows, one after another, so that the answer is right for any
size: `window` only decides the time. The meshes of `synthetic.mesh` seen through the data sets'
cameras have triangles of two to five pixels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hpe_jax.camera import xyz_to_uvd

# A pixel this near to an edge (in pixels) counts as inside: far more than rounding, so that no
# pixel falls between two triangles, and far less than anybody sees.
_SLACK = 1e-3
_FAR = 1e6


def rasterise(
    vertices: Float[Array, "V 3"],
    faces: Int[Array, "F 3"],
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
    size: tuple[int, int],
    window: int = 4,
) -> Float[Array, "H W"]:
    """Depth (mm) of a triangle mesh seen by a pinhole camera; 0 where no surface is met.

    The same conventions as `render.render_depth`. Both sides of a triangle are seen; pixels read
    the depth at their centre, in perspective (1 / z is linear in the image).

    Args:
      vertices: mm, in the camera. Triangles that are not wholly in front of it are left out.
      faces: indices of vertices.
      corner: pixel of the patch's first pixel.
      camera: fx, fy, cx, cy.
      size: (H, W).
      window: edge in pixels. Time and memory grow with F window² and, where triangles are larger,
        with the number of windows that the largest one needs (under `vmap`, of the whole batch).
    """
    height, width = size
    limit = jnp.array([width - 1, height - 1])
    uvd = xyz_to_uvd(vertices, camera) - jnp.append(corner, 0.0)
    points, z = uvd[faces][..., :2], uvd[faces][..., 2]  # (F, 3, 2), (F, 3)
    # Edge i lies opposite to corner i.
    start, end = jnp.roll(points, -1, 1), jnp.roll(points, -2, 1)
    along = end - start
    area = along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0]
    # Edge-on triangles are left out: their neighbours cover what they would.
    drawn = (z > 0.0).all(-1) & (jnp.abs(area) > 1e-6)
    slack = -_SLACK * jnp.linalg.norm(along, axis=-1) / jnp.abs(area)[:, None]
    first = jnp.clip(jnp.ceil(points.min(1) - _SLACK), 0, limit + 1)
    last = jnp.clip(jnp.floor(points.max(1) + _SLACK), -1, limit)
    pixels = jnp.where(drawn[:, None], last - first + 1, 0)
    windows = jnp.ceil(jnp.max(pixels, 0) / window).astype(jnp.int32)
    offset = jnp.arange(window, dtype=jnp.float32)

    def draw(number: Array, image: Float[Array, " P"]) -> Float[Array, " P"]:
        shift = window * jnp.stack([number % windows[0], number // windows[0]])
        u = (first[:, 0] + shift[0])[:, None, None] + offset  # (F, 1, window)
        v = (first[:, 1] + shift[1])[:, None, None] + offset[:, None]
        seen = drawn[:, None, None] & (u <= last[:, 0, None, None]) & (v <= last[:, 1, None, None])
        inverse = jnp.zeros(())
        for i in range(3):
            du = u - start[:, i, 0, None, None]
            dv = v - start[:, i, 1, None, None]
            a, b = along[:, i, 0, None, None], along[:, i, 1, None, None]
            weight = (a * dv - b * du) / area[:, None, None]
            seen &= weight >= slack[:, i, None, None]
            inverse = inverse + weight / z[:, i, None, None]
        near, far = (f(z, -1)[:, None, None] for f in (jnp.min, jnp.max))
        # Steep triangles must not run away within the slack.
        depth = jnp.clip(1.0 / jnp.maximum(inverse, 1.0 / _FAR), near, far)
        at = jnp.where(seen, v * width + u, height * width).astype(jnp.int32)
        return image.at[at].min(depth, mode="drop")

    image = jnp.full(height * width, _FAR)
    image = jax.lax.fori_loop(0, windows[0] * windows[1], draw, image)
    return jnp.where(image < _FAR, image, 0.0).reshape(size)
