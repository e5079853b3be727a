"""Turn a file of joints into joint angles and hand motion.

    python -m launch.joints_to_angles --dataset=nyu|icvl|msra|tracked --joints=FILE --out=DIR \\
        [--format=uvd|xyz] [--camera=fx,fy,cx,cy] [--hand=right|left] [--part=NAME] \\
        [--bones=own|template] [--axes=own|template] [--solver=lm|track|swarm] [--limit=N]

FILE is a prediction or label file as `hpe_jax.evaluate` reads it (NYU's may hold 14 or 36 joints;
`predictions.txt` of `hpe_jax.predict` with the `--camera` and `--hand` given there); for nyu also a
`joint_data.mat` (its 36 points in the first camera), for msra a `joint.txt`, for tracked a `.pose`
file (`hpe_jax.datasets.tracked`). A joint written as `nan`, or at no depth, is missing. Of left
hands (ICVL's are, others are right ones, unless `--hand` says which) everything is that of the
mirror image (x to -x), a right hand. The subject's bones are measured on the file itself, one
subject for each part of the published test split (--part=NAME: of that part alone, such as NYU's
`subject_2`) or one for the whole file; with --bones=template they are an adult's in the size of the
palm, for predictions too rough to measure a hand on. `lm` is damped least squares, each frame on
its own; `track` begins each frame from the one before it; `swarm` is the particle swarm of Hand3D.
Angles count about the subject's own axes or, with --axes=template (so with such bones), about those
of every synthetic hand: only then are they the same pose on another hand, as `data.synthetic.poses`
needs it. A finger's four angles are the flexion and the abduction (positive to the thumb) of its
first joint and the flexion of the other two; the thumb's five are radial and palmar abduction and
pronation at the wrist, and the flexion of the other two; `hpe_jax/hand/kinematics.py` has their
limits. Fingers are in the order little, ring, middle, index.
Leaves in DIR:

    angles.npz   fingers (N, 4, 4), thumb (N, 5), radians; rotation (N, 3, 3) and position (N, 3)
                 of the palm, mm; error_mm (N, J); part (N,); axes ("own" or "template"); NaN for
                 frames that have no pose
    PART.bvh     the motion of each part at 30 frames/s, mm in the camera's axes (y down: turn it
                 about x where y is up); a frame without a pose repeats the one before it
    problems.txt one line for each frame without a pose or out of reach, if there are any
    summary.json figures
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from hpe_jax.camera_flag import parse_camera
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.errors import InputError

if TYPE_CHECKING:
    from hpe_jax.hand.solve import Solver
    from hpe_jax.hand.subject import Basis
    from hpe_jax.metrics.files import Format

SHOWN = 5


def read_frames(
    dataset: str, path: str, form: Format, camera: str | None, hand: str | None = None
) -> tuple[Float[np.ndarray, "N J 3"], str, dict[str, slice]]:
    """Joints (camera, mm; NaN where missing), their skeleton, and the file's parts.

    The hand that is solved for is a right one: joints of left ones are mirrored (x to -x). Without
    `hand` they are those that the data set shows.

    Raises:
      InputError: what is wrong with the file, and where.
    """
    from hpe_jax.camera import CAMERAS, mirror_x
    from hpe_jax.datasets.msra import read_labels
    from hpe_jax.datasets.nyu import read_points
    from hpe_jax.datasets.tracked import read_tracked
    from hpe_jax.metrics.files import doubt, read_joints
    from hpe_jax.metrics.protocols import PROTOCOLS, to_xyz

    own_labels = (
        dataset == "tracked"
        or (dataset == "nyu" and path.endswith(".mat"))
        or (dataset == "msra" and _begins_with_a_count(path))
    )
    if camera is not None and own_labels:
        raise InputError(f"--camera={camera}: {path} holds mm in camera space, expected none")
    if dataset == "tracked":
        joints, skeleton = read_tracked(path), "freihand"
    elif own_labels and dataset == "msra":
        joints, skeleton = read_labels(Path(path), skip=True), "msra"
    elif own_labels:
        joints, skeleton = read_points(Path(path)), "nyu36"
    else:
        protocol = PROTOCOLS[dataset]
        values = read_joints(path, tuple(protocol.columns), form, gaps=True).values
        if (odd := doubt(values, form)) is not None:
            print(f"{path}: {odd} (--format)", file=sys.stderr)
        used = parse_camera(camera.split(","), negative_fy=True) if camera else protocol.camera
        joints = to_xyz(values, used, form)
        joints = np.where((joints[..., 2:] > 0), joints, np.nan)
        skeleton = "nyu36" if joints.shape[1] == 36 else dataset
    shown = "left" if dataset in CAMERAS and CAMERAS[dataset].left else "right"
    if (hand or shown) == "left":
        joints = mirror_x(joints)
    published = PROTOCOLS[dataset].slices(len(joints)) if dataset in PROTOCOLS else {}
    return joints.astype(np.float32), skeleton, published or {"hand": slice(None)}


def _begins_with_a_count(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return len(file.readline().split()) == 1
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text file of joints") from error


def convert(
    joints: Float[np.ndarray, "N J 3"],
    skeleton: str,
    parts: dict[str, slice],
    solver: Solver,
    out: Path,
    bones: Basis = "own",
    axes: Basis = "own",
    limit: int | None = None,
) -> dict:
    """Solve all parts, or the first `limit` frames of each, and leave the files; the summary.

    Raises:
      InputError: no frame of any part can be solved.
    """
    import jax

    from hpe_jax.atomic import write_atomic
    from hpe_jax.hand.motion import write_bvh
    from hpe_jax.hand.solve import frames_to_poses
    from hpe_jax.hand.subject import measure
    from hpe_jax.progress import Rate, Status

    if bones == "template":
        axes = "template"
    status = Status()
    kept: dict[str, list[np.ndarray]] = {}
    summary: dict = {"skeleton": skeleton, "solver": solver, "bones": bones, "axes": axes}
    summary |= {"frames": 0, "parts": {}}
    lines: list[str] = []
    for name, where in parts.items():
        these = joints[where]
        first = where.start or 0
        subject = measure(these, skeleton, bones=bones, axes=axes)
        these = these[:limit]
        summary["frames"] += len(these)
        begun, rate = time.monotonic(), Rate(len(these))

        def progress(done: int, name: str = name, rate: Rate = rate) -> None:
            status.show(f"{name}: {rate.text(done)}")

        solution = frames_to_poses(subject, these, skeleton, solver=solver, progress=progress)
        status.line(f"{name}: {rate.text(len(these))}")
        seconds = time.monotonic() - begun
        for i, why in sorted({**solution.problems, **solution.remarks}.items()):
            lines.append(f"frame {first + i}: {why}")
        pose = solution.pose
        for key in ("fingers", "thumb", "rotation", "position"):
            kept.setdefault(key, []).append(np.asarray(getattr(pose, key)))
        kept.setdefault("error_mm", []).append(solution.error)
        kept.setdefault("part", []).append(np.full(len(these), len(summary["parts"])))
        if solution.solved.any():
            held = np.maximum.accumulate(np.where(solution.solved, np.arange(len(these)), 0))
            held[: np.argmax(solution.solved)] = np.argmax(solution.solved)
            steady = jax.tree.map(lambda a, held=held: a[held], pose)
            write_bvh(out / f"{name}.bvh", subject.bones, steady)
        mean = np.nanmean(solution.error[solution.solved], 1)
        summary["parts"][name] = {
            "frames": len(these),
            "solved": int(solution.solved.sum()),
            "out_of_reach": len(solution.remarks),
            "seconds": round(seconds, 3),
            "bone_lengths_mm": np.asarray(subject.bones.lengths, float).round(2).tolist(),
            **({"residual_mm": _spread(mean)} if len(mean) else {}),
        }
    (out / "problems.txt").unlink(missing_ok=True)  # an earlier call's
    if lines:
        write_atomic(out / "problems.txt", "".join(line + "\n" for line in lines))
        for line in lines[:SHOWN]:
            print(line, file=sys.stderr)
        if len(lines) > SHOWN:
            print(f"... {len(lines) - SHOWN} more in {out / 'problems.txt'}", file=sys.stderr)
    if not any(part["solved"] for part in summary["parts"].values()):
        raise InputError(f"none of {len(joints)} frames could be solved; first: {lines[0]}")
    content = io.BytesIO()
    arrays: dict[str, Any] = {k: np.concatenate(v) for k, v in kept.items()}
    np.savez_compressed(content, axes=np.array(axes), **arrays)
    write_atomic(out / "angles.npz", content.getvalue())
    write_atomic(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _spread(mean: np.ndarray) -> dict[str, float]:
    """Mean and percentiles of the frames' mean distances."""
    named = {"median": 50, "90%": 90, "99%": 99, "worst": 100}
    return {
        "mean": round(float(mean.mean()), 4),
        **{k: round(float(np.percentile(mean, p)), 4) for k, p in named.items()},
    }


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--dataset", required=True, choices=["nyu", "icvl", "msra", "tracked"])
    parser.add_argument("--joints", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--format", default="uvd", choices=["uvd", "xyz"])
    parser.add_argument("--camera")
    parser.add_argument("--hand", choices=["right", "left"], help="which hand the joints are of")
    parser.add_argument("--part", help="only this part of the published test split")
    parser.add_argument("--bones", default="own", choices=["own", "template"])
    parser.add_argument("--axes", default="own", choices=["own", "template"])
    parser.add_argument("--solver", default="lm", choices=["lm", "track", "swarm"])
    parser.add_argument("--limit", type=int, help="only so many frames of each part")
    args = parser.parse_args()
    from hpe_jax.process import use_cache

    use_cache()
    joints, skeleton, parts = read_frames(
        args.dataset, args.joints, args.format, args.camera, args.hand
    )
    if args.part is not None:
        if args.part not in parts:
            raise InputError(f"--part={args.part}: {args.joints} has {', '.join(parts)}")
        parts = {args.part: parts[args.part]}
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit={args.limit}: expected a positive number of frames")
    Path(args.out).mkdir(parents=True, exist_ok=True)  # refused before the work, not after it
    try:
        summary = convert(
            joints, skeleton, parts, args.solver, Path(args.out), args.bones, args.axes, args.limit
        )
    except InputError as error:
        raise InputError(f"{args.joints}: {error}") from error
    for name, part in summary["parts"].items():
        figures = ", ".join(f"{k} {v} mm" for k, v in part.get("residual_mm", {}).items())
        far = f" ({part['out_of_reach']:,} of them out of reach)" if part["out_of_reach"] else ""
        print(
            f"{name}: {part['solved']:,} of {part['frames']:,} frames solved{far}, "
            f"residual {figures}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
