"""The synthetic hand fitted to recorded frames: how would true joints score there?

    python -m launch.fit_hand --workdir=runs/quickstart --frames=DIR --camera=fx,fy,cx,cy \\
        --hand=left --out=DIR

For a NYU model and frames of one hand that nobody has labelled. From the model's joints the sphere
mesh of `synthetic.surface` is fitted to every frame's readings: one subject's proportions for all
frames, a pose for each, several starts a frame, the best kept. Its labels are then as near to true
joints as that surface and depth allow, and `inside_hand` of them says what a perfect model could
reach, of NYU's joints or of another data set's, which lie elsewhere in the same hand. Leaves
`OUT/fit.json`, printed too, `fit.npz` (joints, misfits) and `fit.png`, every eighth frame with the
model's joints and the fitted ones: look at it before believing the figures. 100 frames take six
minutes on two CPU cores.

The fit starts from the model, and a pose that depth does not settle stays near it.
"""

from __future__ import annotations

import io
import json
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hpe_jax import camera as cameras
from hpe_jax.atomic import write_atomic
from hpe_jax.camera_flag import parse_camera
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets.depth_io import list_frames, read_depth
from hpe_jax.errors import InputError
from hpe_jax.hand.kinematics import HandPoints, HandPose, HandShape, labels
from hpe_jax.hand.skeletons import NYU
from hpe_jax.metrics.inside import joints_inside
from hpe_jax.metrics.overlay import grid, overlay
from hpe_jax.predictor import Predictor
from hpe_jax.process import use_cache
from hpe_jax.synthetic.distance import signed_distance
from hpe_jax.synthetic.poses import VIEWS
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND_AND_FOREARM
from hpe_jax.training.checkpoints import load_model
from launch.surface_fit import STEPS, Seen, fit, look, surface


def by_joint(joints: np.ndarray, depths: list, camera: np.ndarray, centres, cube) -> np.ndarray:
    """Share of frames in which each joint is inside the hand (`joints_inside`)."""
    zero, frames = np.zeros(2, np.float32), zip(joints, depths, centres, strict=True)
    return np.mean([joints_inside(j, depth, zero, camera, c, cube) for j, depth, c in frames], 0)


def distance(seen: Seen, pose: HandPose, points: HandPoints, shape: HandShape) -> float:
    """Median distance of the readings from the fitted surfaces, mm."""

    def one(seen: Seen, pose: HandPose, points: HandPoints) -> jax.Array:
        mesh = surface(points, shape, pose)
        off = jnp.abs(signed_distance(seen.points, mesh, HAND_AND_FOREARM))
        return jnp.where(seen.counts, off, jnp.nan)

    return float(np.nanmedian(jax.jit(jax.vmap(one))(seen, pose, points)))


