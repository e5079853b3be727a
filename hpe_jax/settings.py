"""Configs as JSON beside what was made with them: written, read again and compared."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hpe_jax.errors import InputError


def to_json(config: ConfigDict) -> dict[str, Any]:
    """The config as JSON would give it back."""
    return json.loads(json.dumps(config.to_dict()))


def read_json(path: Path) -> dict[str, Any]:
    """A config or figures that training wrote; InputError if the file holds no JSON object."""
    try:
        tree = json.loads(path.read_text())
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: not a JSON object, expected what training wrote")
    return tree


def from_json(tree: dict[str, Any]) -> ConfigDict:
    """The inverse of `to_json`; JSON's lists were tuples."""

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(tree))


def differences(
    there: dict[str, Any], here: dict[str, Any], free: Collection[str] = ()
) -> list[str]:
    """The first few keys, but the free ones, that differ, as text; names, which decide what else
    there is, come first."""
    a, b = flatten(there, "."), flatten(here, ".")
    ordered = sorted(a | b, key=lambda k: (not k.endswith(".name"), k))
    keys = [k for k in ordered if k not in free and a.get(k) != b.get(k)]
    return [f"{k} is {_shown(a, k)} there, {_shown(b, k)} here" for k in keys[:3]]


def _shown(tree: dict[str, Any], key: str) -> str:
    """A value as it is to be read: an empty string in quotes."""
    return "absent" if key not in tree else str(tree[key]) or "''"


def flatten(tree: Any, separator: str = "/") -> dict[str, Any]:
    """Leaves of nested dicts by their path; whatever is no dict is a leaf."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            for below, leaf in flatten(value, separator).items():
                out[f"{key}{separator}{below}"] = leaf
        else:
            out[key] = value
    return out
