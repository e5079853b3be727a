"""Skeletons land on the pixels that the camera says, on a surface one can see."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hpe_jax.camera import NYU as NYU_CAMERA
from hpe_jax.camera import uvd_to_xyz
from hpe_jax.hand.skeletons import NYU, NYU_COLUMNS, Skeleton
from hpe_jax.metrics.overlay import BACKGROUND, COLOURS, grid, overlay

CAMERA = np.array([500.0, 480.0, 300.0, 200.0])
CORNER = np.array([280.0, 170.0])
PAIR = Skeleton(("palm", "thumb_tip"), ((0, 1),), (-1, 4))


def _joints(*pixels: tuple[float, float], depth: float = 600.0) -> np.ndarray:
    return uvd_to_xyz(np.array([[u, v, depth] for u, v in pixels], float), CAMERA)


def _middle_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(x, y) of the middle of all pixels of a colour."""
    y, x = np.nonzero((np.abs(picture.astype(int) - colour) <= 3).all(-1))
    assert len(x), f"no pixel of colour {colour}"
    return np.array([x.mean(), y.mean()])


@pytest.mark.parametrize("scale", [3, 4, 6.5])
def test_a_joint_lies_on_its_pixel(scale):
    depth = np.full((60, 48), 600.0)
    joints = np.concatenate([_joints((320, 175)), _joints((300, 190), depth=590.0)])
    single = Skeleton(PAIR.joints, (), PAIR.finger)
    picture = overlay(depth, CORNER, CAMERA, joints, single, scale=scale)
    assert picture.shape == (round(60 * scale), round(48 * scale), 3)
    assert picture.dtype == np.uint8
    # Patch pixel (20, 20): the middle of its square, in the picture's pixel centres.
    np.testing.assert_allclose(_middle_of(picture, COLOURS[4]), 20.5 * scale - 0.5, atol=0.6)
    np.testing.assert_allclose(
        _middle_of(picture, COLOURS[-1]), np.array([40.5, 5.5]) * scale - 0.5, atol=0.6
    )


def test_fingers_have_their_colours_and_truth_is_white():
    depth = np.full((60, 48), 600.0)
    pred, true = _joints((290, 180), (310, 180)), _joints((290, 200), (310, 200))
    alone = overlay(depth, CORNER, CAMERA, pred, PAIR)
    both = overlay(depth, CORNER, CAMERA, pred, PAIR, true)
    assert _middle_of(alone, COLOURS[4])[1] == pytest.approx(42, abs=2)
    changed = np.nonzero((alone != both).any(-1))[0]
    assert changed.min() > 30.5 * 4 - 20 and changed.max() < 30.5 * 4 + 20
    hidden = overlay(depth, CORNER, CAMERA, pred, PAIR, true, valid=np.zeros(2, bool))
    np.testing.assert_array_equal(hidden, alone)


@pytest.mark.parametrize("near", [0, 1])
def test_what_is_nearer_covers_what_is_behind(near):
    fingers, depths = (4, 0), ((500.0, 650.0), (650.0, 500.0))[near]

    def middle(bones, *places):
        """The colour where both fingers meet; `places` are pixels and which finger they are of."""
        joints = np.concatenate([_joints((u, v), depth=depths[k]) for u, v, k in places])
        skeleton = Skeleton(tuple("abcd"), bones, tuple(fingers[k] for *_, k in places))
        return overlay(np.zeros((60, 48)), CORNER, CAMERA, joints, skeleton, scale=10)[205, 205]

    joints = middle((), (282, 190, 0), (300, 190, 0), (300, 190, 1), (326, 220, 1))
    bones = middle(((0, 1), (2, 3)), (282, 190, 0), (318, 190, 0), (300, 172, 1), (300, 208, 1))
    for colour in (joints, bones):
        np.testing.assert_allclose(colour, COLOURS[fingers[near]], atol=3)


