"""A trained model that takes whole depth frames: what `predict` and a live camera call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax.camera import CAMERAS, cut_patch, mirror_camera, mirror_x, patch_corner
from hpe_jax.datasets.patches import (
    empty_cube,
    find_hand,
    hand_patch,
    outside_frame,
    whole_frame,
)
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.kernels.localise import HAND_MM
from hpe_jax.methods import METHODS
from hpe_jax.methods.base import Variables
from hpe_jax.metrics.inside import inside_hand, seen_cm2
from hpe_jax.recording import Prediction
from hpe_jax.training.sources import load_centre_model

NEAR, FAR = 50.0, 10_000.0
"""Where hands are, mm; elsewhere the unit of depth is wrong."""


def _cut(data: ConfigDict) -> Callable[..., dict[str, np.ndarray]]:
    """What a model trained on `data` sees of a frame, its centre and its camera."""
    if data.get("whole", False):
        return whole_frame
    return partial(hand_patch, patch=data.patch, extent_mm=data.extent_mm)


class Predictor:
    """A trained model that takes whole depth frames, one at a time."""

    def __init__(
        self,
        config: ConfigDict,
        variables: Variables,
        centre_model: str = "",
        cube_mm: float | None = None,
    ) -> None:
        """Of a run's config and weights.

        Args:
          config, variables: of the run (`training.checkpoints.load_model`).
          centre_model: folder of a run that finds hand centres (`configs/centre_nyu.py` or
            `configs/detector_nyu.py`); without one centres are those of the localiser, refined if
            the model was trained with refined ones.
          cube_mm: edge of the hand's cube, if not the config's: where `data.cube_by_subject` is on,
            training scales it by the subject (NYU's second one by 5/6, MSRA15's by 3/4 to 1).

        Raises:
          InputError: a config that is none of ours, a method that estimates no joints or no
            depth, or an unusable centre model.
        """
        try:
            name, self.skeleton_name = config.method.name, config.data.dataset
            for given, known, key in (
                (name, METHODS, "method.name"),
                (self.skeleton_name, CAMERAS, "data.dataset"),
            ):
                if given not in known:
                    raise InputError(f"{key}={given!r}: expected one of {', '.join(known)}")
            self._left = CAMERAS[self.skeleton_name].left
            if config.data.get("target", "joints") == "centre":
                self.skeleton_name = "centre"
            self.skeleton = SKELETONS[self.skeleton_name]
            self.cube_mm = float(config.data.cube_mm if cube_mm is None else cube_mm)
            self._cut = _cut(config.data)
            method = METHODS[name](config.method, self.skeleton)
            if method.measure:
                raise InputError(
                    f"this {name} estimates no joints; of a run in stages expected the last one"
                )
            if method.flat:
                raise InputError(
                    f"this {name} estimates no depth, only x and y; expected a method that does"
                )
        except AttributeError as error:
            raise InputError(f"the model's config is not one of hpe_jax: {error}") from error
        self._variables = jax.device_put(variables)
        self._predict = jax.jit(method.predict)
        self.centre_source, self.centre_model, self._centre = "com", "", None
        workdir = centre_model
        if not workdir and config.data.get("centre", "com") == "refined":
            workdir = config.data.centre_model
        if workdir:
            try:
                model = load_centre_model(workdir, config.data)
            except InputError as error:
                if centre_model:
                    raise InputError(f"--centre_model={error}") from error
                raise InputError(
                    f"the model was trained on the centres of data.centre_model={error}; "
                    "--centre_model=DIR names another place"
                ) from error
            self.centre_source = "detected" if model.whole else "refined"
            self.centre_model = workdir
            self._cut_centre, self._centre = _cut(model.data), jax.jit(model.centres)

    def __call__(
        self,
        depth: Float[np.ndarray, "H W"],
        camera: Float[np.ndarray, " 4"] | Sequence[float],
        *,
        hand: str = "right",
        centre: Float[np.ndarray, " 3"] | Sequence[float] | None = None,
        passes: int = 1,
    ) -> Prediction | None:
        """Joints in one frame.

        Args:
          depth: (H, W) mm; 0, a negative number, NaN or infinity = no reading.
          camera: (4,) fx, fy, cx, cy.
          hand: "right" or "left", in the sense of `camera`; where the model's data set shows the
            other one the frame is mirrored, and the joints are mirrored back.
          centre: (3,) mm; None finds the hand.
          passes: 2 predicts once more about the mean of the joints found first; where there is
            no depth the first answer stays.

        Returns:
          None if there is no hand: the frame, or the cube about `centre`, holds no reading, or
          `centre`, given or found, is no point in front of the frame.

        Raises:
          InputError: another shape, a camera without positive focal lengths, another `hand`, no
            pass, or a hand so near or far that `depth` is not in millimetres.
        """
        begun = time.perf_counter()
        depth, camera = np.asarray(depth, np.float32), np.asarray(camera, np.float32)
        if depth.ndim != 2 or not depth.size or camera.shape != (4,):
            raise InputError(
                f"depth {depth.shape} and camera {camera.shape}: expected (H, W) and (4,)"
            )
        if not (np.isfinite(camera).all() and (camera[:2] > 0).all()):
            raise InputError(
                f"camera {camera.tolist()}: expected fx, fy, cx, cy in pixels, fx and fy positive "
                "(y points down)"
            )
        if centre is not None and np.shape(centre) != (3,):
            raise InputError(f"centre {np.shape(centre)}: expected (3,), x, y, z in mm")
        if passes < 1:
            raise InputError(f"passes={passes}: expected 1 or 2")
        if hand not in ("right", "left"):
            raise InputError(f"hand={hand!r}: expected right or left")
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0)
        centre = None if centre is None else np.asarray(centre, np.float32)
        if centre is not None and outside_frame(centre, camera, depth.shape):
            return None
        network = self._centre if centre is None else None
        if network is not None and self.centre_source == "detected":
            centre = np.zeros(3, np.float32)  # It needs none.
        if centre is None:
            # In the frame as recorded: every k-th pixel of its mirror image would be others, and
            # of two equally near things one hand could then be given this, one that.
            centre = find_hand(depth, camera)
        if centre is None:
            return None
        located = np.asarray(centre, np.float32)
        image, seen_by, mirrored = depth, camera, (hand == "left") != self._left
        if mirrored:
            image, seen_by = depth[:, ::-1], np.asarray(mirror_camera(camera, depth.shape[1]))
            centre = np.asarray(mirror_x(centre))
        if network is not None:
            centre = self._run(network, self._cut_centre(image, centre, seen_by))
            if outside_frame(centre, seen_by, image.shape):
                return None
            if self.centre_source == "detected":
                located = np.asarray(mirror_x(centre)) if mirrored else centre
        example = self._cut(image, centre, seen_by)
        if empty_cube(example, self.cube_mm):
            return None
        joints = self._joints(example)
        for _ in range(1, passes):
            if outside_frame(joints.mean(0), seen_by, image.shape):
                break  # Nonsense was predicted; a patch from there would make it no better.
            closer = self._cut(image, joints.mean(0), seen_by)
            if empty_cube(closer, self.cube_mm):
                break
            example, joints = closer, self._joints(closer)
        if not NEAR < located[2] < FAR:
            metres = NEAR < 1000 * located[2] < FAR
            raise InputError(
                f"the hand is {located[2]:.3g} mm from the camera, expected {NEAR:g} to {FAR:g}; "
                f"depth must be in mm{', is it in metres?' if metres else ''}"
            )
        centre = example["centre"]
        if mirrored:
            joints, centre = np.asarray(mirror_x(joints)), np.asarray(mirror_x(centre))
        latency = 1000 * (time.perf_counter() - begun)
        corner = np.zeros(2, np.float32)
        hand_view = self._view(depth, located, camera, HAND_MM)
        return Prediction(
            joints=joints,
            located=located,
            centre=centre,
            inside=inside_hand(joints, depth, corner, camera, located, self.cube_mm),
            inside_cube=inside_hand(joints, depth, corner, camera, centre, self.cube_mm),
            seen_cm2=seen_cm2(**hand_view, centre=located),
            latency_ms=latency,
            view=self._view(depth, located, camera, self.cube_mm),
        )

    def _view(
        self, depth: np.ndarray, centre: np.ndarray, camera: np.ndarray, cube_mm: float
    ) -> dict[str, np.ndarray]:
        """Every pixel of the square that a cube covers."""
        edge = int(np.clip(cube_mm * camera[:2].max() / centre[2], 16, max(depth.shape)))
        corner = np.asarray(patch_corner(centre, camera, edge))
        return {"depth": cut_patch(depth, corner, 1, edge), "corner": corner, "camera": camera}

    def _joints(self, example: dict[str, np.ndarray]) -> np.ndarray:
        return self._run(partial(self._predict, self._variables), example)

    def _run(self, network: Callable[[Batch], Array], example: dict[str, np.ndarray]) -> np.ndarray:
        """A network's answer for one example."""
        batch = {name: value[None] for name, value in example.items()}
        batch["cube"] = np.full(1, self.cube_mm, np.float32)
        return jax.device_get(network(jax.device_put(batch)))[0]
