"""Synthetic hands: subjects, poses, rendering and a depth sensor, all inside `jit`.

`make_source` is what a config without a data set trains on. Its frames are a function of
(seed, split, index) alone: endless for training, fixed for testing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hpe_jax import camera as cameras
from hpe_jax.datasets.centres import centre_path, read_centres
from hpe_jax.datasets.patches import search_step
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch, Source, content_hash
from hpe_jax.hand.kinematics import labels, place
from hpe_jax.kernels.localise import localise
from hpe_jax.synthetic import draws
from hpe_jax.synthetic.bank import PoseBank, read_bank
from hpe_jax.synthetic.base_hands import stacked_base_hands
from hpe_jax.synthetic.mesh import HandMesh, posed_vertices
from hpe_jax.synthetic.poses import PROPORTIONS, THUMBS, VIEWS, sample_hand, sample_shape
from hpe_jax.synthetic.rasterise import rasterise
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.scene import background, put_behind
from hpe_jax.synthetic.sensor import sense
from hpe_jax.synthetic.surface import HAND, HAND_AND_FOREARM, hand_surface

TEST_SEED = 20180618
TEST_FRAMES = 2048
FRAMES_PER_TEST_SUBJECT = 32
# What a subject's key is folded with to choose its base hand; its proportions use 0 to 5.
_BASE_HAND = 16


def render_frame(
    index: Array,
    *,
    seed: int,
    test: bool,
    dataset: str,
    patch: int,
    extent_mm: float,
    cube_mm: float,
    centre: str,
    centre_jitter_mm: float,
    sensor: bool,
    forearm: bool,
    whole: bool = False,
    clean: bool = False,
    subjects: int = 0,
    proportions: str = "usual",
    thumbs: str = "usual",
    centres: Array | None = None,
    bank: PoseBank | None = None,
    hands: HandMesh | None = None,
) -> Batch:
    """One frame of the batch contract (without the leading axis); pure and jittable.

    Args:
      index: number of the frame, int32.
      seed: with `test` and the index it decides everything.
      test: frames of the fixed test split, from subjects with shorter or longer hands
        than any in training.
      dataset: whose camera and skeleton ("nyu", "icvl", "msra").
      patch, extent_mm: size of the patch in pixels and the least it covers at the hand.
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
      centres: (N, 3) mm, those of "file" by index.
      bank: poses to take instead of the procedural ones.
      hands: meshes stacked along a leading axis, one of which each subject has, reshaped to its
        proportions, instead of the analytic surface. Without a forearm they end in a round wrist.
    """
    key = jax.random.fold_in(jax.random.key(TEST_SEED if test else seed), index)
    if test:
        subject = jax.random.fold_in(
            jax.random.key(TEST_SEED + 1), index // FRAMES_PER_TEST_SUBJECT
        )
    else:
        key, subject = jax.random.split(jax.random.fold_in(key, 7))
        if subjects:
            subject = jax.random.fold_in(jax.random.key(seed), index % subjects)
    k = jax.random.split(key, 6)
    words = draws.bits(k, 3)
    shape = sample_shape(subject, test, proportions)
    pose, local, _ = sample_hand(k[0], shape, VIEWS[dataset], bank, "usual" if test else thumbs)
    points = place(local, pose)
    joints = labels(points, shape, dataset)
    spec = cameras.CAMERAS[dataset]
    middle = joints.mean(0)
    # The patch is cut around where a localiser would roughly look.
    aim = middle + 15.0 * draws.normal(words[1])
    full = jnp.asarray(spec.intrinsics)
    if whole:
        every = search_step(spec.width)
        camera, corner = cameras.decimate(full, every), jnp.zeros(2)
        size = (-(-spec.height // every), -(-spec.width // every))
    else:
        step = cameras.decimation_for(aim, full, extent_mm, patch)
        camera = cameras.decimate(full, step)
        corner, size = cameras.patch_corner(aim, camera, patch), (patch, patch)

    u = draws.uniform(words[2, :2])
    forearm_mm = jnp.where(u[0] < 0.15, 5.0 + 60.0 * u[1], 120.0 + 160.0 * u[1])
    if hands is None:
        mesh = hand_surface(points, shape, pose.wrist, forearm_mm)
        topology = HAND_AND_FOREARM if forearm else HAND
        depth = render_depth(mesh, topology, corner, camera, size)
    else:
        own = jax.random.fold_in(subject, _BASE_HAND)
        number = jax.random.randint(own, (), 0, hands.faces.shape[0])
        hand = jax.tree.map(lambda x: x[number], hands)
        shown = forearm_mm if forearm else jnp.zeros(())
        vertices = posed_vertices(hand, shape, pose, shown)
        depth = rasterise(vertices, hand.faces, corner, camera, size)
    if whole:
        depth = put_behind(depth, background(k[5], middle, corner, camera, size))
    faultless = depth
    if sensor:
        depth = sense(k[3], depth, middle[2] / camera[0])
    if centre == "com":
        # Whole frames are searched coarsely too (`datasets.patches.find_hand`).
        every = 1 if whole else max(1, patch // 64)
        found = localise(
            depth[::every, ::every], corner / every, cameras.decimate(camera, every), cube_mm
        )
    elif centre == "gt":
        found = middle
    elif centre == "file" and centres is not None:
        found = centres[index]
    else:
        raise ValueError(f"unknown centre {centre!r}, expected com, gt or file with its centres")
    found = jnp.where(found[2] > 0.0, found, middle)
    if not test:
        found = found + centre_jitter_mm * draws.normal(words[4])
    return {
        "depth": depth,
        "corner": corner,
        "camera": camera,
        "centre": found,
        "joints": joints,
        "joint_valid": jnp.ones(joints.shape[0], bool),
        "cube": jnp.asarray(cube_mm, jnp.float32),
    } | ({"clean": faultless} if clean else {})


def make_source(config: Any, split: str, seed: int, *, test_poses: str = "") -> Source:
    """Synthetic hands seen through a data set's camera and skeleton.

    Args:
      config: the `data` section of an experiment; see `configs/v2v_nyu.py`.
      split: "train" (endless) or "test" (2,048 frames, whatever the seed).
      seed: of the training frames.
      test_poses: files of poses (`bank.read_bank`) that the test frames take. By default they are
        procedural, whatever training's are, so that results can be compared.
    Raises:
      InputError: an unknown data set, kind of hand, range of proportions or kind of thumbs, a
        centre that rendered frames do not have, or files of poses that are none.
    """
    if config.dataset not in VIEWS:
        raise InputError(
            f"data.dataset={config.dataset!r}: synthetic hands are seen as in {sorted(VIEWS)}; "
            "expected one of them, or data.root to name a data set"
        )
    if config.centre not in ("com", "gt", "file"):
        raise InputError(f"data.centre={config.centre!r}: synthetic hands offer com, gt and file")
    kind = config.synthetic.get("hand", "spheres")
    if kind not in ("spheres", "skinned"):
        raise InputError(f"data.synthetic.hand={kind!r}: expected spheres or skinned")
    proportions, thumbs = (config.synthetic.get(x, "usual") for x in ("proportions", "thumbs"))
    if proportions not in PROPORTIONS:
        raise InputError(
            f"data.synthetic.proportions={proportions!r}: expected one of {sorted(PROPORTIONS)}"
        )
    if thumbs not in THUMBS:
        raise InputError(f"data.synthetic.thumbs={thumbs!r}: expected one of {sorted(THUMBS)}")
    centres = _file_centres(config, split) if config.centre == "file" else None
    poses = test_poses if split == "test" else config.synthetic.get("poses", "")
    frame = partial(
        render_frame,
        seed=seed,
        test=split == "test",
        dataset=config.dataset,
        patch=config.patch,
        extent_mm=config.extent_mm,
        cube_mm=config.cube_mm,
        centre=config.centre,
        centre_jitter_mm=config.centre_jitter_mm,
        sensor=config.synthetic.sensor,
        forearm=config.synthetic.forearm,
        whole=bool(config.get("whole", False)),
        clean=bool(config.synthetic.get("clean", False)),
        subjects=int(config.synthetic.get("subjects", 0)),
        proportions=proportions,
        thumbs=thumbs,
        centres=centres,
        bank=read_bank(poses) if poses else None,
        hands=stacked_base_hands() if kind == "skinned" else None,
    )

    files = {}
    if poses:
        files["data.synthetic.poses"] = content_hash(*map(str.strip, poses.split(",")))
    if centres is not None:
        files["data.centre_file"] = content_hash(centre_path(config, split))

    def load(indices: np.ndarray) -> dict[str, np.ndarray]:
        return {"index": np.asarray(indices % 2**31, np.int32)}

    def expand(loaded: dict[str, Any]) -> Batch:
        # Accelerators multiply matrices in fewer bits: half a millimetre of a fingertip.
        with jax.default_matmul_precision("highest"):
            return jax.vmap(frame)(loaded["index"])

    return Source(
        name=f"synthetic-{config.dataset}",
        split=split,
        size=TEST_FRAMES if split == "test" else None,
        centre=config.centre,
        skeleton=config.dataset,
        camera=cameras.CAMERAS[config.dataset].intrinsics,
        load=load,
        expand=expand,
        files=files,
    )


def _file_centres(config: Any, split: str) -> Array:
    """The centres of the test split from a file."""
    path = centre_path(config, split)
    if split != "test":
        raise InputError(
            "data.centre=file: synthetic training frames are endless, no file fits; expected "
            "data.root to name a data set"
        )
    camera = cameras.CAMERAS[config.dataset].intrinsics
    centres = read_centres(path, frames=TEST_FRAMES, camera=camera)
    bad = np.flatnonzero(~(centres[:, 2] > 0))
    if len(bad):
        raise InputError(
            f"{path}: line {bad[0] + 1}: no centre in front of the camera, expected one for "
            "every synthetic frame"
        )
    return jnp.asarray(centres)


__all__ = ["make_source", "render_frame"]
