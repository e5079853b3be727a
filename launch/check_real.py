"""How a model trained on synthetic hands does on the few real frames of the shared samples.

    python -m launch.check_real --workdir=runs/quickstart [--centre_model=runs/centre]
        [--data=../shared/data] [--out=DIR]

Prints the mean error over the 14 labelled joints of NYU's first test frame, with the centre
found in the depth image (by `--centre_model` if there is one) and with the published one; how far
that centre is from the published one and from the joints' mean; and the share of joints inside
the hand over 100 unlabelled Kinect frames of a left hand. With `--out` it also leaves the overlays
that `hpe_jax.predict` draws. One labelled frame is a sanity check, not a benchmark.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from hpe_jax import camera as cameras
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets.centres import read_centres
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import NYU_COLUMNS
from hpe_jax.predict import predict_frames
from hpe_jax.predictor import Predictor
from hpe_jax.process import use_cache
from hpe_jax.training.checkpoints import load_model

NEEDED = (
    "nyu/depth_1_0000001.png", *(f"nyu/joint_1_{c}.csv" for c in "uvd"),
    "nyu/center_test_refined.txt", "kinect2/*.png",
)  # fmt: skip
KINECT2 = np.array([363.9, 363.9, 255.4, 206.3], np.float32)


def nyu_frame(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, the 14 joints and the published refined centre of NYU's first test frame."""
    columns = list(NYU_COLUMNS)
    uvd = np.stack(
        [
            np.loadtxt(data / "nyu" / f"joint_1_{c}.csv", delimiter=",", max_rows=1)[columns]
            for c in "uvd"
        ],
        -1,
    ).astype(np.float32)
    centre = read_centres(data / "nyu" / "center_test_refined.txt", y_up=True)[0]
    depth = read_depth(data / "nyu" / "depth_1_0000001.png")
    return depth, cameras.uvd_to_xyz(uvd, cameras.NYU.intrinsics), centre


def check(workdir: str, centre_model: str, data: Path, out: Path | None) -> dict[str, float]:
    """The figures by name; see the module's docstring."""
    predictor = Predictor(*load_model(workdir), centre_model)
    own = predictor.centre_source
    depth, true, published = nyu_frame(data)
    figures: dict[str, float] = {}
    for passes in (1, 2):
        for name, centre in ((own, None), ("published", published)):
            found = predictor(depth, cameras.NYU.intrinsics, centre=centre, passes=passes)
            if found is None:
                raise InputError("no hand found in NYU's first test frame")
            error = np.linalg.norm(found.joints - true, axis=-1).mean()
            figures[f"nyu_frame_1_mm ({name} centre, passes={passes})"] = float(error)
            if passes == 1:
                aside = {"the joints' mean": true.mean(0), "the published centre": published}
                for what, point in aside.items():
                    apart = float(np.linalg.norm(found.centre - point))
                    figures[f"nyu_frame_1: {name} centre to {what}, mm"] = apart
        frames = sorted((data / "kinect2").glob("*.png"))
        if out is not None:
            place = out / f"kinect2_passes{passes}"
            summary = predict_frames(predictor, frames, KINECT2, place, hand="left", passes=passes)
            figures[f"kinect2_inside_hand (passes={passes})"] = summary["inside_hand"]
            figures[f"kinect2_frames_per_second (passes={passes})"] = summary["frames_per_second"]
        else:
            inside = [
                found.inside
                for path in frames
                if (found := predictor(read_depth(path), KINECT2, hand="left", passes=passes))
            ]
            figures[f"kinect2_inside_hand (passes={passes})"] = float(np.mean(inside))
    return figures


@one_line_errors
def main() -> int:
    """Exit status; prints the figures as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--centre_model", default="")
    parser.add_argument("--data", default=os.environ.get("HPE_SHARED_DATA", "../shared/data"))
    parser.add_argument("--out")
    args = parser.parse_args()
    use_cache()
    out = Path(args.out) if args.out else None
    for needed in NEEDED:
        if not any(Path(args.data).glob(needed)):
            raise InputError(f"--data={args.data}: no {needed} in it, expected real frames")
    figures = check(args.workdir, args.centre_model, Path(args.data), out)
    print(json.dumps({k: round(v, 3) for k, v in figures.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
