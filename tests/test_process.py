"""What a command sets up before jax starts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SPARED = """
import resource, sys, threading
import numpy as np
from hpe_jax.process import huge_pages

if sys.argv[1] == "huge":
    huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
worker = threading.Thread(target=lambda: np.empty(100 << 20, np.uint8).fill(1))  # as jax's are
worker.start()
worker.join()
print(sys.argv[2], resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def faults(mode, tunables):
    """How many page faults 100 MB cost."""
    out = subprocess.run(
        [sys.executable, "-c", SPARED, mode, "an argument"],
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", "GLIBC_TUNABLES": tunables},
        capture_output=True,
        text=True,
        check=True,
    )
    argument, _, count = out.stdout.rpartition(" ")
    assert argument == "an argument"
    return int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")
@pytest.mark.skipif(
    not SETTING.exists() or "[madvise]" not in SETTING.read_text(),
    reason="no huge pages for those who ask",
)
def test_arrays_lie_in_huge_pages():
    """A command starts again with its arguments; what the caller has set is left alone."""
    assert faults("huge", "") < 1000 < faults("plain", "")
    assert faults("huge", "glibc.malloc.perturb=0") < 1000
    assert faults("huge", "glibc.malloc.hugetlb=0") > 1000
