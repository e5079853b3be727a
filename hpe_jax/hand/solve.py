"""Frames of joints, with gaps and faults as they come, to poses: what can be solved is solved.

A frame that cannot be solved keeps NaN and a reason and touches no other frame; one whose joints
no pose reaches keeps the nearest pose and a remark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hpe_jax.errors import InputError
from hpe_jax.hand.guess import State
from hpe_jax.hand.inverse import labels_of_frames, least_squares, track
from hpe_jax.hand.kinematics import HandPose
from hpe_jax.hand.markers import Subject
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.hand.swarm import swarm

Solver = Literal["lm", "track", "swarm"]
# Frames solved at once: enough to fill a processor, few enough to show progress.
CHUNK = 256
MIN_JOINTS = 6
# Root joints nearer to a line than this (sine) do not tell where the palm looks.
MIN_SPREAD = 0.05
# A joint that stays this far from the nearest pose, mm, is worth a remark.
UNREACHABLE = 20.0
_poses = jax.jit(jax.vmap(State.pose))


@dataclass(frozen=True)
class Solution:
    """Poses of N frames.

    Attributes:
      pose: with a leading axis N; NaN where a frame could not be solved.
      joints: (N, J, 3), the labels of these poses, mm.
      error: (N, J), mm; NaN where there is no pose or no joint.
      problems: why a frame has no pose, by frame.
      remarks: what is odd about a frame that has one, by frame.
    """

    pose: HandPose
    joints: Float[np.ndarray, "N J 3"]
    error: Float[np.ndarray, "N J"]
    problems: dict[int, str] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)

    @property
    def solved(self) -> np.ndarray:
        """(N,), which frames have a pose."""
        return np.isfinite(np.asarray(self.pose.position)).all(-1)


def missing_joints(
    joints: Float[np.ndarray, "N J 3"], subject: Subject, skeleton: str
) -> dict[int, str]:
    """The frames that lack joints without which no pose can be found, and which these are."""
    names = SKELETONS[skeleton].joints
    valid = np.isfinite(joints).all(-1)
    root = [int(r) for r in np.asarray(subject.markers.root) if r >= 0]
    problems = {}
    for i in np.flatnonzero(~valid[:, root].all(1) | (valid.sum(1) < MIN_JOINTS)):
        absent = [names[r] for r in root if not valid[i, r]]
        if absent:
            problems[int(i)] = f"no {', '.join(absent)}, expected all joints of the root: " + (
                ", ".join(names[r] for r in root)
            )
        else:
            problems[int(i)] = f"{valid[i].sum()} joints, expected at least {MIN_JOINTS}"
    return problems


def _solve(
    solver: Solver, subject: Subject, joints: np.ndarray, valid: np.ndarray, first: int
) -> tuple[State, np.ndarray]:
    """A chunk, filled up with copies of its last frame so that one compilation serves all."""
    count = len(joints)
    gap = [(0, -count % CHUNK if count > CHUNK or first else 0)]
    joints = np.pad(joints, [*gap, (0, 0), (0, 0)], mode="edge")
    valid = np.pad(valid, [*gap, (0, 0)], mode="edge")
    if solver == "swarm":
        key = jax.random.fold_in(jax.random.key(0), first)
        state, spread = swarm(key, subject, joints, valid)
    else:
        state, spread = least_squares(subject, joints, valid)
    return jax.tree.map(lambda a: np.asarray(a[:count]), state), np.asarray(spread[:count])


def frames_to_poses(
    subject: Subject,
    joints: Float[np.ndarray, "N J 3"],
    skeleton: str,
    *,
    solver: Solver = "lm",
    progress: Callable[[int], None] = lambda done: None,
) -> Solution:
    """Inverse kinematics of a file's frames.

    Args:
      subject: of all frames (`subject.measure`).
      joints: camera, mm; NaN where a joint is missing.
      skeleton: key into `SKELETONS`.
      solver: "lm", each frame on its own; "track", the same from the frame before; "swarm".
      progress: called with the number of frames done, now and then.

    Raises:
      InputError: another number of joints than the skeleton's.
    """
    joints = np.asarray(joints, np.float32)
    expected = len(SKELETONS[skeleton])
    if joints.ndim != 3 or joints.shape[1:] != (expected, 3):
        raise InputError(f"joints of shape {joints.shape}, expected (frames, {expected}, 3)")
    problems = missing_joints(joints, subject, skeleton)
    valid = np.isfinite(joints).all(-1)
    filled = np.where(valid[..., None], joints, 0).astype(np.float32)
    states, spreads = [], []
    with jax.default_matmul_precision("highest"):  # accelerators would take fewer bits
        if solver == "track":
            # Where the palm looks decides what is usable, before anything is begun from it.
            spread = np.asarray(least_squares(subject, filled, valid, iterations=0)[1])
            usable = (spread > MIN_SPREAD) & ~np.isin(np.arange(len(joints)), list(problems))
            state = track(subject, filled, valid, usable)
            states, spreads = [jax.tree.map(np.asarray, state)], [spread]
            progress(len(joints))
        else:
            for first in range(0, len(joints), CHUNK):
                part = slice(first, first + CHUNK)
                state, spread = _solve(solver, subject, filled[part], valid[part], first)
                states.append(state)
                spreads.append(spread)
                progress(min(first + CHUNK, len(joints)))
    state = jax.tree.map(lambda *parts: np.concatenate(parts), *states)
    spread = np.concatenate(spreads)
    names = SKELETONS[skeleton].joints
    root = ", ".join(names[int(r)] for r in np.asarray(subject.markers.root) if r >= 0)
    for i in np.flatnonzero(~(spread > MIN_SPREAD)):
        problems.setdefault(int(i), f"{root} lie on a line, expected them to span the palm")
    with jax.default_matmul_precision("highest"):
        return _solution(subject, state, joints, valid, problems, names)


def _solution(
    subject: Subject,
    state: State,
    joints: np.ndarray,
    valid: np.ndarray,
    problems: dict[int, str],
    names: tuple[str, ...],
) -> Solution:
    lost = np.isin(np.arange(len(joints)), list(problems))
    # Products of many small steps: rotations again to the last digit.
    u, _, vt = np.linalg.svd(np.where(lost[:, None, None], np.eye(3), state.rotation))
    state = state._replace(rotation=jnp.asarray(u @ vt, jnp.float32))
    state = jax.tree.map(
        lambda a: np.where(lost.reshape(-1, *[1] * (a.ndim - 1)), np.nan, np.asarray(a)), state
    )
    found = np.asarray(labels_of_frames(subject, state))
    error = np.where(valid, np.linalg.norm(found - joints, axis=-1), np.nan)
    error[lost] = np.nan
    remarks = {}
    for i in np.flatnonzero(np.nan_to_num(error).max(1) > UNREACHABLE):
        worst = int(np.nanargmax(error[i]))
        remarks[int(i)] = (
            f"out of reach: {names[worst]} is {error[i, worst]:.1f} mm from the nearest pose "
            f"found, expected at most {UNREACHABLE:g} mm"
        )
    pose = _poses(jax.tree.map(jnp.asarray, state))
    return Solution(pose, found, error, dict(sorted(problems.items())), remarks)
