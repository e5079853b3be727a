"""Skinned hands: triangle meshes that follow the bones by linear blend skinning.

X. Deng et al., "Hand3D", 2017, section 3.3 and supplement B.2, transfer poses to five hands of a
commercial programme. These five are this project's own: each is the zero set of the signed
distance of `synthetic.surface`'s hand with its proportions, extracted once in an open, slightly
bent rest pose in which no two fingers touch.

A vertex is kept as the centre of the sphere that the surface belongs to there, `core`, and the
way from it to the skin, `offset`. Other proportions stretch the cores with their bones and swell
the offsets, so that bone lengths, the palm's width and thickness change independently, and one
mesh serves every `HandShape` near its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hpe_jax.hand.kinematics import HandPoints, HandPose, HandShape, palm_points
from hpe_jax.synthetic import bones
from hpe_jax.synthetic.distance import Nearest, nearest_sphere, signed_distance
from hpe_jax.synthetic.isosurface import edges, surface_nets
from hpe_jax.synthetic.surface import (
    FOREARM,
    FOREARM_RADII,
    HAND_AND_FOREARM,
    SphereMesh,
    Topology,
    hand_surface,
)

# The rest pose: bent half as far as fingers seldom pass on the other side, and spread.
REST_FINGERS = np.radians([[20, a, 25, 15] for a in (-22, -8, 5, 19)]).astype(np.float32)
REST_THUMB = np.radians([45, 10, 25, 8, 8]).astype(np.float32)
REST_WRIST = np.zeros(2, np.float32)
REST_FOREARM_MM = float(FOREARM[-1])
# Of the grid, on a hand of scale one; along the forearm little changes.
CELL_MM, FOREARM_CELL_MM = 5.0, 11.0
BONES_A_VERTEX = 4
_PIECE = 16384


class HandMesh(NamedTuple):
    """A hand in its rest pose, in the palm frame (mm).

    Attributes:
      core: (V, 3), centres of the spheres under the skin.
      offset: (V, 3), from there to the skin.
      weights: (V, 17), of the bones of `synthetic.bones`: at most four a vertex, summing to one.
      faces: (F, 3), anticlockwise seen from outside.
      rest: (17, 4, 4), frames of the bones.
      shape: the proportions that it was extracted with.
    """

    core: Float[Array, "V 3"]
    offset: Float[Array, "V 3"]
    weights: Float[Array, "V 17"]
    faces: Int[Array, "F 3"]
    rest: Float[Array, "17 4 4"]
    shape: HandShape


def _base(scale: float, palm: tuple, fingers: tuple, thickness: float) -> HandShape:
    values = (scale, palm, fingers, thickness, (1.0, 1.0))
    return HandShape(*(jnp.asarray(v, jnp.float32) for v in values))


# Five hands of different build, in the spirit of figure 6(a) of Hand3D. Sizes are relative to a
# hand of 215 mm from the wrist to the tip of the middle finger.
BASE_HANDS = {
    # 189 mm, the middle of adults.
    "average": _base(0.88, (1.0, 1.0, 1.0), (1.0,) * 5, 1.0),
    # A large hand with a wide palm and short, thick fingers.
    "broad": _base(0.98, (1.09, 1.0, 1.05), (0.94,) * 5, 1.13),
    # A small adult's: narrow and thin.
    "slight": _base(0.80, (0.93, 1.0, 0.95), (1.02,) * 5, 0.9),
    # Long fingers on a narrow palm, the little finger and the thumb not as much.
    "long": _base(0.9, (0.94, 0.97, 1.0), (1.05, 1.09, 1.09, 1.09, 1.04), 0.92),
    # A child's, at the lower end of what training sees: short fingers, plump for their length.
    "child": _base(0.74, (1.03, 0.96, 1.06), (0.92, 0.94, 0.94, 0.94, 0.93), 1.1),
}


@cache
def base_hand(name: str) -> HandMesh:
    """The mesh of a base hand, built at first use (about a second) and kept. Not for `jit`.

    Raises:
      KeyError: not one of `BASE_HANDS`.
    """
    return hand_mesh(BASE_HANDS[name])


def hand_mesh(shape: HandShape) -> HandMesh:
    """Extract the mesh of a hand with its forearm; the same for the same `shape`. Not for `jit`."""
    angles = [jnp.asarray(a) for a in (REST_FINGERS, REST_THUMB, REST_WRIST)]
    points = HandPoints(palm_points(shape, *angles[:2]), jnp.eye(3), jnp.zeros(3))
    mesh = hand_surface(points, shape, angles[2], jnp.float32(REST_FOREARM_MM))
    cell = CELL_MM * float(shape.scale)
    axes = _grid(mesh, cell, FOREARM_CELL_MM * float(shape.scale))
    corners = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    distance = _ask(_nearest, corners.reshape(-1, 3), mesh).distance
    start, faces = surface_nets(distance.reshape(corners.shape[:3]), axes)
    vertices = start
    for _ in range(4):
        found = _ask(_nearest, vertices, mesh)
        step = found.distance[:, None] * _unit(vertices - found.centre)
        # Onto the surface, but not past neighbours in the creases between parts.
        vertices = start + np.clip(vertices - step - start, -cell / 2, cell / 2)
    core = _ask(_nearest, vertices, mesh).centre
    rest = bones.bone_frames(shape, *angles)
    near = _ask(_part_distances, vertices, mesh)
    return HandMesh(
        core=jnp.asarray(core),
        offset=jnp.asarray(vertices - core),
        weights=jnp.asarray(_weights(near, faces)),
        faces=jnp.asarray(faces),
        rest=rest,
        shape=shape,
    )


def posed_vertices(
    mesh: HandMesh, shape: HandShape, pose: HandPose, forearm_mm: Float[Array, ""]
) -> Float[Array, "V 3"]:
    """The vertices of a hand of any proportions in a pose, in the camera, mm.

    Where `shape` is the mesh's own they are the rest pose's, skinned. Otherwise, lengths follow the
    bones, widths `scale` and the palm's factors, flesh `thickness`; the surface is then no longer
    quite that of `surface.hand_surface` (a forearm that is shown short is too narrow by some mm).

    Args:
      mesh: of a base hand.
      shape: the subject.
      pose: angles and place.
      forearm_mm: visible length of the forearm.
    """
    own = mesh.shape
    size = shape.scale / own.scale
    longer = jnp.repeat(shape.fingers / own.fingers, 3)
    one = jnp.ones(15)
    visible = forearm_mm / REST_FOREARM_MM
    stretch = jnp.concatenate(
        [
            (size * shape.palm / own.palm)[None],
            size * jnp.stack([one, longer, one], -1),
            jnp.stack([size, visible, size])[None],
        ]
    )
    frames = bones.bone_frames(shape, pose.fingers, pose.thumb, pose.wrist)
    local = jnp.linalg.inv(mesh.rest)
    scaled = frames * jnp.append(stretch, jnp.ones((bones.BONES, 1)), -1)[:, None]
    core = skin(mesh.core, mesh.weights, scaled @ local)
    turn = jnp.einsum("vb,bij->vij", mesh.weights, (frames @ local)[:, :3, :3])
    offset = jnp.einsum("vij,vj->vi", turn, mesh.offset)
    swell = size * shape.thickness / own.thickness
    # The forearm is as thick as what it shows of its length, whatever its `stretch`.
    arm = local[bones.FOREARM]
    height = jnp.clip(-(mesh.core @ arm[1, :3] + arm[1, 3]), 0.0, REST_FOREARM_MM)

    def thick(shown: Array | float, factors: Array) -> Array:
        along = height / REST_FOREARM_MM
        wide = jnp.interp(along * shown, FOREARM, FOREARM_RADII)
        rows = jnp.linspace(factors[0], factors[1], len(FOREARM))
        return wide * jnp.interp(height, FOREARM, rows)

    ratio = thick(forearm_mm, shape.forearm) / thick(REST_FOREARM_MM, own.forearm)
    swell = swell * (1.0 + mesh.weights[:, bones.FOREARM] * (ratio - 1.0))
    return (core + swell[:, None] * offset) @ pose.rotation.T + pose.position


def skin(
    vertices: Float[Array, "V 3"],
    weights: Float[Array, "V B"],
    transforms: Float[Array, "B 4 4"],
) -> Float[Array, "V 3"]:
    """Linear blend skinning: every vertex moved by the weighted mean of its bones' transforms.

    Args:
      vertices: in the rest pose.
      weights: of the bones, summing to one.
      transforms: from the rest pose to the pose, that is posed frame @ inverse(rest frame).
    """
    blend = jnp.einsum("vb,bij->vij", weights, transforms[:, :3])
    return jnp.einsum("vij,vj->vi", blend[:, :, :3], vertices) + blend[:, :, 3]


def _grid(
    mesh: SphereMesh, cell: float, forearm_cell: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes around everything, further apart along the forearm."""
    c, r = np.asarray(mesh.centres), np.asarray(mesh.radii)[:, None]
    low, high = (c - r).min(0) - 2 * forearm_cell, (c + r).max(0) + 3 * cell
    x, y, z = (np.arange(low[i], high[i], cell) for i in range(3))
    arm = np.arange(low[1], -5 * cell, forearm_cell)
    return x, np.concatenate([arm, np.arange(arm[-1] + cell, high[1], cell)]), z


