"""Recorded data: one file a data set, each reading the layout in which it is published.

`made` reads, and `making` writes, data sets that this library rendered itself.
"""

from __future__ import annotations

from typing import Any

from hpe_jax.camera import CAMERAS
from hpe_jax.errors import InputError
from hpe_jax.frames import Source, centre_only
from hpe_jax.hand.skeletons import SKELETONS

CENTRES = ("gt", "com", "file", "refined")
"""Where hand centres may come from; not every source offers each."""


def make_source(data: Any, split: str, seed: int) -> Source:
    """Where batches come from.

    Args:
      data: the config's `data` section (or any mapping with attribute access); an empty
        `root` means the built-in synthetic hands seen through that data set's camera. A root that
        `launch.make_data` made is such hands, too, whose training frames are on disk.
      split: "train" or "test".
      seed: decides everything random about the examples.

    Raises:
      InputError: a value that no source can use, a root for a data set that has no reader, or
        data that the reader refuses.
    """
    if split not in ("train", "test"):
        raise InputError(f"split {split!r}: expected train or test")
    for name in ("patch", "cube_mm", "extent_mm"):
        if not 0 < data[name] < float("inf"):
            raise InputError(f"data.{name}={data[name]}: expected a positive number")
    if not 0 <= data.centre_jitter_mm < float("inf"):
        raise InputError(f"data.centre_jitter_mm={data.centre_jitter_mm}: expected at least 0")
    if data.dataset not in CAMERAS:
        raise InputError(f"data.dataset={data.dataset!r}: expected one of {', '.join(CAMERAS)}")
    if data.dataset not in SKELETONS:
        raise InputError(f"data.dataset={data.dataset!r}: has no entry in hand/skeletons.py")
    target = data.get("target", "joints")
    if target not in ("joints", "centre"):
        raise InputError(f"data.target={target!r}: expected joints or centre")
    if data.centre not in CENTRES:
        raise InputError(f"data.centre={data.centre!r}: expected one of {', '.join(CENTRES)}")
    source = _source(data, split, seed)
    if source.skeleton != data.dataset:  # Prediction knows the data set's name alone.
        raise InputError(
            f"data.dataset={data.dataset!r}: its frames have the joints of {source.skeleton!r}, "
            "expected an entry of its own name in hand/skeletons.py"
        )
    return centre_only(source) if target == "centre" else source


def _source(data: Any, split: str, seed: int) -> Source:
    if not data.root:
        from hpe_jax import synthetic

        return synthetic.make_source(data, split, seed)
    from hpe_jax.datasets import made

    if made.is_made(data.root):
        return made.make_source(data, split, seed)
    if data.dataset == "nyu":
        from hpe_jax.datasets import nyu

        return nyu.make_source(data, split, seed)
    if data.dataset == "icvl":
        from hpe_jax.datasets import icvl

        return icvl.make_source(data, split, seed)
    if data.dataset == "msra":
        from hpe_jax.datasets import msra

        return msra.make_source(data, split, seed)
    raise InputError(f"data.dataset={data.dataset!r}: no reader in datasets/__init__.py")
