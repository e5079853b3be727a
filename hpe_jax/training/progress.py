"""What a run has measured since its last log line, and how long it will take."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import jax

from hpe_jax.errors import TrainingError
from hpe_jax.progress import time_left


class Window:
    """Sums of the metrics since the last log line; saved, so that a resume continues them."""

    def __init__(self, count: int = 0, sums: dict[str, float] | None = None) -> None:
        self._count = count
        self._sums = dict(sums or {})
        self.recent: dict[str, float] = {}

    def add(self, step: int, metrics: dict[str, Any], latest: int | None) -> None:
        """Fetch the metrics of update `step`; `latest` is the last checkpoint's step.

        Raises:
          TrainingError: the loss or the gradient is not finite.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(values[name]):
                kept = "no checkpoint yet" if latest is None else f"the last good one is {latest}"
                raise TrainingError(f"step {step + 1}: {name} is {values[name]} ({kept})")
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            young = 0.95 if name in self.recent else 0.0
            self.recent[name] = young * self.recent.get(name, 0.0) + (1 - young) * value

    def mean(self) -> dict[str, float]:
        """Averages since the last `clear`."""
        return {name: value / max(self._count, 1) for name, value in self._sums.items()}

    def clear(self) -> None:
        """Begin the next window."""
        self._count, self._sums = 0, {}

    def to_json(self) -> dict[str, Any]:
        """The arguments with which to make it again."""
        return {"count": self._count, "sums": self._sums}


class Clock:
    """Time spent, rate and time to go, of updates: compilation and tests count as spent, but not
    for these."""

    def __init__(self, batch: int, steps: int, start: int) -> None:
        self._batch, self._steps, self._start = batch, steps, start
        self._made = self._begun = time.monotonic()

    def begin(self) -> None:
        """The first update starts now."""
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No updates meanwhile."""
        before = time.monotonic()
        yield
        self._begun += time.monotonic() - before

    def seconds(self) -> float:
        """Since this object was made."""
        return time.monotonic() - self._made

    def text(self, done: int, metrics: dict[str, Any]) -> str:
        """Progress in one line."""
        spent = max(time.monotonic() - self._begun, 1e-9)
        rate = (done - self._start) / spent
        parts = [
            f"step {done:,}/{self._steps:,}",
            f"{rate * self._batch:.1f} examples/s",
            time_left((self._steps - done) / rate),
        ]
        if "loss" in metrics:
            parts.append(f"loss {metrics['loss']:.3g}")
        if "error_mm" in metrics:
            parts.append(f"error {metrics['error_mm']:.1f} mm")
        return ", ".join(parts)
