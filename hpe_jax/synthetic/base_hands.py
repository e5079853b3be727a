"""Five hands to hang on bones, extracted from the analytic hand when they are first asked for.

X. Deng et al., "Hand3D", 2017, section 3.3 and figure 6(a), use five hands of a commercial
programme. These five are this project's own: each is the zero set of the signed distance of
`synthetic.surface`'s hand with its proportions, in a rest pose in which no two fingers touch, with
skin weights from the distances to the flesh about each bone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hpe_jax.hand.kinematics import HandPoints, HandShape, palm_points
from hpe_jax.synthetic import bones
from hpe_jax.synthetic.distance import Nearest, nearest_sphere, signed_distance
from hpe_jax.synthetic.isosurface import edges, surface_nets
from hpe_jax.synthetic.mesh import (
    REST_FINGERS,
    REST_FOREARM_MM,
    REST_THUMB,
    REST_WRIST,
    HandMesh,
)
from hpe_jax.synthetic.surface import HAND_AND_FOREARM, SphereMesh, Topology, hand_surface

# Of the grid, on a hand of scale one; along the forearm little changes.
CELL_MM, FOREARM_CELL_MM = 5.0, 11.0
BONES_A_VERTEX = 4
# Vertices stand off the surface by this share of how far the triangles about them sag into it, so
# that both are as far away on average.
LIFT = 0.6
BALL_FOLLOWS = 0.6  # of the thumb's metacarpal, as in `surface.hand_surface`
_BALL = 25  # its sphere
_PIECE = 16384  # points that are asked for their distance at once


def _base(scale: float, palm: tuple, fingers: tuple, thickness: float) -> HandShape:
    # NumPy's, so that importing this touches no accelerator.
    values = (scale, palm, fingers, thickness, (1.0, 1.0))
    arrays: list[Any] = [np.asarray(v, np.float32) for v in values]
    return HandShape(*arrays)


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


@cache
def stacked_base_hands() -> HandMesh:
    """All base hands in the order of `BASE_HANDS`, stacked along a leading axis. Not for `jit`.

    So that examples of one batch may choose theirs, `jax.tree.map(lambda x: x[i], …)`.
    Vertices and faces of the smaller meshes are filled up with some that are never drawn: one
    vertex in the wrist, and triangles without area.
    """
    with jax.default_matmul_precision("highest"):  # accelerators would take fewer bits
        hands = [base_hand(name) for name in BASE_HANDS]
    vertices = max(len(hand.core) for hand in hands)
    faces = max(len(hand.faces) for hand in hands)

    def fill(array: Array, length: int) -> Array:
        return jnp.asarray(np.pad(array, ((0, length - len(array)), (0, 0))))

    filled = [
        hand._replace(
            core=fill(hand.core, vertices),
            offset=fill(hand.offset, vertices),
            weights=fill(hand.weights, vertices),
            faces=fill(hand.faces, faces),
        )
        for hand in hands
    ]
    return jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *filled)


def hand_mesh(shape: HandShape) -> HandMesh:
    """Extract the mesh of a hand with its forearm; the same for the same `shape`. Not for `jit`."""
    mesh, rest = _at_rest(shape)
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
    vertices = vertices + LIFT * _sagging(vertices, faces, mesh)[:, None] * _unit(vertices - core)
    near = _ask(_part_distances, vertices, mesh)
    return HandMesh(
        core=jnp.asarray(core),
        offset=jnp.asarray(vertices - core),
        weights=jnp.asarray(_weights(near, faces)),
        faces=jnp.asarray(faces),
        rest=rest,
        shape=shape,
    )


@jax.jit
def _at_rest(shape: HandShape) -> tuple[SphereMesh, Float[Array, "17 4 4"]]:
    """The surface in the rest pose, and the frames of its bones."""
    angles = [jnp.asarray(a) for a in (REST_FINGERS, REST_THUMB, REST_WRIST)]
    points = HandPoints(palm_points(shape, *angles[:2]), jnp.eye(3), jnp.zeros(3))
    mesh = hand_surface(points, shape, angles[2], jnp.float32(REST_FOREARM_MM))
    return mesh, bones.bone_frames(shape, *angles)


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
def _part_distances(points: Array, mesh: SphereMesh) -> Float[Array, "V 18"]:
    """To the flesh that moves with each bone, and last to the ball of the thumb; what lies
    between two of them belongs to none."""
    fingers = np.arange(20).reshape(5, 4)

    def within(spheres: list[int]) -> Topology:
        return Topology(*(p[np.isin(p, spheres).all(1)] for p in HAND_AND_FOREARM))

    single = np.stack([fingers[:, :-1], fingers[:, 1:]], -1).reshape(15, 1, 2)
    none = np.zeros((0, 3), int)
    palm = within([*fingers[:, 0].tolist(), *(i for i in range(20, 28) if i != _BALL)])
    return jnp.concatenate(
        [
            signed_distance(points, mesh, palm)[None],
            jax.vmap(lambda ends: signed_distance(points, mesh, Topology(ends, none)))(single),
            signed_distance(points, mesh, within(list(range(32, 42))))[None],
            (jnp.linalg.norm(points - mesh.centres[_BALL], axis=-1) - mesh.radii[_BALL])[None],
        ]
    ).T


def _sagging(vertices: np.ndarray, faces: np.ndarray, mesh: SphereMesh) -> np.ndarray:
    """How far (V,) the middles of the triangles about a vertex lie inside the surface, mm."""
    inside = -_ask(_nearest, vertices[faces].mean(1), mesh).distance
    total = np.bincount(faces.ravel(), np.repeat(inside, 3))
    return total / np.bincount(faces.ravel())


def _weights(
    near: Float[np.ndarray, "V 18"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 17"]:
    """Skin follows the bones whose flesh is near, smoothed over the mesh."""
    weights = _share(1.0 / (np.maximum(near, 0.0) + 0.5) ** 3)
    weights, ball = weights[:, :-1], weights[:, -1]
    weights[:, bones.bone(4, 0)] += BALL_FOLLOWS * ball
    weights[:, bones.PALM] += (1.0 - BALL_FOLLOWS) * ball
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
