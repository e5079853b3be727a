"""How well skinned hands agree with the analytic ones, what both cost, and how they look.

    python -m launch.check_mesh --out=runs/check_mesh [--data=../shared/data] [--poses=128]

Prints, as Markdown, the agreement of depth images (NYU's camera, 128 x 128 pixels) of each base
hand with the sphere mesh of the same proportions and pose, that of one mesh reshaped to the
subjects of training, and milliseconds a frame of both renderers. Leaves `OUT/table.md` and
`OUT/hands.png`: the five base hands in several poses and from several cameras, beside real frames
of the shared samples where `--data` has them (Kinect v2, mirrored into right hands, and SR305).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from hpe_jax import camera as cameras
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.datasets.patches import find_hand
from hpe_jax.hand.kinematics import HandPose, HandShape, palm_points, place
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.metrics.overlay import grid, overlay
from hpe_jax.process import use_cache
from hpe_jax.synthetic import poses
from hpe_jax.synthetic.base_hands import BASE_HANDS, base_hand
from hpe_jax.synthetic.mesh import HandMesh, posed_vertices
from hpe_jax.synthetic.rasterise import rasterise
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND_AND_FOREARM, SphereMesh, hand_surface

FOREARM_MM = 200.0
BATCH = 16
PATCHES = (64, 128, 256)
KINECT2 = np.array([363.9, 363.9, 255.4, 206.3], np.float32)
SR305 = np.array([476.007, 476.007, 313.683, 242.755], np.float32)
CELL, EXTENT_MM = 200, 270.0  # pixels of a picture, and what they show

# Degrees: (mcp, abduction, pip, dip) of little … index, thumb, wrist.
POSES = {
    "open": ([[0, a, 4, 3] for a in (-16, -6, 4, 14)], (45, 8, 20, 5, 5), (10, 0)),
    "relaxed": (
        [[35, -6, 40, 22], [30, -2, 36, 20], [24, 1, 32, 18], [18, 4, 26, 14]],
        (30, 22, 30, 14, 14),
        (-20, 5),
    ),
    "pointing": (
        [[72, -2, 92, 50], [74, 0, 95, 52], [72, 1, 95, 52], [4, 2, 6, 4]],
        (10, 42, 10, 45, 45),
        (0, 0),
    ),
    "two": (
        [[72, -2, 92, 50], [70, 0, 92, 50], [4, -8, 5, 3], [2, 14, 5, 3]],
        (8, 42, 15, 45, 50),
        (-55, 0),
    ),
}
# Name, camera, distance (mm), turn about the vertical and tilt of the fingers to the camera.
VIEWS = (
    ("front", KINECT2, 620.0, 0, 15),
    ("side", SR305, 500.0, 60, 0),
    ("above", SR305, 520.0, -20, 55),
)


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--data", default=os.environ.get("HPE_SHARED_DATA", "../shared/data"))
    parser.add_argument("--poses", type=int, default=128)
    args = parser.parse_args()
    use_cache()
    if args.poses < 1:
        parser.error(f"--poses={args.poses}: expected at least 1")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = agreement(args.poses) + [""] + times()
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    Image.fromarray(picture(Path(args.data))).save(out / "hands.png")
    return 0


def subjects(count: int, shape: HandShape | None) -> tuple[HandShape, HandPose]:
    """Random poses of one subject, or each of another one of training's."""

    def draw(key: Array) -> tuple[HandShape, HandPose]:
        own = poses.sample_shape(jax.random.fold_in(key, 1), held_out=False)
        own = own if shape is None else shape
        return own, poses.sample_hand(key, own, poses.VIEWS["nyu"])[0]

    return jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count))


def sphere_mesh(shape: HandShape, pose: HandPose) -> SphereMesh:
    """The analytic hand."""
    points = place(palm_points(shape, pose.fingers, pose.thumb), pose)
    return hand_surface(points, shape, pose.wrist, jnp.float32(FOREARM_MM))


