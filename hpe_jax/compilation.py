"""Where compiled functions are kept, so that a second start of a command is quick."""

from __future__ import annotations

import os
from pathlib import Path


def use_cache() -> None:
    """Keep them in HPE_JAX_CACHE, by default ~/.cache/hpe_jax; an empty HPE_JAX_CACHE: nowhere."""
    import jax

    cache = os.environ.get("HPE_JAX_CACHE", str(Path.home() / ".cache" / "hpe_jax"))
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
