"""What Hand3D's refinement network mends, by cause (`launch.check_tsdf --workdir`).

Truth is the volume of the clean depth image, the network's target, on frames of the synthetic
test split; the network sees the noisy one (section 3.1 of X. Deng et al., "Hand3D", 2017).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from hpe_jax.datasets import make_source
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.methods.base import Variables
from hpe_jax.methods.hand3d import Hand3DNet, RefineNet, distances
from hpe_jax.training.checkpoints import load_model
from launch import tsdf_pictures as pictures
from launch.tsdf_distances import UNTRUNCATED

CAUSES = (
    "fringe: a reading where there is nothing",
    "missing: no reading where there is a hand",
    "another surface: more than 10 mm off",
    "noise: less than that",
    "nothing there in either",
)
FRINGE, MISSING, OTHER, NOISE, NOTHING = range(5)
OTHER_MM = 10.0
PLACES = ("free (clean distance at its limit)", "near the surface", "behind, at the limit")
BATCH, SHOWN = 8, 3
DIFFERENCE_MM = 30.0


class Volumes(NamedTuple):
    """Distances (mm, truncated) of frames, and why noisy and clean ones differ."""

    noisy: np.ndarray
    refined: np.ndarray
    clean: np.ndarray
    cause: np.ndarray


def refinement(workdir: str, count: int, out: Path) -> list[str]:
    """Tables; leaves `OUT/refinement.png`.

    Args:
      workdir: of a run with a refinement network, or the folder of a staged run.
      count: frames, evenly spaced over the test split.
      out: an existing directory.

    Raises:
      InputError: no such run.
    """
    config, variables, name = load(workdir)
    batches, volumes = compare(config, variables, count)
    truncation = float(config.method.truncation_mm)
    size = int(config.method.input)
    draw(batches, volumes, truncation, out / "refinement.png")
    before, after = (np.abs(v - volumes.clean) for v in (volumes.noisy, volumes.refined))
    near = np.abs(volumes.clean) < truncation * (1 - 1e-6)
    lines = ["| voxels | share | before: mean | after: mean | part of the error before | after |",
             "|" + "---|" * 6]  # fmt: skip

    def row(name: str, here: np.ndarray, within: np.ndarray) -> None:
        here = here & within
        if not here.any():
            return
        share = 100 * here.sum() / within.sum()
        means = " | ".join(f"{v[here].mean():.2f}" for v in (before, after))
        parts = " | ".join(
            f"{100 * v[here].sum() / v[within].sum():.0f} %" for v in (before, after)
        )
        lines.append(f"| {name} | {share:.1f} % | {means} | {parts} |")

    everywhere = np.ones_like(near)
    row("**all**", everywhere, everywhere)
    for k, cause in enumerate(CAUSES):
        row(cause, volumes.cause == k, everywhere)
    limit = ~near & (volumes.clean > 0)
    for place, here in zip(PLACES, (limit, near, ~near & ~limit), strict=True):
        row(place, here, everywhere)
    row("**near the surface**", near, near)
    for k, cause in enumerate(CAUSES):
        row(f"near: {cause}", volumes.cause == k, near)
    lines.append(
        f"\n`{name}`, {count} frames of {config.data.dataset}'s synthetic test split, {size}³ "
        f"voxels of {config.data.cube_mm / size:g} mm; absolute errors against clean depth, mm."
    )
    return lines


def load(workdir: str) -> tuple[ConfigDict, Variables, str]:
    """Config, variables of the refinement network alone, and the run's name."""
    path = Path(workdir)
    if not (path / "checkpoints").is_dir() and (path / "refine" / "checkpoints").is_dir():
        path = path / "refine"
    config, variables = load_model(path)
    if config.method.name != "hand3d" or not config.method.refine:
        raise InputError(f"{workdir}: has no refinement network, expected a run of hand3d with one")
    config = config.copy_and_resolve_references()
    with config.unlocked():
        # Whatever it was trained on: clean depth exists for synthetic hands only.
        config.data.root, config.data.synthetic.clean = "", True
    return config, {"params": {"refine": variables["params"]["refine"]}}, path.name


