"""Decodes against NumPy twins and against what theory says of their error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.kernels.decode import argmax, decoder, subvoxel, top_k
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.kernels.voxels import coarsen, make_grid, to_mm, to_voxels

# Jitted: compiled once a shape, instead of each of their operations on its own.
gaussian_heatmaps = jax.jit(gaussian_heatmaps, static_argnums=(1, 2))
argmax, top_k = jax.jit(argmax), jax.jit(top_k, static_argnums=1)
subvoxel = jax.jit(subvoxel, static_argnames="radius")


def random_maps(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(5, 6, 7, 4)), jnp.float32)


def test_argmax_equals_numpy():
    maps = random_maps()
    for j, found in enumerate(argmax(maps)):
        z, y, x = np.unravel_index(int(maps[..., j].argmax()), maps.shape[:3])
        assert found.tolist() == [x, y, z]


@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_top_k_equals_numpy(shift):
    """Lower maps have fewer than k positive voxels, and others count nothing."""
    maps = random_maps() + shift
    for j, found in enumerate(top_k(maps, 9)):
        flat = np.asarray(maps[..., j]).ravel()
        order = np.argsort(-flat)[:9]
        weights = np.maximum(flat[order], 0)
        z, y, x = np.unravel_index(order, maps.shape[:3])
        expected = (weights[:, None] * np.stack([x, y, z], 1)).sum(0) / weights.sum()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_top_1_is_argmax_even_when_negative():
    maps = -1 - jnp.abs(random_maps())
    np.testing.assert_array_equal(top_k(maps, 1), argmax(maps))
    np.testing.assert_array_equal(subvoxel(maps), argmax(maps))


def mm_errors(decode, frames=40):
    """Errors on perfect heatmaps of joints anywhere in a 250 mm cube, at 44^3, in mm."""
    rng = np.random.default_rng(0)
    centre = np.array([10.0, -20.0, 700.0], np.float32)
    joints = (centre + rng.uniform(-115, 115, (frames, 14, 3))).astype(np.float32)

    def one(joints):
        grid = coarsen(make_grid(jnp.asarray(centre), 250.0, 88), 2)
        return to_mm(decode(gaussian_heatmaps(to_voxels(joints, grid), 44, 1.7)), grid)

    return np.linalg.norm(np.asarray(jax.lax.map(jax.jit(one), joints)) - joints, axis=-1)


def test_quantisation_of_argmax_is_what_theory_says():
    # A point uniform in a cube of edge a is 0.4803 a from its middle in the mean.
    errors = mm_errors(argmax)
    assert errors.mean() == pytest.approx(0.4803 * 250 / 44, rel=0.05)
    assert errors.max() <= np.sqrt(3) / 2 * 250 / 44 + 1e-2


def test_subvoxel_recovers_joints():
    assert mm_errors(subvoxel).max() < 0.05 * 250 / 44
    # Window and weights matter little without noise.
    assert mm_errors(lambda maps: subvoxel(maps, radius=1), 4).max() < 0.05 * 250 / 44


def test_subvoxel_equals_a_weighted_fit_and_stays_near_the_peak():
    """At most a voxel off, whatever the maps; NumPy's `polyfit` squares its weights."""
    maps = np.random.default_rng(2).random((7, 7, 7, 60)).astype(np.float32) + 0.5
    maps[3, 3, 3] = 1.6
    found, limited = np.asarray(subvoxel(maps)), 0
    for j in range(60):
        for axis, others in enumerate(((0, 1), (0, 2), (1, 2))):
            profile = maps[1:6, 1:6, 1:6, j].sum(others).astype(float)
            a, b, _ = np.polyfit(np.arange(-2, 3), np.log(profile), 2, w=profile)
            if a < -2e-3:  # Wider ones are as good as flat.
                limited += abs(b / (2 * a)) > 1
                expected = 3 + np.clip(-b / (2 * a), -1, 1)
                np.testing.assert_allclose(found[j, axis], expected, atol=2e-3)
    assert limited > 3


def test_subvoxel_at_the_border_and_for_other_widths():
    joints = np.array([[0.2, 14.9, 7.3], [15.3, 0, 0.4], [-0.4, 3.6, 15.0]], np.float32)
    for sigma in (1.0, 1.7, 3.0):
        maps = gaussian_heatmaps(joints, 16, sigma)
        np.testing.assert_allclose(subvoxel(maps), joints, atol=0.05)


def test_subvoxel_survives_noise_better_than_argmax():
    rng = np.random.default_rng(1)
    joints = rng.uniform(2, 13, (200, 3)).astype(np.float32)
    maps = np.asarray(gaussian_heatmaps(joints, 16, 1.7))
    maps = maps + rng.normal(0, 0.05, maps.shape).astype(np.float32)
    fine, rough = (
        np.linalg.norm(np.asarray(f(maps)) - joints, axis=-1).mean() for f in (subvoxel, argmax)
    )
    assert fine < 0.25 and fine < 0.45 * rough


def test_decoder_names():
    maps = random_maps()
    np.testing.assert_array_equal(decoder("argmax")(maps), argmax(maps))
    np.testing.assert_array_equal(decoder("subvoxel")(maps), subvoxel(maps))
    np.testing.assert_array_equal(decoder("topk", 3)(maps), top_k(maps, 3))
    for args in (("topk", 0), ("mean", 1)):
        with pytest.raises(ValueError, match="decode"):
            decoder(*args)
    with pytest.raises(ValueError, match="window"):
        subvoxel(maps[:4])
