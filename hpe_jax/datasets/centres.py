"""Hand centre files in the field's text format: one `x y z` (mm) a line, `invalid` for none.

NYU's published files count y **up**, unlike this library: pass `y_up=True` for those. On the
8,252 frames of `center_test_refined.txt` the flipped centres lie 21 mm from the mean of the
joints, the unflipped ones 134 mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hpe_jax.atomic import write_atomic
from hpe_jax.camera import flip_y
from hpe_jax.errors import InputError


def read_centres(
    path: str | Path, *, y_up: bool = False, frames: int | None = None
) -> Float[np.ndarray, "N 3"]:
    """Read a centre file.

    Args:
      path: the text file.
      y_up: whether the file's y points up; it is flipped then.
      frames: how many lines the file must have; None takes any number.

    Returns:
      (N, 3) float32 mm, y down; a row of NaN for each `invalid` line.

    Raises:
      InputError: the file is missing, has another number of lines, or a line is neither
        three finite numbers nor `invalid`.
    """
    path = Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else "not readable"
        raise InputError(
            f"{path}: {what}, expected a text file of hand centres, one 'x y z' a line"
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    centres = np.full((len(lines), 3), np.nan, np.float32)
    for i, line in enumerate(lines):
        words = line.replace(",", " ").split()
        if words and words[0].lower() == "invalid":
            continue
        try:
            values = np.array([float(word) for word in words])
        except ValueError:
            values = np.empty(0)
        if values.shape != (3,) or not np.isfinite(values).all():
            raise InputError(
                f"{path}: line {i + 1}: expected 'x y z' in mm or 'invalid', found {line[:60]!r}"
            )
        centres[i] = values
    if frames is not None and len(centres) != frames:
        raise InputError(f"{path}: {len(centres)} centres, expected one a frame, {frames} in all")
    return np.asarray(flip_y(centres)) if y_up else centres


def centre_path(data: Any, split: str) -> str:
    """The file that `data.centre_file` names for a split; InputError if it names none."""
    if not data.centre_file:
        raise InputError("data.centre=file: expected data.centre_file to name a file")
    return str(data.centre_file).replace("{split}", split)


def write_centres(
    path: str | Path, centres: Float[np.ndarray, "N 3"], *, y_up: bool = False
) -> None:
    """Write a centre file; rows that are not finite become `invalid`."""
    centres = np.asarray(flip_y(centres) if y_up else centres)
    lines = [
        " ".join(f"{value:.4f}" for value in row) if np.isfinite(row).all() else "invalid"
        for row in centres
    ]
    write_atomic(path, "\n".join(lines) + "\n")
