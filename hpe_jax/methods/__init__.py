"""Pose estimators, one file a paper. `METHODS[name](config.method, skeleton)` makes one."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.methods import centre, dense_regression, detector, hand3d, hourglass3d, v2v
from hpe_jax.methods.base import Method

METHODS: dict[str, Callable[[ConfigDict, Skeleton], Method]] = {
    "v2v": v2v.make,
    "hourglass3d": hourglass3d.make,
    "dense_regression": dense_regression.make,
    "centre": centre.make,
    "detector": detector.make,
    "hand3d": hand3d.make,
}
