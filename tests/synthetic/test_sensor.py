"""The sensor model: what it may and may not do to a perfect image."""

import jax
import jax.numpy as jnp
import numpy as np

from hpe_jax.synthetic.sensor import _in_steps, sense


def plate(z):
    return jnp.zeros((64, 64)).at[16:48, 16:48].set(z)


def read(z, n=16):
    keys = jax.random.split(jax.random.key(0), n)
    return np.asarray(_read(keys, z))


@jax.jit
def _read(keys, z):
    return jax.vmap(lambda k: sense(k, plate(z), z / 150.0))(keys)


def test_noise_grows_with_distance():
    spread = {}
    for z in (400.0, 1000.0):
        out = read(z)[:, 24:40, 24:40]
        spread[z] = np.std(out[out > 0] - z)
    assert 0.05 < spread[400.0] < 1.5
    assert spread[1000.0] > 3 * spread[400.0]


def test_noise_is_fine_and_in_clumps():
    """Neighbours differ a little; what is a few pixels wide differs more."""
    out = read(700.0, 64)[:, 24:40, 24:40]
    off = np.where(out > 0, out - 700.0, np.nan)
    fine, whole = np.nanstd(np.diff(off, axis=2)) / np.sqrt(2), np.nanstd(off)
    assert 0.75 < fine < 1.05 and whole > 1.4 * fine, (fine, whole)


def test_some_pixels_are_lost_and_none_appear_far_from_the_object():
    out = read(700.0)
    inside = out[:, 20:44, 20:44]
    assert 0.001 < (inside == 0).mean() < 0.25
    assert (out[:, :8] == 0).all() and (out[:, :, 56:] == 0).all()


def test_mixed_pixels_trail_behind_edges_only():
    """Half of the images may have curtains behind silhouettes; nothing else is put far back."""
    out = read(700.0, 64)
    behind = np.where(out > 0, out - 700.0, 0.0)
    # What the fringe, at most some 7 pixels wide, and the mixing beside it cannot reach.
    assert np.abs(behind[:, 26:38, 26:38]).max() < 25
    edge = behind.copy()
    edge[:, 26:38, 26:38] = 0
    curtains = (edge > 30).sum((1, 2))
    assert (curtains == 0).sum() >= 20 and (curtains > 20).sum() >= 12
    assert edge.min() > -25  # Never in front.
    outside = (out[:, :16] > 0).any((1, 2))
    assert outside.sum() >= 20


def test_edges_that_trail_curtains_are_clean():
    """Their readings are put far back instead of being lost."""
    out = read(700.0, 128)
    curtains = (out > 730.0).sum((1, 2)) > 20
    rim = np.zeros((64, 64), bool)
    rim[16:48, 16:48], rim[17:47, 17:47] = True, False
    lost = (out[:, rim] == 0).mean(1)
    assert curtains.sum() > 20 and lost[curtains].mean() < 0.08 < lost[~curtains].mean()


def test_silhouettes_lose_as_much_on_every_side():
    """Left, right, top and bottom: a sensor knows no side, and hands have one."""
    lost = read(700.0, 512) == 0
    edges = (lost[:, 20:44, 16], lost[:, 20:44, 47], lost[:, 16, 20:44], lost[:, 47, 20:44])
    shares = [edge.mean() for edge in edges]
    middle = lost[:, 26:38, 26:38].mean()
    assert min(shares) > 1.2 * middle and max(shares) < 1.15 * min(shares), (shares, middle)


def test_depth_comes_in_plateaus_that_grow_with_the_square_of_distance():
    for z, expected in ((700.0, 1.5), (1400.0, 6.0)):
        slope = jnp.linspace(z - 30, z + 30, 4001)[None]
        out = np.asarray(_in_steps(slope, jnp.float32(1.5)))[0]
        levels = np.unique(out)
        np.testing.assert_allclose(np.diff(levels), expected, rtol=0.1)
        assert np.abs(out - slope).max() < 0.55 * expected
    assert np.isfinite(_in_steps(jnp.zeros((2, 2)), jnp.float32(0.125))).all()


def test_deterministic():
    np.testing.assert_array_equal(read(600.0), read(600.0))
