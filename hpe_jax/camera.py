"""Cameras and coordinates: the one place where conventions live.

Conventions, everywhere in this library
---------------------------------------
* Lengths are millimetres. Camera space is right-handed: x to the right, y **down**,
  z forward, away from the camera. Joints are `(..., J, 3)`.
* A camera is the array `(fx, fy, cx, cy)` in pixels, all positive, shape `(..., 4)`:
  `u = cx + fx * x / z`, `v = cy + fy * y / z`. Pixel centres are at integers.
* `uvd` is `(u, v, z)`: pixels, pixels, millimetres.
* Data sets that publish y **up** (NYU, MSRA15) are flipped where they are read, with
  `flip_y`; their uvd labels need no change, since an image has one orientation only.
* A right hand, palm to the camera and fingers up, shows its thumb on the right.
* A depth patch is a rectangle of *native* pixels, never interpolated. `corner` is the
  full-image pixel `(u, v)` of the patch's first pixel, so that patch pixel `[i, j]` looks
  along `u = corner[0] + j`, `v = corner[1] + i`. Taking every k-th pixel is folded into
  the camera (`decimate`), after which nothing else needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

if TYPE_CHECKING:
    # NumPy in, NumPy out; JAX in, JAX out: more than a static type can say through jaxtyping.
    ArrayLike = Any
else:
    ArrayLike = Array | np.ndarray | np.generic
Numbers = Sequence[float | np.floating]


class CameraSpec(NamedTuple):
    """A data set's camera: intrinsics in pixels, the size of its images, whether they show left
    hands."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    left: bool = False

    @property
    def intrinsics(self) -> np.ndarray:
        """`(fx, fy, cx, cy)`, float32, shape (4,)."""
        return np.array(self[:4], np.float32)


# The constants with which the field's published tables were computed (`metrics.protocols`).
NYU = CameraSpec(588.03, 587.07, 320.0, 240.0, 640, 480)
# Left hands: the fingers of its labels bend to the other side of the palm.
ICVL = CameraSpec(240.99, 240.96, 160.0, 120.0, 320, 240, left=True)
MSRA = CameraSpec(241.42, 241.42, 160.0, 120.0, 320, 240)
CAMERAS = {"nyu": NYU, "icvl": ICVL, "msra": MSRA}


def _arrays(*values: ArrayLike | Numbers | float | int) -> tuple[Any, ...]:
    """The namespace to compute in and the values as arrays: tuples, lists and a `CameraSpec` become
    NumPy's. NumPy for NumPy alone, so that reading data never touches an accelerator."""
    values = tuple(v.intrinsics if isinstance(v, CameraSpec) else v for v in values)
    values = tuple(np.asarray(v, np.float32) if isinstance(v, (tuple, list)) else v for v in values)
    host = all(isinstance(v, (np.ndarray, np.generic, float, int)) for v in values)
    return (np if host else jnp, *values)


