"""Recorded data: one file a data set, each reading the layout in which it is published."""

from __future__ import annotations

from typing import Any

from hpe_jax.errors import InputError
from hpe_jax.frames import Source


def make_source(data: Any, split: str, seed: int) -> Source:
    """Where batches come from.

    Args:
      data: the config's `data` section (or any mapping with attribute access); an empty
        `root` means the built-in synthetic hands seen through that data set's camera.
      split: "train" or "test".
      seed: decides everything random about the examples.

    Raises:
      InputError: a root is given for a data set that has no reader, or the reader refuses it.
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r}: expected train or test")
    if not data.root:
        from hpe_jax import synthetic

        return synthetic.make_source(data, split, seed)
    if data.dataset == "nyu":
        from hpe_jax.datasets import nyu

        return nyu.make_source(data, split, seed)
    raise InputError(
        f"data.root={data.root}: no reader for data.dataset={data.dataset!r} yet, only for 'nyu'; "
        "leave data.root empty to use synthetic hands"
    )
