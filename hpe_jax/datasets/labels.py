"""Labels of recorded frames that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from hpe_jax.errors import InputError

log = logging.getLogger(__name__)


def leave_out_bad(
    joints: Float[np.ndarray, "N J 3"],
    good: Bool[np.ndarray, "N J"],
    path: Path,
    row: Callable[[int], str],
    *,
    skip: bool,
) -> Float[np.ndarray, "N J 3"]:
    """Labels with NaN for the joints that are not `good`.

    Args:
      joints, good: as a label file has them.
      path: of that file.
      row: what the file's readers call row i of it.
      skip: report bad labels instead of refusing them.

    Raises:
      InputError: there are bad ones, and `skip` is off.
    """
    bad = ~np.all(good, 1)
    if not bad.any():
        return joints
    text = (
        f"{path}: {bad.sum():,} of {len(bad):,} frames have a joint that is not a number or not "
        f"in front of the camera, the first is {row(int(np.argmax(bad)))}"
    )
    if not skip:
        cure = "data.skip_unreadable=True leaves such joints out of training, a test needs them all"
        raise InputError(f"{text} ({cure})")
    log.warning("%s: such joints are left out", text)
    return np.where(good[..., None], joints, np.nan)