def measure(predictor: Predictor, depths: list, camera: np.ndarray, steps: int = STEPS) -> tuple:
    """The figures by name, and per frame the model's joints, the fitted ones and misfits.

    Args:
      predictor: a model of NYU's joints.
      depths: (H, W) mm, right hands.
      camera: (4,).
      steps: of each descent.

    Raises:
      InputError: a model of other joints, a frame without a hand, or answers that are no hand's.
    """
    if predictor.skeleton is not NYU:
        raise InputError(f"the model's joints are {predictor.skeleton_name}'s; expected nyu's")
    answers = []
    for number, depth in enumerate(depths, 1):
        if (answer := predictor(depth, camera)) is None:
            raise InputError(f"frame {number} of {len(depths)}: no hand found")
        answers.append(answer)
    cube = predictor.cube_mm
    joints = np.stack([a.joints for a in answers])
    centres = [a.located for a in answers]
    shown = [
        look(d, camera, c, cube, i) for i, (d, c) in enumerate(zip(depths, centres, strict=True))
    ]
    seen = Seen(
        **{k: jnp.asarray(np.stack([s[k] for s in shown])) for k in shown[0]},
        joints=jnp.asarray(joints),
    )
    (pose, points, found), shape, misfits = fit(seen, camera, steps)
    found = np.asarray(found)

    def draw(pose: HandPose, points: HandPoints) -> jax.Array:
        mesh = surface(points, shape, pose)
        corner = jnp.zeros(2)
        return render_depth(mesh, HAND_AND_FOREARM, corner, jnp.asarray(camera), depths[0].shape)

    renders = [np.asarray(r) for r in jax.lax.map(lambda x: draw(*x), (pose, points))]
    again = [predictor(render, camera) for render in renders]
    own = [a.located if a is not None else c for a, c in zip(again, centres, strict=True)]
    errors = [np.linalg.norm(a.joints - f, axis=-1) for a, f in zip(again, found, strict=True) if a]
    inside = {
        "model": by_joint(joints, depths, camera, centres, cube),
        "fitted": by_joint(found, depths, camera, centres, cube),
        "fitted, on their own renders": by_joint(found, renders, camera, own, cube),
    }
    others = {
        name: np.asarray(jax.vmap(lambda p, name=name: labels(p, shape, name))(points))
        for name in VIEWS
    }
    figures = {
        "frames": len(depths),
        "readings_to_surface_mm": distance(seen, pose, points, shape),
        "model_to_fitted_mm": float(np.linalg.norm(joints - found, axis=-1).mean()),
        "model_to_fitted_on_renders_mm": float(np.mean(errors)),
        "model_inside_on_renders": float(np.mean([a.inside for a in again if a])),
        "inside_hand": {name: float(share.mean()) for name, share in inside.items()},
        "inside_hand_by_joint": {
            name: dict(zip(NYU.joints, share.round(2).tolist(), strict=True))
            for name, share in inside.items()
        },
        "inside_hand_of_fitted_by_data_set": {
            name: float(by_joint(each, depths, camera, centres, cube).mean())
            for name, each in others.items()
        },
        "subject": {k: np.asarray(v).round(3).tolist() for k, v in shape._asdict().items()},
    }
    return figures, joints, found, np.asarray(misfits), centres


def picture(depths: list, camera: np.ndarray, joints, found, centres) -> bytes:
    """PNG of every eighth frame, the model's joints on the left, the fitted ones on the right."""
    cells, captions = [], []
    edge = int(270.0 * camera[0] / min(centre[2] for centre in centres))
    for i in range(0, len(depths), 8):
        corner = np.asarray(cameras.patch_corner(centres[i], camera, edge))
        patch = cameras.cut_patch(depths[i], corner, 1, edge)
        both = (joints[i], found[i])
        cells.append([overlay(patch, corner, camera, each, NYU, scale=2) for each in both])
        captions.append(f"frame {i + 1}")
    page, stream = grid(cells, captions, 3, headings=("model", "fitted")), io.BytesIO()
    Image.fromarray(page).save(stream, "PNG")
    return stream.getvalue()


@one_line_errors
def main() -> int:
    """Exit status; prints the figures as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--frames", required=True, help="folder of depth images of one hand")
    parser.add_argument("--camera", required=True, help="fx,fy,cx,cy")
    parser.add_argument("--depth_unit", type=float, default=1.0, help="mm for one count of depth")
    parser.add_argument("--hand", default="right", choices=("right", "left"))
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    use_cache()
    jax.config.update("jax_default_matmul_precision", "highest")  # accelerators take fewer bits
    out = Path(args.out)
    camera = np.array(parse_camera(args.camera.split(",")), np.float32)
    files = list_frames(args.frames)
    read = partial(read_depth, depth_unit=args.depth_unit)
    depths = [read(files[0])]
    depths += [read(file, size=depths[0].shape) for file in files[1:]]
    if args.hand == "left":
        camera = np.asarray(cameras.mirror_camera(camera, depths[0].shape[1]))
        depths = [np.ascontiguousarray(depth[:, ::-1]) for depth in depths]
    predictor = Predictor(*load_model(args.workdir))
    figures, joints, found, misfits, centres = measure(predictor, depths, camera)
    text = json.dumps(figures, indent=2)
    stream = io.BytesIO()
    np.savez(stream, model=joints, fitted=found, misfit=misfits)
    write_atomic(out / "fit.npz", stream.getvalue())
    write_atomic(out / "fit.png", picture(depths, camera, joints, found, centres))
    write_atomic(out / "fit.json", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
