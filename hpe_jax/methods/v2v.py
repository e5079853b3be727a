"""V2V-PoseNet: voxel-to-voxel prediction of joint heatmaps.

G. Moon, J. Y. Chang, K. M. Lee, "V2V-PoseNet: Voxel-to-Voxel Prediction Network for Accurate
3D Hand and Human Pose Estimation from a Single Depth Map", CVPR 2018.
Configs: `configs/v2v_nyu.py` (the paper), `:subvoxel`, `:quick`, `:long`; `configs/v2v_icvl.py`,
`configs/v2v_msra.py`.

The hand's cube becomes a binary occupancy grid, an encoder-decoder of residual blocks turns it
into one heatmap for each joint at half the resolution, trained on un-normalised Gaussians
with a squared error averaged over everything.

Deviations of the default setting from the paper: centres are those of the localiser (`com`) until
`data.centre=refined` names a centre network, training adds noise to them, and NYU's second test
subject has 5/6 of the cube, as in later work (`data.cube_by_subject=False` takes the paper's).
Options: `decode="subvoxel"` fits the peak instead of rounding it to a voxel; `occupancy="linear"`
keeps the depth that coarse voxels round away; `kernel_std=0` starts from He's initialisation. The
random crop of the canvas is a translation of the grid, not a crop of a volume. Points and joints
are scaled and turned as they are; released, after they were rounded to voxels.
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
from hpe_jax.kernels.augment import draw_affine
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.decode import decoder
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.kernels.voxels import Grid, coarsen, make_grid, to_mm, to_voxels, voxelise
from hpe_jax.layers.blocks import Conv, ConvBlock, ResidualBlock, Upsample
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "v2v",
    "input": 88,  # voxels along the cube's edge that the network sees
    "canvas": 96,  # voxels of the cube with room for random translation
    "occupancy": "binary",  # binary | linear: a reading counts in two voxels along z
    "widths": (16, 32, 64, 128),
    "sigma": 1.7,  # of the target heatmaps, output voxels
    "decode": "argmax",  # argmax | topk | subvoxel
    "top_k": 5,  # for topk
    "scale": (0.8, 1.2),  # training augmentation
    "rotation_deg": 40.0,
    "kernel_std": 0.001,
    "output_std": 0.001,  # of the last convolution
    "dtype": "float32",  # of the arithmetic; parameters are always float32
}
# The method at the size of the `quick` variants; lengths are those of NYU's cube.
QUICK = {
    "input": 32,  # 88 voxels do not train in minutes on a CPU
    "canvas": 32,  # endless synthetic hands differ by themselves:
    "scale": (1.0, 1.0),  # they need no augmentation
    "rotation_deg": 0.0,
    "occupancy": "linear",  # binary rounds depth to 7.8 mm and costs 0.4 mm
    "widths": (8, 16, 32, 64),
    "decode": "subvoxel",  # an output voxel is 15.6 mm here
    "kernel_std": 0.0,  # He; BatchNorm hides the scale, not its eps
    "output_std": 0.0001,  # begins at heatmaps of zero, which most are
    "sigma": 1.5,  # 23 mm there; the paper's 1.7 costs half a millimetre
}

POOL = 2  # input voxels to an output voxel


class V2VNet(nn.Module):
    """The paper's network: occupancy to heatmaps at half the resolution.

    Attributes:
      joints: number of heatmaps.
      widths: channels of the stem, the full, the half and the quarter resolution.
      dtype: of the arithmetic; the heatmaps are float32.
    """

    joints: int
    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, volume: Float[Array, "B S S S 1"], train: bool
    ) -> Float[Array, "B S/2 S/2 S/2 J"]:
        """Heatmaps of occupancy volumes; S must be divisible by 8."""
        stem, full, half, quarter = self.widths

        def res(width: int, name: str, x: Array) -> Array:
            return ResidualBlock(width, self.dtype, name=name)(x, train)

        def up(width: int, name: str, x: Array) -> Array:
            return Upsample(width, self.dtype, name=name)(x, train)

        x = max_pool2(ConvBlock(stem, 7, 1, self.dtype, name="stem")(volume, train))
        x = res(full, "front1", x)
        x = res(full, "front2", x)
        x = res(full, "front3", x)

        skip1 = res(full, "skip1", x)
        x = res(half, "encoder1", max_pool2(x))
        skip2 = res(half, "skip2", x)
        x = res(quarter, "encoder2", max_pool2(x))
        x = res(quarter, "middle1", x)
        x = res(quarter, "middle2", x)
        x = res(half, "decoder2", up(half, "up2", x) + skip2)
        x = res(full, "decoder1", up(full, "up1", x) + skip1)

        x = ConvBlock(full, 1, 1, self.dtype, name="head1")(x, train)
        x = ConvBlock(full, 1, 1, self.dtype, name="head2")(x, train)
        return Conv(self.joints, 1, 1, self.dtype, name="output")(x).astype(jnp.float32)


def volumes(batch: Batch, grid: Grid, size: int, linear: bool = False) -> Float[Array, "B S S S 1"]:
    """Occupancy of a batch's depth patches in its grids; `linear` as for `voxels.occupancy`."""
    voxels = jax.vmap(voxelise, (0, 0, 0, 0, None, None))(
        batch["depth"], batch["corner"], batch["camera"], grid, size, linear
    )
    return voxels[..., None]


