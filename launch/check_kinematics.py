"""Inverse kinematics and BVH on the real joints of the shared samples, as a Markdown table.

    python -m launch.check_kinematics [--data=../shared/data]

For MSRA14's 400 frames (bones constant) and NYU's 8,252 test frames (two subjects): the distance
of joints from the pose found, how fast each solver is once compiled, the largest violation of a
limit, and what a BVH file changes. On NYU's 36 points every frame may also have bone lengths of
its own, which shows what one skeleton a subject cannot explain. `pip install bvhtoolbox
'setuptools<81'` lets an independent reader place the joints of the BVH file, too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hpe_jax import camera as cameras
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets.msra import read_labels
from hpe_jax.errors import InputError
from hpe_jax.hand.bvh import read_bvh
from hpe_jax.hand.inverse import labels_of_frames, least_squares
from hpe_jax.hand.markers import Subject
from hpe_jax.hand.motion import hand_points, write_bvh
from hpe_jax.hand.skeletons import NYU_COLUMNS
from hpe_jax.hand.solve import Solution, frames_to_poses
from hpe_jax.hand.subject import measure
from hpe_jax.hand.transforms import LIMITS, hand_transforms, pivots
from hpe_jax.metrics.protocols import PROTOCOLS
from hpe_jax.process import use_cache

# The swarm sees every so many of NYU's frames: all of them take minutes and show the same.
SWARM_STEP = 8


def nyu_joints(data: Path) -> Float[np.ndarray, "N 36 3"]:
    """All labelled points of NYU's test frames (camera, mm)."""
    uvd = [np.loadtxt(data / "nyu" / f"joint_1_{c}.csv", delimiter=",") for c in "uvd"]
    return cameras.uvd_to_xyz(np.stack(uvd, -1), cameras.NYU.intrinsics).astype(np.float32)


def violation(solution: Solution) -> float:
    """The largest angle beyond a limit, degrees; 0 when none is."""
    pose = solution.pose
    fingers = np.asarray(pose.fingers).reshape(-1, 16)
    angles = np.concatenate([fingers, np.asarray(pose.thumb)], 1)[solution.solved]
    low, high = np.asarray(LIMITS).T
    return float(np.degrees(np.maximum(low - angles, angles - high).max().clip(0)))


def row(name: str, error: np.ndarray, rate: str, beyond: str) -> str:
    """A line of the table from errors (N, J)."""
    mean = error.mean(1)
    spread = [f"{np.percentile(mean, p):.3f}" for p in (50, 90, 99, 100)]
    figures = [f"{len(error):,}", f"{error.mean():.3f}", *spread, f"{error.max():.1f}"]
    return f"| {' | '.join([name, *figures, rate, beyond])} |"


def timed(name: str, subject: Subject, joints: np.ndarray, skeleton: str, solver: str) -> Solution:
    """Solve twice, so that the second shows the rate without compiling; prints the row."""
    for _ in range(2):
        begun = time.monotonic()
        solution = frames_to_poses(subject, joints, skeleton, solver=solver)  # type: ignore
        rate = len(joints) / (time.monotonic() - begun)
    print(row(f"{name}, {solver}", solution.error, f"{rate:,.0f}", f"{violation(solution):.1f}°"))
    sys.stdout.flush()
    return solution


def free_lengths(subject: Subject, joints: Float[np.ndarray, "N 36 3"]) -> np.ndarray:
    """Errors (N, 36) when every frame has bone lengths of its own."""
    errors = []
    for first in range(0, len(joints), 256):
        these = jnp.asarray(joints[first : first + 256])
        valid = jnp.ones(these.shape[:2], bool)
        state, _ = least_squares(subject, these, valid, lengths=True)
        found = labels_of_frames(subject, state)
        errors.append(np.linalg.norm(np.asarray(found) - np.asarray(these), axis=-1))
    return np.concatenate(errors)


def bvh(subject: Subject, solution: Solution) -> None:
    """Print how far the 21 points of a motion move when it goes through a file."""
    world = jax.vmap(hand_transforms, (None, 0))(subject.bones, solution.pose)
    points = jax.vmap(pivots, (None, 0))(subject.bones, world).reshape(-1, 20, 3)
    true = np.concatenate([solution.pose.position[:, None], points], 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hand.bvh"
        write_bvh(path, subject.bones, solution.pose)
        moved = np.linalg.norm(hand_points(read_bvh(path)) - true, axis=-1).max()
        print(f"BVH, MSRA14's {len(true)} frames, read back: at most {moved:.5f} mm")
        try:
            from bvhtoolbox import BvhTree
            from bvhtoolbox.convert.bvh2csv import write_joint_positions
        except ImportError as error:
            print(f"BVH by an independent reader: not checked, bvhtoolbox is missing ({error})")
            return
        table = Path(folder) / "positions.csv"
        write_joint_positions(BvhTree(path.read_text()), str(table), end_sites=True)
        theirs = np.loadtxt(table, delimiter=",", skiprows=1)[:, -63:].reshape(-1, 21, 3)
        moved = np.linalg.norm(theirs - true, axis=-1).max()
        print(f"BVH by an independent reader (bvhtoolbox): at most {moved:.5f} mm")


def check(data: Path) -> None:
    """Print everything."""
    head = ["joints, solver", "frames", "mean mm", "median", "90 %", "99 %", "worst frame"]
    head += ["worst joint", "frames/s", "beyond a limit"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    msra = read_labels(data / "msra14" / "joint.txt")
    hand = measure(msra, "msra")
    solutions = [timed("MSRA14", hand, msra, "msra", solver) for solver in ("lm", "track", "swarm")]
    all36 = nyu_joints(data)
    shares = []
    for name, where in PROTOCOLS["nyu"].slices(len(all36)).items():
        points = all36[where]
        joints = points[:, list(NYU_COLUMNS)]
        hand14 = measure(joints, "nyu")
        timed(f"NYU {name}, 14 joints", hand14, joints, "nyu", "lm")
        timed(f"NYU {name}, 14 joints", hand14, joints, "nyu", "track")
        timed(f"NYU {name}, 14 joints", hand14, joints[::SWARM_STEP], "nyu", "swarm")
        hand36 = measure(points, "nyu36")
        fixed = timed(f"NYU {name}, 36 points", hand36, points, "nyu36", "lm").error
        free = free_lengths(hand36, points)
        print(row(f"NYU {name}, 36 points, lengths free in each frame", free, "", ""))
        shares.append(
            (name, 1 - np.mean(free) / np.mean(fixed), 1 - np.sum(free**2) / np.sum(fixed**2))
        )
    print()
    for name, distance, square in shares:
        print(
            f"NYU {name}: varying bone lengths explain {100 * distance:.0f} % of the mean "
            f"distance, {100 * square:.0f} % of the squares (15 of 81 spare numbers explain "
            "19 % of any noise)"
        )
    bvh(hand, solutions[0])


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", default=os.environ.get("HPE_SHARED_DATA", "../shared/data"))
    data = Path(parser.parse_args().data)
    for name in ("msra14/joint.txt", *(f"nyu/joint_1_{c}.csv" for c in "uvd")):
        if not (data / name).is_file():
            raise InputError(f"--data={data}: no {name} in it, expected real joints")
    use_cache()
    jax.config.update("jax_default_matmul_precision", "highest")  # accelerators take fewer bits
    check(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
