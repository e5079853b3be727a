"""Convolution, x2 pooling and up-sampling that are quick on CPUs and accelerators alike.

XLA's 3-D convolution is quick on accelerators and about ten times too slow on CPUs, while its
2-D convolution is quick everywhere. So there are two paths with the same numbers, chosen by
the backend. The CPU path writes a 3-D convolution as 2-D ones, in one of three ways:

* "winograd": for three depth taps and stride 1. Winograd's F(2, 3) along the depth: two output
  slices from four 2-D convolutions of sums and differences of input slices, instead of six,
  forward and backward alike. Its constants are 1 and 1/2, so it rounds as little as the rest;
* "fold_in": for very few channels, such as a stem's single one. The depth taps of the input
  are stacked into its channels and two output slices computed at once;
* "sum": anything else, one 2-D convolution for each depth tap, summed.

There the gradient by the kernel of a 2-D convolution is one of our own (`_kernel_gradient`), so
that the CPU path can be differentiated backwards only (`jax.grad`, not `jax.jvp`).

Measured forward and backward on two cores; `launch/compare_pytorch.py` repeats the whole.
Volumes are `(B, D, H, W, C)`, kernels `(kd, kh, kw, Ci, Co)`; padding is "SAME" as in `lax`.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Path = Literal["auto", "lax", "taps", "sum", "fold_in", "winograd"]
PATHS = ("auto", "lax", "taps", "sum", "fold_in", "winograd")

FEW_CHANNELS = 4  # up to here "fold_in" is best
# XLA's gradient by a kernel is quicker for fewer channels or fewer multiplications; ours takes
# so many bytes of the output's gradient at a time, which stay in the processor's cache.
FEWEST, SMALL, PIECE = 4, 50_000_000, 8 << 20


def conv3d(
    x: Float[Array, "B D H W Ci"],
    kernel: Float[Array, "kd kh kw Ci Co"],
    bias: Float[Array, " Co"] | None = None,
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
        "sum", "fold_in" or "winograd" for one of them, "auto" for "taps" on a CPU and "lax"
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
        y = {"lax": _lax, "sum": _sum, "fold_in": _fold_in, "winograd": _winograd}[path](
            x, kernel, stride
        )
    return y if bias is None else y + bias


def upsample2(
    x: Float[Array, "B D H W Ci"],
    kernel: Float[Array, "2 2 2 Ci Co"],
    bias: Float[Array, " Co"] | None = None,
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


def conv2d(
    x: Float[Array, "B H W Ci"],
    kernel: Float[Array, "kh kw Ci Co"],
    bias: Float[Array, " Co"] | None = None,
    *,
    stride: int = 1,
) -> Float[Array, "B h w Co"]:
    """Cross-correlate an image with a kernel, "SAME" padding."""
    y = (_conv2d if jax.default_backend() == "cpu" else _lax2d)(x, kernel, stride)
    return y if bias is None else y + bias


def max_pool2(x: Float[Array, "B *S C"]) -> Float[Array, "B *s C"]:
    """Maximum over blocks of 2 along each extent of images or volumes; ties share the gradient.

    Written with slices, since the gradient of `lax.reduce_window` is slow on CPUs.
    """
    for axis in range(1, x.ndim - 1):
        if x.shape[axis] % 2:
            raise ValueError(f"max_pool2 needs even extents, got {x.shape[1:-1]}")
        shape = (*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        pairs = x.reshape(shape)
        x = jnp.maximum(
            lax.index_in_dim(pairs, 0, axis + 1, keepdims=False),
            lax.index_in_dim(pairs, 1, axis + 1, keepdims=False),
        )
    return x


def nearest2(x: Float[Array, "B *s C"]) -> Float[Array, "B *S C"]:
    """Images or volumes of twice the extents, every value repeated."""
    for axis in range(1, x.ndim - 1):
        shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
        x = jnp.stack([x, x], axis + 1).reshape(shape)
    return x


def _best(x: Array, kernel: Array, stride: int) -> Path:
    if stride == 1 and x.shape[-1] <= FEW_CHANNELS:
        return "fold_in"
    return "winograd" if stride == 1 and kernel.shape[0] == 3 else "sum"


def _lax(x: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=numbers)


def _lax2d(x: Array, kernel: Array, stride: int) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=numbers)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d(x: Array, kernel: Array, stride: int) -> Array:
    """A 2-D convolution whose gradient by the kernel is quick on CPUs."""
    return _lax2d(x, kernel, stride)


def _conv2d_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _lax2d(x, kernel, stride), (x, kernel)


def _conv2d_backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    small = min(kernel.shape[2:]) < FEWEST or x.size // x.shape[-1] * kernel.size < SMALL
    if stride != 1 or small:
        return jax.vjp(lambda x, kernel: _lax2d(x, kernel, stride), x, kernel)[1](g)
    by_input = jax.vjp(lambda x: _lax2d(x, kernel, 1), x)[1](g)[0]
    return by_input, _kernel_gradient(x, g, kernel.shape[:2]).astype(kernel.dtype)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def _kernel_gradient(x: Array, g: Array, taps: tuple[int, ...]) -> Array:
    """For each row of taps one product of two matrices: the input moved by that row, and the
    output's gradient moved by each of the columns. XLA's own form is a convolution with a kernel
    as large as the image, up to four times slower."""
    (rows, columns), inputs, outputs = taps, x.shape[-1], g.shape[-1]
    precise = jnp.promote_types(x.dtype, jnp.float32)

    def piece(total: Array, xg: tuple[Array, ...]) -> tuple[Array, None]:
        x, g = xg
        # Moved the other way: x[w + c] g[w], summed over w, is x[w] g[w - c].
        moved = jnp.concatenate(_moved(g, 2, columns)[::-1], -1).reshape(-1, columns * outputs)
        parts = [part.reshape(-1, inputs) for part in _moved(x, 1, rows)]
        products = [jnp.matmul(p.T, moved, preferred_element_type=precise) for p in parts]
        return total + jnp.stack(products), None

    images = len(x)
    most = max(2, PIECE * images // (columns * g.nbytes))
    count = next(n for n in range(min(most, images), 0, -1) if images % n == 0)
    split = tuple(a.reshape(-1, count, *a.shape[1:]) for a in (x, g))
    total = lax.scan(piece, jnp.zeros((rows, inputs, columns * outputs), precise), split)[0]
    return total.reshape(rows, inputs, columns, outputs).swapaxes(1, 2)


def _moved(x: Array, axis: int, taps: int, stride: int = 1) -> list[Array]:
    """What each tap sees along an axis, zeros beyond its ends."""
    size = x.shape[axis]
    pads = lax.padtype_to_pads((size,), (taps,), (stride,), "SAME")[0]
    padded = jnp.pad(x, [pads if i == axis else (0, 0) for i in range(x.ndim)])
    reach = (-(-size // stride) - 1) * stride + 1
    return [lax.slice_in_dim(padded, t, t + reach, stride, axis) for t in range(taps)]


def _sum(x: Array, kernel: Array, stride: int) -> Array:
    # Depth and batch merged: B * d images for each tap.
    slices = [p.reshape(-1, *x.shape[2:]) for p in _moved(x, 1, kernel.shape[0], stride)]
    y = _conv2d(slices[0], kernel[0], stride)
    for part, tap in zip(slices[1:], kernel[1:], strict=True):
        y = y + _conv2d(part, tap, stride)
    return y.reshape(x.shape[0], -1, *y.shape[1:])


def _fold_in(x: Array, kernel: Array, stride: int) -> Array:
    if stride != 1:
        raise ValueError("path 'fold_in' needs stride 1")
    batch, depth, height, width, _ = x.shape
    taps, kh, kw, _, out = kernel.shape
    pairs, half = -(-depth // 2), taps // 2
    # Slices 2 i and 2 i + 1 of the output see the same taps + 1 slices of the input.
    padded = jnp.pad(x, ((0, 0), (half, half + 2 * pairs - depth), (0, 0), (0, 0), (0, 0)))
    seen = [lax.slice_in_dim(padded, t, t + 2 * pairs - 1, 2, axis=1) for t in range(taps + 1)]
    stacked = jnp.concatenate(seen, -1).reshape(batch * pairs, height, width, -1)
    none = ((0, 0),) * 4
    both = jnp.stack([jnp.pad(kernel, ((0, 1), *none)), jnp.pad(kernel, ((1, 0), *none))], -2)
    y = _conv2d(stacked, jnp.moveaxis(both, 0, 2).reshape(kh, kw, -1, 2 * out), 1)
    y = jnp.moveaxis(y.reshape(batch, pairs, height, width, 2, out), 4, 2)
    return y.reshape(batch, 2 * pairs, height, width, out)[:, :depth]


def _winograd(x: Array, kernel: Array, stride: int) -> Array:
    if stride != 1 or kernel.shape[0] != 3:
        raise ValueError("path 'winograd' needs three depth taps and stride 1")
    batch, depth, *rest = x.shape
    pairs = -(-depth // 2)
    padded = jnp.pad(x, ((0, 0), (1, 1 + 2 * pairs - depth), (0, 0), (0, 0), (0, 0)))
    even, odd = (padded[:, start::2] for start in (0, 1))
    x0, x1, x2, x3 = even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]
    first, last = kernel[0], kernel[2]
    outer, inner = (first + last) / 2, kernel[1] / 2

    def conv(part: Array, tap: Array) -> Array:
        return _conv2d(part.reshape(batch * pairs, *rest), tap, 1)

    a, d = conv(x0 - x2, first), conv(x1 - x3, last)
    b, c = conv(x1 + x2, outer + inner), conv(x2 - x1, outer - inner)
    y = jnp.stack([a + b + c, b - c - d], 1)
    return y.reshape(batch, 2 * pairs, *y.shape[2:])[:, :depth]
