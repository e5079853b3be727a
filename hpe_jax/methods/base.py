"""What the training loop, evaluation and prediction know of a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.frames import Batch

Variables = dict[str, Any]
"""`{"params": ..., "batch_stats": ...}`: nested plain dicts of arrays."""

Metrics = dict[str, Array]

READING = ("decode", "top_k", "candidates", "kernel_mm", "iterations", "weighted")
"""Fields of methods' configs that change how a model's maps are read, not how it is trained: no
other field of any method may have one of these names."""


@dataclass(frozen=True)
class Method:
    """A pose estimator as pure functions.

    Attributes:
      init: key -> variables.
      loss: (variables, batch, key) -> (scalar, (metrics, new_state)), where `new_state`
        holds every collection of the variables but "params", and `metrics` are scalars, of which
        progress and plots show "loss" and, where there is one, "error_mm". The scalar is a mean
        over the batch's examples (`accumulate` averages those of its parts); joints that are not
        `joint_valid` stand at the centre, and are for the loss to leave out.
      predict: (variables, batch) -> joints (B, J, 3), mm in camera space.
      measure: of a stage that estimates no joints (its `predict` raises InputError):
        (variables, batch) -> figures of every frame, (B,) each, by which it is tested instead.
      flat: whether joints are estimated in the image alone, their z being a constant of the frame.
    """

    init: Callable[[Array], Variables]
    loss: Callable[[Variables, Batch, Array], tuple[Array, tuple[Metrics, Variables]]]
    predict: Callable[[Variables, Batch], Float[Array, "B J 3"]]
    measure: Callable[[Variables, Batch], Metrics] | None = None
    flat: bool = False


def mean_error(
    found: Float[Array, "B J N"], true: Float[Array, "B J N"], valid: Float[Array, "B J"]
) -> Float[Array, ""]:
    """Mean distance over the joints whose `valid` is not 0: what training reports as it goes."""
    apart = jnp.linalg.norm(found - true, axis=-1)
    return jnp.sum(jnp.where(valid > 0, apart, 0.0)) / jnp.maximum(jnp.sum(valid), 1.0)
