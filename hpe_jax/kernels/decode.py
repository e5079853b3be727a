"""From heatmaps to continuous voxel coordinates (voxel centres at integers, see `voxels`).

All functions take `(D, H, W, J)` and return `(J, 3)` as x, y, z; `vmap` for batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def argmax(heatmaps: Float[Array, "D H W J"]) -> Float[Array, "J 3"]:
    """The highest voxel: the released decode. Mean rounding error 0.48 voxels."""
    return _peaks(heatmaps).astype(jnp.float32)


def top_k(heatmaps: Float[Array, "D H W J"], k: int) -> Float[Array, "J 3"]:
    """Mean of the k highest voxels, weighted by their values (negative ones count nothing)."""
    _, height, width, joints = heatmaps.shape
    values, index = lax.top_k(heatmaps.reshape(-1, joints).T, k)
    # The maximum keeps a weight even in a map that is negative everywhere.
    weights = jnp.maximum(values, 0.0).at[:, 0].add(1e-12)
    weights = weights / weights.sum(-1, keepdims=True)
    voxels = _unravel(index, height, width).astype(jnp.float32)
    return jnp.sum(weights[..., None] * voxels, 1)


def subvoxel(heatmaps: Float[Array, "D H W J"], radius: int = 2) -> Float[Array, "J 3"]:
    """Fit a Gaussian around the highest voxel: exact for a noiseless Gaussian.

    The window of (2 radius + 1)^3 voxels about the maximum (moved inwards at the border) is
    summed along two axes to a profile of the third, which of a Gaussian is again a Gaussian;
    its logarithm is a parabola, fitted by least squares weighted with the squared profile
    (a logarithm is noisy where the value is small). The answer stays within one voxel of the
    maximum, and is the maximum itself where the fit has no peak.
    """
    side = 2 * radius + 1
    if min(heatmaps.shape[:3]) < side:
        raise ValueError(f"a window of {side} does not fit {heatmaps.shape[:3]}")
    peaks = _peaks(heatmaps)
    limit = jnp.array(heatmaps.shape[2::-1]) - side
    starts = jnp.clip(peaks - radius, 0, limit)

    def window(volume: Array, start: Array) -> Array:
        return lax.dynamic_slice(volume, (start[2], start[1], start[0]), (side,) * 3)

    windows = jnp.maximum(jax.vmap(window, (3, 0))(heatmaps, starts), 0.0)
    profiles = jnp.stack([windows.sum(axes) for axes in ((1, 2), (1, 3), (2, 3))], 1)
    return peaks + jax.vmap(jax.vmap(_parabola))(profiles, peaks - starts)


def decoder(name: str, k: int = 0) -> Callable[[Array], Array]:
    """The decode that a config names: "argmax", "topk" (of `k` voxels) or "subvoxel".

    Raises:
      ValueError: for another name, or "topk" without a positive k.
    """
    if name == "topk":
        if k < 1:
            raise ValueError(f"decode 'topk' needs top_k >= 1, got {k}")
        return partial(top_k, k=k)
    if name not in ("argmax", "subvoxel"):
        raise ValueError(f"unknown decode {name!r}, expected argmax, topk or subvoxel")
    return {"argmax": argmax, "subvoxel": subvoxel}[name]


def _unravel(index: Array, height: int, width: int) -> Array:
    return jnp.stack([index % width, index // width % height, index // (width * height)], -1)


def _peaks(heatmaps: Array) -> Array:
    _, height, width, joints = heatmaps.shape
    return _unravel(jnp.argmax(heatmaps.reshape(-1, joints), 0), height, width)


def _parabola(profile: Float[Array, " N"], peak: Array) -> Array:
    """Offset from `peak` of the top of the parabola fitted to log(profile)."""
    x = jnp.arange(profile.shape[0], dtype=jnp.float32) - peak
    top = jnp.maximum(profile.max(), 1e-12)
    scaled = jnp.maximum(profile / top, 1e-6)
    weight, log = scaled**2, jnp.log(scaled)
    weight = weight / weight.sum()
    # Least squares in (1, x, x^2), after removing the weighted means.
    mean_x, mean_q, mean_l = (jnp.sum(weight * v) for v in (x, x**2, log))
    dx, dq, dl = x - mean_x, x**2 - mean_q, log - mean_l
    xx, qq, xq = (jnp.sum(weight * a * b) for a, b in ((dx, dx), (dq, dq), (dx, dq)))
    xl, ql = jnp.sum(weight * dx * dl), jnp.sum(weight * dq * dl)
    curve, slope = xx * ql - xq * xl, qq * xl - xq * ql  # both times the same positive number
    # A Gaussian wider than 20 voxels is as good as flat.
    peaked = curve < -1e-3 * (xx * qq - xq**2)
    return jnp.where(peaked, jnp.clip(-slope / jnp.where(peaked, 2 * curve, 1.0), -1.0, 1.0), 0.0)
