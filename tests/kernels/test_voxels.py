"""Voxel grids and occupancy against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typechecks import as_users_call_it

from hpe_jax import camera as cam
from hpe_jax.kernels.voxels import (
    coarsen,
    depth_map,
    make_grid,
    occupancy,
    tighten,
    to_mm,
    to_voxels,
    voxelise,
)

# Jitted: compiled once a shape, instead of each of their operations on its own.
make_grid = jax.jit(make_grid, static_argnums=2)
coarsen = jax.jit(coarsen, static_argnums=1)
to_mm, to_voxels = jax.jit(to_mm), jax.jit(to_voxels)
tighten, depth_map = (jax.jit(f, static_argnums=3) for f in (tighten, depth_map))
voxelise = jax.jit(voxelise, static_argnums=(4, 5))
occupancy = jax.jit(occupancy, static_argnums=3, static_argnames="linear")

CAMERA = np.array([300.0, 310.0, 30.0, 28.0], np.float32)
CORNER = np.array([10.0, 8.0], np.float32)


def loop(depth, corner, camera, centre, cube, size, angle, scale, shift, linear):
    """Occupancy voxel by voxel in float64, from the description alone."""
    volume = np.zeros((size, size, size))
    near = False  # a point within rounding of a voxel's face
    for i, j in np.ndindex(*depth.shape):
        z = float(depth[i, j])
        if z == 0:
            continue
        x = (corner[0] + j - camera[2]) * z / camera[0] - centre[0]
        y = (corner[1] + i - camera[3]) * z / camera[1] - centre[1]
        cos, sin = np.cos(angle), np.sin(angle)
        point = np.array([cos * x - sin * y, sin * x + cos * y, z - centre[2]])
        edges = point * scale * size / cube + size / 2 + shift  # counted from the grid's edge
        near |= bool((np.abs(edges - np.round(edges)) < 1e-3).any())
        u, v, w = np.floor(edges).astype(int)
        if min(u, v) < 0 or max(u, v) >= size:
            continue
        for layer in range(size):
            given = max(0.0, 1 - abs(edges[2] - 0.5 - layer)) if linear else layer == w
            volume[layer, v, u] = max(volume[layer, v, u], given)
    return volume, near


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([5, 8]),
    angle=st.floats(-1, 1),
    scale=st.floats(0.7, 1.3),
    shift=st.floats(-2, 2),
    linear=st.booleans(),
)
def test_equals_loop(seed, size, angle, scale, shift, linear):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(500, 700, (9, 12)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    centre = np.array([5.0, -7.0, 600.0], np.float32)
    shifts = np.array([shift, -shift, 0.5 * shift], np.float32)
    expected, near = loop(
        depth, CORNER, CAMERA, centre, 120.0, size, angle, scale, shifts.astype(float), linear
    )
    grid = make_grid(centre, 120.0, size, angle=angle, scale=scale, shift=shifts)
    volume = voxelise(depth, CORNER, CAMERA, grid, size, linear)
    assert volume.shape == (size, size, size)
    if near:
        assert np.abs(volume - expected).sum() <= 4
    else:
        np.testing.assert_allclose(volume, expected, atol=1e-4 if linear else 0)


def test_linear_occupancy_follows_depth_without_steps():
    grid = make_grid(jnp.zeros(3), 8.0, 8)  # 1 mm voxels, their centres at -3.5, -2.5, ...
    valid = jnp.array([True])

    @jax.jit
    def column(z):
        points = jnp.zeros((1, 3)).at[0, 2].set(z)
        return occupancy(points, valid, grid, 8, linear=True)[:, 4, 4]

    np.testing.assert_allclose(column(0.5), [0, 0, 0, 0, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(column(0.25), [0, 0, 0, 0.25, 0.75, 0, 0, 0], atol=1e-6)
    # Half a voxel beyond the last centre only the inner of the two is in the grid; then none.
    np.testing.assert_allclose(column(3.9), [0] * 7 + [0.6], atol=1e-6)
    np.testing.assert_allclose(column(4.6), [0] * 8, atol=1e-6)
    steps = np.array([column(z) for z in np.linspace(-3.0, 3.0, 121)])
    assert np.abs(np.diff(steps, axis=0)).max() < 0.051


def test_vmap_equals_single():
    rng = np.random.default_rng(1)
    depth = rng.uniform(500, 700, (3, 6, 6)).astype(np.float32)
    centre = np.array([[0, 0, 600], [5, 5, 580], [0, 9, 650]], np.float32)
    cube = np.array([100.0, 150.0, 250.0], np.float32)
    grids = make_grid(centre, cube, 8, angle=jnp.array([0.1, 0.2, 0.3]))
    many = jax.vmap(voxelise, (0, None, None, 0, None))(depth, CORNER, CAMERA, grids, 8)
    for n in range(3):
        grid = make_grid(centre[n], cube[n], 8, angle=0.1 * (n + 1))
        np.testing.assert_array_equal(many[n], voxelise(depth[n], CORNER, CAMERA, grid, 8))
    assert many.sum() > 10


def test_a_batch_without_vmap_is_refused():
    grid = make_grid(jnp.array([0.0, 0.0, 500.0]), 100.0, 8)
    with pytest.raises(ValueError, match=r"depth \(2, 4, 4\): expected \(H, W\); vmap"):
        as_users_call_it(voxelise)(jnp.zeros((2, 4, 4)), CORNER, CAMERA, grid, 8)


def test_outside_and_empty_are_dropped():
    grid = make_grid(jnp.zeros(3), 8.0, 8)  # 1 mm voxels
    points = jnp.array([[-4.0, 0, 0], [-4.01, 0, 0], [3.99, 0, 0], [4.0, 0, 0], [0, 0, 0]])
    volume = occupancy(points, jnp.array([True] * 4 + [False]), grid, 8)
    assert np.argwhere(volume).tolist() == [[4, 4, 0], [4, 4, 7]]
    zeros = voxelise(jnp.zeros((4, 4)), CORNER, CAMERA, grid, 8)
    assert zeros.sum() == 0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    angle=st.floats(-3, 3),
    scale=st.floats(0.5, 2),
    cube=st.floats(50, 400),
)
def test_map_and_inverse(seed, angle, scale, cube):
    rng = np.random.default_rng(seed)
    centre = rng.uniform([-100, -100, 300], [100, 100, 900]).astype(np.float32)
    points = (centre + rng.uniform(-150, 150, (7, 3))).astype(np.float32)
    shift = rng.uniform(-4, 4, 3).astype(np.float32)
    grid = make_grid(centre, cube, 88, angle=angle, scale=scale, shift=shift)
    for g in (grid, coarsen(grid, 2)):
        np.testing.assert_allclose(to_mm(to_voxels(points, g), g), points, atol=2e-3)
    np.testing.assert_allclose(
        to_voxels(points, coarsen(grid, 2)) * 2, to_voxels(points, grid), atol=1e-3
    )
    # Distances scale, angles stay.
    step = np.linalg.norm(np.diff(to_voxels(points, grid), axis=0), axis=1)
    np.testing.assert_allclose(
        step, np.linalg.norm(np.diff(points, axis=0), axis=1) * scale * 88 / cube, rtol=1e-3
    )


def test_rotation_direction_and_middle():
    grid = make_grid(jnp.array([1.0, 2, 3]), 10.0, 10, angle=np.pi / 2)
    voxels = to_voxels(jnp.array([[1.0, 2, 3], [2.0, 2, 3]]), grid)
    np.testing.assert_allclose(voxels, [[4.5, 4.5, 4.5], [4.5, 5.5, 4.5]], atol=1e-5)


def test_mirrored_frame_gives_mirrored_volume():
    rng = np.random.default_rng(3)
    depth = rng.uniform(500, 700, (12, 12)).astype(np.float32)
    centre = np.array([-8.0, 3.0, 600.0], np.float32)
    width = 60
    plain = voxelise(depth, CORNER, CAMERA, make_grid(centre, 130.0, 8), 8)
    corner = np.array([width - 12 - CORNER[0], CORNER[1]], np.float32)
    mirrored = voxelise(
        depth[:, ::-1],
        corner,
        cam.mirror_camera(CAMERA, width),
        make_grid(cam.mirror_x(centre), 130.0, 8),
        8,
    )
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
    assert plain.sum() > 20


def test_aspect_stretches_the_turned_content_and_keeps_its_area():
    centre = np.array([3.0, 4.0, 500.0], np.float32)
    square = centre + np.array([[-30, -30, 0], [30, -30, 0], [30, 30, 0], [-30, 30, 9]], np.float32)
    plain = make_grid(centre, 120.0, 12, angle=np.pi / 2)
    wide = make_grid(centre, 120.0, 12, angle=np.pi / 2, aspect=1.44)
    one, two = (np.asarray(to_voxels(square, g)) - 5.5 for g in (plain, wide))
    np.testing.assert_allclose(two, one * [1.2, 1 / 1.2, 1], atol=1e-5)
    np.testing.assert_allclose(to_mm(to_voxels(square, wide), wide), square, atol=1e-3)


def test_tighten_fills_the_grid_with_the_longest_side():
    rng = np.random.default_rng(1)
    centre = np.array([10.0, -20.0, 500.0], np.float32)
    points = (centre + rng.uniform(-1, 1, (200, 3)) * [20, 45, 10] + [15, 0, 8]).astype(np.float32)
    valid = rng.random(200) > 0.2
    far = np.concatenate([points, centre + [[0, 130, 0]]]).astype(np.float32)
    usable = np.append(valid, True)  # outside the first grid: not the hand's
    grid = make_grid(centre, 200.0, 16, angle=0.3, aspect=1.1)
    tight = tighten(jnp.asarray(far), jnp.asarray(usable), grid, 16)
    voxels = np.asarray(to_voxels(points[valid], tight))
    low, high = voxels.min(0), voxels.max(0)
    np.testing.assert_allclose((low + high) / 2, 7.5, atol=1e-3)
    np.testing.assert_allclose((high - low).max(), 0.999 * 16, atol=1e-2)
    ratio = np.asarray(tight.scale) / np.asarray(grid.scale)
    assert np.ptp(ratio) < 1e-5 and ratio[0] > 1.5
    none = tighten(jnp.asarray(far), jnp.zeros(201, bool), grid, 16)
    jax.tree.map(np.testing.assert_array_equal, none, grid)


def test_a_tiny_box_counts_as_a_fifth_of_the_grid():
    grid = make_grid(jnp.zeros(3), 200.0, 16)
    points = jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    tight = tighten(points, jnp.ones(2, bool), grid, 16)
    np.testing.assert_allclose(tight.scale / grid.scale, 5 * 0.999, rtol=1e-5)


def test_depth_map_equals_a_loop():
    rng = np.random.default_rng(2)
    centre = np.array([0.0, 0.0, 500.0], np.float32)
    points = (centre + rng.uniform(-70, 70, (300, 3))).astype(np.float32)
    valid = rng.random(300) > 0.3
    grid = make_grid(centre, 100.0, 9, angle=0.4)
    expected = np.zeros((9, 9))
    for point, ok in zip(np.asarray(to_voxels(points, grid)), valid, strict=True):
        x, y, z = np.floor(point + 0.5).astype(int)
        if ok and min(x, y, z) >= 0 and max(x, y, z) < 9:
            expected[y, x] = max(expected[y, x], 1 - (point[2] + 0.5) / 9)
    image = depth_map(jnp.asarray(points), jnp.asarray(valid), grid, 9)
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert (expected > 0).sum() > 30
