"""Shared by all tests: where real samples are, and which checks run at import."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Directory of real samples; tests that need it are skipped where it is absent."""
    path = Path(os.environ.get("HPE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real samples: HPE_SHARED_DATA names no directory ({path})")
    return path
