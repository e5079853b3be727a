"""Hand3D's distances against exact ones, what they cost, and what refinement mends.

    python -m launch.check_tsdf --out=runs/check_tsdf [--frames=64] [--workdir=runs/hand3d/refine]

Section 3.1 of X. Deng et al., "Hand3D", 2017, turns a depth image into a truncated signed distance
function as Curless and Levoy's: distances along the line of sight ("projective"), on 60^3 voxels
of 5 mm, truncated at 50 mm. They are compared with the exact (Euclidean) signed distance of the
analytic hand and forearm behind clean depth images (NYU's camera, held-out subjects). The two
differ by design, so that voxels are told apart:

* in front of the surface that the line of sight meets: the projective distance is that to one
  point of the surface, which overstates the way to the nearest one, by 1 / cosine of the angle
  between ray and normal where the surface is flat;
* beside the hand: the line of sight meets nothing, and counts as free space however near the
  silhouette is;
* in the flesh, whose nearest surface the camera sees: overstated in the same way;
* in the flesh, whose nearest surface is turned away or covered: the camera cannot know it;
* hidden: free space behind the flesh, which counts as flesh.

So the kernel is right if both agree near the visible surface, if signs do in all but the hidden
space, and if its zero crossing lies on the visible surface. Inside, the "exact" distance is never
deeper than the truth, and too small where parts of the hand overlap (`synthetic.distance`).

Kernel time: median over jitted batches of 16, beside the time in which the device, as fast as it
copies memory in the same process, would read the depth patch and write the volume. Leaves
`OUT/table.md` and `OUT/slices.png`; with `--workdir`, a run that trained the refinement network
(or the folder of all stages), also its tables and `OUT/refinement.png` (`launch.tsdf_refinement`).
"""

from __future__ import annotations

import datetime
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.kernels.tsdf import tsdf
from hpe_jax.process import use_cache
from hpe_jax.training.results import device_name
from launch import tsdf_pictures as pictures
from launch.tsdf_distances import (
    CUBE_MM,
    EDGES,
    FRONT,
    RAYS,
    REACH_MM,
    REGIONS,
    SEEN,
    TRUNCATION_MM,
    View,
    distances,
    first_crossing,
    look,
    profiles,
    ranges,
    regions,
    surface_at,
    visible_points,
)  # fmt: skip
from launch.tsdf_refinement import refinement

SETTINGS = {"paper": (384, 60), "quick": (128, 32)}  # pixels of a patch, voxels of an edge
FACING = np.sqrt(0.5)
BATCH, RUNS, TIMINGS = 16, 5, 15
COPIED = 1 << 26  # floats of the copy that shows the memory's bandwidth
SHOWN = 3


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--workdir", default="", help="a run that trained the refinement network")
    args = parser.parse_args()
    if args.frames < 1:
        parser.error(f"--frames={args.frames}: expected at least 1")
    use_cache()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = agreement(args.frames, out) + [""] + crossings(args.frames) + [""] + cost()
    if args.workdir:
        lines += ["", *refinement(args.workdir, args.frames, out)]
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def agreement(count: int, out: Path) -> list[str]:
    """Rows by region and distance; leaves the picture."""
    patch, size = SETTINGS["paper"]
    columns: dict[str, list[np.ndarray]] = {
        k: [] for k in ("place", "range", "off", "flat", "sign")
    }
    kept = []
    for i in range(count):
        view = look(i, patch, size)
        d = jax.device_get(distances(view, size))
        projective, exact = (
            np.clip(v, -TRUNCATION_MM, TRUNCATION_MM) for v in (d.projective, d.exact)
        )
        flat = np.clip(d.projective * d.cosine, -TRUNCATION_MM, TRUNCATION_MM)
        columns["place"].append(regions(d).ravel())
        columns["range"].append(ranges(d.exact).ravel())
        columns["off"].append(np.abs(projective - exact).ravel())
        columns["flat"].append(np.abs(flat - exact).ravel())
        columns["sign"].append(((d.projective < 0) == (d.exact < 0)).ravel())
        if i < SHOWN:
            kept.append((jax.device_get(view), projective, exact))
    slices(kept, out / "slices.png")
    table = {k: np.concatenate(v) for k, v in columns.items()}
    lines = [
        "| voxels | from the surface | share | error: mean | median | 95 % "
        "| mean, times the cosine | same sign |", "|" + "---|" * 8,
    ]  # fmt: skip
    for place_, name in enumerate(REGIONS):
        for low in range(len(EDGES) - 1):
            lines += row(table, name, place_, low)
        lines += row(table, f"**{name}**", place_, None)
    lines += row(table, "**all**", None, None)
    lines.append(
        f"\n{count} held-out hands with forearms, NYU's camera, {patch} x {patch} pixels, {size}³ "
        f"voxels of {CUBE_MM / size:g} mm, both distances truncated at {TRUNCATION_MM:g} mm; mm."
    )
    return lines


def row(table: dict[str, np.ndarray], name: str, region: int | None, low: int | None) -> list[str]:
    """A line for the voxels of a region and a range of distances; none where there are none."""
    here = np.ones(len(table["off"]), bool)
    here &= True if region is None else table["place"] == region
    here &= True if low is None else table["range"] == low
    if not here.any():
        return []
    span = "any" if low is None else f"{EDGES[low]:g}-{EDGES[low + 1]:g} mm"
    span = span.replace("-inf mm", " mm and more")
    off = table["off"][here]
    flat = f"{table['flat'][here].mean():.2f}" if region in (FRONT, SEEN) else ""
    return [
        f"| {name} | {span} | {100 * here.mean():.2f} % | {off.mean():.2f} | {np.median(off):.2f} "
        f"| {np.percentile(off, 95):.2f} | {flat} | {100 * table['sign'][here].mean():.1f} % |"
    ]


