"""How a command's process is set up before jax starts: kept compilations, huge pages."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_HUGE = "glibc.malloc.hugetlb"


def use_cache() -> None:
    """Keep compiled functions in HPE_JAX_CACHE, by default ~/.cache/hpe_jax; empty: nowhere."""
    import jax

    cache = os.environ.get("HPE_JAX_CACHE", str(Path.home() / ".cache" / "hpe_jax"))
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)


def huge_pages() -> None:
    """Start this command again, in this process, with huge pages for its arrays.

    On a CPU every step asks for the same hundreds of megabytes, and glibc returns them to the
    system each time, which then clears them anew: with huge pages 2 MB at once, not 4 kB. glibc
    reads this setting when a process starts, hence the second start; one that the caller's
    environment has already is left alone. Without glibc nothing happens.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] != "glibc" or _HUGE in tunables:
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_HUGE}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
