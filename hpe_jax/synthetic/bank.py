"""Poses that real hands took, as another source of synthetic ones than `poses.sample_fingers`.

`launch.joints_to_angles --axes=template` turns the joints of a data set into such a bank.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hpe_jax.errors import InputError
from hpe_jax.hand.kinematics import FINGER_LIMITS, THUMB_LIMITS
from hpe_jax.hand.solve import UNREACHABLE

# How far the angles of a frame are from those of its pose (standard deviation).
VARIED = np.radians(4.0).astype(np.float32)
# Fingers that touch on one hand lie in one another on a plumper one: from candidate to candidate
# fingers unbend by this share of their flexion and the thumb rises from the palm by this much.
UNBEND = 0.03
RISE = np.radians(4.0).astype(np.float32)
_SHAPES = {"fingers": (4, 4), "thumb": (5,)}


class PoseBank(NamedTuple):
    """N poses, in the angles of `hand.kinematics.HandPose` (radians).

    Attributes:
      fingers: (N, 4, 4).
      thumb: (N, 5).
    """

    fingers: Float[Array, "N 4 4"]
    thumb: Float[Array, "N 5"]


def read_bank(paths: str) -> PoseBank:
    """The poses of one or several files, one after the other.

    Args:
      paths: of `angles.npz` files of `launch.joints_to_angles --axes=template`, with commas
        between them. Frames without a pose (NaN), or whose joints it does not reach, are left out.
    Raises:
      InputError: a file that cannot be read, is none of these, or has no pose.
    """
    banks = [_read(path.strip()) for path in paths.split(",")]
    return PoseBank(*(jnp.asarray(np.concatenate(arrays)) for arrays in zip(*banks, strict=True)))


# What files that are empty, damaged or something else make NumPy raise.
_DAMAGED = (
    *(ValueError, KeyError, TypeError, AttributeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


def _read(path: str) -> list[np.ndarray]:
    expected = "expected angles.npz of `launch.joints_to_angles --axes=template`"
    try:
        with np.load(path) as file:
            arrays = [np.asarray(file[name], np.float32) for name in _SHAPES]
            off = np.asarray(file["error_mm"], np.float32)
            axes = str(file["axes"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read, {expected}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: {expected}") from error
    if axes != "template":
        raise InputError(f"{path}: holds angles about the axes of one subject's hand, {expected}")
    count = arrays[0].shape[:1]
    shapes = [count + s for s in _SHAPES.values()]
    if off.shape[:1] != count or [a.shape for a in arrays] != shapes:
        raise InputError(f"{path}: arrays of other shapes, {expected}")
    kept = np.all([np.isfinite(a.reshape(len(a), -1)).all(1) for a in arrays], 0)
    kept &= np.nan_to_num(off.reshape(len(off), -1)).max(1) <= UNREACHABLE
    if not kept.any():
        raise InputError(f"{path}: no frame has a pose, {expected}")
    return [a[kept] for a in arrays]


def draw_poses(
    bank: PoseBank, key: PRNGKeyArray, candidates: int
) -> tuple[Float[Array, "K 4 4"], Float[Array, "K 5"]]:
    """Variants of one pose of the bank, within the joint limits, each more open than the last.

    All are of one pose: the first of several that is free of overlap would seldom be a fist.

    Args:
      bank: the poses; every one is as likely.
      key: of one frame.
      candidates: K.
    Returns:
      angles of the fingers and of the thumb.
    """
    k = jax.random.split(key, 3)
    row = jax.random.randint(k[0], (), 0, bank.fingers.shape[0])
    step = jnp.arange(candidates, dtype=jnp.float32)
    bend = 1.0 - UNBEND * step
    fingers = bank.fingers[row] + VARIED * jax.random.normal(k[1], (candidates, 4, 4))
    flexions = jnp.array([0, 2, 3])
    fingers = fingers.at[..., flexions].multiply(bend[:, None, None])
    thumb = bank.thumb[row] + VARIED * jax.random.normal(k[2], (candidates, 5))
    thumb = thumb.at[:, 3:].multiply(bend[:, None]).at[:, 1].add(RISE * step)
    return (
        jnp.clip(fingers, FINGER_LIMITS[:, 0], FINGER_LIMITS[:, 1]),
        jnp.clip(thumb, THUMB_LIMITS[:, 0], THUMB_LIMITS[:, 1]),
    )