def crossings(count: int) -> list[str]:
    """How far from visible surface points the zero crossings on their lines of sight lie."""
    lines = [
        "| zero crossing | found | along the line of sight: mean | mean error | median | 95 % "
        "| from the exact surface: mean | median | 95 % |", "|" + "---|" * 9,
    ]  # fmt: skip
    along = np.linspace(-REACH_MM, REACH_MM, 51)
    for name, (patch, size) in SETTINGS.items():
        parts = []
        for i in range(count):
            view = look(i, patch, size)
            points = visible_points(jax.device_get(view), np.random.default_rng(i))
            values, ray = jax.device_get(profiles(view, size, points, along))
            offset = first_crossing(values, along)
            exact, _ = surface_at(points + np.nan_to_num(offset)[:, None] * ray, view.mesh)
            parts.append(np.stack([offset, exact, surface_at(points, view.mesh)[1]]))
        offset, exact, cosine = np.concatenate(parts, 1)
        facing = cosine > FACING
        for kind, here in (("facing the camera", facing), ("slanted", ~facing)):
            found = here & ~np.isnan(offset)
            figures = [offset[found].mean()]
            for off in (np.abs(offset[found]), np.abs(exact[found])):
                figures += [off.mean(), np.median(off), np.percentile(off, 95)]
            cells = " | ".join(f"{f:.2f}" for f in figures)
            share = f"{100 * found.sum() / here.sum():.1f} %"
            setting = f"`{name}`: {patch} x {patch} pixels, {size}³ voxels"
            lines.append(f"| {setting}, {kind} | {share} | {cells} |")
    lines.append(
        f"\n{RAYS} pixels of each hand, volumes interpolated trilinearly, crossings within "
        f"{REACH_MM:g} mm; facing: within 45 degrees of the line of sight; mm, + is away from the "
        "camera."
    )
    return lines


def cost() -> list[str]:
    """Time a frame, and its share of the limit that the memory's bandwidth sets."""
    calls: list[tuple[Any, Any]] = [(jax.jit(lambda a: a + 1), jnp.zeros(COPIED, jnp.float32))]
    for patch, size in SETTINGS.values():
        views = [look(i, patch, size) for i in range(BATCH)]
        view: View = jax.tree.map(lambda *x: jnp.stack(x), *views)

        def kernel(view: View, size: int = size) -> jax.Array:
            _, depth, corner, camera, grid = view
            return tsdf(depth, corner, camera, grid, size, TRUNCATION_MM)

        calls.append((jax.jit(jax.vmap(kernel)), view))
    copy, *kernels = seconds(calls)
    bandwidth = 8 * COPIED / copy  # read and written
    lines = ["| kernel | ms a frame | least bytes | at the bandwidth of a copy | share |",
             "|" + "---|" * 5]  # fmt: skip
    for (name, (patch, size)), batch in zip(SETTINGS.items(), kernels, strict=True):
        least = 4 * (patch**2 + size**3)
        fastest, taken = least / bandwidth, batch / BATCH
        lines.append(
            f"| `{name}` | {1e3 * taken:.3f} | {least:,} | {1e3 * fastest:.3f} ms "
            f"| {100 * fastest / taken:.1f} % |"
        )
    lines.append(
        f"\n{device_name()}, jax {jax.__version__}, {datetime.date.today()}; batches of {BATCH}, "
        f"copy {bandwidth / 1e9:.1f} GB/s; medians of {TIMINGS} timings in turn."
    )
    return lines


def seconds(calls: list[tuple[Any, Any]]) -> list[float]:
    """Median time of each function of its argument. They take turns, so that what else the
    machine does meets all of them; several calls of one are queued, which hides the host."""
    for function, argument in calls:
        jax.block_until_ready(function(argument))
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(TIMINGS):
        for (function, argument), times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            for _ in range(RUNS):
                result = function(argument)
            jax.block_until_ready(result)
            times.append((time.perf_counter() - start) / RUNS)
    return [statistics.median(times) for times in taken]


def slices(kept: list[tuple[View, np.ndarray, np.ndarray]], path: Path) -> None:
    """Projective, exact and their difference, seen by the camera and from above."""
    figure, axes = pictures.page(len(kept), 7)
    for line, (view, projective, exact) in zip(axes, kept, strict=True):
        z, y = pictures.busiest((exact < 0) & (projective > -TRUNCATION_MM))
        seen = (view.depth, view.corner, view.camera, view.grid.origin)
        depth, corner, camera, centre = (np.asarray(x) for x in seen)
        line[0].imshow(pictures.hand(depth, corner, camera, centre, CUBE_MM))
        for k, (plane, index, other) in enumerate((("xy", z, y), ("xz", y, z))):
            found, true = (pictures.cut(v, plane, index) for v in (projective, exact))
            a, b, c = line[1 + 3 * k : 4 + 3 * k]
            pictures.show(a, found, TRUNCATION_MM, line=other)
            pictures.show(b, true, TRUNCATION_MM, line=other)
            pictures.show(c, found - true, TRUNCATION_MM, zero=true, difference=True)
    titles = [f"{plane}: {what}" for plane in ("from the camera", "from above")
              for what in ("projective", "exact", "difference")]  # fmt: skip
    text = "Distances along the line of sight and exact ones; black: zero; dashed: the other slice"
    pictures.heading(figure, axes, ["depth", *titles], text)
    pictures.bars(figure, axes, (TRUNCATION_MM, TRUNCATION_MM))
    pictures.save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
