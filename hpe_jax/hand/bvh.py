"""Biovision hierarchy files (BVH): any of them read, as each node's frame over time.

`motion.py` writes hands as such files and takes them apart again. Rotations are composed in the
order of a joint's channels; position channels stand instead of the offset, as is the custom.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import FINGERS


@dataclass(frozen=True)
class Motion:
    """What a BVH file says.

    Attributes:
      path: where it came from, for messages.
      names: (K,) joints and end sites in file order. An end site is named after the finger of
        its parent (`index_tip` below `index_dip`), or `<parent>_end` in files of other things.
      parents: (K,), -1 for the root.
      offsets: (K, 3), as written (mm in our files).
      transforms: (T, K, 4, 4), each node's frame to the file's space.
      frame_seconds: time from frame to frame.
    """

    path: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Float[np.ndarray, "K 3"]
    transforms: Float[np.ndarray, "T K 4 4"]
    frame_seconds: float


def euler_zxy(turns: Float[np.ndarray, "T K 3 3"]) -> Float[np.ndarray, "T K 3"]:
    """Angles z, x, y (radians) of rotations R = Rz Rx Ry, continuous in time.

    Of the two triples of angles that give a rotation, and their whole turns, the one nearest to
    the frame before is taken. Where x is 90 degrees only z + y or z - y is known: y stays.
    """
    flat = np.hypot(turns[..., 0, 1], turns[..., 1, 1])
    locked = flat < 1e-6
    x = np.arctan2(turns[..., 2, 1], flat)
    z = np.arctan2(-turns[..., 0, 1], turns[..., 1, 1])
    # y of what is left without z: near 90 degrees of x an error of z is made good by y.
    c, s = np.cos(z), np.sin(z)
    y = np.arctan2(
        c * turns[..., 0, 2] + s * turns[..., 1, 2], c * turns[..., 0, 0] + s * turns[..., 1, 0]
    )
    both = np.arctan2(turns[..., 1, 0], turns[..., 0, 0])
    first = np.stack([z, x, y], -1)
    out = np.empty_like(first)
    last = np.zeros(first.shape[1:])
    for t, angles in enumerate(first):
        up = np.sign(x[t])
        angles = np.where(
            locked[t, :, None], np.stack([both[t] - up * last[:, 2], x[t], last[:, 2]], -1), angles
        )
        other = angles * [1, -1, 1] + np.pi
        choices = np.stack([angles, other])
        choices = choices - 2 * np.pi * np.round((choices - last) / (2 * np.pi))
        near = np.abs(choices - last).sum(-1).argmin(0)
        last = np.take_along_axis(choices, near[None, :, None], 0)[0]
        out[t] = last
    return out


class _Tokens:
    """The words of a file with their lines, read one after the other."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.words = [(w, i) for i, line in enumerate(text.splitlines(), 1) for w in line.split()]
        self.at = 0

    def error(self, expected: str) -> InputError:
        if self.at >= len(self.words):
            return InputError(f"{self.path}: ends early, expected {expected}")
        word, line = self.words[self.at]
        return InputError(f"{self.path}, line {line}: {word!r}, expected {expected}")

    def peek(self) -> str:
        return self.words[self.at][0] if self.at < len(self.words) else ""

    def take(self, expected: str, *allowed: str) -> str:
        word = self.peek()
        if not word or (allowed and word not in allowed):
            raise self.error(expected)
        self.at += 1
        return word

    def number(self, expected: str) -> float:
        try:
            value = float(self.peek())
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise self.error(expected)
        self.at += 1
        return value


