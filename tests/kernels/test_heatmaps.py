"""Gaussian heatmaps against a loop."""

import numpy as np

from hpe_jax.kernels.heatmaps import gaussian_heatmaps


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
