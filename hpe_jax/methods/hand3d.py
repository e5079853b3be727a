"""Hand3D: a truncated signed distance volume, refined, then read by a 3-D convolutional network.

X. Deng, S. Yang, Y. Zhang, P. Tan, L. Chang, H. Wang, "Hand3D: Hand Pose Estimation using 3D
Neural Network", 2017.
Configs: `configs/hand3d_{nyu,icvl}.py`, in stages (`:refine`, `:pose`, `:end_to_end`), and the
ablation of section 4.4 (`:base`, `:augmented`, `:refined`).

The hand's depth becomes distances on 60^3 voxels of 5 mm about its centre of mass. A network with
skips (table 3a) turns those of a noisy depth image into those of a clean one; another (table 3b)
estimates every joint relative to the centre. Each learns alone (`learn="tsdf"`, then "joints" with
the first one frozen); both may then go on together.

Deviations: training adds noise to centres (`data.centre_jitter_mm`). Each of the three stages
trains for the paper's 30 epochs, which it gives the whole network. Refinement learns from synthetic
hands: NYU's `synthdepth` frames are not read. Hands are the analytic ones in procedural poses; the
paper's, skinned and in poses of a data set, are `data.synthetic.hand="skinned"` and
`data.synthetic.poses`. Real and synthetic frames are not mixed. Where the paper is silent: Adam;
the "euclidean distance" of its loss (section 3.2) is that of each joint, in halves of the cube;
readings before and behind the cube are background (beside it they stay); refinement learns from
the absolute difference of every voxel plus its square (the square alone answers halfway wherever
it is not sure; the absolute difference alone does not leave the input to begin with), and begins
with He's kernels up to its tanh (begun near zero, the tanh saturates at "all free", which most
voxels are). Options for the little training of `quick`: `batch_norm` in the pose network, and
`residual`: refinement that begins with its input instead of having to learn to copy it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.conv3d import max_pool2, nearest2
from hpe_jax.kernels.tsdf import tsdf
from hpe_jax.kernels.voxels import make_grid
from hpe_jax.layers.blocks import Conv, ConvBlock, DenseFloat32
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "hand3d",
    "input": 60,  # voxels along the cube's edge
    "truncation_mm": 50.0,
    "refine": True,  # whether the pose network sees refined distances
    "learn": "joints",  # joints | tsdf, the refinement network alone
    "refine_widths": (32, 64, 128),  # at full, half and quarter resolution (table 3a)
    "residual": False,  # whether refinement estimates a change of the distances
    "features": 8,  # of the pose network (table 3b)
    "hidden": 2048,
    "dropout": 0.5,
    "batch_norm": False,
    "kernel_std": 0.0,  # He
    "output_std": 0.001,  # of the joints
    "dtype": "float32",
}
# The method at the size of the `quick` variants.
QUICK = {
    "input": 32,
    "refine_widths": (8, 16, 32),
    "residual": True,
    "features": 16,
    "hidden": 512,
    "dropout": 0.0,
    "batch_norm": True,
}
# What the stages of an experiment change, in their order (`training.stages`).
STAGES = {
    "refine": {"method": {"learn": "tsdf"}, "data": {"synthetic": {"clean": True}}},
    "pose": {"init_from": "../refine", "init_pattern": "refine/.*", "frozen": "refine/.*"},
    "end_to_end": {"init_from": "../pose"},
}
POOLS = 4  # voxels to one that the fully connected layers see, along an axis


class RefineNet(nn.Module):
    """Table 3(a): distances to distances within -1 and 1.

    Attributes:
      widths: channels at the full, the half and the quarter resolution.
      dtype: of the arithmetic; what comes out is float32.
    """

    widths: tuple[int, int, int] = (32, 64, 128)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, volume: Float[Array, "B S S S 1"]) -> Float[Array, "B S S S 1"]:
        """Refined distances; S must be divisible by 4."""

        def conv(width: int, name: str, x: Array) -> Array:
            return nn.relu(Conv(width, 3, 1, self.dtype, name=name)(x))

        full, half, quarter = self.widths
        skip1 = conv(full, "encoder1b", conv(full, "encoder1a", volume))
        skip2 = conv(half, "encoder2b", conv(half, "encoder2a", max_pool2(skip1)))
        x = conv(quarter, "middleb", conv(quarter, "middlea", max_pool2(skip2)))
        x = jnp.concatenate([nearest2(x), skip2], -1)
        x = conv(half, "decoder2b", conv(half, "decoder2a", x))
        x = jnp.concatenate([nearest2(x), skip1], -1)
        x = conv(max(full // 2, 1), "decoder1b", conv(full, "decoder1a", x))
        return jnp.tanh(Conv(1, 3, 1, self.dtype, name="distances")(x).astype(jnp.float32))


class PoseNet(nn.Module):
    """Table 3(b): distances to joints.

    Attributes:
      joints: number of them.
      features: channels of the convolutions.
      hidden: width of the fully connected layers.
      dropout: share of those that is dropped in training.
      batch_norm: whether it follows every convolution.
      dtype: of the arithmetic; what comes out is float32.
    """

    joints: int
    features: int = 8
    hidden: int = 2048
    dropout: float = 0.5
    batch_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, volume: Float[Array, "B S S S 1"], train: bool) -> Float[Array, "B J 3"]:
        """Offsets from the cube's centre in halves of its edge; S must be divisible by 4."""
        x: Array = volume
        for i in (1, 2):
            if self.batch_norm:
                x = ConvBlock(self.features, 5, 1, self.dtype, name=f"conv{i}")(x, train)
            else:
                x = nn.relu(Conv(self.features, 5, 1, self.dtype, name=f"conv{i}")(x))
            x = max_pool2(x)
        x = x.reshape(len(x), -1)
        for i in (1, 2):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name=f"fc{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = DenseFloat32(3 * self.joints, name="output")(x.astype(jnp.float32))
        return x.reshape(len(x), self.joints, 3)