def compare(config: ConfigDict, variables: Variables, count: int) -> tuple[list[Batch], Volumes]:
    """The frames' batches (on the host) and volumes (count, D, H, W)."""
    source = make_source(config.data, "test", config.seed)
    size, truncation = int(config.method.input), float(config.method.truncation_mm)
    refine = RefineNet(tuple(config.method.refine_widths), jnp.dtype(config.method.dtype))
    net = Hand3DNet(refine, None, bool(config.method.residual))
    assert source.size is not None
    indices = np.unique(np.linspace(0, source.size - 1, count).astype(int))

    @jax.jit
    def step(data: dict[str, Array]) -> tuple[Batch, tuple[Array, ...]]:
        batch = source.expand(data)
        pair = [batch[name] for name in ("depth", "clean")]
        far = [distances(batch, depth, size, UNTRUNCATED)[..., 0] for depth in pair]
        noisy, clean = (distances(batch, depth, size, truncation) for depth in pair)
        refined, _ = net.apply(variables, noisy, train=False)
        noisy, refined, clean = (truncation * v[..., 0] for v in (noisy, refined, clean))
        return batch, (noisy, refined, clean, causes(*far))

    batches, parts = [], []
    for start in range(0, len(indices), BATCH):
        # The last batch is filled up with its last frame, which is cut off again.
        some = indices[np.minimum(np.arange(start, start + BATCH), len(indices) - 1)]
        batch, part = jax.device_get(step(source.load(some)))
        keep = slice(0, len(indices) - start)
        batches.append({k: v[keep] for k, v in batch.items()})
        parts.append(Volumes(*(v[keep] for v in part)))
    return batches, Volumes(*(np.concatenate(v) for v in zip(*parts, strict=True)))


def causes(noisy: Float[Array, "..."], clean: Float[Array, "..."]) -> Int[Array, "..."]:
    """Why voxels differ, an index into `CAUSES`: from distances whose truncation is
    `UNTRUNCATED`, so that 1 says that the line of sight has no reading."""
    apart = UNTRUNCATED * jnp.abs(noisy - clean)
    both = jnp.where(apart > OTHER_MM, OTHER, NOISE)
    here, there = noisy < 1.0, clean < 1.0
    return jnp.where(
        here & there, both, jnp.where(here, FRINGE, jnp.where(there, MISSING, NOTHING))
    )


def draw(batches: list[Batch], volumes: Volumes, truncation: float, path: Path) -> None:
    """Noisy, refined and clean slices and differences, where refinement has most to mend."""
    before = np.abs(volumes.noisy - volumes.clean)
    order = np.argsort(before.mean((1, 2, 3)))
    # From a frame that is hardly disturbed to one that is most.
    shares = np.linspace(0.1, 0.95, min(SHOWN, len(order)))
    frames = order[(shares * (len(order) - 1)).astype(int)]
    whole = {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    figure, axes = pictures.page(2 * len(frames), 6)
    for row, i in enumerate(frames):
        noisy, refined, clean = (v[i] for v in volumes[:3])
        off = np.where(np.abs(clean) < truncation, before[i], 0.0)
        z, y = (int(np.argmax(np.sum(off, flat))) for flat in ((1, 2), (0, 2)))
        for k, (plane, index, other) in enumerate((("xy", z, y), ("xz", y, z))):
            line = axes[2 * row + k]
            depth = whole[("depth", "clean")[k]][i]
            about = [whole[name][i] for name in ("corner", "camera", "centre", "cube")]
            line[0].imshow(pictures.hand(depth, *about))
            line[0].set_ylabel(("noisy", "clean")[k] + " depth", fontsize=8)
            true = pictures.cut(clean, plane, index)
            for ax, volume in zip(line[1:4], (noisy, refined, clean), strict=True):
                pictures.show(ax, pictures.cut(volume, plane, index), truncation, line=other)
            for ax, volume in zip(line[4:6], (noisy, refined), strict=True):
                off = pictures.cut(volume, plane, index) - true
                pictures.show(ax, off, DIFFERENCE_MM, zero=true, difference=True)
            line[1].set_ylabel(("from the camera", "from above")[k], fontsize=7, labelpad=1)
    titles = ["depth", "noisy", "refined", "clean", "noisy - clean", "refined - clean"]
    text = "Refinement where it has most to mend; black: zero; dashed: the other slice"
    pictures.heading(figure, axes, titles, text)
    pictures.bars(figure, axes, (truncation, DIFFERENCE_MM))
    pictures.save(figure, path)
