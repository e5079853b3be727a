"""What a run says while it works, and how it hears that it should stop."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from hpe_jax.metrics.files import write_atomic


class Log:
    """Plain lines into `log.txt` and to the terminal; a moving status line on terminals only.

    Warnings that the library logs meanwhile, such as skipped frames, become lines too.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._terminal = sys.stdout.isatty()
        self._shown = 0.0
        self._warnings = logging.Handler(logging.WARNING)
        self._warnings.emit = (  # type: ignore[method-assign]
            lambda record: self.line(f"warning: {record.getMessage()}")
        )

    def __enter__(self) -> Log:
        logging.getLogger("hpe_jax").addHandler(self._warnings)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("hpe_jax").removeHandler(self._warnings)
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


class Board:
    """Scalars and pictures for TensorBoard; use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            # What cannot be flushed (a full disk) should not hide the error that ends the run.
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                self._writer.close()

    def _at(self, step: int) -> SummaryWriter:
        if self._writer is None:
            # What a killed run wrote from here on no longer counts.
            self._writer = SummaryWriter(str(self._directory), purge_step=step)
        return self._writer

    def scalars(self, step: int, values: dict[str, Any], group: str) -> None:
        """One curve for each number."""
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._at(step).add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, image: UInt8[np.ndarray, "H W 3"], name: str) -> None:
        """An RGB picture."""
        self._at(step).add_image(name, image, step, dataformats="HWC")


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
