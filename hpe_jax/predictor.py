"""A trained model that takes whole depth frames: what `predict` and a live camera call."""

from __future__ import annotations

import time

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from hpe_jax.camera import mirror_camera, mirror_x
from hpe_jax.datasets.patches import empty_cube, find_hand, hand_patch, outside_frame
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.methods.base import Variables
from hpe_jax.metrics.inside import inside_hand
from hpe_jax.metrics.recording import Prediction


class Predictor:
    """A trained model that takes whole depth frames, one at a time."""

    def __init__(self, config: ConfigDict, variables: Variables) -> None:
        if config.method.name not in METHODS:
            raise InputError(
                f"method.name={config.method.name!r}: expected one of {', '.join(METHODS)}"
            )
        self.skeleton_name = config.data.dataset
        self.skeleton = SKELETONS[self.skeleton_name]
        self.cube_mm = float(config.data.cube_mm)
        self._cut = {"patch": config.data.patch, "extent_mm": config.data.extent_mm}
        self._variables = jax.device_put(variables)
        self._predict = jax.jit(METHODS[config.method.name](config.method, self.skeleton).predict)

    def __call__(
        self,
        depth: Float[np.ndarray, "H W"],
        camera: Float[np.ndarray, " 4"],
        *,
        hand: str = "right",
        centre: Float[np.ndarray, " 3"] | None = None,
        passes: int = 1,
    ) -> Prediction | None:
        """Joints in one frame.

        Args:
          depth: (H, W) mm, 0 = no reading.
          camera: (4,) fx, fy, cx, cy.
          hand: "right" or "left".
          centre: (3,) mm; None finds the hand.
          passes: 2 predicts once more about the mean of the joints found first.

        Returns:
          None if there is no hand: the frame, or the cube about `centre`, holds no reading.
        """
        begun = time.perf_counter()
        if centre is None:
            # In the frame as recorded: every k-th pixel of its mirror image would be others, and
            # of two equally near things one hand could then be given this, one that.
            centre = find_hand(depth, camera, self.cube_mm)
        if centre is None:
            return None
        image, seen_by, left = depth, camera, hand == "left"
        if left:
            image, seen_by = depth[:, ::-1], np.asarray(mirror_camera(camera, depth.shape[1]))
            centre = np.asarray(mirror_x(centre))
        example = hand_patch(image, centre, seen_by, **self._cut)
        if empty_cube(example, self.cube_mm):
            return None
        joints = self._joints(example)
        for _ in range(1, passes):
            if outside_frame(joints.mean(0), seen_by, image.shape):
                break  # Nonsense was predicted; a patch from there would make it no better.
            example = hand_patch(image, joints.mean(0), seen_by, **self._cut)
            joints = self._joints(example)
        centre = example["centre"]
        if left:
            joints, centre = np.asarray(mirror_x(joints)), np.asarray(mirror_x(centre))
        latency = 1000 * (time.perf_counter() - begun)
        return Prediction(
            joints=joints,
            centre=centre,
            inside=inside_hand(joints, depth, np.zeros(2), camera, centre, self.cube_mm),
            latency_ms=latency,
            view=hand_patch(depth, centre, camera, **self._cut) if left else example,
        )

    def _joints(self, example: dict[str, np.ndarray]) -> np.ndarray:
        batch = {name: value[None] for name, value in example.items()}
        batch["cube"] = np.full(1, self.cube_mm, np.float32)
        return jax.device_get(self._predict(self._variables, jax.device_put(batch)))[0]
