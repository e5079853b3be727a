"""Measure a subject's hand on the joints of a data set.

Bone lengths are the mean over the frames where a data set labels both ends of a bone (MSRA15,
BigHand, FreiHAND), but for slips of the labels. Everything else - knuckles in the palm, the tilt of
the axes they bend about, where labels sit on bones, and the lengths of bones whose ends are not
labelled - is what fits all frames best in the sense of least squares, together with their poses (a
block-arrow system: the poses are eliminated, the hand's normal equations remain). What the labels
do not tell stays at an adult hand of the right size; of ICVL, whose labels are middles of bones,
lengths stay near it. Millimetres.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hpe_jax.errors import InputError
from hpe_jax.hand.guess import FINGER_OF_BONE, State
from hpe_jax.hand.inverse import (
    held,
    labels_of,
    labels_of_frames,
    least_squares,
    limits,
    linearised,
    moved,
    residuals,
    rotation_step,
)
from hpe_jax.hand.kinematics import HandShape
from hpe_jax.hand.markers import Subject, subject_of
from hpe_jax.hand.skeletons import FINGERS, SKELETONS

Basis = Literal["own", "template"]
FRAMES = 256
ROUNDS = 30
# How far a hand may be from the template before it costs as much as a millimetre at one label
# of one frame: knuckles and labels (mm), axes (radians), lengths (mm). What is fixed may not move.
_BASE, _AXES, _LENGTH, _LABEL, _FIXED = 15.0, 0.3, 15.0, 10.0, 1e-4
# The same (mm) for a hand whose labels are the middles of bones (ICVL): two bones that they
# hardly tell apart would else lie anywhere along the finger.
_MIDDLES = 0.3
# Slips of the labels are not measured: bones this many times longer or shorter than their median,
# and frames with a joint so far from the template's pose, mm or times the median frame's.
_SLIP, _SLIP_MM, _SLIP_TIMES = 1.5, 40.0, 3.0
# A bone this many times longer or shorter than the template's is nobody's.
_STRANGE = 4.0


def _unit() -> HandShape:
    """The adult hand of `kinematics`."""
    return HandShape(jnp.float32(1), jnp.ones(3), jnp.ones(5), jnp.float32(1), jnp.ones(2))


def mean_lengths(joints: Float[np.ndarray, "N J 3"], skeleton: str) -> Float[np.ndarray, "5 3"]:
    """Mean lengths of the phalanges over a data set, as in `transforms.Bones` (mm).

    Returns:
      NaN for bones of which the data set does not label both ends.
    """
    names = SKELETONS[skeleton].joints
    out = np.full((5, 3), np.nan)
    if skeleton in ("nyu", "nyu36", "icvl"):  # Their labels are not pivots.
        return out
    for f, finger in enumerate(FINGERS):
        parts = ("cmc", "mcp", "ip", "tip") if f == 4 else ("mcp", "pip", "dip", "tip")
        at = [names.index(f"{finger}_{part}") for part in parts]
        lengths = np.linalg.norm(np.diff(joints[:, at], axis=1), axis=-1)
        median = np.nanmedian(lengths, 0)
        slip = (lengths > _SLIP * median) | (lengths < median / _SLIP)
        out[f] = np.nanmean(np.where(slip, np.nan, lengths), 0)
    return out


def template(joints: Float[np.ndarray, "N J 3"], skeleton: str) -> Subject:
    """The adult hand of `kinematics`, in the size of the root joints, with mean bone lengths."""
    unit = _unit()
    adult = subject_of(unit, skeleton)
    at = np.asarray(adult.markers.root)
    at = at[at >= 0]
    straight = State(jnp.zeros(21), jnp.eye(3), jnp.zeros(3))
    rest = np.asarray(jax.jit(labels_of)(adult, straight))[at]

    def size(points: np.ndarray) -> Any:
        return np.sqrt(((points - points.mean(-2, keepdims=True)) ** 2).sum((-2, -1)))

    scale = jnp.float32(np.nanmedian(size(joints[:, at])) / size(rest))
    shape = unit._replace(scale=scale)
    bones, markers = subject_of(shape, skeleton)
    known = mean_lengths(joints, skeleton)
    # The thumb's first pivot lies deeper in the palm than its first label.
    known[4, 0] = np.nan
    lengths = jnp.where(np.isnan(known), bones.lengths, np.nan_to_num(known))
    return Subject(bones._replace(lengths=lengths), markers)


def _changed(subject: Subject, x: Float[Array, " S"]) -> Subject:
    """The subject after a change of base (15), axes (15), lengths (15) and offsets (3 J)."""
    bones, markers = subject
    base, turn, lengths = (x[15 * i : 15 * (i + 1)].reshape(5, 3) for i in range(3))
    bones = bones._replace(
        base=bones.base + base,
        frame=bones.frame @ jax.vmap(rotation_step)(turn),
        lengths=bones.lengths + lengths,
    )
    return Subject(bones, markers._replace(offset=markers.offset + x[45:].reshape(-1, 3)))


def _reach(start: Subject, skeleton: str, axes: Basis) -> Float[np.ndarray, " S"]:
    """How far each of the hand's numbers may go from the template (standard deviations)."""
    base, turns = np.full((5, 3), _BASE), np.full((5, 3), _AXES)
    if axes == "template":
        # What the thumb's angles mean depends on where its first bone begins, too: labels leave
        # that open, and trackers' hands put it anywhere between the wrist and the joint.
        base[4], turns[:] = _FIXED, _FIXED
    names = SKELETONS[skeleton].joints
    pivots = skeleton not in ("nyu", "nyu36", "icvl")
    middles = skeleton == "icvl"
    length, label = (_MIDDLES, _MIDDLES) if middles else (_LENGTH, _LABEL)
    lengths = np.full((5, 3), _FIXED if pivots else length)
    lengths[4, 0] = length
    offsets = np.full((len(names), 3), _FIXED)
    on_palm = FINGER_OF_BONE[np.asarray(start.markers.bone)] < 0
    for j, name in enumerate(names):
        # Tips end their bones, but ICVL's, and the labels of the palm are the palm frame, but for
        # NYU's 36, whose template is rougher, and where a wrist that is elsewhere would turn the
        # axes.
        rough = skeleton == "nyu36" or axes == "template"
        loose = rough if on_palm[j] else not pivots and (middles or not name.endswith("tip"))
        if loose or name == "thumb_cmc":
            offsets[j] = label
    return np.concatenate([base.ravel(), turns.ravel(), lengths.ravel(), offsets.ravel()]).astype(
        np.float32
    )


