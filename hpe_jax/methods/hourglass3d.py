"""Structure-aware 3D hourglass: stacked hourglasses on voxels that also learn bones.

F. Huang, A. Zeng, M. Liu, J. Qin, Q. Xu, "Structure-Aware 3D Hourglass Network for Hand Pose
Estimation from Single Depth Image", BMVC 2018.
Configs: `configs/hourglass3d_msra.py`, `configs/hourglass3d_nyu.py`; the variants `b1` ... `b5` of
both are the baselines of the paper's table 1, `k1` ... `k343` other numbers of voxels to read.

A box about the hand becomes a binary occupancy grid. Every hourglass ends in one heatmap for
each joint; all but the last also in one for each bone, a Gaussian about the segment between
its two joints. Features and heatmaps of a stack are added to what the next one sees.

Deviations: on NYU cubes depend on the subject, on MSRA15 the points are those within 300 mm, and
training adds noise to centres (`defaults.experiment`); the stem's windows of stride 2 begin at the
voxel that they are counted at, not one before it. Where the paper is silent: the longest side
of the points' box fills the grid after, not before, the points were turned (about the line of
sight) and stretched; the stretch keeps the area; a direct head (b1, b3) sees the features pooled to
4 voxels a side, through two fully connected layers; the image of the two-dimensional baselines is
the grid seen along its z axis.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax.camera import depth_to_points
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.augment import Affine, draw_affine
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.decode import decoder
from hpe_jax.kernels.heatmaps import bone_heatmaps, gaussian_heatmaps
from hpe_jax.kernels.voxels import (
    Grid,
    coarsen,
    depth_map,
    make_grid,
    occupancy,
    tighten,
    to_mm,
    to_voxels,
)  # fmt: skip
from hpe_jax.layers.blocks import Conv, ConvBlock, DenseFloat32, Hourglass, ResidualBlock
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "hourglass3d",
    "input": 64,  # voxels along the box (section 3.2)
    "features": 128,
    "stacks": 2,
    "depth": 4,  # how often an hourglass halves: 32 voxels to 2
    "dims": 3,  # 2 for the baselines on images
    "target": "heatmap",  # heatmap | direct
    "bones": True,
    "hidden": 1024,  # of a direct head; the paper does not say
    "joint_sigma": 1.0,  # output voxels (section 3.3)
    "bone_sigma": 0.5,  # (section 3.4)
    "decode": "topk",  # argmax | topk | subvoxel
    # Of equation 3; the paper does not say. Perfect maps of joints away from the grid's faces are
    # read within 0.33 mm, by 27 within 1.02 mm (`launch.decode_error`). An image's maps are read
    # at as many pixels as a face of a cube of so many voxels has: 16.
    "top_k": 64,
    "box": "points",  # points | cube (section 3.1)
    "rotation_deg": 30.0,  # training augmentation (section 4.2)
    "aspect": (0.8, 1.2),
    "kernel_std": 0.0,  # He; the paper says "randomly"
    "output_std": 0.001,
    "dtype": "float32",
}
# The method at the size of the `quick` variants.
QUICK = {
    "input": 32,
    "features": 16,
    "depth": 3,
    "hidden": 256,
    "top_k": 27,  # on 16 voxels 64 are worse (`SWEEPS`)
    "rotation_deg": 0.0,  # synthetic hands need no augmentation
    "aspect": (1.0, 1.0),
    "output_std": 0.0001,
}
# Table 1; what is measured of b4 and b5 is the error in x and y.
BASELINES = {
    "b1": {"target": "direct", "bones": False},
    "b2": {"bones": False},
    "b3": {"dims": 2, "target": "direct", "bones": False},
    "b4": {"dims": 2, "bones": False},
    "b5": {"dims": 2},
}
# K of equation 3, which the paper does not give.
SWEEPS = {f"k{k}": {"top_k": k} for k in (1, 8, 27, 64, 125, 343)}

POOL = 2  # input voxels to a voxel of the heatmaps
HEAD = 4  # voxels a side that a direct head sees


class HourglassNet(nn.Module):
    """Figure 1 of the paper, for volumes and for images.

    Attributes:
      joints: number of joints.
      bones: number of bone maps of every stack but the last; 0 for none.
      stacks: number of hourglasses.
      features: channels everywhere.
      depth: how often an hourglass halves.
      coordinates: of a joint if they are regressed directly, else 0, for heatmaps.
      hidden: width of the first fully connected layer of a direct head.
      dtype: of the arithmetic; what comes out is float32.
    """

    joints: int
    bones: int
    stacks: int = 2
    features: int = 128
    depth: int = 4
    coordinates: int = 0
    hidden: int = 1024
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, grid: Float[Array, "B *S 1"], train: bool) -> list[Float[Array, "B ..."]]:
        """Maps `(B, *s, J + bones)` of every stack at half the extents, the last without bones;
        or `[(B, J, coordinates)]`."""
        x = ConvBlock(self.features, 3, POOL, self.dtype, name="stem")(grid, train)
        outputs = []
        for i in range(self.stacks):
            last = i == self.stacks - 1
            y = Hourglass(self.features, self.depth, self.dtype, name=f"hourglass{i}")(x, train)
            y = ResidualBlock(self.features, self.dtype, name=f"after{i}")(y, train)
            if not (last and self.coordinates):
                y = ConvBlock(self.features, 1, 1, self.dtype, name=f"head{i}")(y, train)
            if not last:
                x = x + Conv(self.features, 1, 1, self.dtype, name=f"remap{i}")(y)
            if self.coordinates:
                continue
            maps = self.joints + (0 if last else self.bones)
            heatmaps = Conv(maps, 1, 1, self.dtype, name=f"output{i}")(y)
            outputs.append(heatmaps.astype(jnp.float32))
            if not last:
                x = x + Conv(self.features, 1, 1, self.dtype, name=f"maps{i}")(heatmaps)
        if not self.coordinates:
            return outputs
        while y.shape[1] > HEAD and y.shape[1] % 2 == 0:
            y = max_pool2(y)
        y = nn.Dense(self.hidden, dtype=self.dtype, name="fc1")(y.reshape(y.shape[0], -1))
        y = nn.relu(y).astype(jnp.float32)
        y = DenseFloat32(self.joints * self.coordinates, name="fc2")(y)
        return [y.reshape(-1, self.joints, self.coordinates)]


def squared_error(
    predicted: Float[Array, "B *S M"], target: Float[Array, "B *S M"]
) -> Float[Array, "B M"]:
    """Equations 1 and 2: squared error summed over each map."""
    return jnp.sum((predicted - target) ** 2, tuple(range(1, predicted.ndim - 1)))


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """The structure-aware 3D hourglass for a skeleton.

    Args:
      config: the `method` part: `input` (voxels), `features`, `stacks`, `depth`, `dims` (3, or 2
        for the image of b3-b5), `target` ("heatmap" or "direct"), `bones` (bool), `hidden`,
        `joint_sigma` and `bone_sigma` (output voxels), `decode` and `top_k` (voxels; of an image
        as many pixels as a face of their cube has), `box` ("points": the longest side of the
        hand's points; "cube": the cube about the centre), `rotation_deg`, `aspect`, `kernel_std`,
        `output_std`, `dtype`.
      skeleton: its joints and bones, in order, are the maps.

    With `dims` 2 and heatmaps no depth is estimated: z is that of the box's middle, and training
    tells the error in x and y.

    Raises:
      InputError: for an input side that cannot be halved often enough, or a value out of range.
    """
    size, dims = int(config.input), int(config.dims)
    out = size // POOL
    checks.at_least(config, 1, "depth", "stacks", "features", "hidden")
    halved = f", to be halved {config.depth + 1} times"
    checks.multiple(config, "input", POOL * 2**config.depth, 8, halved)
    checks.one_of(config, "dims", (2, 3))
    checks.one_of(config, "target", ("heatmap", "direct"))
    checks.one_of(config, "box", ("points", "cube"))
    checks.one_of(config, "dtype", checks.DTYPES)
    checks.positive(config, "joint_sigma", "bone_sigma")
    checks.at_least(config, 0, "rotation_deg", "kernel_std", "output_std")
    checks.spread(config, "aspect")
    direct = config.target == "direct"
    coordinates = 3 if direct else dims
    if config.decode == "topk":
        checks.within(config, "top_k", 1, out**3, "voxels")
    if config.decode == "subvoxel" and (dims == 2 or out < 5):
        raise InputError("method.decode=subvoxel needs method.dims=3 and method.input >= 16")
    try:
        decode = jax.vmap(decoder(config.decode, round(int(config.top_k) ** (dims / 3))))
    except ValueError as error:
        raise InputError(f"method.decode: {error}") from error
    bones = skeleton.bones if config.bones and not direct else ()
    rotation_deg, aspect = float(config.rotation_deg), tuple(config.aspect)
    joint_sigma, bone_sigma = float(config.joint_sigma), float(config.bone_sigma)
    net = HourglassNet(
        len(skeleton), len(bones), int(config.stacks), int(config.features), int(config.depth),
        coordinates if direct else 0, int(config.hidden), jnp.dtype(config.dtype),
    )  # fmt: skip

    def see(batch: Batch, affine: Affine | None) -> tuple[Grid, Array]:
        """The grids and what the network sees of them."""

        def one(depth: Array, corner: Array, camera: Array, grid: Grid) -> tuple[Grid, Array]:
            points = depth_to_points(depth, corner, camera).reshape(-1, 3)
            valid = (depth > 0).reshape(-1)
            if config.box == "points":
                grid = tighten(points, valid, grid, size)
            view = occupancy if dims == 3 else depth_map
            return grid, view(points, valid, grid, size)

        augment = {} if affine is None else {"angle": affine.angle, "aspect": affine.aspect}
        grid = make_grid(batch["centre"], batch["cube"], size, **augment)
        grid, seen = jax.vmap(one)(batch["depth"], batch["corner"], batch["camera"], grid)
        return grid, seen[..., None]

    def read(output: Array, coarse: Grid) -> Array:
        """Joints in mm from the last output."""
        middle = (out - 1) / 2
        if direct:
            return to_mm(middle + output * (out / 2), coarse)
        if dims == 3:
            return to_mm(decode(output), coarse)
        flat = decode(output[:, None])
        # Output voxel j is at input voxel POOL j (`kernels.voxels`).
        return to_mm(flat.at[..., 2].set((size - 1) / 2 / POOL), coarse)

    def init(key: Array) -> Variables:
        example = jax.ShapeDtypeStruct((1, *(size,) * dims, 1), jnp.float32)
        names = ["fc2", *(f"output{i}" for i in range(config.stacks))]
        std = dict.fromkeys(names, float(config.output_std))
        return init_variables(
            net, key, example, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        keys = jax.random.split(key, batch["centre"].shape[0])
        affine = jax.vmap(lambda k: draw_affine(k, rotation_deg=rotation_deg, aspect=aspect))(keys)
        grid, seen = see(batch, affine)
        coarse = coarsen(grid, POOL)
        outputs, state = net.apply(variables, seen, train=True, mutable=["batch_stats"])
        valid = batch["joint_valid"].astype(jnp.float32)
        voxels = to_voxels(batch["joints"], coarse)
        if direct:
            target = (voxels - (out - 1) / 2) / (out / 2)
            total = jnp.sum(jnp.sum((outputs[0] - target) ** 2, -1) * valid, -1)
        else:
            voxels = voxels[..., :dims]
            target = jax.vmap(gaussian_heatmaps, (0, None, None))(voxels, out, joint_sigma)
            both = valid
            if bones:
                ends = jnp.array(bones)
                both = jnp.concatenate([valid, valid[:, ends[:, 0]] * valid[:, ends[:, 1]]], -1)
                lines = jax.vmap(lambda v: bone_heatmaps(v, bones, out, bone_sigma))(voxels)
                target = jnp.concatenate([target, lines], -1)
            # Equation 1 counts every stack, equation 2 all but the last.
            total = jnp.zeros(len(valid))
            for maps in outputs:
                shown = maps.shape[-1]
                error = squared_error(maps, target[..., :shown])
                total = total + jnp.sum(error * both[:, :shown], -1)
        value = jnp.mean(total)
        joints = read(jax.lax.stop_gradient(outputs[-1]), coarse)
        error_mm = mean_error(joints[..., :coordinates], batch["joints"][..., :coordinates], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        grid, seen = see(batch, None)
        outputs: Any = net.apply(variables, seen, train=False)
        return read(outputs[-1], coarsen(grid, POOL))

    return Method(init, loss, predict, flat=dims == 2 and not direct)
