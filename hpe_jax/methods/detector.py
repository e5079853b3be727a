"""A detector of the hand's joints in whole depth frames, from which centres follow.

As in C. Wan et al., "Dense 3D Regression for Hand Pose Estimation", CVPR 2018, section 4.3: an
hourglass of one stack estimates a 2-D heatmap for every joint of the whole frame; the crop's
centre is the median of the joints' x and y.
Configs: `configs/detector_nyu.py`, `:quick` (`data.whole=True`).

Where the paper is silent: frames are coarse (`datasets.patches.SEARCH_WIDTH`) and hold how far a
reading lies behind the nearest one, which is on the hand; a stem quarters them; residual blocks are
two full-width convolutions; targets are Gaussians of one pixel of what is left; a joint's pixel is
the mean of the highest `top_k`; the centre's depth is the median as well. A second map for every
joint says how far behind the nearest reading it lies, learned where the Gaussian is: the surface
alone is 17 mm in front of the hand.
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
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.decode import top_k
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.kernels.localise import nearest_surface
from hpe_jax.layers.blocks import Conv, ConvBlock, Hourglass, ResidualBlock
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "detector",
    "features": 128,
    "depth": 4,  # how often the hourglass halves
    "sigma": 1.0,  # of the targets, pixels of the maps
    "top_k": 5,
    "span_mm": 500.0,  # readings further than this behind the nearest one look like none
    "kernel_std": 0.0,  # He
    "output_std": 0.001,
    "dtype": "float32",
}
# The method at the size of the `quick` variants.
QUICK = {"features": 32, "depth": 3, "output_std": 0.0001}

STEM = 4  # frame pixels to a pixel of the maps
UNIT_MM = 50.0  # of the depth maps, so that their errors weigh about as much as the heatmaps'
REACH_MM = 200.0  # a joint further from the nearest reading teaches them nothing
NOWHERE_MM = 1000.0  # the depth of joints in an empty frame


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
    def __call__(
        self, frame: Float[Array, "B H W 1"], train: bool
    ) -> tuple[Float[Array, "B h w J"], Float[Array, "B h w J"]]:
        """Heatmaps and depths at a quarter of the extents, which `STEM * 2**depth` must divide."""
        x = ConvBlock(max(self.features // 2, 1), 7, 2, self.dtype, name="stem")(frame, train)
        x = max_pool2(ResidualBlock(self.features, self.dtype, name="stem_res")(x, train))
        x = Hourglass(self.features, self.depth, self.dtype, name="hourglass")(x, train)
        x = ResidualBlock(self.features, self.dtype, name="after")(x, train)
        x = ConvBlock(self.features, 1, 1, self.dtype, name="head")(x, train)
        maps = Conv(self.joints, 1, 1, self.dtype, name="output")(x)
        behind = Conv(self.joints, 1, 1, self.dtype, name="output_depth")(x)
        return maps.astype(jnp.float32), behind.astype(jnp.float32)


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """The detector for a skeleton; batches must hold whole frames.

    Args:
      config: the `method` part, `PAPER` with changes.
      skeleton: its joints, in order, are the maps.

    Raises:
      InputError: a value out of range.
    """
    checks.at_least(config, 1, "depth", "features")
    # As many pixels as the maps of the smallest frame have.
    checks.within(config, "top_k", 1, 4**config.depth, "pixels")
    checks.one_of(config, "dtype", checks.DTYPES)
    checks.positive(config, "sigma", "span_mm")
    checks.at_least(config, 0, "kernel_std", "output_std")
    multiple = STEM * 2 ** int(config.depth)
    count, span, sigma = int(config.top_k), float(config.span_mm), float(config.sigma)
    net = DetectorNet(
        len(skeleton), int(config.features), int(config.depth), jnp.dtype(config.dtype)
    )

    def padded(image: Float[Array, "B H W"], value: float) -> Float[Array, "B h w"]:
        """To what can be halved."""
        pad = ((0, 0), *((0, -n % multiple) for n in image.shape[1:]))
        return jnp.pad(image, pad, constant_values=value)

    def see(depth: Float[Array, "B H W"]) -> Float[Array, "B h w 1"]:
        """1 on the nearest thing, 0 where nothing is near enough behind it; padded."""

        def one(depth: Array) -> Array:
            behind = depth - depth[nearest_surface(depth)]
            return jnp.where(depth > 0, jnp.clip(1.0 - behind / span, 0.0, 1.0), 0.0)

        return padded(jax.vmap(one)(depth), 0.0)[..., None]

    def nearest(depth: Float[Array, "B H W"]) -> Float[Array, "B h w"]:
        """The nearest reading in and about each pixel of the maps, infinite where there is none."""
        reading = padded(jnp.where(depth > 0, depth, jnp.inf), jnp.inf)
        window, step, rim = (1, 2 * STEM, 2 * STEM), (1, STEM, STEM), (STEM // 2, STEM // 2)
        return lax.reduce_window(reading, jnp.inf, lax.min, window, step, ((0, 0), rim, rim))

    def pixels(batch: Batch) -> Float[Array, "B J 2"]:
        """Of the joints, in the frame."""
        uv = jax.vmap(xyz_to_uvd)(batch["joints"], batch["camera"])[..., :2]
        return uv - batch["corner"][:, None]

    def read(
        maps: Array, behind: Array, near: Array, corner: Array, camera: Array
    ) -> Float[Array, "J 3"]:
        """Joints of one frame; those that meet no reading take the others' middle depth."""
        at = (top_k(maps[None], count)[:, :2] + 0.5) * STEM - 0.5
        values, index = lax.top_k(maps.reshape(-1, maps.shape[-1]).T, count)
        reading = near.reshape(-1)[index]
        deep = reading + UNIT_MM * jnp.take_along_axis(behind.reshape(-1, len(at)).T, index, 1)
        weight = jnp.where(jnp.isfinite(reading), jnp.maximum(values, 1e-6), 0.0)
        # 0 / 0 where no pixel has a reading.
        z = jnp.sum(weight * jnp.where(weight > 0, deep, 0.0), -1) / weight.sum(-1)
        middle = jnp.nanmedian(z)
        z = jnp.where(jnp.isfinite(z), z, jnp.where(jnp.isfinite(middle), middle, NOWHERE_MM))
        return uvd_to_xyz(jnp.concatenate([at + corner, z[:, None]], -1), camera)

    def joints_of(maps: Array, behind: Array, near: Array, batch: Batch) -> Float[Array, "B J 3"]:
        return jax.vmap(read)(maps, behind, near, batch["corner"], batch["camera"])

    def init(key: Array) -> Variables:
        example = jax.ShapeDtypeStruct((1, multiple, multiple, 1), jnp.float32)
        std = dict.fromkeys(("output", "output_depth"), float(config.output_std))
        return init_variables(
            net, key, example, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        del key  # No augmentation: hands are anywhere in the frames already.
        (maps, behind), state = net.apply(
            variables, see(batch["depth"]), train=True, mutable=["batch_stats"]
        )
        on_maps = (pixels(batch) + 0.5) / STEM - 0.5
        height, width = maps.shape[1:3]
        target = jax.vmap(lambda at: gaussian_heatmaps(at, max(height, width), sigma))(on_maps)
        target = target[:, :height, :width]
        near = nearest(batch["depth"])
        wanted = (batch["joints"][:, None, None, :, 2] - near[..., None]) / UNIT_MM
        known = jnp.abs(wanted) < REACH_MM / UNIT_MM
        apart = jnp.where(known, behind - jnp.where(known, wanted, 0.0), 0.0)
        error = jnp.sum((maps - target) ** 2 + target * apart**2, (1, 2))
        valid = batch["joint_valid"].astype(jnp.float32)
        value = jnp.mean(jnp.sum(error * valid, -1))
        joints = joints_of(*lax.stop_gradient((maps, behind, near)), batch)
        error_mm = mean_error(joints, batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        out: Any = net.apply(variables, see(batch["depth"]), train=False)
        maps, behind = out
        return joints_of(maps, behind, nearest(batch["depth"]), batch)

    return Method(init, loss, predict)
