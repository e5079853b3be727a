"""Closed triangle meshes of the zero set of a function that was sampled on a grid: surface nets.

Every cell of the grid whose corners differ in sign holds one vertex, the mean of the places where
its edges cross zero; every crossed edge of the grid gives a quadrilateral between the four cells
around it (S. Gibson, "Constrained elastic surface nets", 1998). NumPy: meshes are built once.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def surface_nets(
    values: Float[np.ndarray, "X Y Z"], axes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """The surface between negative (inside) and other values.

    Args:
      values: samples at `(axes[0][i], axes[1][j], axes[2][k])`.
      axes: ascending coordinates of the grid's planes; they need not be evenly spaced.

    Returns:
      vertices, and faces that wind anticlockwise seen from outside in right-handed axes
      (`cross(b - a, c - a)` points out). Every edge is shared by an even number of faces.

    Raises:
      ValueError: something negative lies on the grid's boundary, where the surface would be open.
    """
    inside = values < 0
    hull = [np.take(inside, [0, -1], axis).any() for axis in range(3)]
    if any(hull):
        raise ValueError("the surface reaches the grid's boundary, expected room around it")
    cells = tuple(n - 1 for n in values.shape)
    total, count = np.zeros((*cells, 3)), np.zeros(cells)
    crossings = []
    for axis in range(3):
        low, high = (np.take(values, range(i, values.shape[axis] - 1 + i), axis) for i in (0, 1))
        crossed = (low < 0) != (high < 0)
        at = np.argwhere(crossed)
        part = (low / np.where(crossed, low - high, 1.0))[crossed]
        where = np.stack([axes[a][at[:, a]] for a in range(3)], -1)
        where[:, axis] += part * np.diff(axes[axis])[at[:, axis]]
        crossings.append((axis, at, low[crossed] < 0))
        # The edge belongs to the four cells around it.
        for back in _around(axis):
            cell = tuple((at - back).T)
            np.add.at(total, cell, where)
            np.add.at(count, cell, 1.0)
    used = count > 0
    number = np.full(cells, -1)
    number[used] = np.arange(used.sum())
    vertices = total[used] / count[used][:, None]
    faces = []
    for axis, at, outward in crossings:
        quad = np.stack([number[tuple((at - back).T)] for back in _around(axis)], -1)
        quad = np.where(outward[:, None], quad, quad[:, ::-1])
        # The shorter diagonal folds least.
        a, b, c, d = (vertices[quad[:, i]] for i in range(4))
        turn = ((a - c) ** 2).sum(-1) > ((b - d) ** 2).sum(-1)
        quad = np.where(turn[:, None], np.roll(quad, 1, 1), quad)
        faces += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]
    return vertices.astype(np.float32), np.concatenate(faces).astype(np.int32)


def _around(axis: int) -> np.ndarray:
    """How far back the four cells about an edge along `axis` lie, anticlockwise from its end."""
    steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])  # towards smaller indices
    out = np.zeros((4, 3), int)
    out[:, (axis + 1) % 3], out[:, (axis + 2) % 3] = steps[:, 0], steps[:, 1]
    return out


def edges(faces: Int[np.ndarray, "F 3"]) -> tuple[Int[np.ndarray, "E 2"], Int[np.ndarray, " E"]]:
    """The distinct edges of a mesh and how many faces share each."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, 1), axis=0, return_counts=True)
