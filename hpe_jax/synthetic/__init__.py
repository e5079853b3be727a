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
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch, Source, content_hash
from hpe_jax.synthetic.bank import read_bank
from hpe_jax.synthetic.base_hands import stacked_base_hands
from hpe_jax.synthetic.frame import FrameSpec, render_frame
from hpe_jax.synthetic.poses import PROPORTIONS, THUMBS, VIEWS

TEST_FRAMES = 2048


def make_source(config: Any, split: str, seed: int, *, test_poses: str = "") -> Source:
    """Synthetic hands, right or left as a data set's, seen through its camera and skeleton.

    Args:
      config: the `data` section of an experiment; see `configs/v2v_nyu.py`.
      split: "train" (endless) or "test" (2,048 frames, whatever the seed).
      seed: of the training frames.
      test_poses: files of poses (`bank.read_bank`) that the test frames take. By default they are
        procedural, whatever training's are, so that results can be compared.
    Raises:
      InputError: an unknown data set, kind of hand, range of proportions or kind of thumbs, fewer
        than no subjects, a centre that rendered frames do not have, or files of poses that are
        none.
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
    subjects = int(config.synthetic.get("subjects", 0))
    if subjects < 0:
        raise InputError(f"data.synthetic.subjects={subjects}: expected at least 0")
    centres = _file_centres(config, split) if config.centre == "file" else None
    poses = test_poses if split == "test" else config.synthetic.get("poses", "")
    spec = FrameSpec(
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
        subjects=subjects,
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
            return jax.vmap(partial(render_frame, spec=spec))(loaded["index"])

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


__all__ = ["make_source"]
