"""Whole synthetic frames: what is behind the hand, that it is found all the same; centre files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax.camera import CAMERAS, decimate, xyz_to_uvd
from hpe_jax.datasets.centres import write_centres
from hpe_jax.errors import InputError
from hpe_jax.synthetic import TEST_FRAMES, make_source, scene
from hpe_jax.synthetic.scene import EMPTY, NECK_MM, TORSO_MM, background


def config(**changes):
    data = dict(
        dataset="nyu",
        centre="com",
        centre_file="",
        cube_mm=250.0,
        patch=64,
        extent_mm=340.0,
        centre_jitter_mm=5.0,
        whole=True,
        synthetic=dict(sensor=False, forearm=True),
    )
    return ConfigDict(data | changes)


@pytest.fixture(scope="module")
def pictures():
    camera = decimate(jnp.asarray(CAMERAS["nyu"].intrinsics), 8)
    hand = jnp.array([30.0, -20.0, 700.0])
    make = jax.jit(jax.vmap(lambda key: background(key, hand, jnp.zeros(2), camera, (60, 80))))
    return np.asarray(make(jax.random.split(jax.random.key(0), 200))), np.asarray(hand)


def test_the_background_is_behind_the_hand(pictures):
    depth, hand = pictures
    assert depth.shape == (200, 60, 80) and np.isfinite(depth).all()
    nearest = np.where(depth > 0, depth, np.inf).min((1, 2))
    assert (nearest > hand[2] + 300.0 - TORSO_MM[2] * 1.25).all()
    # Some frames hold nothing, some a person alone, some a wall all over.
    filled = (depth > 0).mean((1, 2))
    assert abs((filled == 0).mean() - EMPTY) < 0.15
    assert (filled == 1).any() and ((filled > 0.02) & (filled < 0.9)).any()


def test_a_person_s_head_is_above_the_torso(monkeypatch):
    middles, ellipsoid = [], scene._ellipsoid

    def seen(ray, middle, half):
        middles.append(np.asarray(middle))
        return ellipsoid(ray, middle, half)

    monkeypatch.setattr(scene, "_ellipsoid", seen)
    camera = jnp.array([73.0, 73.0, 40.0, 30.0])
    background(jax.random.key(0), jnp.array([0.0, 0, 700]), jnp.zeros(2), camera, (6, 8))
    torso, head = middles
    assert head[1] == pytest.approx(torso[1] - NECK_MM, abs=1e-3)  # y is down.


def test_whole_frames():
    source = make_source(config(), "test", 0)
    batch = jax.device_get(jax.jit(source.expand)(source.load(np.arange(16))))
    assert batch["depth"].shape == (16, 120, 160) and not batch["corner"].any()
    # The hand is what is nearest: its centre is found before any background.
    apart = np.linalg.norm(batch["centre"] - batch["joints"].mean(1), axis=-1)
    assert np.median(apart) < 40
    # The same hand as in a patch of the same index, and its joints lie in the frame.
    patches = make_source(config(whole=False, centre="gt"), "test", 0)
    joints = jax.jit(lambda x: patches.expand(x)["joints"])(patches.load(np.arange(16)))
    np.testing.assert_allclose(batch["joints"], joints, atol=1e-3)
    uv = jax.vmap(xyz_to_uvd)(batch["joints"], batch["camera"])[..., :2]
    assert (np.abs(uv - np.array([80, 60])) < np.array([85, 65])).mean() > 0.9


def test_centres_from_a_file(tmp_path):
    path = tmp_path / "centres_test.txt"
    centres = 1 + np.arange(3 * TEST_FRAMES, dtype=np.float32).reshape(-1, 3)
    write_centres(path, centres)
    data = config(centre="file", centre_file=str(tmp_path / "centres_{split}.txt"), whole=False)
    source = make_source(data, "test", 0)
    found = jax.jit(lambda x: source.expand(x)["centre"])(source.load(np.array([0, 7, 2047])))
    np.testing.assert_array_equal(found, centres[[0, 7, 2047]])
    with pytest.raises(InputError, match="endless, no file fits"):
        make_source(data, "train", 0)
    with pytest.raises(InputError, match="expected data.centre_file to name a file"):
        make_source(config(centre="file"), "test", 0)
    for wrong in (np.nan, -700.0):
        centres[4] = wrong
        write_centres(path, centres)
        with pytest.raises(InputError, match="line 5: no centre in front of the camera"):
            make_source(data, "test", 0)
    write_centres(path, centres[:-1])
    with pytest.raises(InputError, match="2047 centres, expected one a frame, 2048"):
        make_source(data, "test", 0)
