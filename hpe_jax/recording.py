"""What `predict` leaves behind for a recording: joints, a summary, pictures."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float
from PIL import Image

from hpe_jax.atomic import write_atomic
from hpe_jax.errors import naming
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.metrics.files import row
from hpe_jax.metrics.inside import HAND_CM2
from hpe_jax.metrics.overlay import overlay
from hpe_jax.metrics.protocols import to_uvd

GIF_FRAMES = 300
"""At most so many frames, evenly spaced, go into `animation.gif`."""

DECIDE_AFTER = 100
"""Frames with a hand after which `--hand=auto` decides."""

LINES = ("joints.jsonl", "predictions.txt")
"""What holds a line a frame: all that is known of it, and u, v and depth as the field exchanges
them (`metrics.files`), nan where there is no hand."""

PICTURES = "overlays"
"""Their folder, of which the PNG of an earlier recording are removed."""

PICTURE = 512
"""Edge of a picture in pixels, whatever the recording's resolution."""


@dataclass(frozen=True)
class Prediction:
    """What is known of one frame; lengths in mm, camera space of the frame as recorded.

    Attributes:
      joints: (J, 3).
      located: (3,), where the hand was found, or was said to be.
      centre: (3,), where the model's cube was placed: `located`, that moved by a network that
        refines it, or, in a second pass, the mean of the joints found first.
      inside: share of joints inside the hand, 0-1; the hand is segmented about `located`, which
        does not depend on the joints that are judged.
      inside_cube: the same, with the hand segmented about `centre`.
      seen_cm2: area of what is seen about `located` (`metrics.inside`).
      latency_ms: from the depth frame in memory to the joints in memory.
      view: the square of the frame that a picture shows: `depth`, `corner`, `camera`.
    """

    joints: Float[np.ndarray, "J 3"]
    located: Float[np.ndarray, " 3"]
    centre: Float[np.ndarray, " 3"]
    inside: float
    inside_cube: float
    seen_cm2: float
    latency_ms: float
    view: dict[str, np.ndarray]


