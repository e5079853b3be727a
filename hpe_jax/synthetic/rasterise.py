"""Depth images of triangle meshes, inside `jit` and batched by `vmap`.

Every triangle is tested against the pixels of a small window at the corner of its bounding box,
and what it covers is folded into the image by a scatter of least depths. Triangles larger than
the window are met with further windows, one after another, so that the answer is right for any
size: `window` only decides the time. The meshes of `synthetic.base_hands` have triangles of one to
five pixels in patches as methods see them; on CPUs windows of two pixels are quickest for them.
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
    window: int = 2,
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
      window: edge in pixels. Memory grows with F window², time with that and the number of
        windows that the largest triangle needs (under `vmap`, the largest of the whole batch).
    """
    height, width = size
    # The last axis counts triangles, so that everything is done to many at once.
    u, v, z = xyz_to_uvd(vertices, camera).T[:, faces.T]  # (3, F) each
    first_u, last_u = _range(u - corner[0], width)
    first_v, last_v = _range(v - corner[1], height)
    # In pixels from the window's first.
    u, v = u - corner[0] - first_u, v - corner[1] - first_v
    # Edge i lies opposite to corner i.
    along_u, along_v = (jnp.roll(x, -2, 0) - jnp.roll(x, -1, 0) for x in (u, v))
    area = along_u[0] * along_v[1] - along_v[0] * along_u[1]
    # Edge-on triangles are left out: their neighbours cover what they would.
    drawn = (z > 0.0).all(0) & (jnp.abs(area) > 1e-6)
    area = jnp.where(drawn, area, 1.0)
    slope_u, slope_v = -along_v / area, along_u / area
    slack = -_SLACK * jnp.hypot(slope_u, slope_v)
    start_u, start_v = jnp.roll(u, -1, 0), jnp.roll(v, -1, 0)
    near, far = z.min(0), z.max(0)
    nearness = 1.0 / jnp.where(drawn, z, 1.0)
    columns, rows = (
        jnp.where(drawn, b - a + 1, 0.0) for a, b in ((first_u, last_u), (first_v, last_v))
    )
    across, down = (jnp.ceil(n.max() / window).astype(jnp.int32) for n in (columns, rows))
    steps = jnp.arange(window, dtype=jnp.float32)

    def draw(number: Array, image: Float[Array, " P"]) -> Float[Array, " P"]:
        du = (steps + window * (number % across))[:, None]
        dv = (steps + window * (number // across))[:, None, None]
        seen = (du < columns) & (dv < rows)  # (window, window, F)
        inverse = jnp.zeros(())
        for i in range(3):
            weight = slope_u[i] * (du - start_u[i]) + slope_v[i] * (dv - start_v[i])
            seen &= weight >= slack[i]
            inverse = inverse + weight * nearness[i]
        # Steep triangles must not run away within the slack.
        depth = jnp.clip(1.0 / jnp.maximum(inverse, 1.0 / _FAR), near, far)
        at = jnp.where(seen, (first_v + dv) * width + first_u + du, height * width)
        return image.at[at.astype(jnp.int32)].min(depth, mode="drop")

    image = jnp.full(height * width, _FAR)
    image = jax.lax.fori_loop(0, across * down, draw, image)
    return jnp.where(image < _FAR, image, 0.0).reshape(size)


def _range(at: Float[Array, "3 F"], pixels: int) -> tuple[Float[Array, " F"], Float[Array, " F"]]:
    """The first and last pixel of the image that triangles may cover along one axis."""
    first = jnp.clip(jnp.ceil(at.min(0) - _SLACK), 0, pixels)
    last = jnp.clip(jnp.floor(at.max(0) + _SLACK), -1, pixels - 1)
    return first, last
