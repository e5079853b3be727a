"""Prediction files: a line a frame, three numbers a joint, blanks, tabs or commas between them.

The numbers are (u, v, depth) in pixels and mm, or (x, y, z) in mm; nothing in a file says which.
A line may start with the frame's name (the label files of ICVL, the files of denseReg); either
every line does or none. Blank lines are skipped, as ICVL's label files have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from hpe_jax.atomic import write_atomic
from hpe_jax.errors import InputError

Format = Literal["uvd", "xyz"]


@dataclass(frozen=True)
class JointFile:
    """What a file held.

    Attributes:
      path: where it came from, for messages.
      values: (N, J, 3) float64, as written in the file.
      names: the frames' names where the file has them, else None.
    """

    path: str
    values: Float[np.ndarray, "N J 3"]
    names: list[str] | None = None


def read_joints(
    path: str | Path, joints: int | Sequence[int], form: Format = "uvd", *, gaps: bool = False
) -> JointFile:
    """Read a prediction or ground truth file.

    Args:
      path: the file.
      joints: the number of joints a line must hold, or the numbers it may hold.
      form: what the numbers are, for messages.
      gaps: whether a joint may be missing: a number written as nan or inf is NaN then.

    Raises:
      InputError: the file is missing, empty or not text; a line has another number of columns
        than the first or than expected, or a number that is not finite.
    """
    allowed = (joints,) if isinstance(joints, int) else tuple(joints)
    expected = " or ".join(f"{3 * j} numbers ({j} joints x {form})" for j in allowed)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as e:
        raise InputError(f"{path}: {e.strerror}, expected a file with {expected} a line") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not text, expected {expected} a line") from e
    text = text.replace(",", " ")
    lines = [(i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(f"{path}: empty, expected {expected} a line")
    number, first = lines[0]
    named = _number(first[0]) is None
    count, rest = divmod(len(first) - named, 3)
    if rest or count not in allowed:
        raise InputError(
            f"{path}, line {number}: {len(first) - named} numbers"
            f"{' after the name' if named else ''}, expected {expected}"
        )
    for number, tokens in lines:
        if len(tokens) - named != 3 * count:
            raise InputError(
                f"{path}, line {number}: {len(tokens)} columns, expected {len(first)} as in line "
                f"{lines[0][0]}{' (a name and ' if named else ' ('}{count} joints x {form})"
            )
    try:
        values = np.array([tokens[named:] for _, tokens in lines], np.float64)
    except ValueError:
        values = None
    if values is not None and gaps:
        values[~np.isfinite(values)] = np.nan
    elif values is None or not np.isfinite(values).all():
        raise _first_bad_number(path, lines, named, gaps)
    names = [tokens[0] for _, tokens in lines] if named else None
    return JointFile(str(path), values.reshape(len(lines), count, 3), names)


def doubt(values: Float[np.ndarray, "N J 3"], form: Format) -> str | None:
    """What speaks for numbers being of the other format, if anything: no image has pixels left of
    or above it, and no hand is right of and below the axis in every frame."""
    numbers = values[..., :2][np.isfinite(values[..., :2])]
    if not len(numbers):
        return None
    positive = (numbers >= 0).mean()
    doubtful, other = (positive < 0.9, "xyz") if form == "uvd" else (positive == 1, "uvd")
    if not doubtful:
        return None
    return (
        f"{positive:.0%} of the first two coordinates are positive, read as {form}; is it {other}?"
    )


def write_joints(
    path: str | Path,
    values: Float[np.ndarray, "N J 3"],
    names: Sequence[str] | None = None,
) -> None:
    """Write joints (uvd or xyz) as `read_joints` reads them, three decimals, blanks between.

    The file appears whole or not at all; an older one stays until then.

    Raises:
      InputError: a number is not finite, or there are not as many names as frames.
    """
    values = np.asarray(values)
    if values.ndim != 3 or values.shape[-1] != 3:
        raise InputError(f"{path}: joints of shape {values.shape}, expected (frames, joints, 3)")
    bad = ~np.isfinite(values).all((1, 2))
    if bad.any():
        raise InputError(f"{path}: frame {int(np.argmax(bad))} to be written is not finite")
    if names is not None and len(names) != len(values):
        raise InputError(f"{path}: {len(names)} names for {len(values)} frames")
    rows = [row(joints) for joints in values]
    if names is not None:
        rows = [f"{name} {line}" for name, line in zip(names, rows, strict=True)]
    write_atomic(path, "".join(line + "\n" for line in rows))


def row(joints: Float[np.ndarray, "J 3"]) -> str:
    """A frame's line of a prediction file, without a name; three decimals, blanks between."""
    return " ".join(f"{x:.3f}" for x in np.asarray(joints).reshape(-1))


def _number(token: str) -> float | None:
    try:
        return float(token)
    except ValueError:
        return None


def _first_bad_number(path: str | Path, lines: list, named: bool, gaps: bool) -> InputError:
    for number, tokens in lines:
        for column, token in enumerate(tokens[named:], 1 + named):
            value = _number(token)
            if value is None or not (gaps or np.isfinite(value)):
                return InputError(
                    f"{path}, line {number}: column {column} is {token!r}, expected a "
                    + ("number" if gaps else "finite number")
                    + ("; every frame needs an answer to be scored" if token == "nan" else "")
                )
    raise AssertionError("no bad number in a file that could not be converted")