def test_only_surfaces_near_the_hand_are_lit():
    depth = np.zeros((40, 40))
    depth[:, 10:20], depth[:, 20:30], depth[:, 30:] = 600, 800, 500
    picture = overlay(depth, CORNER, CAMERA, None, PAIR, scale=2, middle_mm=600).astype(int)
    no_reading, hand, far, near = (picture[:, 2 * x].mean() for x in (5, 15, 25, 35))
    assert no_reading == pytest.approx(np.mean(BACKGROUND), abs=1)
    assert far < 40 < 90 < hand < near  # nearer is brighter


def test_slopes_are_shaded():
    ramp = 600 + np.linspace(-60, 60, 40)[:, None] * np.ones((1, 40))
    up = overlay(ramp, CORNER, CAMERA, None, PAIR, scale=2, middle_mm=600)
    down = overlay(ramp[::-1], CORNER, CAMERA, None, PAIR, scale=2, middle_mm=600)
    # Light comes from above: what faces up is brighter at the same depth.
    assert abs(int(up[40, 40, 0]) - int(down[40, 40, 0])) > 10


def test_joints_without_a_place_are_left_out():
    depth = np.full((60, 48), 600.0)
    bad = _joints((300, 190), (310, 190))
    empty = overlay(depth, CORNER, CAMERA, None, PAIR, middle_mm=600)
    for value in (np.nan, np.inf, 0.0, -600.0):
        bad[1, 2] = value
        picture = overlay(depth, CORNER, CAMERA, bad, PAIR)
        assert not (np.abs(picture.astype(int) - COLOURS[4]) <= 3).all(-1).any()
        assert (picture != empty).any()  # the palm is drawn
    gone = overlay(depth, CORNER, CAMERA, np.full((2, 3), np.nan), PAIR, middle_mm=600)
    np.testing.assert_array_equal(gone, empty)
    # Far outside the picture, and an empty patch: nothing to see, nothing to fail.
    overlay(np.zeros((8, 8)), CORNER, CAMERA, _joints((1e4, -1e4), (300, 190)), PAIR)


def test_grid_keeps_every_picture_whole():
    rng = np.random.default_rng(0)
    cells = [
        [rng.integers(0, 255, (30, 40, 3), dtype=np.uint8) for _ in range(2)] for _ in range(5)
    ]
    page = grid(cells, [f"{i} mm" for i in range(5)], 3, "title\nmore", ("a", "b"))
    for pair in cells:
        for picture in pair:
            corner = (page == picture[0, 0]).all(-1)
            assert any(
                (page[y : y + 30, x : x + 40] == picture).all()
                for y, x in np.argwhere(corner)
                if y + 30 <= len(page) and x + 40 <= page.shape[1]
            )
    with pytest.raises(ValueError, match="5 frames with 4 captions"):
        grid(cells, ["x"] * 4)


def test_real_frame_s_fingertips_lie_on_the_hand(shared_data):
    """The labels of the real NYU frame, drawn, cover the lit hand."""
    folder = shared_data / "nyu"
    if not folder.is_dir():
        pytest.skip(f"no NYU sample in {shared_data}")
    packed = np.asarray(Image.open(folder / "depth_1_0000001.png")).astype(int)
    depth = packed[..., 1] * 256 + packed[..., 2]
    uvd = np.stack(
        [np.loadtxt(folder / f"joint_1_{k}.csv", delimiter=",", max_rows=1) for k in "uvd"], -1
    )[list(NYU_COLUMNS)]
    camera = NYU_CAMERA.intrinsics.astype(float)
    joints = uvd_to_xyz(uvd, camera)
    bare = overlay(depth, np.zeros(2), camera, None, NYU, scale=1, middle_mm=joints[13, 2])
    u, v = np.rint(uvd[:13, :2]).astype(int).T
    assert (bare[v, u].min(-1) > 60).mean() > 0.9
    assert (bare.min(-1) > 60).mean() < 0.15  # and little else is lit
    drawn = overlay(depth, np.zeros(2), camera, joints, NYU, scale=1)
    for finger in range(5):
        assert (np.abs(drawn.astype(int) - COLOURS[finger]) <= 4).all(-1).sum() > 10