class Writer:
    """Everything below `--out`; lines and pictures are on disk as soon as they are added.

    Nothing is made or replaced before `open`; lines added until then wait for it.
    """

    def __init__(
        self, out: Path, skeleton: Skeleton, camera: Float[np.ndarray, " 4"], pictures: bool = True
    ) -> None:
        self._out, self._skeleton, self._camera, self._draws = out, skeleton, camera, pictures
        self._pictures = out / PICTURES
        self._files: list[TextIO] = []
        self._waiting: list[tuple[str, ...]] = []
        self.drawn: list[Path] = []
        self.inside: list[float] = []
        self.inside_cube: list[float] = []
        self.seen: list[float] = []
        self.latency: list[float] = []
        self.distance: list[float] = []
        self.frames = 0

    def open(self) -> None:
        """Make the folder and begin its files anew; does nothing the second time.

        What an earlier recording left here goes: its pictures would pass for this one's.
        """
        if not self.opened:
            (self._pictures if self._draws else self._out).mkdir(parents=True, exist_ok=True)
            for old in (*self._pictures.glob("*.png"), self._out / "animation.gif"):
                old.unlink(missing_ok=True)
            (self._out / "summary.json").unlink(missing_ok=True)
            self._files = [(self._out / name).open("w") for name in LINES]
            for lines in self._waiting:
                self._write(*lines)
            self._waiting.clear()

    @property
    def opened(self) -> bool:
        """Whether `open` was called."""
        return bool(self._files)

    def add(self, name: str, found: Prediction | None) -> None:
        """One frame; None if it shows no hand."""
        line: dict[str, Any] = {"frame": name, "joints_mm": None, "centre_mm": None}
        line |= {"located_mm": None, "inside_hand": None, "seen_cm2": None, "latency_ms": None}
        uvd = np.full((len(self._skeleton), 3), np.nan)
        if found is not None:
            uvd = to_uvd(found.joints, self._camera)
            line["joints_mm"] = [[round(float(x), 3) for x in joint] for joint in found.joints]
            line["centre_mm"] = [round(float(x), 3) for x in found.centre]
            line["located_mm"] = [round(float(x), 3) for x in found.located]
            line["inside_hand"] = round(found.inside, 4)
            line["seen_cm2"] = round(found.seen_cm2, 1)
            line["latency_ms"] = round(found.latency_ms, 3)
            self.inside.append(found.inside)
            self.inside_cube.append(found.inside_cube)
            self.seen.append(found.seen_cm2)
            self.latency.append(found.latency_ms)
            self.distance.append(float(found.located[2]))
        self._write(json.dumps(line), row(uvd))
        self.frames += 1
        if found is not None and self._draws:
            stem = name.removesuffix(".png").removesuffix(".PNG")
            self._draw(self._pictures / f"{stem}.png", found)

    def close(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Write the summary and the animation; returns the summary."""
        for file in self._files:
            file.close()
        summary = {
            "frames": self.frames,
            "frames_without_hand": self.frames - len(self.inside),
            "inside_hand": _mean(self.inside),
            "inside_hand_about_cube": _mean(self.inside_cube),
            "frames_of_odd_size": sum(not HAND_CM2[0] < cm2 < HAND_CM2[1] for cm2 in self.seen),
            "latency_ms": _median(self.latency),
            "distance_mm": _median(self.distance),
            "joints": list(self._skeleton.joints),
            **extra,
        }
        write_atomic(self._out / "summary.json", json.dumps(summary, indent=2) + "\n")
        if len(self.drawn) > 1:
            self._animate()
        return summary

    def _write(self, *lines: str) -> None:
        """A frame's line in each of `LINES`."""
        if not self.opened:
            self._waiting.append(lines)
            return
        for file, line in zip(self._files, lines, strict=True):
            with naming(file.name):
                file.write(line + "\n")
                file.flush()

    def _draw(self, path: Path, found: Prediction) -> None:
        view = found.view
        picture = overlay(
            view["depth"], view["corner"], view["camera"], found.joints, self._skeleton,
            scale=PICTURE / len(view["depth"]), middle_mm=float(found.located[2]),
        )  # fmt: skip
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="png")
        with naming(path):
            path.write_bytes(buffer.getvalue())
        self.drawn.append(path)

    def _animate(self) -> None:
        every = -(-len(self.drawn) // GIF_FRAMES)
        first, *others = self.drawn[::every]

        def frame(path: Path) -> Image.Image:
            with Image.open(path) as picture:
                return picture.convert("P", palette=Image.Palette.ADAPTIVE)

        path = self._out / "animation.gif"
        with naming(path):
            # A generator: pictures of a long recording need not be in memory together.
            frame(first).save(
                path, save_all=True, append_images=(frame(p) for p in others),
                duration=66 * every, loop=0,
            )  # fmt: skip


class HandChoice:
    """Passes frames on to a writer, those of `--hand=auto` once it is known which hand they show.

    Attributes:
      hands: what frames are to be predicted as: those that are still possible.
      shares: where there was a choice, once it is made: the mean share of joints inside the hand
        as each.
    """

    def __init__(self, writer: Writer, hands: tuple[str, ...]) -> None:
        self.hands = hands
        self.shares: dict[str, float] = {}
        self._writer = writer
        self._waiting: list[tuple[str, dict[str, Prediction | None]]] = []

    def add(self, name: str, found: dict[str, Prediction | None]) -> None:
        """One frame as each of `hands`; None where it shows no hand."""
        if len(self.hands) == 1:
            self._writer.add(name, found[self.hands[0]])
            return
        self._waiting.append((name, found))
        if sum(any(each.values()) for _, each in self._waiting) == DECIDE_AFTER:
            self.decide()

    def decide(self) -> None:
        """Take the hand whose joints fit the depth better, unless that was done, and write."""
        if len(self.hands) > 1:
            for hand in self.hands:
                shares = [p.inside for _, found in self._waiting if (p := found[hand]) is not None]
                self.shares[hand] = _mean(shares) or 0.0
            self.hands = (max(self.hands, key=lambda hand: self.shares[hand]),)
        while self._waiting:  # Some may be left from a call that Ctrl-C ended.
            name, found = self._waiting.pop(0)
            self._writer.add(name, found[self.hands[0]])


def _median(values: list[float]) -> float | None:
    return sorted(values)[len(values) // 2] if values else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
