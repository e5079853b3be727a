"""The same network as `hpe_jax.methods.v2v` in PyTorch, to compare speed and numbers with.

Written from the architecture's description; needs torch, which nothing else here does. The
modules carry the names of the Linen ones, so that `to_variables` is a renaming.
"""

from __future__ import annotations

from functools import partial
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


class TorchSystem:
    """The same job in PyTorch: network, voxels, heatmaps, decoding, on its device."""

    def __init__(self, config: Any, hands: dict[str, Any], device: str) -> None:
        self.method, self.device = config.method, "cuda" if device == "gpu" else "cpu"
        self.hands = {k: torch.from_numpy(v.copy()).to(self.device) for k, v in hands.items()}
        net = TorchV2V(hands["joints"].shape[1], tuple(config.method.widths)).to(self.device)
        self.net = net.to(memory_format=torch.channels_last_3d)
        half = config.method.dtype == "bfloat16"
        self.autocast = partial(torch.autocast, self.device, torch.bfloat16, enabled=half)

    def grid(self, train: bool):
        """Angle, voxels per mm and the offset of the cube's middle, by example."""
        size, (low, high) = self.method.input, self.method.scale
        cube = self.hands["cube"]
        if not train:
            middle = torch.full((len(cube), 3), (size - 1) / 2, device=self.device)
            return torch.zeros_like(cube), size / cube, middle
        margin = self.method.canvas - size
        start = torch.randint(0, margin + 1, (len(cube), 3), device=self.device)
        limit = self.method.rotation_deg * torch.pi / 180
        angle = (2 * torch.rand_like(cube) - 1) * limit
        scale = low + (high - low) * torch.rand_like(cube)
        return angle, scale * size / cube, (size - 1) / 2 + margin / 2 - start

    def to_voxels(self, points, grid):
        """(B, N, 3) mm to voxels."""
        angle, scale, offset = grid
        x, y, z = (points - self.hands["centre"][:, None]).unbind(-1)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], -1)
        return turned * scale[:, None, None] + offset[:, None]

    def volume(self, grid):
        """(B, 1, S, S, S) occupancy."""
        depth, camera, corner = (self.hands[k] for k in ("depth", "camera", "corner"))
        count, rows, columns = depth.shape
        size = self.method.input
        u = torch.arange(columns, device=self.device) + corner[:, :1]
        v = torch.arange(rows, device=self.device) + corner[:, 1:]
        x = ((u - camera[:, 2:3]) / camera[:, 0:1])[:, None, :] * depth
        y = ((v - camera[:, 3:4]) / camera[:, 1:2])[:, :, None] * depth
        points = torch.stack([x, y, depth], -1).reshape(count, -1, 3)
        index = (self.to_voxels(points, grid) + 0.5).floor().long()
        inside = ((index >= 0) & (index < size)).all(-1) & (depth.reshape(count, -1) > 0)
        flat = (index[..., 2] * size + index[..., 1]) * size + index[..., 0]
        out = torch.zeros(count, size**3 + 1, device=self.device)
        out.scatter_(1, torch.where(inside, flat, size**3), 1.0)
        return out[:, :-1].reshape(count, 1, size, size, size)

    def loss(self):
        """Of one augmented batch."""
        grid = self.grid(train=True)
        steps = torch.arange(self.method.input // 2, device=self.device)
        where = self.to_voxels(self.hands["joints"], grid) / 2
        far = (steps - where[..., None]) ** 2 / (2 * self.method.sigma**2)
        x, y, z = torch.exp(-far).unbind(2)
        target = z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]
        volume = self.volume(grid).contiguous(memory_format=torch.channels_last_3d)
        with self.autocast():
            maps = self.net(volume)
        return torch.nn.functional.mse_loss(maps.float(), target)

    def joints(self):
        """(B, J, 3) mm by the arg-max."""
        _, scale, offset = grid = self.grid(train=False)
        volume = self.volume(grid).contiguous(memory_format=torch.channels_last_3d)
        with self.autocast():
            maps = self.net(volume)
        side = maps.shape[-1]
        best = maps.flatten(2).argmax(-1)
        voxel = 2 * torch.stack([best % side, best // side % side, best // side**2], -1)
        return (voxel - offset[:, None]) / scale[:, None, None] + self.hands["centre"][:, None]

    def finish(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def to_variables(module: nn.Module) -> dict[str, Any]:
    """A torch module's weights and running statistics as Linen variables (NumPy)."""
    out: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, owner in module.named_modules():
        path = name.split(".")
        if isinstance(owner, (nn.Conv2d, nn.Conv3d)):
            extents = range(2, owner.weight.ndim)
            _put(out["params"], [*path, "kernel"], owner.weight.permute(*extents, 1, 0))
            _put(out["params"], [*path, "bias"], owner.bias)
        elif isinstance(owner, nn.ConvTranspose3d):
            _put(out["params"], [*path[:-1], "kernel"], owner.weight.permute(2, 3, 4, 0, 1))
            _put(out["params"], [*path[:-1], "bias"], owner.bias)
        elif isinstance(owner, (nn.BatchNorm2d, nn.BatchNorm3d)):
            _put(out["params"], [*path, "scale"], owner.weight)
            _put(out["params"], [*path, "bias"], owner.bias)
            _put(out["batch_stats"], [*path, "mean"], owner.running_mean)
            _put(out["batch_stats"], [*path, "var"], owner.running_var)
    return out


def _put(tree: dict[str, Any], path: list[str], value: torch.Tensor) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = np.array(value.detach().numpy(), order="C")  # a copy: training is in place
