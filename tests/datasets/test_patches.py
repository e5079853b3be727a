import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.camera import NYU, depth_to_points, uvd_to_xyz
from hpe_jax.datasets.patches import (
    empty_cube,
    find_hand,
    hand_patch,
    outside_frame,
    whole_frame,
)

CAMERA = NYU.intrinsics


@settings(deadline=None, max_examples=40)
@given(
    st.floats(-400, 400), st.floats(-300, 300), st.floats(300, 1500), st.integers(48, 128)
)  # fmt: skip
def test_patch_pixels_are_pixels_of_the_frame(x, y, z, patch):
    """Each patch pixel looks where its frame pixel looks and reads what that one reads."""
    rng = np.random.default_rng(0)
    frame = rng.uniform(300, 1500, (480, 640)).astype(np.float32)
    example = hand_patch(frame, np.array([x, y, z]), CAMERA, patch=patch, extent_mm=360.0)
    step = round(float(CAMERA[0] / example["camera"][0]))
    points = depth_to_points(frame, np.zeros(2), CAMERA)
    seen = depth_to_points(example["depth"], example["corner"], example["camera"])
    for i, j in [(0, 0), (patch // 2, patch // 3), (patch - 1, patch - 1)]:
        v, u = (int(example["corner"][a]) * step + k * step for a, k in ((1, i), (0, j)))
        if 0 <= v < 480 and 0 <= u < 640:
            np.testing.assert_allclose(seen[i, j], points[v, u], rtol=1e-4, atol=1e-2)
        else:
            assert example["depth"][i, j] == 0


@settings(deadline=None, max_examples=20)
@given(st.floats(-400, 400), st.floats(-300, 300), st.floats(200, 1500), st.integers(640, 700))
def test_a_patch_as_wide_as_the_frame_has_all_of_it(x, y, z, patch):
    frame = np.random.default_rng(0).uniform(300, 1500, (480, 640)).astype(np.float32)
    example = hand_patch(frame, np.array([x, y, z]), CAMERA, patch=patch, extent_mm=360.0)
    np.testing.assert_array_equal(example["camera"], CAMERA)
    u, v = (-example["corner"]).astype(int)
    np.testing.assert_array_equal(example["depth"][v : v + 480, u : u + 640], frame)
    assert (example["depth"] > 0).sum() == frame.size


def test_whole_frames_are_every_fourth_pixel():
    frame = np.random.default_rng(0).uniform(300, 1500, (480, 640)).astype(np.float32)
    example = whole_frame(frame, np.zeros(3), CAMERA)
    seen = depth_to_points(example["depth"], example["corner"], example["camera"])
    points = depth_to_points(frame, np.zeros(2), CAMERA)
    np.testing.assert_allclose(seen, points[::4, ::4], atol=1e-2)


def test_the_extent_fits_the_patch():
    for z in (300.0, 500.0, 750.0, 1200.0):
        example = hand_patch(
            np.zeros((480, 640)), np.array([0, 0, z]), CAMERA, patch=96, extent_mm=360.0
        )
        assert example["camera"][0] * 360 / max(z - 180, 90) <= 96


def test_empty_cube_and_outside_frame():
    frame = np.zeros((480, 640), np.float32)
    frame[240, 320] = 800
    centre = np.array([0, 0, 800.0])
    assert not empty_cube(hand_patch(frame, centre, CAMERA, patch=96, extent_mm=360.0), 250)
    far = np.array([0, 0, 930.0])
    assert empty_cube(hand_patch(frame, far, CAMERA, patch=96, extent_mm=360.0), 250)
    assert not outside_frame(centre, CAMERA, (480, 640))
    for bad in ([0, 0, -800], [0, 0, 0], [450, 0, 800], [0, -340, 800], [np.nan, 0, 800]):
        assert outside_frame(np.array(bad, float), CAMERA, (480, 640))
    for u, v in ((0, 200), (639, 200), (300, 0), (300, 479)):
        for inwards, outside in ((0.999, False), (1.001, True)):
            uv = 320 + inwards * (u - 320), 240 + inwards * (v - 240)
            at_edge = uvd_to_xyz(np.array([*uv, 800.0]), CAMERA.astype(float))
            assert outside_frame(at_edge, CAMERA, (480, 640)) == outside


def test_find_hand_on_a_ball():
    v, u = np.mgrid[:480, :640]
    frame = np.where((u - 400) ** 2 + (v - 200) ** 2 < 60**2, 700.0, 0.0).astype(np.float32)
    centre = find_hand(frame, CAMERA)
    expected = [(400 - 320) * 700 / 588.03, (200 - 240) * 700 / 587.07, 700]
    assert centre == pytest.approx(expected, abs=15)
    assert find_hand(np.zeros((480, 640), np.float32), CAMERA) is None
