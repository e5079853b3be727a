"""The batch contract: what data sets and the renderer give, and methods take.

A batch is a plain dict of arrays with a leading axis B:

=============== ============ ================================================================
`depth`         (B, H, W)    float32 mm, 0 = no reading (background may stay; cubes cut it)
`corner`        (B, 2)       pixel (u, v) of the patch's first pixel, in `camera`'s image
`camera`        (B, 4)       fx, fy, cx, cy of the (decimated) full image
`centre`        (B, 3)       mm, the middle of the hand's cube
`joints`        (B, J, 3)    mm, camera space; absent when unlabelled
`joint_valid`   (B, J)       bool; False entries, whose joints may be anything, NaN too, are not
                             scored nor trained on; absent with `joints`
`cube`          (B,)         mm, the edge of the hand's cube
`clean`         (B, H, W)    as `depth`, without the sensor's faults; rendered frames may have it
=============== ============ ================================================================

A `Source` says where batches come from. Its two halves let the same training step serve
recorded and rendered data: `load` runs on the host and may touch a disk, `expand` is pure,
runs inside the jitted step and may render. The order of examples is a function of (seed,
step) alone, so a resumed run sees what an uninterrupted one would have seen.

Examples are numbered without end: a source of `size` frames shows frame `number % size`, and
may let everything random about an example, such as the jitter of its centre, follow from the
whole number, so that no two epochs show the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Batch = dict[str, Array]


@dataclass(frozen=True)
class Source:
    """Where batches come from; one for training, one for the test split.

    Attributes:
      name: for example "nyu" or "synthetic-nyu"; printed on every result.
      split: "train" or "test".
      size: number of examples; None when endless.
      centre: where hand centres come from: "gt", "com", "refined" or "file"; "none" for whole
        frames.
      skeleton: key into `hand.skeletons.SKELETONS`.
      camera: (4,) intrinsics with which results are written as uvd.
      load: host function, (N,) int64 numbers of examples -> dict of arrays with leading axis N.
      expand: pure function, what `load` returned (on the device) -> batch.
      centres_y_up: whether the data set's files of hand centres count y up.
      skipped: frames that were found unusable so far and replaced by others; `load` adds to it.
      files: what else examples depend on, by the config's field that names it: a hash of its
        content, which the config does not hold.
    """

    name: str
    split: str
    size: int | None
    centre: str
    skeleton: str
    camera: np.ndarray
    load: Callable[[np.ndarray], dict[str, Any]]
    expand: Callable[[dict[str, Any]], Batch]
    centres_y_up: bool = False
    skipped: set[int] = field(default_factory=set)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def synthetic(self) -> bool:
        return self.name.startswith("synthetic")


def content_hash(*parts: bytes | str | Path) -> str:
    """The first digits of the SHA-256 of bytes and of the files that are named."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part if isinstance(part, bytes) else Path(part).read_bytes())
    return sha.hexdigest()[:12]


def centre_only(source: Source) -> Source:
    """The same examples with one joint: the hand's centre, the mean of its valid joints, itself
    valid where any of them is."""

    def expand(loaded: dict[str, Any]) -> Batch:
        batch = source.expand(loaded)
        valid = batch["joint_valid"][..., None]
        joints = jnp.where(valid, batch["joints"], 0.0)  # NaN, perhaps, where there is none
        middle = joints.sum(1) / jnp.maximum(valid.sum(1), 1)
        some = batch["joint_valid"].any(1, keepdims=True)
        return batch | {"joints": middle[:, None], "joint_valid": some}

    return dataclasses.replace(source, expand=expand, skeleton="centre")


def epoch_indices(size: int | None, batch: int, seed: int, step: int) -> np.ndarray:
    """Numbers of the examples of one training step, a function of its arguments alone.

    Endless sources count up. Finite ones are shuffled anew for each epoch, number `epoch * size
    + index`; a batch that reaches past the end of an epoch continues in the next one.
    """
    position = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    if size is None:
        return position
    out = np.empty_like(position)
    for epoch in np.unique(position // size):
        here = position // size == epoch
        order = _permutation(size, seed, int(epoch))
        out[here] = epoch * size + order[position[here] % size]
    return out


def centre_noise(mm: float, seed: int, number: int) -> Float[np.ndarray, "3"]:
    """Normal noise of `mm` on an axis for the centre of an example of this number."""
    return np.random.default_rng([seed, number]).normal(0, mm, 3).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)