def view(
    pose: HandPose, patch: int, extent_mm: float = 340.0
) -> tuple[Array, Array, tuple[int, int]]:
    """Corner, camera and size of a patch of NYU's image about the hand, as in training."""
    middle = pose.position + pose.rotation @ jnp.array([0.0, 80.0, 0.0])
    full = jnp.asarray(cameras.NYU.intrinsics)
    camera = cameras.decimate(full, cameras.decimation_for(middle, full, extent_mm, patch))
    return cameras.patch_corner(middle, camera, patch), camera, (patch, patch)


def analytic(shape: HandShape, pose: HandPose, patch: int) -> Float[Array, "H W"]:
    """Ray cast spheres, cones and wedges."""
    return render_depth(sphere_mesh(shape, pose), HAND_AND_FOREARM, *view(pose, patch))


def skinned(hand: HandMesh, shape: HandShape, pose: HandPose, patch: int) -> Float[Array, "H W"]:
    """Pose the mesh and rasterise it."""
    vertices = posed_vertices(hand, shape, pose, jnp.float32(FOREARM_MM))
    return rasterise(vertices, hand.faces, *view(pose, patch))


def agreement(count: int) -> list[str]:
    """Rows of the table, a hand each."""
    lines = [
        "| hand | vertices, triangles | silhouettes: mean IoU | least | depth: median "
        "| mean | more than 10 mm off |",
        "|" + "---|" * 7,
    ]
    for name in (*BASE_HANDS, "average, reshaped"):
        hand = base_hand(name.split(",")[0])
        shapes, posed = subjects(count, hand.shape if name in BASE_HANDS else None)

        @jax.jit
        @jax.vmap
        def both(shape: HandShape, pose: HandPose, hand: HandMesh = hand) -> tuple[Array, Array]:
            return analytic(shape, pose, 128), skinned(hand, shape, pose, 128)

        parts = []
        for i in range(0, count, BATCH):
            parts.append(
                jax.device_get(
                    both(*jax.tree.map(lambda x, i=i: x[i : i + BATCH], (shapes, posed)))
                )
            )
        a, b = (np.concatenate(x) for x in zip(*parts, strict=True))
        shared = (a > 0) & (b > 0)
        overlap = shared.sum((1, 2)) / ((a > 0) | (b > 0)).sum((1, 2))
        off = np.abs(a - b)[shared]
        lines.append(
            f"| {name} | {len(hand.core):,}, {len(hand.faces):,} | {overlap.mean():.4f} "
            f"| {np.min(overlap):.4f} | {np.median(off):.2f} mm | {off.mean():.2f} mm "
            f"| {100 * (off > 10).mean():.2f} % |"
        )
    lines.append(f"\n{count} random poses a row, NYU's camera at 500-1,050 mm, with forearms.")
    return lines


def times() -> list[str]:
    """Milliseconds a frame, the least of five runs of a batch."""
    hand = base_hand("average")
    shapes, posed = subjects(BATCH, hand.shape)
    lines = [f"| ms a frame, batches of {BATCH}, {jax.devices()[0].device_kind} | analytic "
             "| skinned | of which posing |", "|" + "---|" * 4]  # fmt: skip
    pose_only = jax.jit(jax.vmap(lambda s, p: posed_vertices(hand, s, p, jnp.float32(FOREARM_MM))))
    for patch in PATCHES:
        a = jax.jit(jax.vmap(lambda s, p, n=patch: analytic(s, p, n)))
        b = jax.jit(jax.vmap(lambda s, p, n=patch: skinned(hand, s, p, n)))
        cells = " | ".join(f"{least_ms(f, shapes, posed):.2f}" for f in (a, b, pose_only))
        lines.append(f"| {patch} x {patch} pixels | {cells} |")
    return lines


def least_ms(function, *arguments) -> float:
    """Of five calls after the one that compiles, for one frame."""
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken) / BATCH


