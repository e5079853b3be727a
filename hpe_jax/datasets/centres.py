"""Hand centre files in the field's formats.

V2V-PoseNet's are text: one `x y z` (mm) a line, `invalid` for none. A2J's are MATLAB files: the
variable `centre_pixel`, (N, 1, 3), u, v (pixels) and depth (mm); those of NYU are the same centres.

The text files of NYU and MSRA15 count y **up**, unlike this library: pass `y_up=True` for those.
On the 8,252 frames of `center_test_refined.txt` the flipped centres lie 21 mm from the mean of the
joints, the unflipped ones 134 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hpe_jax.atomic import write_atomic
from hpe_jax.camera import flip_y, uvd_to_xyz
from hpe_jax.datasets.matlab import read_variables
from hpe_jax.errors import InputError


def read_centres(
    path: str | Path,
    *,
    y_up: bool = False,
    frames: int | Sequence[int] | None = None,
    camera: Float[np.ndarray, "4"] | None = None,
) -> Float[np.ndarray, "N 3"]:
    """Read a centre file.

    Args:
      path: the file; one that ends in `.mat` is a MATLAB file.
      y_up: whether a text file's y points up; it is flipped then.
      frames: how many centres the file must have, or one of several counts; None takes any.
      camera: fx, fy, cx, cy of the images that a MATLAB file counts pixels of.

    Returns:
      (N, 3) float32 mm, y down; a row of NaN for each `invalid` line or depth of nothing.

    Raises:
      InputError: the file is missing, has another number of centres, or a line is neither
        three finite numbers nor `invalid`.
      ValueError: a MATLAB file without `camera`.
    """
    path = Path(path)
    centres = _of_matlab(path, camera) if path.suffix == ".mat" else _of_text(path, y_up)
    counts = [frames] if isinstance(frames, int) else list(frames or [len(centres)])
    if len(centres) not in counts:
        wanted = " or ".join(map(str, counts))
        raise InputError(f"{path}: {len(centres)} centres, expected one a frame, {wanted} in all")
    return centres


def _of_matlab(path: Path, camera: Float[np.ndarray, "4"] | None) -> Float[np.ndarray, "N 3"]:
    if camera is None:
        raise ValueError(f"{path}: centres in pixels, expected a camera")
    (pixels,) = read_variables(path, "centre_pixel")
    if pixels.shape[1:] != (1, 3):
        raise InputError(f"{path}: centre_pixel is {pixels.shape}, expected (frames, 1, 3)")
    pixels = pixels[:, 0]
    found = np.isfinite(pixels).all(1) & (pixels[:, 2] > 0)
    centres = uvd_to_xyz(np.where(found[:, None], pixels, 1.0), np.asarray(camera, np.float64))
    return np.where(found[:, None], centres, np.nan).astype(np.float32)


def _of_text(path: Path, y_up: bool) -> Float[np.ndarray, "N 3"]:
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
