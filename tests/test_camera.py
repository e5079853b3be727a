"""camera.py: projection and its inverse, patches, decimation, mirroring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax import camera

SPECS = sorted(camera.CAMERAS.items())


@pytest.mark.parametrize("name,spec", SPECS)
def test_uvd_and_xyz_are_inverse(name, spec):
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-200, -200, 300], [200, 200, 1200], (5, 14, 3)).astype(np.float32)
    uvd = camera.xyz_to_uvd(xyz, spec.intrinsics)
    np.testing.assert_allclose(camera.uvd_to_xyz(uvd, spec.intrinsics), xyz, atol=1e-3)
    x, y, z = xyz[2, 3].astype(np.float64)
    np.testing.assert_allclose(
        uvd[2, 3], [spec.cx + spec.fx * x / z, spec.cy + spec.fy * y / z, z], rtol=1e-5
    )


def test_numpy_in_numpy_out_and_jax_in_jax_out():
    xyz = np.array([[1.0, 2.0, 300.0]], np.float32)
    k = camera.NYU.intrinsics
    assert isinstance(camera.xyz_to_uvd(xyz, k), np.ndarray)
    on_device = camera.xyz_to_uvd(jnp.asarray(xyz), jnp.asarray(k))
    np.testing.assert_allclose(on_device, camera.xyz_to_uvd(xyz, k), rtol=1e-6)


def test_tuples_and_data_sets_cameras_serve_as_arrays():
    point, array = (10.0, -20.0, 500.0), camera.NYU.intrinsics
    uvd = camera.xyz_to_uvd(np.array(point, np.float32), array)
    for same in (camera.NYU, tuple(array), list(array)):
        found = camera.xyz_to_uvd(point, same)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, uvd, rtol=1e-6)
        np.testing.assert_allclose(camera.uvd_to_xyz(list(uvd), same), point, rtol=1e-5)
        mirrored = camera.mirror_camera(same, 640)
        np.testing.assert_allclose(mirrored, camera.mirror_camera(array, 640))
        np.testing.assert_allclose(
            camera.depth_to_points(np.full((1, 1), 500.0, np.float32), (3, 4), same),
            camera.depth_to_points(np.full((1, 1), 500.0, np.float32), np.array([3.0, 4.0]), array),
        )
        small = camera.decimate(same, 2)
        np.testing.assert_allclose(small, camera.decimate(array, 2))
        assert camera.decimation_for(point, same, 300.0, 64) == camera.decimation_for(
            np.array(point), array, 300.0, 64
        )
        np.testing.assert_array_equal(
            camera.patch_corner(point, same, 64), camera.patch_corner(np.array(point), array, 64)
        )
        np.testing.assert_allclose(
            camera.patch_rays((3, 4), same, (2, 2)),
            camera.patch_rays(np.array([3.0, 4.0]), array, (2, 2)),
        )
    # A corner of whole numbers, as an array of them, too.
    depth = np.full((1, 1), 500.0, np.float32)
    np.testing.assert_allclose(
        camera.depth_to_points(depth, np.array([3, 4]), array),
        camera.depth_to_points(depth, (3, 4), array),
    )
    np.testing.assert_array_equal(camera.flip_y(point), [10, 20, 500])
    np.testing.assert_array_equal(camera.mirror_x(list(point)), [-10, -20, 500])


def test_y_points_down():
    below = camera.xyz_to_uvd(np.array([0.0, 50.0, 500.0], np.float32), camera.NYU.intrinsics)
    assert below[1] > camera.NYU.cy
    flipped = camera.flip_y(np.array([1.0, 2.0, 3.0], np.float32))
    assert flipped.tolist() == [1.0, -2.0, 3.0]


def test_points_of_a_patch_project_back_onto_their_pixels():
    rng = np.random.default_rng(1)
    depth = rng.uniform(400, 900, (6, 9)).astype(np.float32)
    corner = np.array([101.0, 57.0], np.float32)
    k = camera.NYU.intrinsics
    uvd = camera.xyz_to_uvd(camera.depth_to_points(depth, corner, k), k)
    for i, j in np.ndindex(6, 9):
        np.testing.assert_allclose(uvd[i, j], [101 + j, 57 + i, depth[i, j]], rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-150, 150, allow_subnormal=False),
    st.floats(-120, 120, allow_subnormal=False),
    st.floats(350, 1200, allow_subnormal=False),
)
def test_a_patch_holds_its_extent(x, y, z):
    centre = np.array([x, y, z], np.float32)
    k = camera.NYU.intrinsics
    step = camera.decimation_for(centre, k, 300.0, 64)
    assert step == np.round(step) and step >= 1
    small = camera.decimate(k, step)
    corner = camera.patch_corner(centre, small, 64)
    half = np.array([[sx * 150, sy * 150, 0] for sx in (-1, 1) for sy in (-1, 1)], np.float32)
    uv = camera.xyz_to_uvd(centre + half, small)[:, :2] - corner
    assert uv.min() > -1.5 and uv.max() < 64.5


def test_windows_are_the_same_for_numpy_and_jax_and_batches():
    centres = np.array([[-300, 40, 600], [10, 200, 450], [5, 5, 900]], np.float32)
    k = camera.NYU.intrinsics
    for patch in (64, 640):
        given = (k, (480, 640), 300.0, patch)
        steps, corners = camera.patch_window(centres, *given)
        assert isinstance(corners, np.ndarray) and (corners == np.round(corners)).all()
        for found in (
            jax.vmap(lambda c, given=given: camera.patch_window(c, *given))(jnp.asarray(centres)),
            map(np.stack, zip(*(camera.patch_window(c, *given) for c in centres), strict=True)),
        ):
            for got, wanted in zip(found, (steps, corners), strict=True):
                np.testing.assert_array_equal(got, wanted)
    assert (steps == 1).all() and (corners[:, 0] == 0).all() and (corners[:, 1] <= 0).all()


def test_cut_patch_takes_native_pixels_and_pads_with_no_reading():
    image = np.arange(1, 1 + 40 * 30, dtype=np.float32).reshape(30, 40)
    patch = camera.cut_patch(image, np.array([-2.0, 3.0]), 3, 8)
    for i, j in np.ndindex(8, 8):
        v, u = 3 * (3 + i), 3 * (-2 + j)
        expected = image[v, u] if 0 <= v < 30 and 0 <= u < 40 else 0.0
        assert patch[i, j] == expected


def test_decimated_camera_sees_the_same_points():
    k = camera.NYU.intrinsics
    point = np.array([40.0, -30.0, 700.0], np.float32)
    full, third = camera.xyz_to_uvd(point, k), camera.xyz_to_uvd(point, camera.decimate(k, 3))
    np.testing.assert_allclose(full[:2] / 3, third[:2], rtol=1e-6)


def test_mirroring_image_and_points_agrees():
    k = np.array([500.0, 510.0, 311.0, 233.0], np.float32)
    point = np.array([40.0, -30.0, 700.0], np.float32)
    u = camera.xyz_to_uvd(point, k)
    mirrored = camera.xyz_to_uvd(camera.mirror_x(point), camera.mirror_camera(k, 640))
    np.testing.assert_allclose(mirrored, [639 - u[0], u[1], u[2]], rtol=1e-6)
