"""What whole frames show behind the hand: a person and a wall.

Both are rough: they are there so that a detector has to tell a hand from a body, and so that the
nearest thing in the frame is still the hand, as in every data set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from hpe_jax.camera import patch_rays
from hpe_jax.synthetic import draws

EMPTY = 0.3  # share of frames from which the background was removed
TORSO_MM = (200.0, 320.0, 120.0)  # half axes of an ellipsoid; likewise the head
HEAD_MM = (80.0, 120.0, 100.0)
NECK_MM = 430.0  # from the middle of the torso up to that of the head


def background(
    key: PRNGKeyArray,
    hand: Float[Array, "3"],
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
    size: tuple[int, int],
) -> Float[Array, "H W"]:
    """Depth (mm, 0 = no reading) of a person and a wall further away than a hand.

    Args:
      key: one per frame.
      hand: (3,) mm, its middle.
      corner, camera, size: of the image, as for `render.render_depth`.
    """
    words = draws.bits(jax.random.split(key, 4), 6)
    u = draws.uniform(words[0])
    torso = hand + jnp.stack([500.0 * u[0] - 250.0, 350.0 * u[1] - 50.0, 300.0 + 450.0 * u[2]])
    head = torso + jnp.stack([60.0 * u[3] - 30.0, -NECK_MM, 60.0 * u[4] - 30.0])
    wide = 0.85 + 0.35 * u[5]
    rays = patch_rays(corner, camera, size)
    ray = jnp.concatenate([rays[..., :2], jnp.ones((*size, 1))], -1)
    wall = torso[2] + draws.uniform(words[1, 0], 250.0, 1500.0)
    tilt = jnp.append(draws.uniform(words[2, :2], -0.3, 0.3), 1.0)
    far = wall / jnp.maximum((ray * tilt).sum(-1), 0.2)
    person = jnp.minimum(
        _ellipsoid(ray, torso, wide * jnp.array(TORSO_MM)),
        _ellipsoid(ray, head, jnp.array(HEAD_MM)),
    )
    shown, walled = draws.uniform(words[3, :2])
    depth = jnp.minimum(person, jnp.where(walled < 0.6, far, jnp.inf))
    return jnp.where((shown > EMPTY) & jnp.isfinite(depth), depth, 0.0)


def put_behind(front: Float[Array, "H W"], back: Float[Array, "H W"]) -> Float[Array, "H W"]:
    """Two depth images of which the first hides the second."""
    return jnp.where(front > 0.0, front, back)


def _ellipsoid(
    ray: Float[Array, "H W 3"], middle: Float[Array, "3"], half: Float[Array, "3"]
) -> Float[Array, "H W"]:
    """Depth at which rays `t * (x, y, 1)` enter it; infinite where they pass by."""
    d, c = ray / half, middle / half
    dd, dc = (d * d).sum(-1), (d * c).sum(-1)
    inside = dc * dc - dd * ((c * c).sum() - 1.0)
    return jnp.where(inside > 0.0, (dc - jnp.sqrt(jnp.maximum(inside, 0.0))) / dd, jnp.inf)