def xyz_to_uvd(
    xyz: Float[ArrayLike, "... 3"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
) -> Float[ArrayLike, "... 3"]:
    """Project camera-space points (mm) to (pixel, pixel, mm).

    `camera` broadcasts against `xyz` without its last axis; for a batch of joint sets pass
    `camera[:, None]`. The depth must not be zero.
    """
    xp, xyz, camera = _arrays(xyz, camera)
    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    u = camera[..., 2] + camera[..., 0] * x / z
    v = camera[..., 3] + camera[..., 1] * y / z
    return xp.stack([u, v, xp.broadcast_to(z, u.shape)], -1)


def uvd_to_xyz(
    uvd: Float[ArrayLike, "... 3"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
) -> Float[ArrayLike, "... 3"]:
    """Back-project (pixel, pixel, mm) to camera space (mm); the inverse of `xyz_to_uvd`."""
    xp, uvd, camera = _arrays(uvd, camera)
    u, v, z = uvd[..., 0], uvd[..., 1], uvd[..., 2]
    x = (u - camera[..., 2]) * z / camera[..., 0]
    y = (v - camera[..., 3]) * z / camera[..., 1]
    return xp.stack([x, y, xp.broadcast_to(z, x.shape)], -1)


def flip_y(xyz: Float[ArrayLike, "... 3"] | Numbers) -> Float[ArrayLike, "... 3"]:
    """Turn y-up coordinates into this library's y-down ones, and back."""
    xp, xyz = _arrays(xyz)
    return xyz * xp.asarray([1.0, -1.0, 1.0], xyz.dtype)


def mirror_x(xyz: Float[ArrayLike, "... 3"] | Numbers) -> Float[ArrayLike, "... 3"]:
    """Reflect in the plane x = 0: a left hand becomes a right one, and back."""
    xp, xyz = _arrays(xyz)
    return xyz * xp.asarray([-1.0, 1.0, 1.0], xyz.dtype)


def mirror_camera(
    camera: Float[ArrayLike, "... 4"] | Numbers, width: int
) -> Float[ArrayLike, "... 4"]:
    """The camera of an image flipped left to right (`image[:, ::-1]`), `width` pixels wide."""
    xp, camera = _arrays(camera)
    fx, fy, cx, cy = (camera[..., i] for i in range(4))
    return xp.stack([fx, fy, width - 1 - cx, cy], -1)


def decimate(
    camera: Float[ArrayLike, "... 4"] | Numbers, step: ArrayLike | float
) -> Float[ArrayLike, "... 4"]:
    """The camera of `image[::step, ::step]`."""
    xp, camera, step = _arrays(camera, step)
    return camera / xp.asarray(step, camera.dtype)[..., None]


def patch_rays(
    corner: Num[ArrayLike, "... 2"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
    size: tuple[int, int],
) -> Float[ArrayLike, "... H W 2"]:
    """`(x / z, y / z)` of every pixel of an `(H, W)` patch."""
    xp = _arrays(corner, camera)[0]
    x, y = _rays(corner, camera, size)
    shape = (*x.shape[:-2], *size)
    return xp.stack([xp.broadcast_to(x, shape), xp.broadcast_to(y, shape)], -1)


def _rays(corner: Any, camera: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """`x / z` of a patch's columns (..., 1, W) and `y / z` of its rows (..., H, 1)."""
    xp, corner, camera = _arrays(corner, camera)
    v, u = xp.arange(size[0], dtype=xp.float32), xp.arange(size[1], dtype=xp.float32)
    x = (corner[..., 0, None] + u - camera[..., 2, None]) / camera[..., 0, None]
    y = (corner[..., 1, None] + v - camera[..., 3, None]) / camera[..., 1, None]
    return x[..., None, :], y[..., :, None]


def points_by_axis(
    depth: Float[ArrayLike, "... H W"],
    corner: Num[ArrayLike, "... 2"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
) -> tuple[Float[ArrayLike, "... H W"], Float[ArrayLike, "... H W"], Float[ArrayLike, "... H W"]]:
    """x, y and z of `depth_to_points`. CPUs go through three long arrays several times as fast as
    through one of many short vectors."""
    x, y = _rays(corner, camera, (depth.shape[-2], depth.shape[-1]))
    return x * depth, y * depth, depth


def depth_to_points(
    depth: Float[ArrayLike, "... H W"],
    corner: Num[ArrayLike, "... 2"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
) -> Float[ArrayLike, "... H W 3"]:
    """Camera-space point (mm) of every pixel; pixels without a reading give (0, 0, 0)."""
    xp, *given = _arrays(depth, corner, camera)
    return xp.stack(points_by_axis(*given), -1)


def decimation_for(
    centre: Float[ArrayLike, "... 3"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
    extent_mm: float,
    patch: int,
) -> Float[ArrayLike, "..."]:
    """How many native pixels to step so that `extent_mm` at the centre fits a patch.

    Returns a whole number >= 1 (as float32): the smallest k for which the nearer face of a
    cube of `extent_mm` about `centre` is at most `patch` pixels of step k wide.
    """
    xp, centre, camera = _arrays(centre, camera)
    nearest = xp.maximum(centre[..., 2] - extent_mm / 2, 0.25 * extent_mm)
    pixels = xp.maximum(camera[..., 0], camera[..., 1]) * extent_mm / nearest
    return xp.maximum(xp.ceil(pixels / patch), 1.0)


def patch_corner(
    centre: Float[ArrayLike, "... 3"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
    patch: int,
) -> Float[ArrayLike, "... 2"]:
    """Whole-numbered corner of the square patch whose middle is nearest to `centre`.

    `camera` is the decimated camera, so the corner counts decimated pixels.
    """
    xp, centre, camera = _arrays(centre, camera)
    uv = xyz_to_uvd(centre, camera)[..., :2]
    return xp.round(uv - (patch - 1) / 2)


def patch_window(
    centre: Float[ArrayLike, "... 3"] | Numbers,
    camera: Float[ArrayLike, "... 4"] | Numbers,
    size: tuple[int, int],
    extent_mm: float,
    patch: int,
) -> tuple[Float[ArrayLike, "..."], Float[ArrayLike, "... 2"]]:
    """Which pixels of an image a patch about `centre` has.

    A patch as wide as the image has all of its pixels, wherever the centre is; a smaller one every
    k-th of those about the centre.

    Args:
      centre: mm.
      camera: of the whole image.
      size: (height, width) of that.
      extent_mm: what a smaller patch spans at the centre (`decimation_for`).
      patch: edge of the patch in pixels.

    Returns:
      k, a whole number, and the corner in the decimated image.
    """
    xp, centre, camera = _arrays(centre, camera)
    if patch < max(size):
        step = decimation_for(centre, camera, extent_mm, patch)
        return step, patch_corner(centre, decimate(camera, step), patch)
    low = xp.asarray([size[1] - patch, size[0] - patch], centre.dtype)
    corner = xp.clip(patch_corner(centre, camera, patch), low, xp.zeros_like(low))
    return xp.ones(centre.shape[:-1], centre.dtype), corner


def cut_patch(
    image: Float[np.ndarray, "H W"], corner: Float[np.ndarray, "2"], step: int, patch: int
) -> Float[np.ndarray, "patch patch"]:
    """Every `step`-th pixel of `image` from `corner` (in decimated pixels); outside reads 0."""
    small = image[::step, ::step]
    out = np.zeros((patch, patch), np.float32)
    u, v = int(corner[0]), int(corner[1])
    u0, v0 = max(u, 0), max(v, 0)
    u1, v1 = min(u + patch, small.shape[1]), min(v + patch, small.shape[0])
    if u1 > u0 and v1 > v0:
        out[v0 - v : v1 - v, u0 - u : u1 - u] = small[v0:v1, u0:u1]
    return out
