"""Signed distances against their definition, sampled densely, and against the renderer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.camera import CAMERAS, depth_to_points
from hpe_jax.hand.kinematics import place
from hpe_jax.synthetic import poses
from hpe_jax.synthetic.distance import nearest_sphere, signed_distance
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND, HAND_AND_FOREARM, SphereMesh, Topology, hand_surface

TRIANGLE = np.array([[-60, -40, 500], [60, -30, 540], [0, 60, 470]], np.float32)
NOTHING = np.zeros((0, 3), int)


def swept(points, centres, radii, n):
    """Slow twin: the least |p - c| - r over spheres interpolated between two or three."""
    grid = np.linspace(0, 1, n)
    if len(centres) == 2:
        weights = np.stack([1 - grid, grid], 1)
    else:
        a, b = np.meshgrid(grid, grid)
        weights = np.stack([1 - a - b, a, b], -1)[a + b <= 1 + 1e-9]
    c, r = weights @ centres.astype(float), weights @ radii.astype(float)
    return np.array([(np.linalg.norm(p - c, axis=1) - r).min() for p in points])


def around(centres, n, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(centres.min(0) - 60, centres.max(0) + 60, (n, 3)).astype(np.float32)


@pytest.mark.parametrize("radii", [(30, 14), (14, 30), (20, 20), (8, 150), (150, 8)])
def test_cone(radii):
    """Tapered either way, straight, and one sphere inside the other."""
    centres, radii = TRIANGLE[:2], np.array(radii, np.float32)
    points = around(centres, 600, 0)
    found = signed_distance(
        jnp.asarray(points), SphereMesh(centres, radii), Topology(np.array([[0, 1]]), NOTHING)
    )
    np.testing.assert_allclose(found, swept(points, centres, radii, 4000), atol=2e-2)


@pytest.mark.parametrize("radii", [(24, 14, 18), (16, 16, 16), (5, 40, 12)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_wedge(radii, order):
    radii = np.array(radii, np.float32)
    topology = Topology(np.array([[0, 1], [1, 2], [0, 2]]), np.array([order]))
    points = around(TRIANGLE, 300, 1)
    mesh = SphereMesh(TRIANGLE, radii)
    found = np.asarray(signed_distance(jnp.asarray(points), mesh, topology))
    slow = swept(points, TRIANGLE, radii, 300)
    # The twin's spheres lie apart, so that it is never nearer and seldom much further.
    assert (found < slow + 1e-3).all() and (slow - found).max() < 0.1
    assert (found < 0).any() and (found > 0).any()


@pytest.fixture(scope="module")
def hands():
    """Six posed hands with forearms."""

    def make(key):
        shape = poses.sample_shape(jax.random.fold_in(key, 1), held_out=False)
        pose, local, _ = poses.sample_hand(key, shape, poses.VIEWS["nyu"])
        return hand_surface(place(local, pose), shape, pose.wrist, jnp.float32(200.0))

    return jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), 6))


def test_rendered_points_lie_on_the_surface(hands):
    camera, corner = jnp.asarray(CAMERAS["nyu"].intrinsics) / 4, jnp.zeros(2)

    def look(mesh):
        depth = render_depth(mesh, HAND_AND_FOREARM, corner, camera, (120, 160))
        points = depth_to_points(depth, corner, camera)
        return depth, signed_distance(points, mesh, HAND_AND_FOREARM)

    depth, distance = jax.device_get(jax.jit(jax.vmap(look))(hands))
    seen = depth > 0
    assert (seen.sum((1, 2)) > 300).all()
    # Rays that graze a sphere or cone are met to the root of the rounding in the renderer.
    off = np.abs(distance[seen])
    assert np.percentile(off, 98) < 0.02 and off.max() < 0.8


def test_the_sphere_it_names_touches_the_surface(hands):
    """And a step of that distance away from its centre leads to the surface."""
    mesh = jax.tree.map(lambda x: x[0], hands)
    middle = mesh.centres[:32].mean(0)
    points = middle + 90.0 * jax.random.normal(jax.random.key(1), (2000, 3))
    near = nearest_sphere(points, mesh, HAND)
    away = points - near.centre
    long = jnp.linalg.norm(away, axis=-1)
    np.testing.assert_allclose(long - near.radius, near.distance, atol=2e-3)
    outside = near.distance > 0
    assert outside.sum() > 1000 and (~outside).sum() > 20
    surface = points - away * (near.distance / long)[:, None]
    there = signed_distance(surface, mesh, HAND)
    assert np.abs(there[outside]).max() < 2e-2
    assert (there < 2e-2).all()  # Inside a part the step may end inside another.


def test_gradient_has_length_one(hands):
    mesh = jax.tree.map(lambda x: x[0], hands)
    points = mesh.centres[:32].mean(0) + 80.0 * jax.random.normal(jax.random.key(2), (300, 3))
    slope = jax.vmap(jax.grad(lambda p: signed_distance(p, mesh, HAND)))(points)
    np.testing.assert_allclose(jnp.linalg.norm(slope, axis=-1), 1.0, atol=1e-3)