def _ask(function: Any, points: np.ndarray, mesh: SphereMesh) -> Any:
    """A jitted function of many points in pieces of one size, so that it is compiled once."""
    pieces = -(-len(points) // _PIECE)
    filled = np.zeros((pieces * _PIECE, 3), np.float32)
    filled[: len(points)] = points
    found = [jax.device_get(function(p, mesh)) for p in np.split(filled, pieces)]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(points)], *found)


@jax.jit
def _nearest(points: Array, mesh: SphereMesh) -> Nearest:
    return nearest_sphere(points, mesh, HAND_AND_FOREARM)


@jax.jit
def _part_distances(points: Array, mesh: SphereMesh) -> Float[Array, "V 17"]:
    """To the flesh that moves with each bone; what lies between two belongs to none."""
    fingers = np.arange(20).reshape(5, 4)

    def within(spheres: list[int]) -> Topology:
        return Topology(*(p[np.isin(p, spheres).all(1)] for p in HAND_AND_FOREARM))

    palm = within([*fingers[:, 0], *range(20, 28)])
    single = np.stack([fingers[:, :-1], fingers[:, 1:]], -1).reshape(15, 1, 2)
    none = np.zeros((0, 3), int)
    return jnp.concatenate(
        [
            signed_distance(points, mesh, palm)[None],
            jax.vmap(lambda ends: signed_distance(points, mesh, Topology(ends, none)))(single),
            signed_distance(points, mesh, within(list(range(32, 42))))[None],
        ]
    ).T


def _weights(
    near: Float[np.ndarray, "V 17"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 17"]:
    """Skin follows the bones whose flesh is near, smoothed over the mesh."""
    weights = _share(1.0 / (np.maximum(near, 0.0) + 0.5) ** 3)
    pairs, _ = edges(faces)
    degree = np.bincount(pairs.ravel())[:, None]
    for _ in range(2):
        total = np.zeros_like(weights)
        for a, b in (pairs.T, pairs.T[::-1]):
            np.add.at(total, a, weights[b])
        weights = 0.5 * (weights + total / degree)
    return _share(weights)


def _share(weights: np.ndarray) -> np.ndarray:
    """The largest few, without traces, summing to one."""
    least = np.sort(weights, -1)[:, -BONES_A_VERTEX, None]
    kept = np.where((weights >= least) & (weights > 0.03 * weights.sum(-1)[:, None]), weights, 0.0)
    return kept / kept.sum(-1, keepdims=True)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6)
