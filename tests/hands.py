"""Hands for tests: subjects and their random poses, drawn alike so that all share a compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax.hand.kinematics import HandPose, HandShape
from hpe_jax.hand.markers import Subject, observe
from hpe_jax.synthetic import poses

AT_ONCE = 8

subject_shape = jax.jit(poses.sample_shape, static_argnums=(1, 2))


@jax.jit
def _draw(keys, shape, view):
    return jax.vmap(lambda key: poses.sample_hand(key, shape, view))(keys)


def draw(keys, shape: HandShape, view: str) -> tuple[HandPose, jax.Array, jax.Array]:
    """`poses.sample_hand` for each key."""
    padded = keys[jnp.arange(-(-len(keys) // AT_ONCE) * AT_ONCE) % len(keys)]
    pieces = [_draw(k, shape, poses.VIEWS[view]) for k in padded.reshape(-1, AT_ONCE)]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts)[: len(keys)], *pieces)
    return jax.tree.map(jnp.asarray, joined)


@jax.jit
def _observe(subject: Subject, pose: HandPose):
    return jax.vmap(lambda p: observe(subject, p))(pose)


def observed(subject: Subject, pose: HandPose) -> np.ndarray:
    """(N, J, 3) labels of a subject in N poses."""
    return np.array(_observe(subject, pose))
