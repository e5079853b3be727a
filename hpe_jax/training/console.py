"""What a run says while it works, and how it hears that it should stop."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from hpe_jax.metrics.files import write_atomic


class Log:
    """Plain lines into `log.txt` and to the terminal; a moving status line on terminals only."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._terminal = sys.stdout.isatty()
        self._shown = 0.0

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self, text: str) -> None:
        """A line that stays."""
        self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        print(("\r\x1b[K" if self._terminal else "") + text, flush=True)

    def status(self, text: str) -> None:
        """A line that the next one replaces, at most five a second."""
        if self._terminal and time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            print(f"\r\x1b[K{text}", end="", flush=True)


class History:
    """`history.jsonl`: one line of averages every few steps; a resumed run rewrites its tail."""

    def __init__(self, path: Path, step: int) -> None:
        """Keep what was written up to `step`, which is where the run resumes."""
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break  # The process was killed while writing this, its last, line.
                if row["step"] <= step:
                    self.rows.append(row)
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class Stop:
    """Whether SIGTERM or SIGINT asked for an end; a second signal ends the process at once.

    Until `saved` is called, a signal only raises the flag `requested`, for the loop to save
    and leave; from then on everything is on disk, and a signal exits with status 0.
    """

    def __init__(self) -> None:
        self.requested = False
        self._saved = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def saved(self) -> None:
        """From here on nothing would be lost."""
        self._saved = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._saved:
            raise SystemExit(0)
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
