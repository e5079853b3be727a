"""A detector of the hand's joints in whole depth frames, from which centres follow.

As in C. Wan et al., "Dense 3D Regression for Hand Pose Estimation", CVPR 2018, section 4.3: an
hourglass of one stack estimates a 2-D heatmap for every joint of the whole frame; the crop's
centre is the median of the joints' x and y.
Configs: `configs/detector_nyu.py`, `:quick` (`data.whole=True`).

Where the paper is silent: a stem quarters the frame; targets are Gaussians of one pixel of what
is left; a joint's pixel is the mean of the highest `top_k`; its depth is that pixel's
reading, or the nearest one about it if that is far in front; the centre's depth is the median as
well, and lies on the surface, not inside the hand. Frames are a few pixels wide
(`datasets.patches.SEARCH_WIDTH`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax.camera import uvd_to_xyz, xyz_to_uvd
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.decode import top_k
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.layers.blocks import Conv, ConvBlock, Hourglass, ResidualBlock
from hpe_jax.layers.init import init_variables
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "detector",
    "features": 128,
    "depth": 4,  # how often the hourglass halves
    "sigma": 1.0,  # of the targets, pixels of the maps
    "top_k": 5,
    "far_mm": 1500.0,  # readings beyond it look like none
    "kernel_std": 0.0,  # He
    "output_std": 0.001,
    "dtype": "float32",
}
# The method at the size of the `quick` variants.
QUICK = {"features": 32, "depth": 3, "output_std": 0.0001}

STEM = 4  # frame pixels to a pixel of the maps
BEHIND_MM = 100.0  # a reading this far behind the nearest one beside it is no hand


def median_centre(joints: Float[Array, "*B J 3"]) -> Float[Array, "*B 3"]:
    """The centre of a crop about detected joints: their median in each coordinate, mm."""
    return jnp.median(joints, -2)


class DetectorNet(nn.Module):
    """One hourglass on a whole frame.

    Attributes:
      joints: number of joints.
      features, depth: see `PAPER`.
      dtype: of the arithmetic; what comes out is float32.
    """

    joints: int
    features: int = 128
    depth: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frame: Float[Array, "B H W 1"], train: bool) -> Float[Array, "B h w J"]:
        """Heatmaps at a quarter of the extents, which `STEM * 2**depth` must divide."""
        x = ConvBlock(max(self.features // 2, 1), 7, 2, self.dtype, name="stem")(frame, train)
        x = max_pool2(ResidualBlock(self.features, self.dtype, name="stem_res")(x, train))
        x = Hourglass(self.features, self.depth, self.dtype, name="hourglass")(x, train)
        x = ResidualBlock(self.features, self.dtype, name="after")(x, train)
        x = ConvBlock(self.features, 1, 1, self.dtype, name="head")(x, train)
        return Conv(self.joints, 1, 1, self.dtype, name="output")(x).astype(jnp.float32)


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """The detector for a skeleton; batches must hold whole frames.

    Args:
      config: the `method` part, `PAPER` with changes.
      skeleton: its joints, in order, are the maps.

    Raises:
      InputError: a value out of range.
    """
    if min(config.depth, config.features) < 1:
        raise InputError("method.depth and method.features must be at least 1")
    # As many pixels as the maps of the smallest frame have.
    if not 1 <= config.top_k <= 4**config.depth:
        raise InputError(f"method.top_k={config.top_k}: expected 1 to {4**config.depth}")
    if config.dtype not in ("float32", "bfloat16"):
        raise InputError(f"method.dtype={config.dtype!r}: expected float32 or bfloat16")
    for name in ("sigma", "far_mm"):
        if not config[name] > 0:
            raise InputError(f"method.{name} must be positive, got {config[name]}")
    for name in ("kernel_std", "output_std"):
        if not config[name] >= 0:
            raise InputError(f"method.{name} must be at least 0, got {config[name]}")
    multiple = STEM * 2 ** int(config.depth)
    count, far, sigma = int(config.top_k), float(config.far_mm), float(config.sigma)
    net = DetectorNet(
        len(skeleton), int(config.features), int(config.depth), jnp.dtype(config.dtype)
    )

    def see(depth: Float[Array, "B H W"]) -> Float[Array, "B h w 1"]:
        """1 right at the camera, 0 where nothing is near enough; padded to what can be halved."""
        near = jnp.where((depth > 0) & (depth < far), 1.0 - depth / far, 0.0)
        pad = ((0, 0), *((0, -n % multiple) for n in depth.shape[1:]))
        return jnp.pad(near, pad)[..., None]

    def pixels(batch: Batch) -> Float[Array, "B J 2"]:
        """Of the joints, in the frame."""
        uv = jax.vmap(xyz_to_uvd)(batch["joints"], batch["camera"])[..., :2]
        return uv - batch["corner"][:, None]

    def read(heatmaps: Array, depth: Array, corner: Array, camera: Array) -> Float[Array, "J 3"]:
        """Joints of one frame; those that meet no reading take the others' middle depth."""
        at = (top_k(heatmaps[None], count)[:, :2] + 0.5) * STEM - 0.5
        reading = jnp.where(depth > 0, depth, jnp.inf)
        window = (STEM + 1, STEM + 1)
        around = lax.reduce_window(reading, jnp.inf, lax.min, window, (1, 1), "SAME")
        limit = jnp.array(depth.shape[::-1]) - 1
        u, v = jnp.moveaxis(jnp.clip(jnp.round(at).astype(jnp.int32), 0, limit), -1, 0)
        near, own = around[v, u], depth[v, u]
        z = jnp.where((own > 0) & (own < near + BEHIND_MM), own, near)
        middle = jnp.nanmedian(jnp.where(jnp.isfinite(z), z, jnp.nan))
        middle = jnp.where(jnp.isfinite(middle), middle, far)
        z = jnp.where(jnp.isfinite(z), z, middle)
        return uvd_to_xyz(jnp.concatenate([at + corner, z[:, None]], -1), camera)

    def joints_of(heatmaps: Array, batch: Batch) -> Float[Array, "B J 3"]:
        return jax.vmap(read)(heatmaps, batch["depth"], batch["corner"], batch["camera"])

    def init(key: Array) -> Variables:
        example = jax.ShapeDtypeStruct((1, multiple, multiple, 1), jnp.float32)
        std = {"output": float(config.output_std)}
        return init_variables(
            net, key, example, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        del key  # No augmentation: hands are anywhere in the frames already.
        maps, state = net.apply(variables, see(batch["depth"]), train=True, mutable=["batch_stats"])
        on_maps = (pixels(batch) + 0.5) / STEM - 0.5
        height, width = maps.shape[1:3]
        target = jax.vmap(lambda at: gaussian_heatmaps(at, max(height, width), sigma))(on_maps)
        error = jnp.sum((maps - target[:, :height, :width]) ** 2, (1, 2))
        valid = batch["joint_valid"].astype(jnp.float32)
        value = jnp.mean(jnp.sum(error * valid, -1))
        joints = joints_of(lax.stop_gradient(maps), batch)
        error_mm = mean_error(joints, batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        maps: Any = net.apply(variables, see(batch["depth"]), train=False)
        return joints_of(maps, batch)

    return Method(init, loss, predict)
