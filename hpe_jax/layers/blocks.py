"""Linen blocks of 2-D and 3-D networks: convolutions, batch norm, residual blocks.

One definition serves both: images are `(B, H, W, C)`, volumes `(B, D, H, W, C)`, and a kernel has
as many extents as its input; in the shapes below `*S` stands for the extents. Parameters and
running statistics are float32; `dtype` is what the arithmetic runs in. Initial values come from
`layers.init`, so the initialisers here are placeholders that are never drawn from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hpe_jax.kernels.conv3d import conv2d, conv3d, max_pool2, nearest2, upsample2

ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones

# What coordinates come out of: accelerators would multiply float32 in fewer bits.
DenseFloat32 = partial(nn.Dense, precision=lax.Precision.HIGHEST)


class Conv(nn.Module):
    """Convolution with bias, "SAME" padding."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"]) -> Float[Array, "B *s F"]:
        """Convolve."""
        shape = (*(self.size,) * (x.ndim - 2), x.shape[-1], self.features)
        kernel = self.param("kernel", ZEROS, shape).astype(self.dtype)
        bias = self.param("bias", ZEROS, (self.features,)).astype(self.dtype)
        convolve = conv3d if x.ndim == 5 else conv2d
        return convolve(x.astype(self.dtype), kernel, bias, stride=self.stride)


class Upsample(nn.Module):
    """Transposed 3-D convolution, kernel 2, stride 2, with batch norm and ReLU."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B D H W C"], train: bool) -> Float[Array, "B d h w F"]:
        """Double the extents."""
        shape = (2, 2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", ZEROS, shape).astype(self.dtype)
        bias = self.param("bias", ZEROS, (self.features,)).astype(self.dtype)
        y = upsample2(x.astype(self.dtype), kernel, bias)
        return nn.relu(BatchNorm(dtype=self.dtype, name="norm")(y, train))


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with running statistics.

    The variance of a batch is the biased one, for normalising as for the running average.
    Under `jit` over a sharded batch the statistics are those of the whole batch.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... C"], train: bool) -> Float[Array, "... C"]:
        """Normalise with the batch's statistics when training, else with the running ones."""
        shape = (x.shape[-1],)
        scale, bias = self.param("scale", ONES, shape), self.param("bias", ZEROS, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = wide.mean(axes)
            var = jnp.maximum((wide**2).mean(axes) - mean**2, 0.0)
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * var
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * lax.rsqrt(var + self.epsilon)
        return (x * gain + (bias - mean * gain)).astype(self.dtype)


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe, 2017): the running statistics also normalise in training.

    A batch's own statistics are corrected towards the running ones by a scale r within
    [1 / r_max, r_max] and a shift d within [-d_max, d_max], through which no gradient flows.
    The bounds open linearly from r = 1, d = 0, which is batch norm, over `ramp` passes in training
    (with gradient accumulation an update makes several).
    """

    r_max: float = 3.0
    d_max: float = 5.0
    ramp: int = 5000
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... C"], train: bool) -> Float[Array, "... C"]:
        """Normalise; the running statistics count from this batch on."""
        shape = (x.shape[-1],)
        scale, bias = self.param("scale", ONES, shape), self.param("bias", ZEROS, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        count = self.variable("batch_stats", "count", jnp.zeros, ())
        mean, var = running_mean.value, running_var.value
        gain, shift = lax.rsqrt(var + self.epsilon), -mean * lax.rsqrt(var + self.epsilon)
        if train:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            own_mean = wide.mean(axes)
            own_var = jnp.maximum((wide**2).mean(axes) - own_mean**2, 0.0)
            own = lax.rsqrt(own_var + self.epsilon)
            open_by = jnp.minimum(count.value / self.ramp, 1.0)
            r_max, d_max = 1.0 + (self.r_max - 1.0) * open_by, self.d_max * open_by
            r = lax.stop_gradient(jnp.clip(gain / own, 1.0 / r_max, r_max))
            d = lax.stop_gradient(jnp.clip((own_mean - mean) * gain, -d_max, d_max))
            gain, shift = own * r, d - own_mean * own * r
            if not self.is_initializing():
                # Young averages forget faster, so that they leave the start behind.
                keep = jnp.minimum(self.momentum, (1.0 + count.value) / (10.0 + count.value))
                running_mean.value = keep * mean + (1 - keep) * own_mean
                running_var.value = keep * var + (1 - keep) * own_var
                count.value = count.value + 1.0
        return (x * (gain * scale) + (shift * scale + bias)).astype(self.dtype)


class ConvBlock(nn.Module):
    """Convolution, batch norm (or `norm`), ReLU."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *s F"]:
        """Apply the block."""
        x = Conv(self.features, self.size, self.stride, self.dtype, name="conv")(x)
        return nn.relu(self.norm(dtype=self.dtype, name="norm")(x, train))


class ResidualBlock(nn.Module):
    """3-BN-ReLU-3-BN plus a shortcut (1-BN when the width changes), then ReLU."""

    features: int
    dtype: Any = jnp.float32
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *S F"]:
        """Apply the block."""
        y = Conv(self.features, 3, 1, self.dtype, name="conv1")(x)
        y = nn.relu(self.norm(dtype=self.dtype, name="norm1")(y, train))
        y = Conv(self.features, 3, 1, self.dtype, name="conv2")(y)
        y = self.norm(dtype=self.dtype, name="norm2")(y, train)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, 1, self.dtype, name="conv_skip")(x)
            x = self.norm(dtype=self.dtype, name="norm_skip")(x, train)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """1-BN-ReLU to half the width that comes in, 3-BN-ReLU, 1-BN-ReLU, plus a shortcut.

    The shortcut is 1-BN-ReLU when the width changes; nothing follows the sum.
    """

    features: int
    dtype: Any = jnp.float32
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *S F"]:
        """Apply the block."""

        def block(name: str, x: Array, features: int, size: int) -> Array:
            return ConvBlock(features, size, 1, self.dtype, self.norm, name=name)(x, train)

        half = max(x.shape[-1] // 2, 1)
        y = block("narrow", x, half, 1)
        y = block("wide", block("look", y, half, 3), self.features, 1)
        if x.shape[-1] != self.features:
            x = block("skip", x, self.features, 1)
        return x + y


class Hourglass(nn.Module):
    """Newell et al.'s hourglass: halve `depth` times and come back, a skip at every size.

    At every size a residual block (`block`) lies on the skip, before and after the smaller sizes;
    one more on the smallest. Halving is max pooling, doubling repeats the nearest value.
    """

    features: int
    depth: int
    dtype: Any = jnp.float32
    norm: Callable[..., nn.Module] = BatchNorm
    block: Callable[..., nn.Module] = ResidualBlock

    @nn.compact
    def __call__(self, x: Float[Array, "B *S C"], train: bool) -> Float[Array, "B *S F"]:
        """Features of the same extents, which must be divisible by 2 to the power of `depth`."""

        def res(name: str, x: Array) -> Array:
            return self.block(self.features, self.dtype, self.norm, name=name)(x, train)

        skip = res("skip", x)
        low = res("down", max_pool2(x))
        if self.depth > 1:
            inner = Hourglass(
                self.features, self.depth - 1, self.dtype, self.norm, self.block, name="inner"
            )
            low = inner(low, train)
        else:
            low = res("middle", low)
        return skip + nearest2(res("up", low))