def picture(data: Path) -> np.ndarray:
    """Base hands, a row each; poses with their views in columns; real frames last."""
    names = list(BASE_HANDS)
    real = real_frames(data, len(names))
    cells, captions = [], []
    for row, name in enumerate(names):
        for pose in POSES:
            cells.append([shaded(*seen(base_hand(name), pose, *v[1:])) for v in VIEWS])
            captions.append(f"{name}, {pose}")
        if real:
            cells.append(real[row])
            captions.append("real: Kinect v2, SR305, Kinect v2")
    return grid(
        cells,
        captions,
        columns=len(POSES) + bool(real),
        title="Skinned base hands: Kinect v2 from the front, SR305 from the side and from above",
    )


def seen(
    hand: HandMesh, name: str, camera: np.ndarray, distance: float, turn: float, tilt: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth, corner and camera of a named pose."""
    fingers, thumb, wrist = (jnp.radians(jnp.asarray(x, jnp.float32)) for x in POSES[name])
    y, p = np.radians([turn, tilt])
    facing = np.diag([1.0, -1.0, -1.0])
    about = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    tilted = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rotation = tilted @ about @ facing
    middle = np.array([20.0, -30.0, distance])
    position = middle - rotation @ np.array([0, 85.0 * float(hand.shape.scale), 0])
    pose = HandPose(
        fingers, thumb, wrist, *(jnp.asarray(x, jnp.float32) for x in (rotation, position))
    )
    vertices = posed_vertices(hand, hand.shape, pose, jnp.float32(FOREARM_MM))
    corner, size = window(middle, camera)
    depth = rasterise(vertices, hand.faces, jnp.asarray(corner), jnp.asarray(camera), (size, size))
    return np.asarray(depth), corner, camera


def window(middle: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, int]:
    """Corner and edge, in native pixels, of what a picture shows."""
    size = round(float(camera[0]) * EXTENT_MM / float(middle[2]))
    return np.asarray(cameras.patch_corner(middle, camera, size), np.float32), size


def shaded(depth: np.ndarray, corner: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """As the library's overlays are drawn, all pictures of one size in mm."""
    near = depth[depth > 0]
    middle = float(np.percentile(near, 30)) if near.size else 600.0
    scale = (CELL + 0.2) / len(depth)
    return overlay(depth, corner, camera, None, SKELETONS["nyu"], scale=scale, middle_mm=middle)


def real_frames(data: Path, rows: int) -> list[list[np.ndarray]]:
    """Hands of the shared samples, three a row; none where there are no samples."""
    kinect = sorted((data / "kinect2").glob("*.png"))
    sr305 = sorted((data / "sr305").glob("*.png"))
    if len(kinect) < 2 * rows or len(sr305) < rows:
        return []

    def hand(path: Path, unit: float, camera: np.ndarray, mirror: bool) -> np.ndarray:
        depth = read_depth(path, depth_unit=unit)
        if mirror:
            camera = cameras.mirror_camera(camera, depth.shape[1])
            depth = np.ascontiguousarray(depth[:, ::-1])
        centre = find_hand(depth, camera)
        if centre is None:
            return np.zeros((CELL, CELL, 3), np.uint8)
        corner, size = window(centre, camera)
        patch = cameras.cut_patch(depth, corner, 1, size)
        near = np.abs(patch - centre[2]) < 150.0
        return shaded(np.where(near, patch, 0.0), corner, camera)

    picked = [kinect[i] for i in np.linspace(0, len(kinect) - 1, 2 * rows).astype(int)]
    return [
        [
            hand(picked[2 * i], 1.0, KINECT2, True),
            hand(sr305[i], 0.125, SR305, False),
            hand(picked[2 * i + 1], 1.0, KINECT2, True),
        ]
        for i in range(rows)
    ]


if __name__ == "__main__":
    sys.exit(main())
