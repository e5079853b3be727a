"""What long work says of itself: how much is done, how fast, and how long it will yet take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

EVERY_TERMINAL_S, EVERY_LINE_S = 0.2, 30.0
"""Least time between two texts of `Status`: on a terminal, and where they stay."""


def time_left(seconds: float) -> str:
    """As "H:MM:SS left"."""
    left = int(seconds)
    return f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


class Rate:
    """Frames done, how fast since the first look (compiling comes before), and how long yet."""

    def __init__(self, frames: int, done: int = 0) -> None:
        self.frames, self.done = frames, done
        self._first: tuple[int, float] | None = None

    def text(self, more: int = 0) -> str:
        """In words; `more` frames are done beside those that are counted."""
        done, now = self.done + more, time.monotonic()
        text = f"{done:,}/{self.frames:,} frames"
        first, begun = self._first = self._first or (done, now)
        if done == first:
            return text
        rate = (done - first) / max(now - begun, 1e-9)
        return f"{text}, {rate:.1f} frames/s, {time_left((self.frames - done) / rate)}"


class Status:
    """Lines on standard output: those that stay, and how far the work is.

    The latter replace each other on a terminal; elsewhere, as in a file that output goes to, one
    stays every half minute.
    """

    def __init__(self, keep: Callable[[str], None] | None = None) -> None:
        """`keep` is told what should stay, by default `line`."""
        self._keep = keep or self.line
        self._terminal = sys.stdout.isatty()
        self._shown = time.monotonic()

    def line(self, text: str) -> None:
        """A line that stays."""
        self._shown = time.monotonic()
        print(("\r\x1b[K" if self._terminal else "") + text, flush=True)

    def show(self, text: str) -> None:
        """How far the work is; may be said as often as one likes."""
        now = time.monotonic()
        if now - self._shown < (EVERY_TERMINAL_S if self._terminal else EVERY_LINE_S):
            return
        self._shown = now
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)
        else:
            self._keep(text)

    def clear(self) -> None:
        """Take the last `show` off a terminal."""
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)