def masked_mse(
    predicted: Float[Array, "B D H W J"],
    target: Float[Array, "B D H W J"],
    valid: Float[Array, "B J"],
) -> Float[Array, ""]:
    """Squared error averaged over everything; that of joints without a label counts as 0, so that
    the mean over a batch's parts is that of the batch."""
    return jnp.mean(jnp.mean((predicted - target) ** 2, (1, 2, 3)) * valid)


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """V2V-PoseNet for a skeleton.

    Args:
      config: the `method` part, `PAPER` with changes (a run from before `occupancy` has none; its
        volumes were binary).
      skeleton: its joints, in order, are the heatmaps.

    Raises:
      InputError: for an input side not divisible by 8, a canvas smaller than it, an unknown
        occupancy, decode or dtype, or a number out of range.
    """
    size, margin = int(config.input), int(config.canvas) - int(config.input)
    checks.multiple(config, "input", 8, 8)
    if margin < 0:
        raise InputError(f"method.canvas={config.canvas}: expected at least method.input, {size}")
    checks.widths(config, "widths", 4)
    checks.spread(config, "scale")
    checks.positive(config, "sigma")
    checks.at_least(config, 0, "rotation_deg", "kernel_std", "output_std")
    if "occupancy" in config:  # Runs of earlier versions have none.
        checks.one_of(config, "occupancy", ("binary", "linear"))
    checks.one_of(config, "dtype", checks.DTYPES)
    out = size // POOL
    low, high = config.scale
    rotation_deg, sigma = float(config.rotation_deg), float(config.sigma)
    linear = config.get("occupancy", "binary") == "linear"
    if config.decode == "topk":
        checks.within(config, "top_k", 1, out**3, "voxels")
    if config.decode == "subvoxel" and out < 5:
        raise InputError(f"method.decode=subvoxel needs method.input >= 16, got {size}")
    try:
        decode = jax.vmap(decoder(config.decode, int(config.top_k)))
    except ValueError as error:
        raise InputError(f"method.decode: {error}") from error
    net = V2VNet(len(skeleton), tuple(config.widths), jnp.dtype(config.dtype))

    def init(key: Array) -> Variables:
        volume = jax.ShapeDtypeStruct((1, size, size, size, 1), jnp.float32)
        std = {"output": float(config.output_std)}
        return init_variables(
            net, key, volume, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        keys = jax.random.split(key, batch["centre"].shape[0])
        affine = jax.vmap(
            lambda k: draw_affine(k, scale=(low, high), rotation_deg=rotation_deg, margin=margin)
        )(keys)
        grid = make_grid(batch["centre"], batch["cube"], size, **affine._asdict())
        coarse = coarsen(grid, POOL)
        target = jax.vmap(gaussian_heatmaps, (0, None, None))(
            to_voxels(batch["joints"], coarse), out, sigma
        )
        heatmaps, state = net.apply(
            variables, volumes(batch, grid, size, linear), train=True, mutable=["batch_stats"]
        )
        valid = batch["joint_valid"].astype(jnp.float32)
        value = masked_mse(heatmaps, target, valid)
        joints = to_mm(decode(jax.lax.stop_gradient(heatmaps)), coarse)
        error_mm = mean_error(joints, batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        grid = make_grid(batch["centre"], batch["cube"], size)
        seen = volumes(batch, grid, size, linear)
        heatmaps: Array = net.apply(variables, seen, train=False)  # type: ignore[assignment]
        return to_mm(decode(heatmaps), coarsen(grid, POOL))

    return Method(init, loss, predict)
