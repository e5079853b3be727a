"""`--camera=fx,fy,cx,cy`, as several commands take it; imports no accelerator."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hpe_jax.errors import InputError

Camera = tuple[float, float, float, float]


def parse_camera(values: list[str], *, negative_fy: bool = False) -> Camera:
    """Intrinsics from the four words of the flag.

    Args:
      values: what stood between the commas.
      negative_fy: whether fy may be negative, which says that numbers have y up.

    Raises:
      InputError: not four finite numbers, or a focal length that cannot be.
    """
    text = f"--camera={','.join(values)}"
    try:
        fx, fy, cx, cy = (float(value) for value in values)
    except ValueError as error:
        raise InputError(f"{text}: expected four numbers fx,fy,cx,cy in pixels") from error
    if not all(math.isfinite(value) for value in (fx, fy, cx, cy)):
        raise InputError(f"{text}: expected four numbers fx,fy,cx,cy in pixels, all finite")
    if negative_fy and not (fx > 0 and fy != 0):
        raise InputError(f"{text}: expected fx > 0 and fy other than 0")
    if not negative_fy and not (fx > 0 and fy > 0):
        raise InputError(
            f"{text}: expected fx and fy > 0; y points down here, so a data set that "
            "writes fy negative is given with its absolute value"
        )
    return fx, fy, cx, cy


def doubt(camera: Sequence[float], pixels: tuple[int, int]) -> str | None:
    """What is odd about fx, fy, cx, cy for frames of (height, width), if anything."""
    (fx, fy, cx, cy), (height, width) = camera, pixels
    centred = width / 4 < cx < 3 * width / 4 and height / 4 < cy < 3 * height / 4
    numbers = ",".join(f"{c:g}" for c in camera)
    if abs(cx / height - 0.5) < 0.05 > abs(cy / width - 0.5) and abs(cx / width - 0.5) > 0.1:
        return (
            f"--camera={numbers} fits frames of {height} x {width} pixels, but these have "
            f"{width} x {height}: were they turned?"
        )
    if centred and width / 4 < min(fx, fy) and max(fx, fy) < 1.25 * min(fx, fy):
        return None
    return (
        f"--camera={numbers} is odd for {width} x {height} pixels, is it fx,fy,cx,cy in pixels of "
        "these frames?"
    )
