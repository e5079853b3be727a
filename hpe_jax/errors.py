"""The two exceptions that commands turn into a single clear line and exit code 2."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """Input that cannot be used: the message names the file or key and what was expected."""


class TrainingError(RuntimeError):
    """A run that cannot go on: the message names the step and what is left intact."""


def one_line(error: Exception) -> str:
    """What a command prints for `error`: one line, which begins with the file's name if any."""
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror or error}"
    return " ".join(text.split())


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make every OSError name `path`: a write to an open file fails without a name."""
    try:
        yield
    except OSError as error:
        # Encoders of pictures raise an OSError of words alone.
        reason = (error.errno, error.strerror) if error.errno else (errno.EIO, str(error))
        raise OSError(*reason, str(path)) from error