@partial(jax.jit, static_argnames=("rounds",))
def _fit(
    subject: Subject,
    state: State,
    joints: Float[Array, "N J 3"],
    valid: Bool[Array, "N J"],
    reach: Float[Array, " S"],
    rounds: int,
) -> tuple[Subject, State]:
    """Levenberg-Marquardt over the poses and the hand."""
    low, high = limits(21)
    size = reach.shape[0]
    origin = jnp.zeros(size)

    def difference(x: Array, state: State, joints: Array, valid: Array) -> Array:
        return residuals(_changed(subject, x), state, joints, valid)

    def cost(x: Array, state: State) -> Array:
        r = jax.vmap(lambda s, j, v: difference(x, s, j, v))(state, joints, valid)
        return (r * r).sum() + ((x / reach) ** 2).sum()

    def blocks(x: Array, state: State, joints: Array, valid: Array) -> tuple[Array, ...]:
        r, own = linearised(_changed(subject, x), state, joints, valid)
        hand = jax.jacfwd(lambda d: difference(x + d, state, joints, valid))(origin)
        slope = own.T @ r
        free = jnp.where(held(state, slope, low, high), 0.0, 1.0)
        own = own * free
        return own.T @ own, own.T @ hand, hand.T @ hand, slope * free, hand.T @ r, free

    def body(_: Array | int, carry: tuple[Array, State, Array, Array]) -> tuple:
        x, state, damping, now = carry
        pp, ps, ss, gp, gs, free = jax.vmap(partial(blocks, x))(state, joints, valid)
        diagonal = jnp.diagonal(pp, axis1=1, axis2=2) * damping + (1 - free) + 1e-6
        factor = jnp.linalg.cholesky(pp + jax.vmap(jnp.diag)(diagonal))

        def against(right: Array) -> Array:
            return jax.scipy.linalg.cho_solve((factor, True), right)

        inner = against(jnp.concatenate([ps, gp[..., None]], -1))
        total = ss.sum(0) + jnp.diag(reach**-2.0)
        reduced = total - jnp.einsum("nps,npt->st", ps, inner[..., :-1])
        right = gs.sum(0) + x / reach**2 - jnp.einsum("nps,np->s", ps, inner[..., -1])
        # Scaled to a unit diagonal: what is fixed weighs 1e8 times what is not.
        unit = jax.lax.rsqrt(jnp.diagonal(total))
        matrix = reduced * unit * unit[:, None] + (damping + 1e-6) * jnp.eye(size)
        step = -unit * jnp.linalg.solve(matrix, right * unit)
        moves = -(inner[..., -1] + jnp.einsum("nps,s->np", inner[..., :-1], step)) * free
        tried = jax.vmap(moved)(state, moves)
        tried = tried._replace(angles=jnp.clip(tried.angles, low, high))
        then = cost(x + step, tried)
        better = then < now
        kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), (x + step, tried), (x, state))
        damping = jnp.clip(damping * jnp.where(better, 0.2, 5.0), 1e-6, 1e4)
        return (*kept, damping, jnp.where(better, then, now))

    begin = (origin, state, jnp.float32(1e-2), cost(origin, state))
    x, state, _, _ = jax.lax.fori_loop(0, rounds, body, begin)
    return _changed(subject, x), state


