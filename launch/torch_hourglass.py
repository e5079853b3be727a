"""The networks of the 3D hourglass and of Dense 3D Regression in PyTorch, to compare with.

Written from the architectures' description; needs torch, which nothing else here does. The
modules carry the names of the Linen ones, so that `torch_v2v.to_variables` is a renaming.
PyTorch has no batch renormalisation; batch norm, to which it is equal in inference, stands for it.
"""

from __future__ import annotations

import torch
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.functional.max_pool2d, 3: nn.functional.max_pool3d}


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU; padded as XLA's "SAME" is."""

    def __init__(self, dims: int, inputs: int, features: int, size: int, stride: int = 1) -> None:
        super().__init__()
        total = size - stride
        self.pad = (total // 2, total - total // 2) * dims
        self.conv = CONV[dims](inputs, features, size, stride)
        self.norm = NORM[dims](features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) -> (B, F, ...)."""
        if any(self.pad):
            x = nn.functional.pad(x, self.pad)
        return torch.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions of 3 and a shortcut."""

    def __init__(self, dims: int, inputs: int, features: int) -> None:
        super().__init__()
        conv, norm = CONV[dims], NORM[dims]
        self.conv1, self.norm1 = conv(inputs, features, 3, padding=1), norm(features)
        self.conv2, self.norm2 = conv(features, features, 3, padding=1), norm(features)
        self.wider = inputs != features
        if self.wider:
            self.conv_skip, self.norm_skip = conv(inputs, features, 1), norm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) -> (B, F, ...)."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + (self.norm_skip(self.conv_skip(x)) if self.wider else x))


class Bottleneck(nn.Module):
    """Three convolutions, the middle one at half the width, and a shortcut."""

    def __init__(self, dims: int, inputs: int, features: int) -> None:
        super().__init__()
        self.narrow = Convolution(dims, inputs, inputs // 2, 1)
        self.look = Convolution(dims, inputs // 2, inputs // 2, 3)
        self.wide = Convolution(dims, inputs // 2, features, 1)
        self.wider = inputs != features
        if self.wider:
            self.skip = Convolution(dims, inputs, features, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) -> (B, F, ...)."""
        y = self.wide(self.look(self.narrow(x)))
        return y + (self.skip(x) if self.wider else x)


class Hourglass(nn.Module):
    """Halve `depth` times and come back."""

    def __init__(
        self, dims: int, features: int, depth: int, block: type[nn.Module] = Residual
    ) -> None:
        super().__init__()
        self.pool = POOL[dims]
        self.skip, self.down, self.up = (block(dims, features, features) for _ in range(3))
        if depth > 1:
            self.inner = Hourglass(dims, features, depth - 1, block)
        else:
            self.middle = block(dims, features, features)
        self.deeper = depth > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        low = self.down(self.pool(x, 2))
        low = self.inner(low) if self.deeper else self.middle(low)
        return self.skip(x) + nn.functional.interpolate(self.up(low), scale_factor=2)


class TorchHourglass3D(nn.Module):
    """Occupancy (B, 1, S, S, S), or an image, to maps at half the extents, of every stack."""

    def __init__(
        self, joints: int, bones: int, stacks: int = 2, features: int = 128, depth: int = 4,
        dims: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stacks = stacks
        self.stem = Convolution(dims, 1, features, 3, 2)
        for i in range(stacks):
            last = i == stacks - 1
            maps = joints + (0 if last else bones)
            self.add_module(f"hourglass{i}", Hourglass(dims, features, depth))
            self.add_module(f"after{i}", Residual(dims, features, features))
            self.add_module(f"head{i}", Convolution(dims, features, features, 1))
            self.add_module(f"output{i}", CONV[dims](features, maps, 1))
            if not last:
                self.add_module(f"remap{i}", CONV[dims](features, features, 1))
                self.add_module(f"maps{i}", CONV[dims](maps, features, 1))

    def forward(self, grid: torch.Tensor) -> list[torch.Tensor]:
        """Maps of every stack, the last without bones."""
        part = self.get_submodule
        x, outputs = self.stem(grid), []
        for i in range(self.stacks):
            y = part(f"head{i}")(part(f"after{i}")(part(f"hourglass{i}")(x)))
            outputs.append(part(f"output{i}")(y))
            if i < self.stacks - 1:
                x = x + part(f"remap{i}")(y) + part(f"maps{i}")(outputs[-1])
        return outputs


class TorchDense(nn.Module):
    """A crop (B, 1, S, S) and its coarse twin (B, 1, S/4, S/4) to the maps R, S and V."""

    def __init__(self, joints: int, stacks: int = 2, depth: int = 4, features: int = 128) -> None:
        super().__init__()
        self.stacks = stacks
        self.stem = Convolution(2, 1, features // 2, 7, 2)
        self.stem_res1 = Bottleneck(2, features // 2, features)
        self.stem_res2, self.stem_res3 = (Bottleneck(2, features, features) for _ in range(2))
        for i in range(stacks):
            self.add_module(f"hourglass{i}", Hourglass(2, features, depth, Bottleneck))
            self.add_module(f"after{i}", Bottleneck(2, features, features))
            self.add_module(f"head{i}", Convolution(2, features, features, 1))
            self.add_module(f"R{i}_output", nn.Conv2d(features, joints, 1))
            self.add_module(f"S{i}_head", Convolution(2, features + 1, features, 1))
            self.add_module(f"S{i}_output", nn.Conv2d(features, joints, 1))
            self.add_module(f"V{i}_head", Convolution(2, 2 * features + 2 * joints, features, 1))
            self.add_module(f"V{i}_output", nn.Conv2d(features, 3 * joints, 1))
            if i < stacks - 1:
                self.add_module(f"remap{i}", nn.Conv2d(features, features, 1))
                self.add_module(f"maps{i}", nn.Conv2d(5 * joints, features, 1))

    def forward(self, crop: torch.Tensor, small: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        """(R, S, V) of every stack."""
        part = self.get_submodule
        x = nn.functional.max_pool2d(self.stem_res1(self.stem(crop)), 2)
        x = self.stem_res3(self.stem_res2(x))
        mask, outputs = (small > -1.0).float(), []
        for i in range(self.stacks):
            y = part(f"head{i}")(part(f"after{i}")(part(f"hourglass{i}")(x)))
            heat = part(f"R{i}_output")(y)
            near = part(f"S{i}_output")(part(f"S{i}_head")(torch.cat([y, small], 1)))
            seen = torch.cat([y, heat, near, y * mask], 1)
            unit = part(f"V{i}_output")(part(f"V{i}_head")(seen))
            outputs.append((heat, near, unit))
            if i < self.stacks - 1:
                x = x + part(f"remap{i}")(y) + part(f"maps{i}")(torch.cat(outputs[-1], 1))
        return outputs
