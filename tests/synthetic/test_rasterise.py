"""The rasteriser against a slow NumPy twin, ray by ray, and against its own window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.synthetic.isosurface import surface_nets
from hpe_jax.synthetic.rasterise import rasterise
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import SphereMesh, Topology

# Jitted: compiled once a shape, instead of each of their operations on its own.
rasterise = jax.jit(rasterise, static_argnums=4, static_argnames="window")

CAMERA = np.array([60.0, 61.0, 12.0, 11.5], np.float32)
CORNER = np.array([2.0, -1.0], np.float32)
SIZE = (24, 26)


def slow(vertices, faces, size):
    """The nearest triangle on each pixel's ray, in double precision."""
    v = vertices.astype(float)
    out = np.full(size, np.inf)
    for i, j in np.ndindex(size):
        u, w = j + CORNER[0], i + CORNER[1]
        ray = np.array([(u - CAMERA[2]) / CAMERA[0], (w - CAMERA[3]) / CAMERA[1], 1.0])
        for a, b, c in v[faces]:
            # a + s (b - a) + t (c - a) = z ray
            matrix = np.stack([b - a, c - a, -ray], 1)
            if abs(np.linalg.det(matrix)) < 1e-12:
                continue
            s, t, z = np.linalg.solve(matrix, -a)
            if s >= 0 and t >= 0 and s + t <= 1 and z > 0:
                out[i, j] = min(out[i, j], z)
    return np.where(np.isfinite(out), out, 0)


def soup(n, seed, spread):
    rng = np.random.default_rng(seed)
    middle = rng.uniform([-120, -120, 350], [120, 120, 650], (n, 1, 3))
    corners = middle + rng.uniform(-spread, spread, (n, 3, 3))
    return corners.reshape(-1, 3).astype(np.float32), np.arange(3 * n).reshape(n, 3)


@pytest.mark.parametrize("spread", [15, 60, 250])
def test_slow_twin(spread):
    """Smaller and larger than pixels and windows, and partly outside the image."""
    vertices, faces = soup(30, spread, spread)
    depth = np.asarray(rasterise(vertices, faces, CORNER, CAMERA, SIZE))
    true = slow(vertices, faces, SIZE)
    assert (true > 0).sum() > 5
    differ = np.abs(depth - true) > 0.05
    assert differ.sum() <= 1  # a pixel on an edge


@pytest.mark.parametrize("window", [1, 3, 8, 40])
def test_the_window_does_not_matter(window):
    vertices, faces = soup(30, 3, 120)
    usual = rasterise(vertices, faces, CORNER, CAMERA, SIZE)
    other = rasterise(vertices, faces, CORNER, CAMERA, SIZE, window=window)
    np.testing.assert_allclose(usual, other, rtol=1e-6)


def ball(middle, radius, step):
    axes = tuple(np.arange(m - radius - 2 * step, m + radius + 2.1 * step, step) for m in middle)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return surface_nets(np.linalg.norm(points - np.array(middle), axis=-1) - radius, axes)


@pytest.mark.parametrize("step", [3.0, 9.0, 40.0])
def test_watertight(step):
    """No pixel within the silhouette of a closed mesh is empty or shows its far side."""
    vertices, faces = ball((10.0, -20.0, 500.0), 70.0, step)
    camera, corner = np.array([600.0, 600.0, 160.0, 120.0], np.float32), np.zeros(2)
    depth = np.asarray(rasterise(vertices, faces, corner, camera, (240, 320)))
    rows, columns = np.mgrid[:240, :320]
    apart = np.hypot(columns - 160 - 600 * 10 / 500, rows - 120 + 600 * 20 / 500)
    inner = apart < 0.85 * 600 * (70 - 0.2 * step) / 500
    assert inner.sum() > 5000 and (depth[inner] > 0).all()
    assert depth[inner].max() < 500


def test_a_fine_ball_is_the_renderers_sphere():
    vertices, faces = ball((10.0, -20.0, 500.0), 70.0, 5.0)
    corner, camera = jnp.zeros(2), jnp.array([200.0, 205.0, 50.0, 40.0])
    found = np.asarray(rasterise(vertices, faces, corner, camera, (80, 100)))
    mesh = SphereMesh(jnp.array([[10.0, -20.0, 500.0]] * 2), jnp.array([70.0, 70.0]))
    nothing = np.zeros((0, 3), int)
    true = np.asarray(
        render_depth(mesh, Topology(np.array([[0, 1]]), nothing), corner, camera, (80, 100))
    )
    both = (found > 0) & (true > 0)
    assert both.sum() > 0.98 * ((found > 0) | (true > 0)).sum()
    assert np.median(np.abs(found - true)[both]) < 0.5


def test_what_is_not_in_front_of_the_camera_is_left_out():
    vertices = np.array([[-50, -50, 300], [50, -50, 300], [0, 60, -5]], np.float32)
    assert not rasterise(vertices, np.array([[0, 1, 2]]), CORNER, CAMERA, SIZE).any()


def test_batched():
    vertices, faces = soup(20, 5, 40)
    batch = jnp.stack([vertices, vertices + np.array([9.0, -5.0, 60.0], np.float32)])
    many = jax.jit(jax.vmap(lambda v: rasterise(v, faces, CORNER, CAMERA, SIZE)))(batch)
    for one, alone in zip(batch, many, strict=True):
        np.testing.assert_allclose(rasterise(one, faces, CORNER, CAMERA, SIZE), alone, rtol=1e-5)
