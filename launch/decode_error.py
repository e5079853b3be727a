"""What decoding alone costs: joints read back from perfect maps.

    python -m launch.decode_error --out=runs/decode_error [--frames=64]

Joints are pixels of the visible surface of synthetic hands, those in the cube that are nearest to
where the labelled joints appear; the maps are the targets of training, made and read by the
library's kernels. Volumes (V2V, 3D hourglass) lose what a voxel is wide, however exact their
values. The votes of Dense 3D Regression are exact on any grid; they lose what the values of the
maps lose when rounded to a number of bits. Leaves `OUT/table.md`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpe_jax.camera import depth_to_points
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets import make_source
from hpe_jax.defaults import experiment
from hpe_jax.frames import Batch
from hpe_jax.kernels.crops import Crop, make_crop, sample, to_camera, to_pixels, to_space
from hpe_jax.kernels.decode import decoder
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.kernels.offsets import image_heatmaps, joint_field
from hpe_jax.kernels.voxels import coarsen, make_grid, to_mm, to_voxels
from hpe_jax.methods.dense_regression import PAPER, STEM, estimate
from hpe_jax.process import use_cache

CUBE_MM = 250.0
VOLUMES = ((16, 1.0), (32, 1.0), (64, 1.0), (44, 1.7))  # voxels along an edge, sigma
READINGS = (("argmax", 0), ("topk", 27), ("topk", 64), ("subvoxel", 0))
BITS = (32, 10, 8, 6, 4)
GRIDS = (16, 32, 64)


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--frames", type=int, default=64)
    args = parser.parse_args()
    use_cache()
    if args.frames < 1:
        parser.error(f"--frames={args.frames}: expected at least 1")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    batch, joints = frames(args.frames)
    lines = ["| volume | a voxel | " + " | ".join(f"{n} {k or ''}" for n, k in READINGS) + " |"]
    lines.append("|" + "---|" * (2 + len(READINGS)))
    for size, sigma in VOLUMES:
        found = [from_volume(batch, joints, size, sigma, *reading) for reading in READINGS]
        cells = " | ".join(figure(f, joints) for f in found)
        lines.append(f"| {size}³, σ {sigma:g} | {CUBE_MM / size:.1f} mm | {cells} |")
    lines += ["", "| votes on a grid of | " + " | ".join(f"{b} bits" for b in BITS) + " |"]
    lines.append("|" + "---|" * (1 + len(BITS)))
    for size in GRIDS:
        cells = " | ".join(figure(from_votes(batch, joints, size, b), joints) for b in BITS)
        lines.append(f"| {size} x {size} | {cells} |")
    count = joints.shape[0] * joints.shape[1]
    lines.append(f"\nMean (largest) error in mm of {count:,} surface points, cube {CUBE_MM:g} mm.")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def frames(count: int) -> tuple[Batch, Float[Array, "B J 3"]]:
    """Perfect depth of synthetic hands, and the surface points nearest to their joints."""
    data = experiment("nyu").data
    data.synthetic.sensor, data.centre, data.patch = False, "gt", 256
    source = make_source(data, "test", 0)
    step = jax.jit(source.expand)
    parts = [step(source.load(np.arange(i, i + 16))) for i in range(0, count, 16)]
    batch = {k: jnp.concatenate([p[k] for p in parts])[:count] for k in parts[0]}

    def nearest(depth: Array, corner: Array, camera: Array, centre: Array, joints: Array) -> Array:
        points = depth_to_points(depth, corner, camera).reshape(-1, 3)
        apart = jnp.sum((points[:, None, :2] - joints[:, :2]) ** 2, -1)
        # Within the cube, and not at its faces.
        inside = jnp.all(jnp.abs(points - centre) < 0.45 * CUBE_MM, -1) & (points[:, 2] > 0)
        apart = jnp.where(inside[:, None], apart, jnp.inf)
        return points[jnp.argmin(apart, 0)]

    fields = (batch[k] for k in ("depth", "corner", "camera", "centre", "joints"))
    return batch, jax.jit(jax.vmap(nearest))(*fields)


def figure(found: Float[Array, "B J 3"], joints: Float[Array, "B J 3"]) -> str:
    """Mean and largest error."""
    apart = np.linalg.norm(np.asarray(found - joints), axis=-1)
    return f"{apart.mean():.2f} ({apart.max():.2f})"


def from_volume(batch: Batch, joints: Array, size: int, sigma: float, name: str, k: int) -> Array:
    """Read perfect Gaussians, in the cube about the centre, of half the input's resolution."""
    decode = decoder(name, k)

    @jax.jit
    @jax.vmap
    def one(centre: Array, joints: Array) -> Array:
        grid = coarsen(make_grid(centre, jnp.float32(CUBE_MM), 2 * size), 2)
        return to_mm(decode(gaussian_heatmaps(to_voxels(joints, grid), size, sigma)), grid)

    return one(batch["centre"], joints)


def from_votes(batch: Batch, joints: Array, size: int, bits: int) -> Array:
    """Algorithm 1 on perfect maps, whose values are rounded to 2^bits steps."""
    radius_mm, scale = PAPER["radius_mm"], 2.0**bits - 1
    radius_px = PAPER["radius_px"] * size * STEM / PAPER["input"]

    def rounded(values: Array, low: float) -> Array:
        if bits >= 24:  # as exact as float32
            return values
        return low + jnp.round((values - low) / (1.0 - low) * scale) / scale * (1.0 - low)

    def on_grid(crop: Crop, points: Array) -> Array:
        return (to_pixels(to_camera(points, crop), crop) + 0.5) / STEM - 0.5

    @jax.jit
    @jax.vmap
    def one(depth: Array, corner: Array, camera: Array, centre: Array, joints: Array) -> Array:
        crop = make_crop(centre, camera, jnp.float32(CUBE_MM), size * STEM)
        points = sample(depth, corner, crop, size, PAPER["reach_mm"])
        local, seen = to_space(points, crop), points[..., 2] > 0
        where = to_space(joints, crop)
        heat, unit = joint_field(local, seen, where, radius_mm)
        flat = image_heatmaps(on_grid(crop, where), size, radius_px)
        found = {"R": rounded(flat, 0.0), "S": rounded(heat, 0.0), "V": rounded(unit, -1.0)}
        names = ("candidates", "kernel_mm", "iterations")
        places = estimate(
            found, local, seen, partial(on_grid, crop), radius_mm=radius_mm,
            **{name: PAPER[name] for name in names},
        )  # fmt: skip
        return to_camera(places, crop)

    return one(*(batch[k] for k in ("depth", "corner", "camera", "centre")), joints)


if __name__ == "__main__":
    sys.exit(main())
