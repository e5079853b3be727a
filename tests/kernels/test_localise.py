"""Finding the hand: a NumPy twin of the centre of mass, flying pixels, arms, empty images."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hpe_jax.kernels.localise import centre_of_mass, localise, nearest_surface
from hpe_jax.synthetic import make_source

# Jitted: compiled once a shape, instead of each of their operations on its own.
centre_of_mass = jax.jit(centre_of_mass, static_argnums=4)
nearest_surface, localise = jax.jit(nearest_surface), jax.jit(localise)

CAMERA = jnp.array([300.0, 300.0, 80.0, 60.0])


def hands(centre, patch, cube_mm=250.0):
    config = ConfigDict(
        dict(dataset="nyu", centre=centre, cube_mm=cube_mm, patch=patch, extent_mm=340.0,
             centre_jitter_mm=0.0, synthetic=dict(sensor=True, forearm=True))
    )  # fmt: skip
    source = make_source(config, "train", 3)
    return jax.jit(source.expand)(source.load(np.arange(64)))


def slow_centre_of_mass(points, weight, start, cube, iterations):
    centre = np.array(start, float)
    for _ in range(iterations):
        total, count = np.zeros(3), 0.0
        for p, w in zip(points, weight, strict=True):
            if all(abs(p[i] - centre[i]) < cube / 2 for i in range(3)):
                total, count = total + w * p, count + w
        if count > 0:
            centre = total / count
    return centre


def test_centre_of_mass_equals_a_slow_loop():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 80, (300, 3)).astype(np.float32)
    weight = np.maximum(rng.uniform(-0.5, 1, 300), 0).astype(np.float32)
    start = np.array([60.0, -40, 20], np.float32)
    fast = centre_of_mass(jnp.asarray(points), jnp.asarray(weight), jnp.asarray(start), 150.0, 6)
    np.testing.assert_allclose(fast, slow_centre_of_mass(points, weight, start, 150, 6), atol=1e-3)


def test_centre_of_mass_stays_where_nothing_is():
    points, start = jnp.full((5, 3), 900.0), jnp.array([1.0, 2.0, 3.0])
    assert centre_of_mass(points, jnp.ones(5), start, 100.0).tolist() == [1, 2, 3]
    assert centre_of_mass(points, jnp.zeros(5), start, 5000.0).tolist() == [1, 2, 3]


def test_a_flying_pixel_does_not_win():
    depth = jnp.zeros((40, 40)).at[10:20, 10:20].set(600.0).at[30, 30].set(300.0)
    row, column = nearest_surface(depth)
    assert 10 <= row < 20 and 10 <= column < 20


def test_pixels_on_the_rim_are_not_the_nearest_surface():
    # What lies beyond them is not known, so that it must not pass for readings.
    depth = jnp.zeros((20, 20)).at[:2].set(300.0).at[10:15, 10:15].set(600.0)
    row, column = nearest_surface(depth)
    assert 10 <= row < 15 and 10 <= column < 15


def test_thin_scene_falls_back_to_the_nearest_reading():
    row, column = nearest_surface(jnp.zeros((20, 20)).at[4, 7].set(500.0).at[9, 9].set(450.0))
    assert (row, column) == (9, 9)


def test_background_does_not_matter():
    hand = jnp.zeros((120, 160)).at[40:80, 60:90].set(600.0)
    scene = jnp.where(hand > 0, hand, 1500.0)
    zero = jnp.zeros(2)
    a, b = localise(hand, zero, CAMERA), localise(scene, zero, CAMERA)
    np.testing.assert_allclose(a, b, atol=1e-2)
    np.testing.assert_allclose(a, [(74.5 - 80) * 2, (59.5 - 60) * 2, 600], atol=1.0)


def test_empty_image():
    assert localise(jnp.zeros((30, 30)), jnp.zeros(2), CAMERA).tolist() == [0, 0, 0]


def test_it_finds_synthetic_hands_and_not_their_arms():
    batch = hands("com", 64)
    off = np.linalg.norm(np.asarray(batch["centre"] - batch["joints"].mean(1)), axis=-1)
    assert np.median(off) < 30 and (off > 100).mean() < 0.08


def test_hands_are_as_large_whatever_cube_a_network_looks_at():
    usual, large = (np.asarray(hands("com", 64, cube)["centre"]) for cube in (250.0, 300.0))
    np.testing.assert_array_equal(usual, large)


def test_another_sampling_of_the_same_frame_hardly_moves_the_centre():
    batch = hands("gt", 128)
    find = jax.jit(jax.vmap(localise))

    def on_every_second(first):
        camera = batch["camera"] / 2
        corner = (batch["corner"] + first) / 2
        return find(batch["depth"][:, first::2, first::2], corner, camera)

    moved = np.linalg.norm(np.asarray(on_every_second(0) - on_every_second(1)), axis=-1)
    assert np.median(moved) < 4 and (moved > 20).mean() < 0.05
