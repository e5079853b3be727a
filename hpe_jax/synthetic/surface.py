"""The hand's skin as a sphere mesh: spheres, the cones that wrap two of them and the wedges
that wrap three.

Tapered fingers are chains of cones; the palm, the ball of the thumb and the webs between the
fingers are wedges. Everything is posed by moving sphere centres, so a surface costs 42
points. Radii are those of the template hand in `hand.kinematics` (mm).

How far the skin lies from the labels was compared with real depth: the palm's relief with NYU's
first test frame (the only labelled depth frame at hand), where the heel ends 5 mm above the
wrist's labels and the flesh stands 25-40 mm over their plane; the fingers' breadth with that
frame and with unlabelled Kinect v2 frames (19-24 mm). Figures on those frames are therefore no
independent test of the surface.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpe_jax.hand.kinematics import CMC, HandPoints, HandShape

# Radii at mcp, pip, dip, tip of little … index, and cmc, mcp, ip, tip of the thumb.
RADII = np.array(
    [
        [13.0, 10.4, 9.2, 8.0],
        [14.5, 11.4, 10.2, 8.8],
        [16.0, 11.8, 10.6, 9.2],
        [16.0, 11.8, 10.4, 9.0],
        [10.0, 13.6, 12.4, 10.2],
    ],
    np.float32,
)
TIP_INSET = 4.0  # mm: the last sphere's centre lies this far before the labelled tip
# Points of the palm (x, y, n) and their radii.
PALM = np.array(
    [
        [-18, 22, 13],  # 0 heel, ulnar side
        [17, 22, 12],  # 1 heel, radial side
        [-33, 38, 16],  # 2 hypothenar, near the wrist
        [-38, 62, 15],  # 3 hypothenar, near the little finger
        [30, 66, 11],  # 4 first web, on the index metacarpal
        [34, 36, 19],  # 5 ball of the thumb
        [2, 55, 8],  # 6 hollow of the hand
        [23, 28, 13],  # 7 scaphoid
    ],
    np.float32,
)
PALM_RADII = np.array([18.5, 18.5, 17.0, 16.0, 14.5, 18.5, 17.0, 18.5], np.float32)
WRIST = np.array([0.0, 15.0, 4.0], np.float32)  # where the hand turns on the forearm
FOREARM = np.array([0.0, 14.0, 60.0, 140.0, 260.0], np.float32)  # mm from the wrist
FOREARM_RADII = np.array([20.0, 20.5, 24.0, 32.0, 38.0], np.float32)
FOREARM_HALF_WIDTH = np.array([18.0, 12.0, 10.0, 9.0, 8.0], np.float32)

_F = np.arange(20).reshape(5, 4)  # spheres of the fingers
_P = 20 + np.arange(8)
_W = 28 + np.arange(4)  # webs between neighbouring fingers (3), and thumb to index (1)
_A = 32 + np.arange(10).reshape(5, 2)  # forearm, ulnar and radial


class Topology(NamedTuple):
    """Which spheres are wrapped: `cones` (C, 2) and `wedges` (T, 3), sphere indices."""

    cones: np.ndarray
    wedges: np.ndarray


WEDGES = np.array(
    [
        (_P[0], _P[2], _P[6]),
        (_P[0], _P[1], _P[6]),
        (_P[1], _P[7], _P[6]),
        (_P[2], _P[3], _P[6]),
        (_P[3], _F[0, 0], _P[6]),
        (_F[0, 0], _F[1, 0], _P[6]),
        (_F[1, 0], _F[2, 0], _P[6]),
        (_F[2, 0], _F[3, 0], _P[6]),
        (_F[3, 0], _P[4], _P[6]),
        (_P[4], _P[5], _P[6]),
        (_P[5], _P[7], _P[6]),
        (_P[4], _P[5], _F[4, 1]),
        (_P[4], _W[3], _F[4, 1]),
        (_F[0, 0], _F[1, 0], _W[0]),
        (_F[1, 0], _F[2, 0], _W[1]),
        (_F[2, 0], _F[3, 0], _W[2]),
    ]
)
FOREARM_WEDGES = np.array(
    [t for i in range(4) for t in ((_A[i, 0], _A[i, 1], _A[i + 1, 0]),
                                   (_A[i, 1], _A[i + 1, 0], _A[i + 1, 1]))]
    + [(_P[0], _P[1], _A[1, 0]), (_P[1], _A[1, 0], _A[1, 1])]
)  # fmt: skip


def _edges(wedges: np.ndarray) -> np.ndarray:
    """The distinct edges of triangles: each needs a cone, or seams would show as cracks."""
    pairs = np.sort(np.concatenate([wedges[:, [0, 1]], wedges[:, [1, 2]], wedges[:, [0, 2]]]), 1)
    return np.unique(pairs, axis=0)


_BONES = np.array([(_F[f, i], _F[f, i + 1]) for f in range(5) for i in range(3)])
HAND = Topology(np.unique(np.concatenate([_BONES, _edges(WEDGES)]), axis=0), WEDGES)
HAND_AND_FOREARM = Topology(
    np.unique(np.concatenate([HAND.cones, _edges(FOREARM_WEDGES)]), axis=0),
    np.concatenate([WEDGES, FOREARM_WEDGES]),
)


class SphereMesh(NamedTuple):
    """Sphere centres (S, 3) in the camera and radii (S,), mm; the topology is constant."""

    centres: Float[Array, "S 3"]
    radii: Float[Array, " S"]


def forearm_direction(wrist: Float[Array, "2"]) -> Float[Array, "3"]:
    """Unit vector from the wrist to the elbow in the palm frame.

    `wrist` is the hand's flexion (positive: the palm turns towards the inside of the forearm)
    and radial deviation, radians.
    """
    flex, deviate = wrist[0], wrist[1]
    return jnp.stack(
        [
            jnp.sin(deviate),
            -jnp.cos(deviate) * jnp.cos(flex),
            jnp.cos(deviate) * jnp.sin(flex),
        ]
    )


def hand_surface(
    points: HandPoints, shape: HandShape, wrist: Float[Array, "2"], forearm_mm: Float[Array, ""]
) -> SphereMesh:
    """Spheres of a posed hand with its forearm.

    Args:
      points: pivots in the camera.
      shape: the subject.
      wrist: as in `forearm_direction`.
      forearm_mm: visible length of the forearm.
    Returns:
      The sphere mesh in the camera, mm.
    """
    s, t = shape.scale, shape.scale * shape.thickness
    axes = points.palm_axes
    f = points.fingers
    last = f[:, 3] - f[:, 2]
    last_length = jnp.linalg.norm(last, axis=-1, keepdims=True)
    tip = f[:, 3] - last * jnp.minimum(TIP_INSET * s / last_length, 0.8)
    fingers = jnp.concatenate([f[:, :3], tip[:, None]], 1)
    palm_local = jnp.asarray(PALM) * shape.palm * s
    # The ball of the thumb moves with the thumb's metacarpal.
    cmc_rest = (CMC + np.array([18, 30, 3], np.float32)) * shape.palm * s
    palm = palm_local @ axes + points.origin
    meta = f[4, 0] + 0.45 * (f[4, 1] - f[4, 0])
    shift = meta - (cmc_rest @ axes + points.origin)
    palm = palm.at[5].add(0.6 * shift)
    webs = jnp.concatenate(
        [
            0.5 * (f[:3, 0] + f[1:4, 0]) + 0.16 * (f[:3, 1] - f[:3, 0] + f[1:4, 1] - f[1:4, 0]),
            (0.5 * palm[4] + 0.5 * (0.5 * f[4, 0] + 0.5 * f[4, 1]))[None],
        ]
    )
    web_radii = jnp.array([8.0, 8.5, 8.5, 9.0])

    # The forearm leaves the wrist against the palm's y, turned by the wrist's two angles.
    back = forearm_direction(wrist)
    deviate = wrist[1]
    side = jnp.stack([jnp.cos(deviate), jnp.sin(deviate), 0.0 * deviate])
    along = jnp.asarray(FOREARM / FOREARM[-1]) * forearm_mm
    wide = jnp.interp(along, FOREARM, FOREARM_HALF_WIDTH) * s
    middle = along[:, None] * back + WRIST * shape.palm * s
    arm = jnp.stack([middle - wide[:, None] * side, middle + wide[:, None] * side], 1)
    arm = arm.reshape(10, 3) @ axes + points.origin
    thick = jnp.linspace(shape.forearm[0], shape.forearm[1], 5)
    arm_radii = jnp.repeat(jnp.interp(along, FOREARM, FOREARM_RADII) * thick, 2)

    centres = jnp.concatenate([fingers.reshape(20, 3), palm, webs, arm])
    radii = jnp.concatenate(
        [jnp.asarray(RADII).reshape(20), jnp.asarray(PALM_RADII), web_radii, arm_radii]
    )
    return SphereMesh(centres, radii * t)
