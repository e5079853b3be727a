"""Truncated signed distances against plain loops and against a sphere's exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.camera import patch_rays
from hpe_jax.kernels.tsdf import tsdf
from hpe_jax.kernels.voxels import make_grid

# Jitted: compiled once a shape, instead of each of their operations on its own.
make_grid = jax.jit(make_grid, static_argnums=2)
tsdf = jax.jit(tsdf, static_argnums=(4, 5))

CAMERA = np.array([300.0, 310.0, 30.0, 28.0], np.float32)
CORNER = np.array([10.0, 8.0], np.float32)


def loop(depth, centre, cube, size, truncation, angle):
    """Voxel by voxel in float64; NaN where a line of sight passes between two pixels."""
    volume = np.full((size, size, size), np.nan)
    cos, sin = np.cos(angle), np.sin(angle)
    for k, j, i in np.ndindex(size, size, size):
        local = (np.array([i, j, k]) + 0.5) * cube / size - cube / 2
        # `make_grid` turns the content by the angle, so voxels look back through it.
        x, y, z = np.array([cos * local[0] + sin * local[1], cos * local[1] - sin * local[0],
                            local[2]]) + centre  # fmt: skip
        u = CAMERA[0] * x / z + CAMERA[2] - CORNER[0]
        v = CAMERA[1] * y / z + CAMERA[3] - CORNER[1]
        if min(abs(u % 1 - 0.5), abs(v % 1 - 0.5)) < 1e-3:
            continue
        row, column = round(v), round(u)
        volume[k, j, i] = 1.0
        if 0 <= row < depth.shape[0] and 0 <= column < depth.shape[1] and depth[row, column] > 0:
            away = np.sqrt(x * x + y * y + z * z)
            distance = depth[row, column] * away / z - away
            volume[k, j, i] = np.clip(distance / truncation, -1, 1)
    return volume


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), angle=st.floats(-1, 1), size=st.sampled_from([4, 7]))
def test_equals_loop(seed, angle, size):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(560, 640, (9, 12)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    centre = np.array([-30.0, -25.0, 600.0], np.float32)
    grid = make_grid(centre, jnp.float32(60.0), size, angle=angle)
    found = np.asarray(tsdf(depth, CORNER, CAMERA, grid, size, 25.0))
    expected = loop(depth, centre.astype(float), 60.0, size, 25.0, angle)
    known = np.isfinite(expected)
    assert known.mean() > 0.9
    np.testing.assert_allclose(found[known], expected[known], atol=1e-4)


@pytest.mark.parametrize("size", [30, 60])
def test_a_sphere(size):
    """Exact along the line of sight, which is never shorter than the nearest way."""
    middle, radius, truncation = np.array([20.0, -10.0, 600.0]), 60.0, 50.0
    corner, camera = jnp.zeros(2), jnp.array([800.0, 800.0, 160.0, 160.0])
    ray = np.append(patch_rays(corner, camera, (320, 320))[..., :2], np.ones((320, 320, 1)), -1)
    dd, dc, cc = (ray**2).sum(-1), ray @ middle, middle @ middle - radius**2
    inside = dc**2 - dd * cc
    depth = np.where(inside > 0, (dc - np.sqrt(np.maximum(inside, 0))) / dd, 0).astype(np.float32)
    grid = make_grid(jnp.asarray(middle), jnp.float32(300.0), size)
    found = np.asarray(tsdf(jnp.asarray(depth), corner, camera, grid, size, truncation))
    axis = (np.arange(size) - (size - 1) / 2) * 300.0 / size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    exact = np.sqrt(x**2 + y**2 + z**2) - radius
    point = np.stack([x, y, z], -1) + middle
    away = np.linalg.norm(point, axis=-1)
    forward = point @ middle / away
    # Lines of sight that meet the sphere at less than 45 degrees from its normal.
    front = forward**2 - cc > 0.5 * radius**2
    along = forward - np.sqrt(np.where(front, forward**2 - cc, 0.0)) - away
    expected = np.clip(along / truncation, -1, 1)
    assert front.mean() > 0.05
    # Half a pixel's diagonal is 0.5 mm here.
    np.testing.assert_allclose(found[front], expected[front], atol=0.8 / truncation)
    assert (found[0] == 1).all() and found[-1, size // 2, size // 2] == -1
    # The line of sight is never the shortest way to the surface.
    outside = front & (along > 0) & (along < truncation)
    assert (found[outside] * truncation > exact[outside] - 0.8).all()


def test_batches_and_empty_images():
    depth = jnp.zeros((3, 8, 8)).at[0].set(600.0)
    grid = make_grid(jnp.tile(jnp.array([0.0, 0.0, 600.0]), (3, 1)), jnp.full(3, 100.0), 5)
    camera = jnp.tile(jnp.array([40.0, 40.0, 3.5, 3.5]), (3, 1))
    cut = jax.vmap(lambda *example: tsdf(*example, 5, 50.0))
    found = np.asarray(cut(depth, jnp.zeros((3, 2)), camera, grid))
    assert found.shape == (3, 5, 5, 5) and (found[1:] == 1).all()
    # A wall through the middle: the outermost of five layers are 40 mm from it along the axis.
    np.testing.assert_allclose(found[0, :, 2, 2], [0.8, 0.4, 0.0, -0.4, -0.8], atol=2e-3)
