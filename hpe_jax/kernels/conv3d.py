"""3-D convolution and x2 up-sampling that are quick on CPUs and accelerators alike.

XLA's 3-D convolution is quick on accelerators and about ten times too slow on CPUs, while its
2-D convolution is quick everywhere. So there are two paths with the same numbers, chosen by
the backend. The CPU path writes a 3-D convolution as 2-D ones, in one of three ways:

* "sum": one 2-D convolution for each depth tap, summed;
* "fold_in": the depth taps of the input stacked into its channels, one 2-D convolution
  (best for very few channels, such as a stem's single one);
* "fold_out": one 2-D convolution that computes every depth tap as extra output channels,
  then a shifted sum (best for many channels and for small volumes, and cheap to differentiate).

Which one is best was measured, forward and backward, with `launch/compare_pytorch.py`.
Volumes are `(B, D, H, W, C)`, kernels `(kd, kh, kw, Ci, Co)`; padding is "SAME" as in `lax`.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Path = Literal["auto", "lax", "taps", "sum", "fold_in", "fold_out"]
PATHS = ("auto", "lax", "taps", "sum", "fold_in", "fold_out")

FEW_CHANNELS = 4  # up to here the taps go into the input's channels
MANY_CHANNELS = 64  # from here they go into the output's channels
SMALL_VOLUME = 20**3  # and for volumes up to this size


def conv3d(
    x: Float[Array, "B D H W Ci"],
    kernel: Float[Array, "kd kh kw Ci Co"],
    bias: Float[Array, "Co"] | None = None,
    *,
    stride: int = 1,
    path: Path = "auto",
) -> Float[Array, "B d h w Co"]:
    """Cross-correlate with an odd kernel, "SAME" padding.

    Args:
      x: volume.
      kernel: odd in its three extents.
      bias: added to every voxel.
      stride: along all three axes.
      path: "lax" for `lax.conv_general_dilated`, "taps" for the best of the CPU forms,
        "sum", "fold_in" or "fold_out" for one of them, "auto" for "taps" on a CPU and "lax"
        elsewhere. All give the same numbers up to rounding.

    Returns:
      Volume whose extents are divided by `stride`, rounded up.

    Raises:
      ValueError: for an even kernel, mismatched channels or an unknown path.
    """
    if path not in PATHS:
        raise ValueError(f"unknown path {path!r}, expected one of {PATHS}")
    if any(size % 2 == 0 for size in kernel.shape[:3]):
        raise ValueError(f"kernel extents must be odd, got {kernel.shape[:3]}")
    if x.shape[-1] != kernel.shape[3]:
        raise ValueError(f"{x.shape[-1]} channels, but the kernel has {kernel.shape[3]}")
    if path == "auto":
        path = "taps" if jax.default_backend() == "cpu" else "lax"
    if path == "taps":
        path = _best(x, kernel, stride)
    if path != "lax" and kernel.shape[:3] == (1, 1, 1):
        y = x[:, ::stride, ::stride, ::stride] @ kernel[0, 0, 0]
    else:
        y = {"lax": _lax, "sum": _sum, "fold_in": _fold_in, "fold_out": _fold_out}[path](
            x, kernel, stride
        )
    return y if bias is None else y + bias


def upsample2(
    x: Float[Array, "B D H W Ci"],
    kernel: Float[Array, "2 2 2 Ci Co"],
    bias: Float[Array, "Co"] | None = None,
) -> Float[Array, "B 2*D 2*H 2*W Co"]:
    """Transposed convolution with kernel 2 and stride 2, for every backend.

    Its output blocks do not overlap, so it is a dense layer followed by depth-to-space;
    XLA's own transposed convolution is slow on CPUs and GPUs alike. Output voxel
    `2 i + a` is `x[i] @ kernel[a]` (no flip).
    """
    batch, depth, height, width, channels = x.shape
    if kernel.shape[:4] != (2, 2, 2, channels):
        raise ValueError(f"kernel {kernel.shape} does not fit {channels} channels")
    out = kernel.shape[4]
    y = x.reshape(-1, channels) @ jnp.moveaxis(kernel, 3, 0).reshape(channels, 8 * out)
    y = y.reshape(batch, depth, height, width, 2, 2, 2, out)
    y = y.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    y = y.reshape(batch, 2 * depth, 2 * height, 2 * width, out)
    return y if bias is None else y + bias


def max_pool2(x: Float[Array, "B 2*D 2*H 2*W C"]) -> Float[Array, "B D H W C"]:
    """Maximum over blocks of 2x2x2; ties share the gradient.

    Written with slices, since the gradient of `lax.reduce_window` is slow on CPUs.
    """
    for axis in (1, 2, 3):
        if x.shape[axis] % 2:
            raise ValueError(f"max_pool2 needs even extents, got {x.shape[1:4]}")
        shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        pairs = x.reshape(shape)
        x = jnp.maximum(
            lax.index_in_dim(pairs, 0, axis + 1, keepdims=False),
            lax.index_in_dim(pairs, 1, axis + 1, keepdims=False),
        )
    return x


def _best(x: Array, kernel: Array, stride: int) -> Path:
    channels = x.shape[-1]
    if channels <= FEW_CHANNELS:
        return "fold_in"
    small = x.shape[1] * x.shape[2] * x.shape[3] <= SMALL_VOLUME
    return "fold_out" if stride == 1 and (small or channels >= MANY_CHANNELS) else "sum"


def _lax(x: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=numbers)


def _conv2d(x: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=numbers)


def _depth_slices(x: Array, taps: int, stride: int) -> list[Array]:
    """What each depth tap sees, with depth and batch merged: `taps` x (B * d, H, W, C)."""
    batch, depth, *rest = x.shape
    pads = lax.padtype_to_pads((depth,), (taps,), (stride,), "SAME")[0]
    padded = jnp.pad(x, ((0, 0), pads, (0, 0), (0, 0), (0, 0)))
    out = -(-depth // stride)
    reach = (out - 1) * stride + 1
    return [
        lax.slice_in_dim(padded, d, d + reach, stride, axis=1).reshape(batch * out, *rest)
        for d in range(taps)
    ]


def _sum(x: Array, kernel: Array, stride: int) -> Array:
    slices = _depth_slices(x, kernel.shape[0], stride)
    y = _conv2d(slices[0], kernel[0], stride)
    for part, tap in zip(slices[1:], kernel[1:], strict=True):
        y = y + _conv2d(part, tap, stride)
    return y.reshape(x.shape[0], -1, *y.shape[1:])


def _fold_in(x: Array, kernel: Array, stride: int) -> Array:
    stacked = jnp.concatenate(_depth_slices(x, kernel.shape[0], stride), -1)
    _, height, width, _, out = kernel.shape
    y = _conv2d(stacked, jnp.moveaxis(kernel, 0, 2).reshape(height, width, -1, out), stride)
    return y.reshape(x.shape[0], -1, *y.shape[1:])


def _fold_out(x: Array, kernel: Array, stride: int) -> Array:
    batch, depth, *rest = x.shape
    taps, height, width, channels, out = kernel.shape
    if stride != 1:
        raise ValueError("path 'fold_out' needs stride 1")
    wide = jnp.moveaxis(kernel, 0, 3).reshape(height, width, channels, taps * out)
    y = _conv2d(x.reshape(batch * depth, *rest), wide, 1)
    y = y.reshape(batch, depth, *y.shape[1:3], taps, out)
    half = taps // 2
    y = jnp.pad(y, ((0, 0), (half, half), (0, 0), (0, 0), (0, 0), (0, 0)))
    return sum(y[:, d : d + depth, :, :, d] for d in range(1, taps)) + y[:, :depth, :, :, 0]