def read_bvh(path: str | Path) -> Motion:
    """Read any BVH file with one root.

    Raises:
      InputError: the file is unreadable, or not such a file; the line and what was expected.
    """
    try:
        words = _Tokens(str(path), Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable BVH file") from error
    words.take("HIERARCHY", "HIERARCHY")
    words.take("ROOT", "ROOT")
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    _read_joint(words, -1, names, parents, offsets, channels)
    words.take("MOTION (one root only)", "MOTION")
    words.take("Frames:", "Frames:")
    frames = words.number("the number of frames")
    if frames < 0 or frames != int(frames):
        words.at -= 1
        raise words.error("a whole number of frames")
    words.take("Frame Time:", "Frame")
    words.take("Frame Time:", "Time:")
    seconds = words.number("the seconds between frames")
    width = sum(map(len, channels))
    values = _read_frames(words, int(frames), width)
    transforms = _forward(values, parents, np.array(offsets), channels)
    return Motion(
        str(path), tuple(names), tuple(parents), np.array(offsets), transforms, float(seconds)
    )


def _read_joint(
    words: _Tokens,
    parent: int,
    names: list[str],
    parents: list[int],
    offsets: list[list[float]],
    channels: list[list[str]],
) -> None:
    me = len(names)
    names.append(words.take("a joint's name"))
    parents.append(parent)
    words.take("{", "{")
    words.take("OFFSET", "OFFSET")
    offsets.append([words.number("three numbers of an OFFSET") for _ in range(3)])
    words.take("CHANNELS", "CHANNELS")
    count = words.number("the number of channels")
    allowed = [f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")]
    channels.append(
        [words.take("a channel such as Xrotation", *allowed) for _ in range(int(count))]
    )
    while (word := words.take("JOINT, End Site or }", "JOINT", "End", "}")) != "}":
        if word == "JOINT":
            _read_joint(words, me, names, parents, offsets, channels)
            continue
        words.take("End Site", "Site")
        words.take("{", "{")
        words.take("OFFSET", "OFFSET")
        finger = names[me].split("_")[0]
        names.append(f"{finger}_tip" if finger in FINGERS else f"{names[me]}_end")
        parents.append(me)
        offsets.append([words.number("three numbers of an OFFSET") for _ in range(3)])
        channels.append([])
        words.take("}", "}")


def _read_frames(words: _Tokens, frames: int, width: int) -> Float[np.ndarray, "T C"]:
    rows: dict[int, list[str]] = {}
    for word, line in words.words[words.at :]:
        rows.setdefault(line, []).append(word)
    if len(rows) != frames:
        raise InputError(
            f"{words.path}: {len(rows)} lines of motion, expected {frames} as 'Frames:' says"
        )
    values = np.empty((frames, width))
    for i, (line, row) in enumerate(rows.items()):
        try:
            numbers = np.array([float(word) for word in row])
        except ValueError:
            numbers = np.empty(0)
        if numbers.shape != (width,) or not np.isfinite(numbers).all():
            raise InputError(
                f"{words.path}, line {line}: frame {i}: {len(row)} words, expected {width} finite "
                "numbers, one for each channel"
            )
        values[i] = numbers
    return values


def _forward(
    values: np.ndarray, parents: list[int], offsets: np.ndarray, channels: list[list[str]]
) -> Float[np.ndarray, "T K 4 4"]:
    out = np.tile(np.eye(4), (len(values), len(parents), 1, 1))
    column = 0
    for k, (parent, names) in enumerate(zip(parents, channels, strict=True)):
        here = np.tile(np.eye(4), (len(values), 1, 1))
        here[:, :3, 3] = offsets[k]
        for name in names:
            axis, number = "XYZ".index(name[0]), values[:, column]
            column += 1
            if name.endswith("position"):
                here[:, axis, 3] = number
                continue
            c, s = np.cos(np.radians(number)), np.sin(np.radians(number))
            i, j = (axis + 1) % 3, (axis + 2) % 3
            turn = np.tile(np.eye(3), (len(values), 1, 1))
            turn[:, i, i], turn[:, i, j], turn[:, j, i], turn[:, j, j] = c, -s, s, c
            here[:, :3, :3] = here[:, :3, :3] @ turn
        out[:, k] = here if parent < 0 else out[:, parent] @ here
    return out
