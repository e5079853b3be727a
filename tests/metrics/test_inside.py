import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.kernels.localise import segment_hand
from hpe_jax.metrics.inside import inside_hand, joints_inside, seen_cm2

CAMERA = np.array([100.0, 110.0, 20.0, 16.0])
CORNER = np.array([4.0, 3.0])
CENTRE = np.array([0.0, 0.0, 500.0])


def slow_seen(depth):
    """Readings in a cube of 250 mm."""
    total = 0.0
    for (i, j), d in np.ndenumerate(depth.astype(float)):
        x = (j + CORNER[0] - CAMERA[2]) / CAMERA[0] * d
        y = (i + CORNER[1] - CAMERA[3]) / CAMERA[1] * d
        if d > 0 and max(abs(x), abs(y), abs(d - 500)) <= 125:
            total += d / CAMERA[0] * d / CAMERA[1]
    return total / 100


def slow_inside(joints, depth, cube):
    count = 0
    for x, y, z in joints:
        if z <= 0:
            continue
        j = round(CAMERA[2] + CAMERA[0] * x / z - CORNER[0])
        i = round(CAMERA[3] + CAMERA[1] * y / z - CORNER[1])
        if not (0 <= i < depth.shape[0] and 0 <= j < depth.shape[1]) or depth[i, j] == 0:
            continue
        d = depth[i, j]
        px = (j + CORNER[0] - CAMERA[2]) / CAMERA[0] * d
        py = (i + CORNER[1] - CAMERA[3]) / CAMERA[1] * d
        if max(abs(px - CENTRE[0]), abs(py - CENTRE[1]), abs(d - CENTRE[2])) > cube / 2:
            continue
        count += 0 <= z - d <= 40
    return count / len(joints)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.sampled_from([60.0, 120.0, 250.0]))
def test_matches_the_loop(seed, cube):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(400, 600, (24, 30)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0
    joints = rng.uniform([-90, -90, 420], [90, 90, 640], (40, 3))
    joints[0, 2] = -1
    expected = slow_inside(joints, depth, cube)
    assert inside_hand(joints, depth, CORNER, CAMERA, CENTRE, cube) == expected
    np.testing.assert_allclose(seen_cm2(depth, CORNER, CAMERA, CENTRE), slow_seen(depth), rtol=1e-6)


def test_a_plane():
    """A hand 500 mm away in front of a wall: only joints just behind the hand count."""
    depth = np.full((24, 30), 900, np.float32)
    depth[8:18, 10:22] = 500
    hand = segment_hand(depth, CORNER, CAMERA, CENTRE, 250)
    assert hand.sum() == 120 and hand[8:18, 10:22].all()

    def at(z, u=20, v=16):
        return [(u - CAMERA[2]) * z / CAMERA[0], (v - CAMERA[3]) * z / CAMERA[1], z]

    joints = np.array([at(510), at(500), at(540), at(541), at(499), at(910, u=6), at(510, u=500)])
    shares = [inside_hand(j[None], depth, CORNER, CAMERA, CENTRE, 250) for j in joints]
    assert shares == [1, 1, 1, 0, 0, 0, 0]
    assert inside_hand(joints, depth, CORNER, CAMERA, CENTRE, 250) == 3 / 7
    assert joints_inside(joints, depth, CORNER, CAMERA, CENTRE, 250).tolist() == shares
    # 12 x 10 pixels, each 5 mm by 4.5 mm.
    assert seen_cm2(depth, CORNER, CAMERA, CENTRE) == pytest.approx(120 * 5 * 500 / 110 / 100)
