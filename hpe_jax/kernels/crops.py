"""Square images of a hand: a depth patch resampled without mixing near and far.

A crop is the picture of a cube about the hand's centre, as large as the cube at the centre's
depth. Augmentation is part of the map, `Crop`: the picture is turned and stretched about the
centre's pixel, and space likewise about the axis through the centre along z, so that vectors
in "crop space" match what the picture shows. Pixel centres are at integers, x before y.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.camera import uvd_to_xyz, xyz_to_uvd


class Crop(NamedTuple):
    """One example's maps, for `vmap` over batches.

    Attributes:
      centre: (3,) mm, the middle of the cube.
      middle: (2,) its pixel in the camera's image.
      camera: (4,) fx, fy, cx, cy.
      turn: (2, 2) the turned and stretched x and y of crop space in those of the camera's.
      pixels: (2,) image pixels (u, v) to a mm at the centre's depth.
      mm: () mm to a pixel of the crop, at the centre's depth.
      size: () pixels along the crop's edge.
    """

    centre: Float[Array, "3"]
    middle: Float[Array, "2"]
    camera: Float[Array, "4"]
    turn: Float[Array, "2 2"]
    pixels: Float[Array, "2"]
    mm: Float[Array, ""]
    size: Float[Array, ""]


def make_crop(
    centre: Float[Array, "3"],
    camera: Float[Array, "4"],
    cube_mm: Float[Array, ""],
    size: int,
    *,
    angle: Float[Array, ""] | float = 0.0,
    stretch: Float[Array, "2"] | tuple[float, float] = (1.0, 1.0),
) -> Crop:
    """The crop of `size`^2 pixels over the cube of edge `cube_mm` about `centre`.

    Args:
      centre: mm, in front of the camera.
      camera: fx, fy, cx, cy.
      cube_mm: edge of the cube.
      size: pixels along an edge.
      angle: turns the content in the image, radians, from x towards y.
      stretch: factors of the turned content's width and height.
    """
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    wide, high = jnp.asarray(stretch, jnp.float32)
    turn = jnp.array([[cos * wide, -sin * wide], [sin * high, cos * high]])
    return Crop(
        centre=centre,
        middle=xyz_to_uvd(centre, camera)[..., :2],
        camera=camera,
        turn=turn,
        pixels=camera[:2] / centre[2],
        mm=jnp.asarray(cube_mm / size, jnp.float32),
        size=jnp.asarray(size, jnp.float32),
    )


def _matmul2(matrix: Float[Array, "2 2"], points: Float[Array, "... 2"]) -> Float[Array, "... 2"]:
    # Written out: a matrix product would run in reduced precision on accelerators.
    return points[..., :1] * matrix[:, 0] + points[..., 1:] * matrix[:, 1]


def _undo(crop: Crop) -> Float[Array, "2 2"]:
    (a, b), (c, d) = crop.turn
    return jnp.array([[d, -b], [-c, a]]) / (a * d - b * c)


def to_pixels(points: Float[Array, "... 3"], crop: Crop) -> Float[Array, "... 2"]:
    """Pixels (x, y) of the crop that show points (mm, camera space)."""
    uv = xyz_to_uvd(points, crop.camera)[..., :2]
    mm = _matmul2(crop.turn, (uv - crop.middle) / crop.pixels)
    return mm / crop.mm + (crop.size - 1) / 2


def to_space(points: Float[Array, "... 3"], crop: Crop) -> Float[Array, "... 3"]:
    """Camera space to crop space: mm from the centre, turned and stretched as the picture is."""
    local = points - crop.centre
    return jnp.concatenate([_matmul2(crop.turn, local[..., :2]), local[..., 2:]], -1)


def to_camera(points: Float[Array, "... 3"], crop: Crop) -> Float[Array, "... 3"]:
    """Crop space to camera space, the inverse of `to_space`."""
    return crop.centre + jnp.concatenate(
        [_matmul2(_undo(crop), points[..., :2]), points[..., 2:]], -1
    )


def sample(
    depth: Float[Array, "H W"],
    corner: Float[Array, "2"],
    crop: Crop,
    count: int,
    reach_mm: float | Array,
) -> Float[Array, "N N 3"]:
    """The depth readings that a grid over the crop hits, as points.

    Args:
      depth: a patch, mm, 0 = no reading.
      corner: full-image pixel of the patch's first pixel.
      crop: where to look.
      count: N, grid points along an edge, each in the middle of its share of the crop: the crop's
        size for its picture, less for a coarser one. The nearest reading is taken, never a mean.
      reach_mm: readings further than this from the centre in depth count as none.

    Returns:
      (y, x, 3) mm in camera space; z = 0 where there is no reading.
    """
    steps = (jnp.arange(count, dtype=jnp.float32) + 0.5) * (crop.size / count) - 0.5
    x, y = jnp.meshgrid(steps, steps)
    mm = (jnp.stack([x, y], -1) - (crop.size - 1) / 2) * crop.mm
    uv = _matmul2(_undo(crop), mm) * crop.pixels + crop.middle
    at = jnp.round(uv - corner)
    height, width = depth.shape
    inside = jnp.all((at >= 0) & (at < jnp.array([width, height])), -1)
    index = jnp.where(inside[..., None], at, 0).astype(jnp.int32)
    z = depth[index[..., 1], index[..., 0]]
    seen = inside & (z > 0) & (jnp.abs(z - crop.centre[2]) < reach_mm)
    z = jnp.where(seen, z, 0.0)
    return uvd_to_xyz(jnp.concatenate([at + corner, z[..., None]], -1), crop.camera)
