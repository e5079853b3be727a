"""Iso-surfaces: closed, on the surface, outward, of the right volume and genus."""

import numpy as np
import pytest

from hpe_jax.synthetic.isosurface import edges, surface_nets

AXES = (np.arange(-30, 31, 3.0), np.arange(-33, 34, 2.0), np.r_[-31:0:4, 0:31:2.5])


def sample(function):
    return function(np.stack(np.meshgrid(*AXES, indexing="ij"), -1))


def sphere(p, middle=(1.3, -0.4, 0.7), radius=20.0):
    return np.linalg.norm(p - np.array(middle), axis=-1) - radius


def torus(p):
    return np.hypot(np.hypot(p[..., 0], p[..., 1]) - 16.0, p[..., 2]) - 7.3


def volume(vertices, faces):
    a, b, c = (vertices[faces[:, i]].astype(float) for i in range(3))
    return (a * np.cross(b, c)).sum() / 6


@pytest.mark.parametrize(
    ("function", "size", "euler"),
    [(sphere, 4 / 3 * np.pi * 20**3, 2), (torus, 2 * np.pi**2 * 16 * 7.3**2, 0)],
)
def test_closed_outward_and_where_it_should_be(function, size, euler):
    vertices, faces = surface_nets(sample(function), AXES)
    pairs, shared = edges(faces)
    assert (shared == 2).all()
    assert len(vertices) - len(pairs) + len(faces) == euler
    assert len(np.unique(faces)) == len(vertices)
    assert np.abs(function(vertices)).max() < 0.8
    assert volume(vertices, faces) == pytest.approx(size, rel=0.06)  # positive: outward


def test_two_parts_and_twice_the_same():
    both = sample(lambda p: np.minimum(sphere(p, (-17, 0, 0), 9), sphere(p, (17, 3, 0), 8)))
    vertices, faces = surface_nets(both, AXES)
    pairs, shared = edges(faces)
    assert (shared == 2).all() and len(vertices) - len(pairs) + len(faces) == 4
    again = surface_nets(both, AXES)
    np.testing.assert_array_equal(vertices, again[0])
    np.testing.assert_array_equal(faces, again[1])


def test_a_surface_that_leaves_the_grid_is_an_error():
    with pytest.raises(ValueError, match="room around it"):
        surface_nets(sample(lambda p: sphere(p, (20, 0, 0))), AXES)
