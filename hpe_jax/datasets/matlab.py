"""Variables of MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from hpe_jax.errors import InputError


def read_variables(path: Path, *names: str) -> list[Float[np.ndarray, "..."]]:
    """Arrays of numbers, float64, by their names.

    Raises:
      InputError: the file is missing or none, or lacks one of them.
    """
    from scipy.io import loadmat

    expected = " and ".join(names)
    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=names)
        arrays = [content[name] for name in names]
    except KeyError as error:
        raise InputError(
            f"{path}: expected the variable{'s' * (len(names) > 1)} {expected}"
        ) from error
    except Exception as error:  # scipy raises whatever the broken bytes lead it to
        raise InputError(
            f"{path}: unreadable, expected a MATLAB file with {expected} "
            f"({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from error
    for name, array in zip(names, arrays, strict=True):
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path}: {name} holds {array.dtype}, expected numbers")
    return [array.astype(np.float64) for array in arrays]
