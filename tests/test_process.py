"""What a command sets up before jax starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

REUSE = """
import resource, sys, threading
import numpy as np
from hpe_jax.process import keep_memory

def fill():
    np.empty(100 << 20, np.uint8).fill(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    worker = threading.Thread(target=fill)
    worker.start()
    worker.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    keep_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
def test_freed_memory_is_used_again():
    """The second buffer of 100 MB costs a page fault per page, unless the first one was kept."""
    counts = {}
    for mode in ("keep", "plain"):
        out = subprocess.run(
            [sys.executable, "-c", REUSE, mode],
            # Huge pages would hide what each small one costs.
            env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", "GLIBC_TUNABLES": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        counts[mode] = int(out.stdout)
    assert counts["keep"] < 1000 < counts["plain"]
