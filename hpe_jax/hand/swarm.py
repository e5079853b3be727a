"""Inverse kinematics by particle swarm (Deng et al. 2017, section 3.3 and supplement B.1).

As in the paper the cost is the mean distance of joints (equation 1), the root stays where the
palm's joints put it while the swarms fly, and angles never leave their limits. With the root fixed
the cost is a sum over fingers of disjoint angles, so every finger flies a swarm of its own: five
searches of four or five dimensions instead of one of 21. Unlike the paper, where the root stays
there for good, it is then put once more onto all labels of the hand found, and the swarms fly again
(`ROUNDS`): a few labels place it badly, ICVL's above all, which lie on the fingers.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from hpe_jax.hand.guess import (
    FINGER_OF_ANGLE,
    State,
    by_finger,
    first_guess,
    in_palm,
)
from hpe_jax.hand.inverse import centred
from hpe_jax.hand.markers import Subject
from hpe_jax.hand.transforms import LIMITS

PARTICLES = 32
ITERATIONS = 48
ROUNDS = 2
# Clerc and Kennedy's constriction: inertia, pull to a particle's and to the swarm's best.
INERTIA, OWN, COMMON = 0.7298, 1.4962, 1.4962
# The first particles stand about the nearest typical pose, with this deviation (radians).
SPREAD = 0.25


def fly(
    key: PRNGKeyArray,
    subject: Subject,
    seen: Float[Array, "J 3"],
    valid: Bool[Array, " J"],
    start: Float[Array, "21"],
    particles: int,
    iterations: int,
) -> Float[Array, "21"]:
    """The best angles of one frame.

    Args:
      key: decides where the particles start and how they fly.
      subject: bones and labels.
      seen: joints in the palm frame, mm.
      valid: which joints count.
      start: angles of the first particle.
      particles: of each finger's swarm.
      iterations: how often each is moved.
    """
    low, high = LIMITS[:, 0], LIMITS[:, 1]
    finger = jnp.asarray(FINGER_OF_ANGLE)

    def costs(angles: Array) -> Array:
        local = jax.vmap(lambda a: in_palm(subject, a))(angles)
        apart = jnp.sqrt(((local - seen) ** 2).sum(-1)) * valid
        return by_finger(apart, subject.markers.bone)

    k = jax.random.split(key, 3)
    near = start + SPREAD * jax.random.normal(k[0], (particles // 2, 21))
    far = jax.random.uniform(k[1], (particles - particles // 2, 21), minval=low, maxval=high)
    place = jnp.clip(jnp.concatenate([near.at[0].set(start), far]), low, high)
    speed = jnp.zeros_like(place)
    best, cost = place, costs(place)

    def body(i: Array | int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        place, speed, best, cost = carry
        leader = best[cost.argmin(0)[finger], jnp.arange(21)]
        own, common = jax.random.uniform(jax.random.fold_in(k[2], i), (2, *place.shape))
        pull = OWN * own * (best - place) + COMMON * common * (leader - place)
        speed = jnp.clip(INERTIA * speed + pull, 0.25 * (low - high), 0.25 * (high - low))
        wanted = place + speed
        place = jnp.clip(wanted, low, high)
        speed = jnp.where(wanted == place, speed, 0.0)
        new = costs(place)
        better = (new < cost)[:, finger]
        return place, speed, jnp.where(better, place, best), jnp.minimum(new, cost)

    _, _, best, cost = jax.lax.fori_loop(0, iterations, body, (place, speed, best, cost))
    return best[cost.argmin(0)[finger], jnp.arange(21)]


def aligned(
    local: Float[Array, "J 3"], joints: Float[Array, "J 3"], valid: Bool[Array, " J"]
) -> tuple[Float[Array, "3 3"], Float[Array, "3"]]:
    """The rotation and shift that bring `local` nearest to `joints` (Kabsch), in mm."""
    weight = valid / jnp.maximum(valid.sum(), 1)
    a, b = weight @ local, weight @ joints
    u, _, vt = jnp.linalg.svd(((local - a) * weight[:, None]).T @ (joints - b))
    sign = jnp.sign(jnp.linalg.det(u @ vt))
    rotation = (u * jnp.stack([jnp.ones(()), jnp.ones(()), sign])) @ vt
    return rotation.T, b - a @ rotation


@partial(jax.jit, static_argnames=("particles", "iterations", "rounds"))
def swarm(
    key: PRNGKeyArray,
    subject: Subject,
    joints: Float[Array, "N J 3"],
    valid: Bool[Array, "N J"],
    *,
    particles: int = PARTICLES,
    iterations: int = ITERATIONS,
    rounds: int = ROUNDS,
) -> tuple[State, Float[Array, " N"]]:
    """Poses of frames that have nothing to do with each other.

    Args:
      key: frame i uses `fold_in(key, i)`.
      subject: bones and labels.
      joints: camera, mm; anything where not valid.
      valid: which joints count.
      particles: a finger.
      iterations: of each round.
      rounds: 1 is the paper's; each further one first aligns the hand found to all joints.
    Returns:
      a state with a leading axis N, and the spread of each frame's root joints (`root_frame`).
    """
    near, middle = centred(joints, valid)

    def one(i: Array, joints: Array, valid: Array) -> tuple[State, Array]:
        (angles, rotation, position), spread = first_guess(subject, joints, valid)
        seen = (joints - position) @ rotation
        own = jax.random.fold_in(key, i)
        for turn in range(rounds):
            if turn:
                rotation, position = aligned(in_palm(subject, angles), joints, valid)
                seen = (joints - position) @ rotation
            own = jax.random.fold_in(own, turn)
            angles = fly(own, subject, seen, valid, angles, particles, iterations)
        return State(angles, rotation, position), spread

    state, spread = jax.vmap(one)(jnp.arange(len(near)), near, valid)
    return state._replace(position=state.position + middle), spread
