"""Files that are there whole or not at all, for every room that writes one."""

from __future__ import annotations

import os
from pathlib import Path

from hpe_jax.errors import naming


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file, or leave what was there (a full disk, a killed process).

    Raises:
      OSError: the file, which it names, could not be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path):
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
