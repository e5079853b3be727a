"""Linen blocks of the 3-D networks: convolutions, batch norm, residual blocks.

Volumes are `(B, D, H, W, C)`. Parameters and running statistics are float32; `dtype` is what
the arithmetic runs in. Initial values come from `layers.init`, so the initialisers here are
placeholders that are never drawn from.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from hpe_jax.kernels.conv3d import conv3d, upsample2

ZEROS, ONES = nn.initializers.zeros, nn.initializers.ones


class Conv3d(nn.Module):
    """Convolution with bias, "SAME" padding."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B D H W C"]) -> Float[Array, "B d h w F"]:
        """Convolve."""
        shape = (*(self.size,) * 3, x.shape[-1], self.features)
        kernel = self.param("kernel", ZEROS, shape).astype(self.dtype)
        bias = self.param("bias", ZEROS, (self.features,)).astype(self.dtype)
        return conv3d(x.astype(self.dtype), kernel, bias, stride=self.stride)


class Upsample(nn.Module):
    """Transposed convolution, kernel 2, stride 2, with batch norm and ReLU."""

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


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B D H W C"], train: bool) -> Float[Array, "B d h w F"]:
        """Apply the block."""
        x = Conv3d(self.features, self.size, self.stride, self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="norm")(x, train))


class ResidualBlock(nn.Module):
    """3^3-BN-ReLU-3^3-BN plus a shortcut (1^3-BN when the width changes), then ReLU."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B D H W C"], train: bool) -> Float[Array, "B D H W F"]:
        """Apply the block."""
        y = Conv3d(self.features, 3, 1, self.dtype, name="conv1")(x)
        y = nn.relu(BatchNorm(dtype=self.dtype, name="norm1")(y, train))
        y = Conv3d(self.features, 3, 1, self.dtype, name="conv2")(y)
        y = BatchNorm(dtype=self.dtype, name="norm2")(y, train)
        if x.shape[-1] != self.features:
            x = Conv3d(self.features, 1, 1, self.dtype, name="conv_skip")(x)
            x = BatchNorm(dtype=self.dtype, name="norm_skip")(x, train)
        return nn.relu(x + y)
