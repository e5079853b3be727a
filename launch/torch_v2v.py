"""The same network as `hpe_jax.methods.v2v` in PyTorch, to compare speed and numbers with.

Written from the architecture's description; needs torch, which nothing else here does. The
modules carry the names of the Linen ones, so that `to_variables` is a renaming.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


class Convolution(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, features: int, size: int) -> None:
        super().__init__()
        self.add_module("conv", nn.Conv3d(inputs, features, size, padding=size // 2))
        self.add_module("norm", nn.BatchNorm3d(features))
        self.add_module("relu", nn.ReLU())


class UpSampling(nn.Sequential):
    """Transposed convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.add_module("conv", nn.ConvTranspose3d(inputs, features, 2, stride=2))
        self.add_module("norm", nn.BatchNorm3d(features))
        self.add_module("relu", nn.ReLU())


class Residual(nn.Module):
    """Two 3^3 convolutions and a shortcut."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, features, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(features)
        self.conv2 = nn.Conv3d(features, features, 3, padding=1)
        self.norm2 = nn.BatchNorm3d(features)
        self.wider = inputs != features
        if self.wider:
            self.conv_skip = nn.Conv3d(inputs, features, 1)
            self.norm_skip = nn.BatchNorm3d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, D, H, W) -> (B, F, D, H, W)."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + (self.norm_skip(self.conv_skip(x)) if self.wider else x))


class TorchV2V(nn.Module):
    """Occupancy (B, 1, S, S, S) to heatmaps (B, J, S/2, S/2, S/2)."""

    def __init__(self, joints: int, widths: tuple[int, int, int, int] = (16, 32, 64, 128)) -> None:
        super().__init__()
        stem, full, half, quarter = widths
        self.stem = Convolution(1, stem, 7)
        self.front1 = Residual(stem, full)
        self.front2 = Residual(full, full)
        self.front3 = Residual(full, full)
        self.skip1 = Residual(full, full)
        self.encoder1 = Residual(full, half)
        self.skip2 = Residual(half, half)
        self.encoder2 = Residual(half, quarter)
        self.middle1 = Residual(quarter, quarter)
        self.middle2 = Residual(quarter, quarter)
        self.up2 = UpSampling(quarter, half)
        self.decoder2 = Residual(half, half)
        self.up1 = UpSampling(half, full)
        self.decoder1 = Residual(full, full)
        self.head1 = Convolution(full, full, 1)
        self.head2 = Convolution(full, full, 1)
        self.output = nn.Conv3d(full, joints, 1)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Heatmaps of occupancy volumes."""
        pool = nn.functional.max_pool3d
        x = pool(self.stem(volume), 2)
        x = self.front3(self.front2(self.front1(x)))
        skip1 = self.skip1(x)
        x = self.encoder1(pool(x, 2))
        skip2 = self.skip2(x)
        x = self.encoder2(pool(x, 2))
        x = self.middle2(self.middle1(x))
        x = self.decoder2(self.up2(x) + skip2)
        x = self.decoder1(self.up1(x) + skip1)
        return self.output(self.head2(self.head1(x)))


def to_variables(module: nn.Module) -> dict[str, Any]:
    """A torch module's weights and running statistics as Linen variables (NumPy)."""
    out: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, owner in module.named_modules():
        path = name.split(".")
        if isinstance(owner, nn.Conv3d):
            _put(out["params"], [*path, "kernel"], owner.weight.permute(2, 3, 4, 1, 0))
            _put(out["params"], [*path, "bias"], owner.bias)
        elif isinstance(owner, nn.ConvTranspose3d):
            _put(out["params"], [*path[:-1], "kernel"], owner.weight.permute(2, 3, 4, 0, 1))
            _put(out["params"], [*path[:-1], "bias"], owner.bias)
        elif isinstance(owner, nn.BatchNorm3d):
            _put(out["params"], [*path, "scale"], owner.weight)
            _put(out["params"], [*path, "bias"], owner.bias)
            _put(out["batch_stats"], [*path, "mean"], owner.running_mean)
            _put(out["batch_stats"], [*path, "var"], owner.running_var)
    return out


def _put(tree: dict[str, Any], path: list[str], value: torch.Tensor) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = np.array(value.detach().numpy(), order="C")  # a copy: training is in place