class Hand3DNet(nn.Module):
    """Refinement, pose or both.

    Attributes:
      refine: None leaves the distances as they are.
      pose: None estimates no joints.
      residual: what `refine` says is a change of the distances.
    """

    refine: nn.Module | None
    pose: nn.Module | None
    residual: bool = False

    def __call__(self, volume: Float[Array, "B S S S 1"], train: bool) -> tuple[Array, Any]:
        """Refined distances, and joints or None."""
        refined = volume
        if self.refine is not None:
            refined = self.refine(volume)
            if self.residual:
                # Twice what the tanh says leads from any distance to any other. What is cut off
                # keeps its slope, or distances beyond the truth could not come back.
                wide = volume + 2.0 * refined
                refined = wide + jax.lax.stop_gradient(jnp.clip(wide, -1.0, 1.0) - wide)
        return refined, None if self.pose is None else self.pose(refined, train)


def distances(
    batch: Batch, depth: Float[Array, "B H W"], size: int, truncation_mm: float
) -> Float[Array, "B S S S 1"]:
    """Truncated signed distances, within -1 and 1, to what lies inside the cube.

    Args:
      batch: cubes and camera.
      depth: (B, H, W) mm of the same patches, the batch's own or another.
      size: S, voxels along the cube's edge.
      truncation_mm: distance that becomes 1.
    """
    near, far = (batch["centre"][:, 2] + sign * batch["cube"] / 2 for sign in (-1, 1))
    inside = (depth > near[:, None, None]) & (depth < far[:, None, None])
    grid = make_grid(batch["centre"], batch["cube"], size)
    volume = jax.vmap(tsdf, (0, 0, 0, 0, None, None))(
        jnp.where(inside, depth, 0.0), batch["corner"], batch["camera"], grid, size, truncation_mm
    )
    return volume[..., None]


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """Hand3D for a skeleton.

    Args:
      config: the `method` part, `PAPER` with changes.
      skeleton: its joints, in order, are estimated.

    Raises:
      InputError: a value out of range.
    """
    size, truncation = int(config.input), float(config.truncation_mm)
    checks.multiple(config, "input", POOLS, POOLS)
    checks.positive(config, "truncation_mm")
    checks.one_of(config, "learn", ("joints", "tsdf"))
    if config.learn == "tsdf" and not config.refine:
        raise InputError("method.learn=tsdf trains the refinement network, expected method.refine")
    checks.widths(config, "refine_widths", 3)
    checks.at_least(config, 1, "features", "hidden")
    checks.share(config, "dropout")
    checks.one_of(config, "dtype", checks.DTYPES)
    checks.at_least(config, 0, "kernel_std", "output_std")
    dtype = jnp.dtype(config.dtype)
    pose = PoseNet(
        len(skeleton),
        int(config.features),
        int(config.hidden),
        float(config.dropout),
        bool(config.batch_norm),
        dtype,
    )
    net = Hand3DNet(
        RefineNet(tuple(config.refine_widths), dtype) if config.refine else None,
        pose if config.learn == "joints" else None,
        bool(config.residual),
    )

    def see(batch: Batch, depth: Float[Array, "B H W"]) -> Float[Array, "B S S S 1"]:
        return distances(batch, depth, size, truncation)

    def clean(batch: Batch) -> Float[Array, "B S S S 1"]:
        if "clean" not in batch:
            raise InputError(
                "method.learn=tsdf: learns from clean depth, expected frames rendered with "
                "data.synthetic.clean=True"
            )
        return see(batch, batch["clean"])

    def init(key: Array) -> Variables:
        volume = jax.ShapeDtypeStruct((1, size, size, size, 1), jnp.float32)
        std = {"output": float(config.output_std)}
        if config.residual:
            std["distances"] = 0.001  # to begin with, nothing is changed
        return init_variables(
            net, key, volume, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def place(offset: Float[Array, "B J 3"], batch: Batch) -> Float[Array, "B J 3"]:
        return batch["centre"][:, None] + offset * (batch["cube"] / 2)[:, None, None]

    def learn_joints(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        (_, offset), state = net.apply(
            variables,
            see(batch, batch["depth"]),
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        found = place(offset, batch)
        valid = batch["joint_valid"].astype(jnp.float32)
        # Section 3.2's loss is the Euclidean distance; the root needs a slope at zero.
        apart = jnp.sqrt(jnp.sum((found - batch["joints"]) ** 2, -1) + 1e-3)
        value = jnp.mean(apart * valid / (batch["cube"] / 2)[:, None])
        error_mm = mean_error(jax.lax.stop_gradient(found), batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def learn_tsdf(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        del key  # Neither augmentation nor dropout.
        wanted = clean(batch)
        (refined, _), state = net.apply(
            variables, see(batch, batch["depth"]), train=True, mutable=["batch_stats"]
        )
        apart = jnp.abs(refined - wanted)
        value = jnp.mean(apart + apart**2)
        return value, ({"loss": value}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        if config.learn == "tsdf":
            raise InputError("method.learn=tsdf estimates no joints, only distances")
        out: Any = net.apply(variables, see(batch, batch["depth"]), train=False)
        return place(out[1], batch)

    def measure(variables: Variables, batch: Batch) -> Metrics:
        """Difference to the clean distances, mm, of each frame: mean and root mean square of all
        voxels, and the mean of those nearer to the clean surface than the truncation."""
        wanted, seen = clean(batch), see(batch, batch["depth"])
        out: Any = net.apply(variables, seen, train=False)
        near = jnp.abs(wanted) < 1.0
        figures = {}
        for name, volume in (("before", seen), ("refined", out[0])):
            apart = truncation * jnp.abs(volume - wanted)
            axes = tuple(range(1, 5))
            figures[f"tsdf_{name}_mm"] = apart.mean(axes)
            figures[f"tsdf_{name}_rms_mm"] = jnp.sqrt((apart**2).mean(axes))
            figures[f"tsdf_{name}_near_mm"] = jnp.where(near, apart, 0.0).sum(axes) / jnp.maximum(
                near.sum(axes), 1
            )
        return figures

    if config.learn == "tsdf":
        return Method(init, learn_tsdf, predict, measure)
    return Method(init, learn_joints, predict)
