"""What a run says while it works, and how it hears that it should stop."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter

from hpe_jax.atomic import write_atomic
from hpe_jax.errors import InputError, naming
from hpe_jax.progress import Status

log = logging.getLogger(__name__)


class Log:
    """Plain lines into `log.txt` and to standard output, progress as `progress.Status` has it.

    Warnings that the library logs meanwhile, such as skipped frames, become lines too. While it
    is open no other process can open the same one.
    """

    def __init__(self, path: Path) -> None:
        """Open it; InputError if another run has it open."""
        self._path = path
        with naming(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path):
            self._file = path.open("a", buffering=1)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(
                f"{path.parent}: another process is at work there, expected another folder"
            ) from error
        except OSError:
            pass  # Some network file systems have no locks.
        self._status = Status(self.line)
        self._hearing = _hearing(lambda text: self.line(f"warning: {text}"))

    def __enter__(self) -> Log:
        self._hearing.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hearing.__exit__(None, None, None)
        self._status.clear()
        with contextlib.suppress(OSError):  # `line` has raised it already.
            self._file.close()

    def line(self, text: str) -> None:
        """A line that stays."""
        with naming(self._path):
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._status.line(text)

    def status(self, text: str) -> None:
        """How far the work is (`progress.Status.show`)."""
        self._status.show(text)


@contextlib.contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """What the library warns of before there is a log."""
    heard: list[str] = []
    with _hearing(heard.append):
        yield heard


@contextlib.contextmanager
def _hearing(tell: Callable[[str], None]) -> Iterator[None]:
    """`tell` what the library warns of, and nobody else: other libraries print it once more."""
    library = logging.getLogger("hpe_jax")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: tell(record.getMessage())  # type: ignore[method-assign]
    before, library.propagate = library.propagate, False
    library.addHandler(handler)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.propagate = before


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
                    kept = row["step"] <= step
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # The process was killed while writing this line.
                if kept:
                    self.rows.append(row)
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def has(self, step: int, name: str) -> bool:
        """Whether figure `name` of `step` is known."""
        return any(row["step"] == step and name in row for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


class Board:
    """Scalars and pictures for TensorBoard; use as a context manager.

    They are written by a thread. When it dies (a full disk) the run is warned once and goes on
    without: it would wait for ever for a dead thread to take what it gives.

    Attributes:
      start: step at which the run resumes; what a killed one wrote of later ones does not count.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writer: SummaryWriter | None = None
        self._thread: threading.Thread | None = None
        self._dead = False
        self._reason = ""
        self.start = 0

    def __enter__(self) -> Board:
        self._hook, threading.excepthook = threading.excepthook, self._on_thread_error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What cannot be flushed should not hide the error that ends the run.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
            if self._alive() and self._writer is not None:
                with naming(self._directory):
                    self._writer.close()
        threading.excepthook = self._hook

    def _on_thread_error(self, args: threading.ExceptHookArgs) -> None:
        if args.thread is self._thread:
            self._reason = f" ({args.exc_value})"
        else:
            self._hook(args)

    def _alive(self) -> bool:
        if self._thread is not None and not self._thread.is_alive() and not self._dead:
            self._dead = True
            log.warning("%s: cannot be written any more%s", self._directory, self._reason)
        return not self._dead

    def _events(self) -> SummaryWriter:
        if self._writer is None:
            # The long queue leaves time to notice that nobody empties it.
            with naming(self._directory):
                self._writer = SummaryWriter(
                    str(self._directory), purge_step=self.start + 1, max_queue=10_000
                )
            events = self._writer.file_writer.event_writer
            self._thread = events._worker
            # Else the process, when it ends, waits for the queue to be emptied.
            events._event_queue.cancel_join_thread()
        return self._writer

    def scalars(self, step: int, values: dict[str, Any], group: str) -> None:
        """One curve for each number."""
        for name, value in values.items():
            if isinstance(value, (int, float)) and self._alive():
                self._events().add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, image: UInt8[np.ndarray, "H W 3"] | None, name: str) -> None:
        """An RGB picture, if there is one."""
        if image is not None and self._alive():
            self._events().add_image(name, image, step, dataformats="HWC")


class Stop:
    """Whether SIGTERM or SIGINT asked for an end; a second signal ends the process at once.

    Until `saved` is called, a signal only raises the flag `requested`, for the loop to save
    and `leave`; from then on everything is on disk, and a signal, even one that came during that
    save, ends the process: SIGTERM with status 0, SIGINT (Ctrl-C) by KeyboardInterrupt. After
    `resumed` signals wait for a save once more.
    """

    def __init__(self) -> None:
        self.requested = False
        self._saved = self._interrupted = False
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
        if self.requested:
            self._end()

    def resumed(self) -> None:
        """From here on something would be lost."""
        self._saved = False

    def leave(self) -> None:
        """After the save that a signal asked for: returns, but for Ctrl-C."""
        if self._interrupted:
            raise KeyboardInterrupt

    def _end(self) -> None:
        _say("stopping before the test is done; the same command does it")
        self.leave()
        raise SystemExit(0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested, self._interrupted = True, number == signal.SIGINT
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if self._saved:
            self._end()
        _say("stopping as soon as this step is saved; a second signal stops at once")


def _say(text: str) -> None:
    # Not print, which a signal may have interrupted.
    os.write(2, f"\n{text}\n".encode())
