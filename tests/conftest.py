"""Shared by all tests: where real samples are, and where compiled functions are kept."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Kernels are compared to float32's last digits; accelerators multiply in fewer.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# Most of the time is spent compiling functions that run once or twice, twice as long if optimised.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# One cache for the session, before jax is imported: workers and the programs that tests start do
# not compile again what others have compiled, and nothing is left in the user's own.
if "PYTEST_XDIST_WORKER" not in os.environ:  # Workers inherit that of the process they serve.
    _CACHE = tempfile.mkdtemp(prefix="hpe_jax_tests_")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["HPE_JAX_CACHE"] = _CACHE
    # Also what compiles in a blink: functions that are not jitted have hundreds of such pieces.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of real samples; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("HPE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real samples: HPE_SHARED_DATA names no directory ({path})")
    return path
