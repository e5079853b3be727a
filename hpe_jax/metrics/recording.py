"""What `predict` leaves behind for a recording: joints, a summary, pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.metrics.files import write_atomic
from hpe_jax.metrics.overlay import overlay

GIF_FRAMES = 300
"""At most so many frames, evenly spaced, go into `animation.gif`."""


@dataclass(frozen=True)
class Prediction:
    """What is known of one frame; lengths in mm, camera space of the frame as recorded.

    Attributes:
      joints: (J, 3).
      centre: (3,), where the model's cube was placed.
      inside: share of joints inside the hand, 0-1.
      latency_ms: from the depth frame in memory to the joints in memory.
      view: the patch that a picture shows: `depth`, `corner`, `camera`.
    """

    joints: Float[np.ndarray, "J 3"]
    centre: Float[np.ndarray, " 3"]
    inside: float
    latency_ms: float
    view: dict[str, np.ndarray]


class Writer:
    """Everything below `--out`; lines and pictures are on disk as soon as they are added."""

    def __init__(self, out: Path, skeleton: Skeleton) -> None:
        self._out, self._skeleton = out, skeleton
        self._pictures = out / "overlays"
        self._pictures.mkdir(parents=True, exist_ok=True)
        self._lines = (out / "joints.jsonl").open("w")
        self.drawn: list[Path] = []
        self.inside: list[float] = []
        self.latency: list[float] = []
        self.frames = 0

    def add(self, name: str, found: Prediction | None) -> None:
        """One frame; None if it shows no hand."""
        line: dict[str, Any] = {"frame": name, "joints_mm": None, "centre_mm": None}
        line |= {"inside_hand": None, "latency_ms": None}
        if found is not None:
            line["joints_mm"] = [[round(float(x), 3) for x in joint] for joint in found.joints]
            line["centre_mm"] = [round(float(x), 3) for x in found.centre]
            line["inside_hand"] = round(found.inside, 4)
            line["latency_ms"] = round(found.latency_ms, 3)
            self.inside.append(found.inside)
            self.latency.append(found.latency_ms)
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        self.frames += 1
        if found is not None:
            view = found.view
            picture = overlay(
                view["depth"], view["corner"], view["camera"], found.joints,
                self._skeleton,
            )  # fmt: skip
            stem = name.removesuffix(".png").removesuffix(".PNG")
            self.drawn.append(self._pictures / f"{stem}.png")
            Image.fromarray(picture).save(self.drawn[-1])

    def close(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Write the summary and the animation; returns the summary."""
        self._lines.close()
        latency = sorted(self.latency)
        summary = {
            "frames": self.frames,
            "frames_without_hand": self.frames - len(self.inside),
            "inside_hand": sum(self.inside) / len(self.inside) if self.inside else None,
            "latency_ms": latency[len(latency) // 2] if latency else None,
            "joints": list(self._skeleton.joints),
            **extra,
        }
        write_atomic(self._out / "summary.json", json.dumps(summary, indent=2) + "\n")
        if len(self.drawn) > 1:
            self._animate()
        return summary

    def _animate(self) -> None:
        every = -(-len(self.drawn) // GIF_FRAMES)
        first, *others = self.drawn[::every]

        def frame(path: Path) -> Image.Image:
            with Image.open(path) as picture:
                return picture.convert("P", palette=Image.Palette.ADAPTIVE)

        # A generator: pictures of a long recording need not be in memory together.
        frame(first).save(
            self._out / "animation.gif", save_all=True, append_images=(frame(p) for p in others),
            duration=66 * every, loop=0,
        )  # fmt: skip
