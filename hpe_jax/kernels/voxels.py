"""Voxel grids about a hand: the map between millimetres and voxels, and occupancy.

Conventions
-----------
* Voxel **centres are at integers** (as pixel centres are): voxel i of an axis covers
  `[i - 1/2, i + 1/2)`, a grid of S voxels covers `[-1/2, S - 1/2)` and its middle is at
  `(S - 1) / 2`. Voxel coordinates are ordered x, y, z; volumes are stored `(D, H, W)`,
  that is z, y, x.
* A coarser grid with one voxel for each `factor` voxels has its voxel j at fine voxel
  `factor * j` (not at the middle of the block): a heatmap at half the resolution decodes as
  index x 2, which counted from the grid's edge is the released "x 2 + half an input voxel".
* Augmentation never resamples a volume. It is part of the affine map, `Grid`, through which
  points, targets and decoded joints all go.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from hpe_jax.camera import points_by_axis


class Grid(NamedTuple):
    """The affine map from millimetres to voxel coordinates: `scale * R (p - origin) + offset`.

    Attributes:
      origin: (..., 3) mm, the middle of the cube.
      rotation: (..., 3, 3).
      scale: (..., 3) voxels per mm along each axis.
      offset: (..., 3) voxel coordinate of the origin.
    """

    origin: Float[Array, "... 3"]
    rotation: Float[Array, "... 3 3"]
    scale: Float[Array, "... 3"]
    offset: Float[Array, "... 3"]


def make_grid(
    centre: Float[Array, "... 3"],
    cube_mm: Float[Array, "..."] | float,
    size: int,
    *,
    angle: Float[Array, "..."] | float = 0.0,
    scale: Float[Array, "..."] | float = 1.0,
    aspect: Float[Array, "..."] | float = 1.0,
    shift: Float[Array, "... 3"] | float = 0.0,
) -> Grid:
    """A grid of `size`^3 voxels over the cube of edge `cube_mm` about `centre`.

    Args:
      centre: mm.
      cube_mm: edge of the cube that fills the grid when nothing is augmented.
      size: voxels along an edge.
      angle: in-plane rotation of the content (about the z axis through the centre), radians,
        from x towards y.
      scale: enlarges the content about the centre.
      aspect: stretches the turned content's width over its height by this, its area kept.
      shift: moves the content, voxels (x, y, z).
    """
    centre = jnp.asarray(centre, jnp.float32)
    batch = centre.shape[:-1]
    angle = jnp.broadcast_to(jnp.asarray(angle, jnp.float32), batch)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros(batch), jnp.ones(batch)
    rows = [(cos, -sin, zero), (sin, cos, zero), (zero, zero, one)]
    rotation = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    per_mm = jnp.asarray(scale, jnp.float32) * size / jnp.asarray(cube_mm, jnp.float32)
    wide = jnp.sqrt(jnp.asarray(aspect, jnp.float32))
    per_axis = jnp.stack(jnp.broadcast_arrays(per_mm * wide, per_mm / wide, per_mm), -1)
    offset = jnp.broadcast_to((size - 1) / 2 + jnp.asarray(shift, jnp.float32), centre.shape)
    return Grid(centre, rotation, jnp.broadcast_to(per_axis, centre.shape), offset)


def tighten(points: Float[Array, "N 3"], valid: Bool[Array, " N"], grid: Grid, size: int) -> Grid:
    """Move and enlarge a grid so that the points inside it fill it along their longest side.

    Args:
      points: mm.
      valid: which of them count.
      grid: of one example, turned and stretched as wanted; `vmap` for more.
      size: voxels along an edge.

    Returns:
      the grid whose middle is the middle of the points' box; `grid` itself if it holds none.
      A box narrower than a fifth of the grid counts as that wide.
    """
    voxels = to_voxels(points, grid)
    inside = valid & jnp.all((voxels >= -0.5) & (voxels < size - 0.5), -1)
    low = jnp.where(inside[:, None], voxels, jnp.inf).min(0)
    high = jnp.where(inside[:, None], voxels, -jnp.inf).max(0)
    some = inside.any()
    low, high = jnp.where(some, low, -0.5), jnp.where(some, high, size - 0.5)
    # A little smaller than the grid, so that no point lies on its face.
    grow = jnp.where(some, 0.999 * size / jnp.maximum((high - low).max(), size / 5), 1.0)
    offset = (grid.offset - (low + high) / 2) * grow + (size - 1) / 2
    return grid._replace(scale=grid.scale * grow, offset=offset)


def coarsen(grid: Grid, factor: int) -> Grid:
    """The grid whose voxel j lies at `factor * j` of this one (see the conventions above)."""
    return grid._replace(scale=grid.scale / factor, offset=grid.offset / factor)


def to_voxels(points: Float[Array, "... N 3"], grid: Grid) -> Float[Array, "... N 3"]:
    """Continuous voxel coordinates (x, y, z) of points in mm."""
    local = points - grid.origin[..., None, :]
    # Written out: a matrix product of 3 x 3 would run in reduced precision on accelerators.
    turned = sum(local[..., None, i] * grid.rotation[..., None, :, i] for i in range(3))
    return turned * grid.scale[..., None, :] + grid.offset[..., None, :]


def to_mm(voxels: Float[Array, "... N 3"], grid: Grid) -> Float[Array, "... N 3"]:
    """Points in mm at continuous voxel coordinates; the inverse of `to_voxels`."""
    local = (voxels - grid.offset[..., None, :]) / grid.scale[..., None, :]
    turned = sum(local[..., None, i] * grid.rotation[..., None, i, :] for i in range(3))
    return turned + grid.origin[..., None, :]


def occupancy(
    points: Float[Array, "N 3"],
    valid: Bool[Array, " N"],
    grid: Grid,
    size: int,
    *,
    linear: bool = False,
) -> Float[Array, "size size size"]:
    """1 where a voxel holds at least one valid point, else 0; points outside are dropped.

    Args:
      points: mm.
      valid: which of them count.
      grid: of one example (no batch axes); `vmap` for more.
      size: voxels along an edge.
      linear: keep the depth that coarse voxels round away: a point counts in the two voxels
        between whose centres it lies along z, in each by 1 minus its distance along z from the
        voxel's centre; a voxel holds the most that one of its points gives it.

    Returns:
      (D, H, W) = (z, y, x), float32.
    """
    x, y, z = (points[:, i] for i in range(3))
    return _occupancy((x, y, z), valid, grid, size, linear)


def _occupancy(
    axes: tuple[Array, Array, Array], valid: Array, grid: Grid, size: int, linear: bool
) -> Array:
    """`occupancy` of points whose x, y and z are arrays of their own, of any one shape: CPUs go
    through those two to three times as fast as through short vectors (`to_voxels`)."""
    local = [axes[i] - grid.origin[i] for i in range(3)]
    along, index = [], []
    for k in range(3):
        turned = sum(local[i] * grid.rotation[k, i] for i in range(3))
        along.append(turned * grid.scale[k] + grid.offset[k])
        index.append(jnp.floor(along[k] + 0.5))
    if linear:
        index[2] = jnp.floor(along[2])
        share = along[2] - index[2]
        value = jnp.stack([1.0 - share, share])
        index[2] = jnp.stack([index[2], index[2] + 1])
    inside = valid
    for k in range(3):
        inside = inside & (index[k] >= 0) & (index[k] < size)
    x, y, z = (jnp.where(inside, index[k], 0).astype(jnp.int32) for k in range(3))
    # Dropped points go past the end, where the scatter ignores them.
    # The barriers keep XLA from redoing the arithmetic above inside the scatter's serial loop.
    flat = lax.optimization_barrier(jnp.where(inside, (z * size + y) * size + x, size**3))
    there = jnp.zeros(size**3, jnp.float32).at[flat.reshape(-1)]
    if linear:
        volume = there.max(lax.optimization_barrier(value).reshape(-1), mode="drop")
    else:
        volume = there.set(1.0, mode="drop")
    return volume.reshape(size, size, size)


def depth_map(
    points: Float[Array, "N 3"], valid: Bool[Array, " N"], grid: Grid, size: int
) -> Float[Array, "size size"]:
    """The grid seen along its z axis: how near the nearest point of each column is.

    Args:
      points, valid, grid, size: as for `occupancy`.

    Returns:
      (H, W) = (y, x), float32: 1 at the grid's near face, 0 at its far face and where a column
      is empty.
    """
    voxels = to_voxels(points, grid)
    index = jnp.floor(voxels + 0.5)
    inside = valid & jnp.all((index >= 0) & (index < size), -1)
    x, y = (jnp.where(inside, index[:, i], 0).astype(jnp.int32) for i in range(2))
    flat = lax.optimization_barrier(jnp.where(inside, y * size + x, size**2))
    near = 1.0 - (voxels[:, 2] + 0.5) / size
    image = jnp.zeros(size**2, jnp.float32).at[flat].max(near, mode="drop")
    return image.reshape(size, size)


def voxelise(
    depth: Float[Array, "H W"],
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
    grid: Grid,
    size: int,
    linear: bool = False,
) -> Float[Array, "size size size"]:
    """`occupancy` of a depth patch (mm, 0 = no reading) in a grid; `vmap` for batches."""
    if depth.ndim != 2:  # A batch would become one volume.
        raise ValueError(f"depth {depth.shape}: expected (H, W); vmap for batches")
    return _occupancy(points_by_axis(depth, corner, camera), depth > 0, grid, size, linear)
