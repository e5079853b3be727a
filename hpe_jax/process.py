"""How a command's process is set up before jax starts: kept compilations, kept memory."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

# Of mallopt(3), in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def use_cache() -> None:
    """Keep compiled functions in HPE_JAX_CACHE, by default ~/.cache/hpe_jax; empty: nowhere."""
    import jax

    cache = os.environ.get("HPE_JAX_CACHE", str(Path.home() / ".cache" / "hpe_jax"))
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)


def keep_memory() -> None:
    """Let freed memory stay with the process; call it before the first computation.

    On a CPU every step asks for the same hundreds of megabytes, and glibc returns them to the
    system each time, which then clears every page anew. Training steps take about a fifth
    less time with one heap that is never trimmed. Without glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_ARENA_MAX, 1)  # Other threads' heaps are too small for such buffers.
    for option, size in (
        (_MMAP_THRESHOLD, 1 << 30),
        (_TRIM_THRESHOLD, (1 << 31) - 1),
        (_TOP_PAD, 1 << 28),
    ):
        mallopt(option, size)
