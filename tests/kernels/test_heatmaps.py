"""Heatmaps of joints and bones against loops."""

import jax
import numpy as np

from hpe_jax.kernels.heatmaps import bone_heatmaps, gaussian_heatmaps

# Jitted: compiled once a shape, instead of each of their operations on its own.
gaussian_heatmaps = jax.jit(gaussian_heatmaps, static_argnums=(1, 2))
bone_heatmaps = jax.jit(bone_heatmaps, static_argnums=(1, 2, 3))


def test_equals_loop():
    joints = np.array([[1.2, 3.4, 0.3], [-1.0, 2.0, 5.5], [4, 4, 4]], np.float32)
    size, sigma = 6, 1.7
    expected = np.zeros((size, size, size, 3))
    for z, y, x, j in np.ndindex(*expected.shape):
        squared = ((np.array([x, y, z]) - joints[j]) ** 2).sum()
        expected[z, y, x, j] = np.exp(-squared / (2 * sigma**2))
    heatmaps = gaussian_heatmaps(joints, size, sigma)
    np.testing.assert_allclose(heatmaps, expected, atol=1e-6)
    assert heatmaps[4, 4, 4, 2] == 1.0


def test_images_equal_a_loop():
    joints = np.array([[1.2, 3.4], [-1.0, 2.0]], np.float32)
    expected = np.zeros((6, 6, 2))
    for y, x, j in np.ndindex(*expected.shape):
        expected[y, x, j] = np.exp(-((np.array([x, y]) - joints[j]) ** 2).sum() / (2 * 1.3**2))
    np.testing.assert_allclose(gaussian_heatmaps(joints, 6, 1.3), expected, atol=1e-6)


def from_segment(point, a, b):
    """Distance to a segment by trying a thousand points on it."""
    share = np.linspace(0, 1, 1001)[:, None]
    return np.linalg.norm(a + share * (b - a) - point, axis=1).min()


def test_bones_equal_a_loop():
    rng = np.random.default_rng(0)
    bones, size = ((0, 1), (1, 2), (0, 3)), 7
    for n in (2, 3):
        joints = rng.uniform(-1, size, (4, n)).astype(np.float32)
        joints[3] = joints[0]  # A bone without length is a joint.
        maps = np.asarray(bone_heatmaps(joints, bones, size, 0.8))
        assert maps.shape == (*(size,) * n, 3)
        for *at, k in np.ndindex(*maps.shape):
            a, b = (joints[j].astype(float) for j in bones[k])
            distance = from_segment(np.array(at[::-1], float), a, b)
            np.testing.assert_allclose(
                maps[(*at, k)], np.exp(-(distance**2) / (2 * 0.8**2)), atol=1e-4
            )
