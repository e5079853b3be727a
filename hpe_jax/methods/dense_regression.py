"""Dense 3D Regression: every pixel votes for every joint, mean shift finds what they agree on.

C. Wan, T. Probst, L. Van Gool, A. Yao, "Dense 3D Regression for Hand Pose Estimation", CVPR 2018.
Configs: `configs/dense_regression_{nyu,icvl,msra}.py`; the variants `baseline1` ... `baseline4` are
section 4.1's, and those of `SWEEPS` the rows of table 1.

A 128 x 128 crop passes a stem to 32 x 32 and then stacked hourglasses, each ending in a cascade:
2-D heatmaps; 3-D heatmaps, which also see the depth; unit vectors, which see the features, the
features where there is a reading, and both heatmaps. Every pixel's depth point plus
its vector times the distance that its 3-D heatmap stands for is a vote.

Deviations: vectors point to the joint (the sign of Algorithm 1, not that of equation 2). The
depth of the 32 x 32 grid is the nearest reading, never a mean across an edge. Normalised depth is
-1 to 1 about the centre; released, 0 (nearest) to 1, apart from the background's -1. Centres of the
data, cubes by subject and noise on training centres: `defaults.experiment`. The network is that of
the paper's text; the released one has other blocks in its stem and heads, pools 3 x 3 and lacks the
innermost block of an hourglass. Residual blocks are the released bottlenecks.
Where the paper is silent: batch renormalisation opens its bounds over 5,000 passes (released, far
more slowly); the 2-D heatmap at a vote's pixel is read at the nearest pixel; mean shift starts
from the weighted mean; the heads of baselines 1-3 follow figure 2(d).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.crops import Crop, make_crop, sample, to_camera, to_pixels, to_space
from hpe_jax.kernels.mean_shift import mean_shift
from hpe_jax.kernels.offsets import image_heatmaps, joint_field, vote
from hpe_jax.layers.blocks import (
    BatchRenorm,
    Bottleneck,
    Conv,
    ConvBlock,
    DenseFloat32,
    Hourglass,
)
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER: dict[str, Any] = {
    "name": "dense_regression",
    "input": 128,  # pixels of the crop
    "features": 128,
    "stacks": 2,
    "depth": 4,  # how often an hourglass halves: 32 pixels to 2
    "target": "dense",  # dense | coordinates | detection | depth | offsets
    "radius_mm": 80.0,  # theta of equations 1 and 2
    "radius_px": 4.0,  # tau of equation 3, pixels of the 32 x 32 grid
    "reach_mm": 150.0,  # depth that is kept before and behind the centre
    "candidates": 5,  # K of Algorithm 1
    "kernel_mm": 40.0,  # sigma
    "iterations": 10,
    "weighted": True,  # by the 2-D heatmap at the votes; False: (1 + R) S where they come from
    "hidden": 1024,  # of the heads of baselines 1-3
    "renorm_ramp": 5000,  # passes, `accumulate` to an update, in which its bounds open
    "rotation_deg": 180.0,  # training augmentation
    "aspect_std": 0.2,  # of width and height each, about 1,
    "aspect_limit": 0.1,  # and how far from it they are clipped
    "kernel_std": 0.0,  # He
    "output_std": 0.001,
    "dtype": "float32",
}
# The optimiser as released. Its loss is half the sum over 40 images, ours their mean: what is
# compared with a gradient is a twentieth of the released number.
RELEASED = {
    **{"name": "adam", "lr": 1e-3, "b1": 0.5, "accumulate": 5, "schedule": "step"},
    **{"weight_decay": 5e-4 / 20, "clip_value": 0.2 / 20},
}
# What the paper (section 3.4) does not have of it.
PLAIN = {"accumulate": 1, "schedule": "constant", "weight_decay": 0.0, "clip_value": 0.0}
# The method at the size of the `quick` variants.
QUICK = {
    "input": 64,
    "features": 64,
    "depth": 3,
    "hidden": 256,
    "radius_px": 2.0,  # as many millimetres as in the paper
    "renorm_ramp": 300,
    "rotation_deg": 0.0,  # synthetic hands need no augmentation
    "aspect_std": 0.0,
    "output_std": 0.0001,
}
# Section 4.1.
BASELINES = {
    "baseline1": {"target": "coordinates", "stacks": 1},
    "baseline2": {"target": "detection"},
    "baseline3": {"target": "depth"},
    "baseline4": {"target": "offsets"},
}
# Table 1; the paper's choice is 2 stacks, 5 candidates, 40 mm, weighted.
SWEEPS = {
    "stacks1": {"stacks": 1},
    "k1": {"candidates": 1},
    "k10": {"candidates": 10},
    "k30": {"candidates": 30},
    "sigma10": {"kernel_mm": 10.0},
    "sigma80": {"kernel_mm": 80.0},
    "sigma100": {"kernel_mm": 100.0},
    "unweighted": {"weighted": False},
}
TARGETS = ("dense", "coordinates", "detection", "depth", "offsets")

STEM = 4  # crop pixels to a grid pixel
HEAD = 4  # pixels a side that the fully connected layers of baselines 1-3 see


class DenseNet(nn.Module):
    """Figure 1 of the paper, and figure 2 for the baselines.

    Attributes:
      joints: number of joints.
      target: one of `TARGETS`.
      stacks, depth, features, hidden, ramp: see `PAPER`.
      dtype: of the arithmetic; what comes out is float32.
    """

    joints: int
    target: str = "dense"
    stacks: int = 2
    depth: int = 4
    features: int = 128
    hidden: int = 1024
    ramp: int = 5000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, crop: Float[Array, "B S S 1"], small: Float[Array, "B s s 1"], train: bool
    ) -> list[dict[str, Float[Array, "B ..."]]]:
        """What every stack estimates.

        Args:
          crop: normalised depth, -1 where there is no reading.
          small: the same for the grid of the outputs.
          train: whether norms see the batch.

        Returns:
          for each stack a dict with "R" (B, s, s, J); "S" (B, s, s, J) and "V" (B, s, s, J, 3) of
          the dense target; "O" (B, s, s, J, 3) of offsets; "C" (B, J, 3 or 1) of baselines 1-3.
        """
        norm = partial(BatchRenorm, ramp=self.ramp)

        def res(name: str, x: Array, width: int = self.features) -> Array:
            return Bottleneck(width, self.dtype, norm, name=name)(x, train)

        def pixelwise(name: str, x: Array) -> Array:
            return ConvBlock(self.features, 1, 1, self.dtype, norm, name=name)(x, train)

        def linear(name: str, x: Array, width: int) -> Array:
            return Conv(width, 1, 1, self.dtype, name=name)(x)

        half = max(self.features // 2, 1)
        x = ConvBlock(half, 7, 2, self.dtype, norm, name="stem")(crop, train)
        x = max_pool2(res("stem_res1", x, self.features))
        x = res("stem_res3", res("stem_res2", x))
        mask = (small > -1.0).astype(self.dtype)
        small = small.astype(self.dtype)
        outputs: list[dict[str, Array]] = []
        for i in range(self.stacks):
            if self.target == "coordinates":
                outputs.append({"C": self._coordinates(f"{i}", x, train, 3)})
                break
            hourglass = Hourglass(
                self.features, self.depth, self.dtype, norm, Bottleneck, name=f"hourglass{i}"
            )
            y = hourglass(x, train)
            y = pixelwise(f"head{i}", res(f"after{i}", y))
            found = {"R": linear(f"R{i}_output", y, self.joints)}
            if self.target in ("detection", "depth"):
                seen = jnp.concatenate([small, y, found["R"]], -1)
                width = 3 if self.target == "detection" else 1
                found["C"] = self._coordinates(f"{i}", seen, train, width)
            else:
                if self.target == "dense":
                    with_depth = pixelwise(f"S{i}_head", jnp.concatenate([y, small], -1))
                    found["S"] = linear(f"S{i}_output", with_depth, self.joints)
                parts = [y, *found.values(), y * mask]
                vectors = pixelwise(f"V{i}_head", jnp.concatenate(parts, -1))
                name = "V" if self.target == "dense" else "O"
                found[name] = linear(f"{name}{i}_output", vectors, 3 * self.joints)
            if i < self.stacks - 1:
                maps = [v for k, v in found.items() if k != "C"]
                x = x + linear(f"remap{i}", y, self.features)
                x = x + linear(f"maps{i}", jnp.concatenate(maps, -1), self.features)
            for name in ("V", "O"):
                if name in found:
                    found[name] = found[name].reshape(*found[name].shape[:-1], self.joints, 3)
            outputs.append({k: v.astype(jnp.float32) for k, v in found.items()})
        return outputs

    def _coordinates(self, name: str, x: Array, train: bool, width: int) -> Array:
        """The brown module of figure 2: residual blocks and pooling, two fully connected layers."""
        norm = partial(BatchRenorm, ramp=self.ramp)
        block = 0
        while x.shape[1] > HEAD and x.shape[1] % 2 == 0:
            residual = Bottleneck(self.features, self.dtype, norm, name=f"regress{name}_{block}")
            x = max_pool2(residual(x, train))
            block += 1
        x = nn.Dense(self.hidden, dtype=self.dtype, name=f"fc{name}")(x.reshape(x.shape[0], -1))
        x = nn.relu(x).astype(jnp.float32)
        x = DenseFloat32(self.joints * width, name=f"C{name}_output")(x)
        return x.reshape(-1, self.joints, width)


def estimate(
    found: dict[str, Float[Array, "S S ..."]],
    points: Float[Array, "S S 3"],
    seen: Bool[Array, "S S"],
    project: Callable[[Float[Array, "N J 3"]], Float[Array, "N J 2"]],
    *,
    radius_mm: float,
    candidates: int,
    kernel_mm: float,
    iterations: int,
    weighted: bool = True,
) -> Float[Array, "J 3"]:
    """Algorithm 1 for all joints of one frame.

    Args:
      found: maps "R", "S", "V" of the paper, or "R" and "O" of baseline 4: there 2-D heatmaps
        choose the candidates and weigh them.
      points: of every pixel, mm.
      seen: pixels that hold a reading; others cast no vote.
      project: pixels (x, y) of the maps that show points.
      radius_mm, candidates, kernel_mm, iterations: theta, K, sigma and N.
      weighted: by the 2-D heatmap at each vote; False for the unweighted approximation.

    Returns:
      mm, in the points' coordinates; always finite, zeros where nothing is seen.
    """
    size, _, joints = found["R"].shape
    heat = jnp.maximum(found["R"], 0.0)
    if "O" in found:
        votes, score, weights = points[..., None, :] + radius_mm * found["O"], heat, heat
    else:
        votes, score = vote(points, found["S"], found["V"], radius_mm), found["S"]
        weights = (1.0 + heat) * jnp.maximum(score, 0.0)
    flat_votes, flat_score = votes.reshape(-1, joints, 3), score.reshape(-1, joints)
    _, index = lax.top_k(jnp.where(seen.reshape(-1, 1), flat_score, -jnp.inf).T, candidates)
    which = jnp.arange(joints)[:, None]
    chosen, kept = flat_votes[index, which], weights.reshape(-1, joints)[index, which]
    if weighted and "S" in found:
        at = jnp.round(project(jnp.swapaxes(chosen, 0, 1))).astype(jnp.int32)
        inside = jnp.all((at >= 0) & (at < size), -1)
        at = jnp.where(inside[..., None], at, 0)
        kept = jnp.where(inside, heat[at[..., 1], at[..., 0], which[:, 0]], 0.0).T
    # A usable vote keeps a little weight, so that an unusable one never counts beside it.
    kept = jnp.where(seen.reshape(-1)[index], jnp.maximum(kept, 1e-6), 0.0)
    shift = partial(mean_shift, width_mm=kernel_mm, iterations=iterations)
    return jnp.where(seen.any(), jax.vmap(shift)(chosen, kept), 0.0)


def draw(
    key: Array, rotation_deg: float, aspect_std: float, aspect_limit: float
) -> dict[str, Float[Array, "..."]]:
    """An example's `angle` () and `stretch` (2,) of `make_crop`; `PAPER` says their ranges."""
    key_angle, key_stretch = jax.random.split(key)
    turn = jnp.deg2rad(rotation_deg)
    stretch = aspect_std * jax.random.normal(key_stretch, (2,))
    return {
        "angle": jax.random.uniform(key_angle, minval=-turn, maxval=turn),
        "stretch": 1.0 + jnp.clip(stretch, -aspect_limit, aspect_limit),
    }


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """Dense 3D Regression for a skeleton.

    Args:
      config: the `method` part, `PAPER` with changes.
      skeleton: its joints, in order, are the maps.

    Raises:
      InputError: for a crop that cannot be halved often enough, or a value out of range.
    """
    size, joints = int(config.input), len(skeleton)
    grid, target = size // STEM, config.target
    checks.at_least(config, 1, "depth", "stacks", "features", "hidden")
    halved = f", to be halved {config.depth + 2} times"
    checks.multiple(config, "input", STEM * 2**config.depth, 16, halved)
    checks.one_of(config, "target", TARGETS)
    checks.one_of(config, "dtype", checks.DTYPES)
    checks.within(config, "candidates", 1, grid**2, "pixels")
    checks.positive(config, "radius_mm", "radius_px", "reach_mm", "kernel_mm", "renorm_ramp")
    checks.at_least(config, 0, "iterations", "rotation_deg", "aspect_std", "aspect_limit")
    checks.at_least(config, 0, "kernel_std", "output_std")
    radius_mm, radius_px = float(config.radius_mm), float(config.radius_px)
    reach_mm = float(config.reach_mm)
    net = DenseNet(
        joints, target, int(config.stacks), int(config.depth), int(config.features),
        int(config.hidden), int(config.renorm_ramp), jnp.dtype(config.dtype),
    )  # fmt: skip
    choose = partial(
        estimate,
        radius_mm=radius_mm,
        candidates=int(config.candidates),
        kernel_mm=float(config.kernel_mm),
        iterations=int(config.iterations),
        weighted=bool(config.weighted),
    )

    augmentation = partial(
        draw,
        rotation_deg=float(config.rotation_deg),
        aspect_std=float(config.aspect_std),
        aspect_limit=float(config.aspect_limit),
    )

    def see(batch: Batch, augment: dict[str, Array]) -> tuple[Crop, Array, Array, Array]:
        """Crops, their normalised depth, that of the grid, and the grid's points."""

        def one(example: Batch, augment: dict[str, Array]) -> tuple[Crop, Array, Array, Array]:
            centre = example["centre"]
            crop = make_crop(centre, example["camera"], example["cube"], size, **augment)
            picture, points = (
                sample(example["depth"], example["corner"], crop, n, reach_mm) for n in (size, grid)
            )

            def normalised(z: Array) -> Array:
                return jnp.where(z > 0, (z - centre[2]) / reach_mm, -1.0)[..., None]

            return crop, normalised(picture[..., 2]), normalised(points[..., 2]), points

        fields = ("depth", "corner", "camera", "centre", "cube")
        return jax.vmap(one)({name: batch[name] for name in fields}, augment)

    def on_grid(points: Array, crop: Crop) -> Array:
        """Pixels (x, y) of the grid that show points of the camera's space."""
        return (to_pixels(points, crop) + 0.5) / STEM - 0.5

    def targets(crop: Crop, points: Array, joints: Array) -> dict[str, Array]:
        """Equations 1-3 in crop space, for one example."""
        local, seen = to_space(points, crop), points[..., 2] > 0
        heat, unit = joint_field(local, seen, to_space(joints, crop), radius_mm)
        offset = (to_space(joints, crop) - local[..., None, :]) / radius_mm
        return {
            "R": image_heatmaps(on_grid(joints, crop), grid, radius_px),
            "S": heat,
            "V": unit,
            "O": jnp.where((heat > 0)[..., None], offset, 0.0),
            "C": to_space(joints, crop) / reach_mm,
        }

    def read(found: dict[str, Array], crop: Crop, points: Array) -> Array:
        """Joints in camera space from the last stack, for one example."""
        if target in ("coordinates", "detection"):
            return to_camera(found["C"] * reach_mm, crop)
        if target == "depth":
            return from_detection(jnp.maximum(found["R"], 0.0), found["C"] * reach_mm, crop)
        local, seen = to_space(points, crop), points[..., 2] > 0
        places = choose(found, local, seen, lambda p: on_grid(to_camera(p, crop), crop))
        return to_camera(places, crop)

    def from_detection(heat: Array, z: Array, crop: Crop) -> Array:
        """Baseline 3: the pixel from the 2-D maps (weighted mean of the highest), z given."""
        flat = heat.reshape(-1, joints).T
        values, index = lax.top_k(flat, int(config.candidates))
        weights = (values + 1e-12) / jnp.sum(values + 1e-12, -1, keepdims=True)
        xy = jnp.sum(jnp.stack([index % grid, index // grid], -1) * weights[..., None], 1)
        mm = ((xy + 0.5) * STEM - 0.5 - (crop.size - 1) / 2) * crop.mm
        # Crop millimetres are those at the centre's depth; a ray widens with the distance.
        straight = jnp.concatenate([mm, jnp.zeros_like(mm[:, :1])], -1)
        at_centre = to_camera(straight, crop)
        return at_centre * (crop.centre[2] + z) / crop.centre[2]

    def init(key: Array) -> Variables:
        shapes = [jax.ShapeDtypeStruct((1, n, n, 1), jnp.float32) for n in (size, grid)]
        letters = {"dense": "RSV", "offsets": "RO", "coordinates": "C"}.get(target, "RC")
        names = [f"{name}{i}_output" for i in range(config.stacks) for name in letters]
        std = dict.fromkeys(names, float(config.output_std))
        return init_variables(
            net, key, *shapes, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        keys = jax.random.split(key, batch["centre"].shape[0])
        crop, picture, small, points = see(batch, jax.vmap(augmentation)(keys))
        outputs, state = net.apply(variables, picture, small, train=True, mutable=["batch_stats"])
        wanted = jax.vmap(targets)(crop, points, batch["joints"])
        valid = batch["joint_valid"].astype(jnp.float32)
        total = jnp.zeros(valid.shape)
        for found in outputs:
            for name, value in found.items():
                total = total + _error(name, value, wanted)
        value = jnp.mean(jnp.sum(total * valid, -1))
        last = jax.lax.stop_gradient(outputs[-1])
        joints = jax.vmap(read)(last, crop, points)
        error_mm = mean_error(joints, batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B J 3"]:
        count = batch["centre"].shape[0]
        plain = {"angle": jnp.zeros(count), "stretch": jnp.ones((count, 2))}
        crop, picture, small, points = see(batch, plain)
        outputs: Any = net.apply(variables, picture, small, train=False)
        return jax.vmap(read)(outputs[-1], crop, points)

    return Method(init, loss, predict)


def _error(name: str, found: Array, wanted: dict[str, Array]) -> Float[Array, "B J"]:
    """Equation 4 for one kind of output: squared error summed over each joint's maps."""
    if name == "C":
        return jnp.sum((found - wanted["C"][..., -found.shape[-1] :]) ** 2, -1)
    squared = (found - wanted[name]) ** 2
    if name == "O":
        # Baseline 4 learns offsets near the joint only.
        squared = squared * (wanted["S"] > 0)[..., None]
    return jnp.sum(squared, (1, 2) if found.ndim == 4 else (1, 2, 4))