def measure(
    joints: Float[np.ndarray, "N J 3"],
    skeleton: str,
    *,
    frames: int = FRAMES,
    bones: Basis = "own",
    axes: Basis = "own",
) -> Subject:
    """The subject of a sequence or data set.

    Args:
      joints: camera, mm; NaN where a joint is missing. One person, a right hand.
      skeleton: key into `SKELETONS`.
      frames: how many of them, evenly spread, the least squares look at; mean lengths use all.
      bones: "own", those that fit all frames best; or "template", an adult's in the size of the
        root joints (`template`, axes included): joints that are centimetres off say no more.
      axes: "own", knuckles tilted as these labels say, which fits them best; or "template", axes
        and the thumb's base of every hand made from a `HandShape`, so that angles found with the
        subject are the same pose on any of those.

    Raises:
      InputError: no frame has all of its joints and a palm that is not a line, or the bones that
        fit the frames best are no hand's.
    """
    joints = np.asarray(joints, np.float32)
    nothing = InputError(
        f"{len(joints)} frames of joints: expected at least one with all {joints.shape[1]} "
        "joints whose root joints are not on a line, to measure the hand on"
    )
    whole = np.flatnonzero(np.isfinite(joints).all((1, 2)))
    if not len(whole):
        raise nothing
    start = template(joints, skeleton)
    if bones == "template":
        return start
    some = joints[whole[np.linspace(0, len(whole) - 1, min(frames, len(whole))).astype(int)]]
    valid = np.ones(some.shape[:2], bool)
    with jax.default_matmul_precision("highest"):  # accelerators would take fewer bits
        state, spread = least_squares(start, some, valid)
        found = np.asarray(labels_of_frames(start, state))
    usable = np.asarray(spread) > 0.05
    if not usable.any():
        raise nothing
    worst = np.linalg.norm(found - some, axis=-1).max(1)
    usable &= worst < max(_SLIP_MM, _SLIP_TIMES * float(np.median(worst[usable])))
    some, valid = some[usable], valid[usable]
    state = jax.tree.map(lambda a: a[usable], state)
    middle = jnp.asarray(some.mean(1))
    state = state._replace(position=state.position - middle)
    near = jnp.asarray(some) - middle[:, None]
    reach = jnp.asarray(_reach(start, skeleton, axes))
    with jax.default_matmul_precision("highest"):
        subject = _fit(start, state, near, valid, reach, ROUNDS)[0]
    adult = subject_of(_unit(), skeleton).bones
    usual = np.asarray(adult.lengths * (start.bones.base[0, 1] / adult.base[0, 1]))
    own = np.asarray(subject.bones.lengths)
    strange = ~((own < _STRANGE * usual) & (own > usual / _STRANGE))
    if strange.any():
        f = int(np.argmax(strange.any(1)))
        raise InputError(
            f"the bones of the {FINGERS[f]} measure {', '.join(f'{v:.0f}' for v in own[f])} mm, "
            f"expected about {', '.join(f'{v:.0f}' for v in usual[f])} mm for a hand of this size: "
            "joints of one hand, in the data set's order, units and format, in poses that "
            "differ; elsewhere --bones=template"
        )
    return subject
