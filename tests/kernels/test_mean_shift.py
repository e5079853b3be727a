"""Mean shift against Algorithm 1 written out, and where it could divide by nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax.kernels.mean_shift import mean_shift


def slow(candidates, weights, width, iterations):
    place = sum(w * c for c, w in zip(candidates, weights, strict=True)) / sum(weights)
    for _ in range(iterations):
        total, mass = np.zeros(3), 0.0
        for c, w in zip(candidates, weights, strict=True):
            k = np.exp(-((c - place) ** 2).sum() / (2 * width**2))
            total, mass = total + k * w * c, mass + k * w
        place = total / mass
    return place


def test_equals_the_algorithm():
    rng = np.random.default_rng(0)
    for width in (10.0, 40.0):
        candidates = rng.normal(0, 30, (5, 3))
        weights = rng.random(5)
        fast = mean_shift(jnp.asarray(candidates), jnp.asarray(weights), width, 10)
        np.testing.assert_allclose(fast, slow(candidates, weights, width, 10), atol=1e-3)


def test_outliers_lose():
    candidates = jnp.array([[0.0, 0, 0], [1.0, 1, 0], [0, 1.0, 1], [300.0, 0, 0]])
    place = mean_shift(candidates, jnp.ones(4), 40.0, 30)
    assert np.linalg.norm(place - jnp.array([1 / 3, 2 / 3, 1 / 3])) < 1


def test_never_nan():
    far = jnp.array([[0.0, 0, 0], [1e4, 0, 0], [0, -1e4, 0]])
    for weights in ([0, 0, 0], [0, 1, 1], [1e-30, 0, 0], [-1, -2, 3]):
        place = mean_shift(far, jnp.asarray(weights, jnp.float32), 1.0, 10)
        assert np.isfinite(place).all(), weights
    np.testing.assert_allclose(mean_shift(far, jnp.array([0.0, 0, 1]), 1.0, 5), [0, -1e4, 0])
    same = jnp.ones((4, 3))
    np.testing.assert_allclose(mean_shift(same, jnp.zeros(4), 40.0, 10), [1, 1, 1], atol=1e-6)


def test_batches():
    candidates = jax.random.normal(jax.random.key(0), (2, 7, 5, 3)) * 20
    weights = jnp.ones((2, 7, 5))
    f = jax.vmap(jax.vmap(lambda c, w: mean_shift(c, w, 40.0, 10)))
    assert f(candidates, weights).shape == (2, 7, 3)
