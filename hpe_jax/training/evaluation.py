"""Predictions for a whole split, and the plainest predictor to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.methods.base import Method, Variables
from hpe_jax.progress import Rate
from hpe_jax.training.sources import read_ahead
from hpe_jax.training.step import make_predict_step, replicated, spread, to_devices

PICTURES = 16
"""Frames whose depth is kept for pictures, evenly spaced over the split."""

PICTURED = ("depth", "corner", "camera")

Tell = Callable[[str], None]
"""Hears, after every batch, how far the work is."""


def silent(text: str) -> None:
    """A `Tell` for those who need not know."""


@dataclass(frozen=True)
class Evaluation:
    """Predictions and truth, mm in camera space, in the order of the split.

    Attributes:
      pred, true: (N, J, 3).
      valid: (N, J).
      centre: (N, 3), where the cubes were placed.
      pictures: fields of the batch for a few frames, with "index" (K,) into the others.
      flat: whether the method estimates no depth (`Method.flat`).
    """

    pred: Float[np.ndarray, "N J 3"]
    true: Float[np.ndarray, "N J 3"]
    valid: Bool[np.ndarray, "N J"]
    centre: Float[np.ndarray, "N 3"]
    pictures: dict[str, np.ndarray]
    flat: bool = False


class Split:
    """The batches of a split, each on the devices, in order, read ahead.

    Attributes:
      frames: how many there are, or the first so many that were asked for.
    """

    def __init__(self, source: Source, mesh: Mesh, batch: int, frames: int) -> None:
        if source.size is None:
            raise InputError(f"{source.name}: the {source.split} split is endless, cannot score it")
        self._source, self._mesh = source, mesh
        self.frames = min(frames, source.size) if frames else source.size
        self._batch = -(-min(batch, self.frames) // mesh.size) * mesh.size

    def batches(self, tell: Tell) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """`(start, count, data)`: beyond `count` the last batch repeats its last frame."""

        def load(start: int) -> dict[str, np.ndarray]:
            wanted = np.arange(start, start + self._batch)
            return self._source.load(np.minimum(wanted, self.frames - 1))

        rate = Rate(self.frames)
        for start, data in read_ahead(load, range(0, self.frames, self._batch)):
            count = min(self._batch, self.frames - start)
            yield start, count, to_devices(data, self._mesh)
            rate.done += count
            tell(f"{self._source.split} split, {rate.text()}")


class Evaluator:
    """Evaluates one method on one source; compiles once however often it is called.

    Attributes:
      frames: how many there are.
    """

    def __init__(
        self, method: Method, source: Source, mesh: Mesh, *, batch: int, frames: int = 0
    ) -> None:
        self._split = Split(source, mesh, batch, frames)
        self.frames = self._split.frames
        self._mesh, self._flat = mesh, method.flat
        self._step = make_predict_step(method, source, mesh)

    def __call__(self, variables: Variables, tell: Tell = silent) -> Evaluation:
        variables = jax.device_put(variables, replicated(self._mesh))
        shown = np.unique(np.linspace(0, self._split.frames - 1, PICTURES).astype(np.int64))
        columns: dict[str, list[np.ndarray]] = {k: [] for k in ("pred", "true", "valid", "centre")}
        pictures: dict[str, list[np.ndarray]] = {k: [] for k in PICTURED}
        for start, count, data in self._split.batches(tell):
            pred, batch = self._step(variables, data)
            row = {
                "pred": pred,
                "true": batch["joints"],
                "valid": batch["joint_valid"],
                "centre": batch["centre"],
            }
            for name, values in jax.device_get(row).items():
                columns[name].append(values[:count])
            here = shown[(shown >= start) & (shown < start + count)] - start
            if len(here):
                fields = jax.device_get({name: batch[name] for name in PICTURED})
                for name, values in fields.items():
                    pictures[name].append(values[here])
        whole = {name: np.concatenate(parts) for name, parts in columns.items()}
        return Evaluation(
            **whole,
            pictures={k: np.concatenate(v) for k, v in pictures.items()} | {"index": shown},
            flat=self._flat,
        )


class Measurer:
    """The means over a split of what a method without joints measures; compiles once.

    Attributes:
      frames: how many there are.
    """

    def __init__(
        self, method: Method, source: Source, mesh: Mesh, *, batch: int, frames: int = 0
    ) -> None:
        measure, expand = method.measure, source.expand
        if measure is None:
            raise ValueError("expected a method with `measure`")
        self._split = Split(source, mesh, batch, frames)
        self._mesh, self.frames = mesh, self._split.frames
        self._step = jax.jit(
            lambda variables, data: measure(variables, expand(data)),
            in_shardings=(replicated(mesh), spread(mesh)),
            out_shardings=spread(mesh),
        )

    def __call__(self, variables: Variables, tell: Tell = silent) -> dict[str, float]:
        variables = jax.device_put(variables, replicated(self._mesh))
        columns: dict[str, list[np.ndarray]] = {}
        for _, count, data in self._split.batches(tell):
            for name, values in jax.device_get(self._step(variables, data)).items():
                columns.setdefault(name, []).append(values[:count])
        return {name: float(np.concatenate(parts).mean()) for name, parts in columns.items()}


def constant_pose(
    true: Float[np.ndarray, "N J 3"],
    valid: Bool[np.ndarray, "N J"],
    centre: Float[np.ndarray, "N 3"],
    rounds: int = 100,
) -> Float[np.ndarray, "N J 3"]:
    """The constant pose that, placed at each frame's centre, has the least mean error.

    It is fitted to the very frames that it is scored on, each joint by Weiszfeld's iteration
    for the geometric median: no constant can do better, which makes it the strictest
    baseline of its kind.
    """
    offsets = np.asarray(true - centre[:, None], np.float64)
    weight = np.asarray(valid, np.float64)[..., None]
    offsets = np.where(weight > 0, offsets, 0.0)
    pose = (offsets * weight).sum(0) / np.maximum(weight.sum(0), 1.0)
    for _ in range(rounds):
        distance = np.linalg.norm(offsets - pose, axis=-1, keepdims=True)
        pull = weight / np.maximum(distance, 1e-6)
        pose = (offsets * pull).sum(0) / np.maximum(pull.sum(0), 1e-12)
    return (pose + centre[:, None]).astype(np.float32)
