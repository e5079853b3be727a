"""Crops of depth patches against loops, and their maps against each other."""

import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax import camera as cam
from hpe_jax.kernels.crops import make_crop, sample, to_camera, to_pixels, to_space

# Jitted: compiled once a shape, instead of each of their operations on its own.
make_crop = jax.jit(make_crop, static_argnums=3)
to_camera, to_pixels, to_space = (jax.jit(f) for f in (to_camera, to_pixels, to_space))
sample = jax.jit(sample, static_argnums=(3, 4))

CAMERA = np.array([300.0, 310.0, 40.0, 30.0], np.float32)
CENTRE = np.array([20.0, -15.0, 600.0], np.float32)
CORNER = np.array([10.0, -4.0], np.float32)


def crop(**augment):
    return make_crop(jnp.asarray(CENTRE), jnp.asarray(CAMERA), jnp.float32(200.0), 32, **augment)


def test_the_centre_is_the_middle_and_the_cube_fills_the_picture():
    c = crop()
    np.testing.assert_allclose(to_pixels(CENTRE, c), [15.5, 15.5], atol=1e-4)
    edge = CENTRE + np.array([100.0, -100.0, 0.0], np.float32)
    np.testing.assert_allclose(to_pixels(edge, c), [31.5, -0.5], atol=1e-3)


def test_turning_and_stretching():
    points = CENTRE + np.array([[10.0, 0, 0], [0, 10.0, 0]], np.float32)
    c = crop(angle=np.pi / 2, stretch=jnp.array([1.2, 0.9]))
    # x goes to y; the width grows, the height shrinks.
    np.testing.assert_allclose(to_space(points, c), [[0, 9.0, 0], [-12.0, 0, 0]], atol=1e-4)
    expected = 15.5 + np.array([[0, 9.0], [-12.0, 0]]) * 32 / 200
    np.testing.assert_allclose(to_pixels(points, c), expected, atol=1e-3)


def test_spaces_are_inverse():
    rng = np.random.default_rng(0)
    points = (CENTRE + rng.uniform(-90, 90, (20, 3))).astype(np.float32)
    for angle in (0.0, 0.7, -2.9):
        c = crop(angle=angle, stretch=jnp.array([1.1, 0.95]))
        np.testing.assert_allclose(to_camera(to_space(points, c), c), points, atol=1e-3)
        # Depths are kept, areas grow as both factors say.
        local = np.asarray(to_space(points, c))
        np.testing.assert_allclose(local[:, 2], points[:, 2] - 600, atol=1e-4)
        assert np.isclose(np.linalg.det(np.asarray(c.turn)), 1.1 * 0.95, atol=1e-5)


def test_samples_equal_a_loop():
    rng = np.random.default_rng(1)
    depth = rng.uniform(400, 800, (80, 90)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.2] = 0
    c = crop(angle=0.4, stretch=jnp.array([1.05, 0.93]))
    for count in (32, 8):
        points = np.asarray(sample(jnp.asarray(depth), jnp.asarray(CORNER), c, count, 150.0))
        assert points.shape == (count, count, 3)
        hits = 0
        for i, j in np.ndindex(count, count):
            # Where this grid point lies in the image, from the definition of the crop.
            x, y = ((k + 0.5) * 200.0 / count - 100.0 for k in (j, i))
            x, y = x / 1.05, y / 0.93
            cos, sin = np.cos(0.4), np.sin(0.4)
            x, y = cos * x + sin * y, -sin * x + cos * y
            u = CAMERA[2] + CAMERA[0] * (CENTRE[0] + x) / 600
            v = CAMERA[3] + CAMERA[1] * (CENTRE[1] + y) / 600
            column, row = u - CORNER[0], v - CORNER[1]
            if min(abs(column % 1 - 0.5), abs(row % 1 - 0.5)) < 1e-3:
                continue  # Halfway between two pixels.
            column, row = round(float(column)), round(float(row))
            z = 0.0
            if 0 <= row < 80 and 0 <= column < 90 and abs(depth[row, column] - 600) < 150:
                z = depth[row, column]
            assert points[i, j, 2] == np.float32(z)
            if z:
                hits += 1
                uv = np.array([column + CORNER[0], row + CORNER[1], z], np.float32)
                np.testing.assert_allclose(points[i, j], cam.uvd_to_xyz(uv, CAMERA), atol=1e-3)
        assert hits > 0.3 * count**2


def test_a_point_lies_at_the_pixel_that_shows_it():
    depth = np.full((120, 120), 640.0, np.float32)
    c = crop(angle=-0.6)
    points = sample(jnp.asarray(depth), jnp.asarray(CORNER * 0 - 20), c, 32, 150.0)
    at = np.asarray(to_pixels(points, c))
    seen = np.asarray(points)[..., 2] > 0
    x, y = np.meshgrid(np.arange(32), np.arange(32))
    assert seen.mean() > 0.5
    # A source pixel is 2 mm, a crop pixel 6.25.
    assert np.abs(at - np.stack([x, y], -1))[seen].max() < 0.25


def test_batches():
    keys = jnp.arange(3, dtype=jnp.float32)
    crops = jax.vmap(lambda a: crop(angle=a))(keys)
    assert crops.turn.shape == (3, 2, 2)
