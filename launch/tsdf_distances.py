"""What a camera sees of analytic hands, and the distances of the voxels about them: along the line
of sight and exact ones (`launch.check_tsdf`)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Int

from hpe_jax import camera as cameras
from hpe_jax.kernels.localise import localise
from hpe_jax.kernels.tsdf import tsdf
from hpe_jax.kernels.voxels import Grid, make_grid, to_mm, to_voxels
from hpe_jax.synthetic import poses
from hpe_jax.synthetic.distance import nearest_sphere
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND_AND_FOREARM, SphereMesh
from launch.check_mesh import sphere_mesh, view

UNTRUNCATED = 1e4  # mm, further than anything in a cube: only lines without a reading are 1
CUBE_MM, EXTENT_MM, TRUNCATION_MM = 300.0, 408.0, 50.0
EDGES = np.array([0.0, 2.5, 5.0, 10.0, 20.0, 50.0, np.inf])
REGIONS = (
    "in front of the visible surface",
    "beside the hand",
    "in the flesh, nearest surface seen",
    "in the flesh, nearest surface unseen",
    "hidden behind the flesh",
)
FRONT, BESIDE, SEEN, UNSEEN, HIDDEN = range(5)
ON_SURFACE_MM = 4.0  # a point this far behind the reading of its pixel still counts as seen
RAYS, REACH_MM = 1000, 25.0  # lines of sight of a frame, and how far off a crossing is looked for


class View(NamedTuple):
    """What a camera sees of an analytic hand, and the voxels about it."""

    mesh: SphereMesh
    depth: Array
    corner: Array
    camera: Array
    grid: Grid


class Distances(NamedTuple):
    """Of every voxel: mm along the line of sight, not truncated; whether that meets a surface;
    exact signed mm; whether the nearest surface is seen; cosine of ray and normal there."""

    projective: Array
    hit: Array
    exact: Array
    seen: Array
    cosine: Array


@partial(jax.jit, static_argnames=("patch", "size"))
def look(index: Array, patch: int, size: int) -> View:
    """A hand of a held-out subject, its clean depth, and voxels about its centre of mass."""
    key = jax.random.fold_in(jax.random.key(0), index)
    shape = poses.sample_shape(jax.random.fold_in(key, 1), held_out=True)
    pose = poses.sample_hand(key, shape, poses.VIEWS["nyu"])[0]
    mesh = sphere_mesh(shape, pose)
    corner, camera, window = view(pose, patch, EXTENT_MM)
    depth = render_depth(mesh, HAND_AND_FOREARM, corner, camera, window)
    centre = localise(depth, corner, camera)
    inside = jnp.abs(depth - centre[2]) < CUBE_MM / 2  # as `methods.hand3d` sees it
    grid = make_grid(centre, jnp.float32(CUBE_MM), size)
    return View(mesh, jnp.where(inside, depth, 0.0), corner, camera, grid)


@partial(jax.jit, static_argnames="size")
def distances(view: View, size: int) -> Distances:
    """Both distances of every voxel, (D, H, W)."""
    value = tsdf(view.depth, view.corner, view.camera, view.grid, size, UNTRUNCATED)
    axis = jnp.arange(size, dtype=jnp.float32)
    z, y, x = jnp.meshgrid(axis, axis, axis, indexing="ij")
    points = to_mm(jnp.stack([x, y, z], -1).reshape(-1, 3), view.grid)
    nearest = nearest_sphere(points, view.mesh, HAND_AND_FOREARM)
    away = points - nearest.centre
    normal = away / jnp.maximum(jnp.linalg.norm(away, axis=-1, keepdims=True), 1e-6)
    surface = nearest.centre + nearest.radius[:, None] * normal
    uvd = cameras.xyz_to_uvd(surface, view.camera)
    limit = jnp.array(view.depth.shape[::-1]) - 1
    at = jnp.clip(jnp.round(uvd[:, :2] - view.corner), 0, limit).astype(jnp.int32)
    seen = uvd[:, 2] < view.depth[at[:, 1], at[:, 0]] + ON_SURFACE_MM
    ray = points / jnp.linalg.norm(points, axis=-1, keepdims=True)
    cosine = -(ray * normal).sum(-1)
    whole = (size,) * 3
    return Distances(
        value * UNTRUNCATED,
        value < 1.0,
        *(v.reshape(whole) for v in (nearest.distance, seen, cosine)),
    )


def regions(d: Distances) -> Int[np.ndarray, "..."]:
    """Which of `REGIONS` each voxel lies in."""
    flesh = np.where(d.seen, SEEN, UNSEEN)
    free = np.where(d.hit, np.where(d.projective > 0, FRONT, HIDDEN), BESIDE)
    return np.where(np.asarray(d.exact) < 0, flesh, free)


def ranges(exact: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """Which interval between `EDGES` the distance from the surface lies in."""
    return np.searchsorted(EDGES, np.abs(exact), side="right") - 1


def first_crossing(
    values: Float[np.ndarray, "N T"], at: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " N"]:
    """Where each row first falls through zero, interpolated linearly; NaN where it never does."""
    falls = (values[:, :-1] > 0) & (values[:, 1:] <= 0)
    k = falls.argmax(1)
    rows = np.arange(len(values))
    before, after = values[rows, k], values[rows, k + 1]
    share = before / np.where(falls.any(1), before - after, 1.0)
    return np.where(falls.any(1), at[k] + share * (at[k + 1] - at[k]), np.nan)


@partial(jax.jit, static_argnames="size")
def profiles(view: View, size: int, points: Array, along: Array) -> tuple[Array, Array]:
    """Distances (mm) of the volume, interpolated, at `along` (T,) mm beyond points (N, 3) on
    their lines of sight, (N, T), and the unit vectors of those lines."""
    volume = tsdf(view.depth, view.corner, view.camera, view.grid, size, TRUNCATION_MM)
    ray = points / jnp.linalg.norm(points, axis=-1, keepdims=True)
    voxels = to_voxels(points[:, None] + along[:, None] * ray[:, None], view.grid)
    places = list(jnp.moveaxis(voxels[..., ::-1], -1, 0))
    return TRUNCATION_MM * map_coordinates(volume, places, 1, mode="nearest"), ray


@jax.jit
def surface_at(points: Array, mesh: SphereMesh) -> tuple[Array, Array]:
    """Exact distances of points (N, 3), and the cosine of ray and normal at the surface there."""
    nearest = nearest_sphere(points, mesh, HAND_AND_FOREARM)
    away = points - nearest.centre
    across = jnp.linalg.norm(away, axis=-1) * jnp.linalg.norm(points, axis=-1)
    return nearest.distance, -(away * points).sum(-1) / across


def visible_points(view: View, rng: np.random.Generator) -> Float[np.ndarray, "N 3"]:
    """`RAYS` random pixels of the surface that lie well inside the cube, mm."""
    points = np.asarray(cameras.depth_to_points(view.depth, view.corner, view.camera))
    reach = CUBE_MM / 2 - REACH_MM
    inside = (view.depth > 0) & (np.abs(points - view.grid.origin) < reach).all(-1)
    points = points[inside]
    return points[rng.integers(0, len(points), RAYS)].astype(np.float32)
