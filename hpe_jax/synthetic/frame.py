"""One synthetic frame: a subject, a pose, a view, rendering, a sensor, and the hand's centre."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hpe_jax import camera as cameras
from hpe_jax.datasets.patches import search_step
from hpe_jax.frames import Batch
from hpe_jax.hand.kinematics import HandPoints, labels, place
from hpe_jax.kernels.localise import localise
from hpe_jax.synthetic import draws
from hpe_jax.synthetic.bank import PoseBank
from hpe_jax.synthetic.mesh import HandMesh, posed_vertices
from hpe_jax.synthetic.poses import VIEWS, sample_hand, sample_shape
from hpe_jax.synthetic.rasterise import rasterise
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.scene import background, put_behind
from hpe_jax.synthetic.sensor import sense
from hpe_jax.synthetic.surface import HAND, HAND_AND_FOREARM, hand_surface

TEST_SEED = 20180618
FRAMES_PER_TEST_SUBJECT = 32
# What a subject's key is folded with to choose its base hand; its proportions use 0 to 5.
_BASE_HAND = 16


@dataclass(frozen=True, eq=False)  # Arrays are not compared.
class FrameSpec:
    """What frames show, and how.

    Attributes:
      seed: with `test` and the frame's number it decides everything.
      test: frames of the fixed test split, from subjects with shorter or longer hands
        than any in training.
      dataset: whose camera, hand and skeleton ("nyu", "icvl", "msra").
      patch, extent_mm: size of the patch in pixels and, if it is smaller than the image, the least
        it covers at the hand.
      cube_mm: edge of the hand's cube.
      centre: "com" (the localiser on the rendered depth; where that holds no reading at all, as
        "gt"), "gt" (mean of the joints) or "file".
      centre_jitter_mm: standard deviation of noise on training centres, per axis.
      sensor, forearm: whether the depth sensor's faults and the forearm are simulated.
      whole: every k-th pixel of the camera's image, with what is behind the hand, not a patch.
      clean: whether the frame also holds "clean", its depth before the sensor.
      subjects: how many hands the training frames show in turn; 0 = another one every frame.
      proportions: of training subjects (`poses.PROPORTIONS`).
      thumbs: of training frames (`poses.THUMBS`).
      centres: (N, 3) mm, those of "file" by the frame's number.
      bank: poses to take instead of the procedural ones.
      hands: meshes stacked along a leading axis, one of which each subject has, reshaped to its
        proportions, instead of the analytic surface. Without a forearm they end in a round wrist.
    """

    seed: int
    test: bool
    dataset: str
    patch: int
    extent_mm: float
    cube_mm: float
    centre: str
    centre_jitter_mm: float
    sensor: bool
    forearm: bool
    whole: bool = False
    clean: bool = False
    subjects: int = 0
    proportions: str = "usual"
    thumbs: str = "usual"
    centres: Float[Array, "N 3"] | None = None
    bank: PoseBank | None = None
    hands: HandMesh | None = None


def render_frame(index: Int[Array, ""], spec: FrameSpec) -> Batch:
    """The frame of that number in the batch contract (without the leading axis); pure, jittable."""
    key = jax.random.fold_in(jax.random.key(TEST_SEED if spec.test else spec.seed), index)
    if spec.test:
        subject = jax.random.fold_in(
            jax.random.key(TEST_SEED + 1), index // FRAMES_PER_TEST_SUBJECT
        )
    else:
        key, subject = jax.random.split(jax.random.fold_in(key, 7))
        if spec.subjects:
            subject = jax.random.fold_in(jax.random.key(spec.seed), index % spec.subjects)
    k = jax.random.split(key, 6)
    words = draws.bits(k, 3)
    shape = sample_shape(subject, spec.test, spec.proportions)
    thumbs = "usual" if spec.test else spec.thumbs
    pose, local, _ = sample_hand(k[0], shape, VIEWS[spec.dataset], spec.bank, thumbs)
    points = place(local, pose)
    seen_by = cameras.CAMERAS[spec.dataset]
    if seen_by.left:  # The kinematic hand is a right one.
        points = HandPoints(*map(cameras.mirror_x, points))
    joints = labels(points, shape, spec.dataset)
    middle = joints.mean(0)
    # The patch is cut around where a localiser would roughly look.
    aim = middle + 15.0 * draws.normal(words[1])
    full = jnp.asarray(seen_by.intrinsics)
    if spec.whole:
        every = search_step(seen_by.width)
        camera, corner = cameras.decimate(full, every), jnp.zeros(2)
        size = (-(-seen_by.height // every), -(-seen_by.width // every))
    else:
        image, size = (seen_by.height, seen_by.width), (spec.patch, spec.patch)
        step, corner = cameras.patch_window(aim, full, image, spec.extent_mm, spec.patch)
        camera = cameras.decimate(full, step)

    u = draws.uniform(words[2, :2])
    forearm_mm = jnp.where(u[0] < 0.15, 5.0 + 60.0 * u[1], 120.0 + 160.0 * u[1])
    if spec.hands is None:
        mesh = hand_surface(points, shape, pose.wrist, forearm_mm)
        topology = HAND_AND_FOREARM if spec.forearm else HAND
        depth = render_depth(mesh, topology, corner, camera, size)
    else:
        own = jax.random.fold_in(subject, _BASE_HAND)
        number = jax.random.randint(own, (), 0, spec.hands.faces.shape[0])
        hand = jax.tree.map(lambda x: x[number], spec.hands)
        shown = forearm_mm if spec.forearm else jnp.zeros(())
        vertices = posed_vertices(hand, shape, pose, shown)
        if seen_by.left:
            vertices = cameras.mirror_x(vertices)
        depth = rasterise(vertices, hand.faces, corner, camera, size)
    if spec.whole:
        depth = put_behind(depth, background(k[5], middle, corner, camera, size))
    faultless = depth
    if spec.sensor:
        depth = sense(k[3], depth, middle[2] / camera[0])
    if spec.centre == "com":
        # As coarsely as recorded frames are (`datasets.patches.find_hand`); of whole frames and
        # narrow patches pixels are left out already.
        every = 1 if spec.whole else search_step(min(spec.patch, seen_by.width))
        coarse = cameras.decimate(camera, every)
        found = localise(depth[::every, ::every], corner / every, coarse)
    elif spec.centre == "gt":
        found = middle
    elif spec.centre == "file" and spec.centres is not None:
        found = spec.centres[index]
    else:
        raise ValueError(
            f"unknown centre {spec.centre!r}, expected com, gt or file with its centres"
        )
    found = jnp.where(found[2] > 0.0, found, middle)
    if not spec.test:
        found = found + spec.centre_jitter_mm * draws.normal(words[4])
    return {
        "depth": depth,
        "corner": corner,
        "camera": camera,
        "centre": found,
        "joints": joints,
        "joint_valid": jnp.ones(joints.shape[0], bool),
        "cube": jnp.asarray(spec.cube_mm, jnp.float32),
    } | ({"clean": faultless} if spec.clean else {})
