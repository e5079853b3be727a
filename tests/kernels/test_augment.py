"""Augmentation draws stay in their bounds and depend on the key alone."""

import jax
import numpy as np

from hpe_jax.kernels.augment import draw_affine


def test_bounds_and_spread():
    keys = jax.random.split(jax.random.key(0), 4000)
    bounds = {"scale": (0.8, 1.2), "rotation_deg": 40.0, "margin": 8, "aspect": (0.8, 1.2)}
    draw = jax.vmap(lambda k: draw_affine(k, **bounds))(keys)
    for drawn in (draw.scale, draw.aspect):
        assert 0.8 <= drawn.min() < 0.81 and 1.19 < drawn.max() <= 1.2
    degrees = np.rad2deg(draw.angle)
    assert -40.001 <= degrees.min() < -39 and 39 < degrees.max() <= 40.001
    # Crops start at the whole voxels 0..8, the middle one moving nothing.
    assert np.unique(draw.shift).tolist() == list(range(-4, 5))
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draw.shift[:, pair[0]], draw.shift[:, pair[1]])[0, 1]) < 0.06


def test_nothing_to_draw():
    draw = draw_affine(jax.random.key(3))
    assert (draw.angle, draw.scale, draw.shift.tolist()) == (0.0, 1.0, [0.0, 0.0, 0.0])
    assert draw.aspect == 1.0


def test_aspect_changes_no_other_draw():
    plain, other = (draw_affine(jax.random.key(4), rotation_deg=9.0, aspect=a)
                    for a in ((1.0, 1.0), (0.5, 2.0)))  # fmt: skip
    assert (plain.angle, plain.scale) == (other.angle, other.scale)
    assert 0.5 <= other.aspect <= 2.0 and other.aspect != 1.0


def test_draws_are_independent():
    """Two of them made of one number would show a model one line of a plane."""
    draws = jax.vmap(
        lambda k: draw_affine(k, scale=(0.8, 1.2), rotation_deg=30, margin=200, aspect=(0.8, 1.2))
    )(jax.random.split(jax.random.key(0), 2000))
    every = [draws.angle, draws.scale, draws.aspect, *draws.shift.T]
    assert np.abs(np.corrcoef(np.stack(every)) - np.eye(6)).max() < 0.1
