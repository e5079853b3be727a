"""The detector: shapes, learning, depths, odd frames; the scene behind synthetic hands."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import fit
from ml_collections import ConfigDict

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import ICVL, NYU, Skeleton
from hpe_jax.methods import METHODS
from hpe_jax.methods.detector import NOWHERE_MM, PAPER, STEM, UNIT_MM, median_centre
from hpe_jax.training.sources import make_source

CAMERA = np.array([60.0, 60.0, 32.0, 24.0], np.float32)
TWO = Skeleton(("left", "right"), ((0, 1),), (0, 1))


def config(**changes):
    return ConfigDict(PAPER | {"features": 8, "depth": 2} | changes)


def make_batch(size=8, seed=0, wall=True):
    """A bar of 220 x 60 mm with a "joint" in each half, before a wall."""
    rng = np.random.default_rng(seed)
    middle = np.stack(
        [rng.uniform(-60, 60, size), rng.uniform(-60, 60, size), rng.uniform(500, 600, size)], -1
    )
    depth = np.full((size, 48, 64), 1200.0 if wall else 0.0, np.float32)
    for b in range(size):
        (u0, v0), (u1, v1) = (
            np.asarray(xyz_to_uvd(middle[b] + np.array(d), CAMERA))[:2].round().astype(int)
            for d in ((-110.0, -30.0, 0.0), (110.0, 30.0, 0.0))
        )
        depth[b, max(v0, 0) : v1 + 1, max(u0, 0) : u1 + 1] = middle[b, 2]
    joints = middle[:, None] + np.array([[-80.0, 0, 0], [80.0, 0, 0]])
    fields = {
        "depth": depth, "corner": np.zeros((size, 2)), "camera": np.tile(CAMERA, (size, 1)),
        "centre": middle, "joints": joints, "cube": np.full(size, 250.0),
    }  # fmt: skip
    batch = {name: jnp.asarray(value, jnp.float32) for name, value in fields.items()}
    return batch | {"joint_valid": jnp.ones((size, 2), bool)}


def test_learns_where_joints_are():
    method, batch = METHODS["detector"](config(), TWO), make_batch(32)
    variables = method.init(jax.random.key(0))
    variables, history = fit(method, variables, batch, rate=1e-2, steps=60)
    found = jax.jit(method.predict)(variables, batch)
    apart = np.linalg.norm(found - batch["joints"], axis=-1)
    # A pixel of the maps is 37 mm wide here.
    assert apart.mean() < 30 and history[-1][1] < 60
    centre = np.linalg.norm(median_centre(found) - batch["centre"], axis=-1)
    assert centre.mean() < apart.mean()


def test_frames_of_any_size_and_empty_ones():
    method = METHODS["detector"](config(output_std=0.3), NYU)
    variables = method.init(jax.random.key(1))
    none = jax.tree.map(jnp.zeros_like, variables["params"]["output_depth"])
    variables["params"]["output_depth"] = none
    for height, width in ((120, 160), (106, 128), (47, 61)):
        depth = jnp.zeros((2, height, width)).at[1, 20:30, 20:30].set(500.0)
        batch = {"depth": depth, "corner": jnp.zeros((2, 2)), "camera": jnp.tile(CAMERA, (2, 1))}
        found = np.asarray(jax.jit(method.predict)(variables, batch))
        assert found.shape == (2, 14, 3) and np.isfinite(found).all()
        # Joints that meet no reading take the depth of those that do.
        assert set(np.unique(found[1, :, 2].round(2))) <= {500.0, NOWHERE_MM}
        assert (found[0, :, 2] == NOWHERE_MM).all()


def test_depth_is_that_of_the_nearest_reading_and_what_the_network_adds():
    method = METHODS["detector"](config(top_k=1), ICVL)
    variables = method.init(jax.random.key(0))
    # All weights but two biases at zero: equal maps, whose first pixel is the peak.
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    bias = params["output_depth"]["bias"].at[3].set(0.5)
    params["output_depth"]["bias"] = bias
    depth = jnp.full((1, 32, 32), 750.0).at[0, 5, 5].set(700.0).at[0, 6, 6].set(600.0)
    batch = {"depth": depth, "corner": jnp.zeros((1, 2)), "camera": CAMERA[None]}
    found = jax.jit(method.predict)(variables | {"params": params}, batch)[0]
    at = np.asarray(xyz_to_uvd(found, CAMERA))
    np.testing.assert_allclose(at[:, :2], (STEM - 1) / 2, atol=1e-3)
    # The pixel's own readings and two on each side, without the sixth row and column.
    expected = np.full(len(ICVL), 700.0)
    expected[3] += 0.5 * UNIT_MM
    np.testing.assert_allclose(at[:, 2], expected, rtol=1e-6)


@pytest.fixture(scope="module")
def loss():
    """Of a network whose maps are all zero."""
    method = METHODS["detector"](config(), TWO)
    variables = jax.tree.map(jnp.zeros_like, method.init(jax.random.key(0)))
    step = jax.jit(method.loss)
    return lambda batch: step(variables, batch, jax.random.key(0))


def test_joints_without_a_label_teach_nothing(loss):
    batch = make_batch(1) | {"joint_valid": jnp.array([[True, False]])}
    moved = batch | {"joints": batch["joints"].at[:, 1].add(20.0)}
    (one, (a, _)), (two, (b, _)) = loss(batch), loss(moved)
    assert one == two and a["error_mm"] == b["error_mm"]


def test_targets_lie_where_the_maps_are_read(loss):
    pixels = np.array([[0.0, 1.0], [13.0, 2.0]])
    joints = np.concatenate([(pixels - CAMERA[2:]) / CAMERA[:2], np.ones((2, 1))], 1) * 500
    batch = make_batch(1) | {"joints": jnp.asarray(joints[None], jnp.float32)}
    value, _ = loss(batch | {"depth": jnp.zeros_like(batch["depth"])})  # Only heatmaps count.
    y, x = np.mgrid[:12, :16]
    middles = (np.stack([x, y], -1) + 0.5) * STEM - 0.5  # Of the maps' pixels, in the frame's.
    apart = (((middles[..., None, :] - pixels) / STEM) ** 2).sum(-1)
    np.testing.assert_allclose(value, np.exp(-apart).sum(), rtol=1e-4)


def test_readings_far_from_a_joint_teach_it_no_depth(loss):
    batch = make_batch(1)
    joint = float(batch["joints"][0, 0, 2])
    empty, far, near = (
        loss(batch | {"depth": jnp.full_like(batch["depth"], z)})[0]
        for z in (0.0, joint + 300.0, joint - 50.0)
    )
    assert empty == far != near


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"depth": 0}, "method.depth=0: expected at least 1"),
        ({"features": 0}, "method.features=0: expected at least 1"),
        ({"top_k": 17}, "method.top_k=17: expected 1 to 16"),
        ({"span_mm": 0.0}, "method.span_mm=0.0: expected a positive number"),
        ({"output_std": -1.0}, "method.output_std=-1.0: expected at least 0"),
        ({"dtype": "int8"}, "method.dtype='int8'"),
    ],
)
def test_bad_configs(changes, match):
    with pytest.raises(InputError, match=match):
        METHODS["detector"](config(**changes), NYU)


def test_configs_ask_for_whole_frames_and_no_centre():
    module = importlib.import_module("configs.detector_nyu")
    assert module.get_config().data.whole and module.get_config("quick").data.whole
    assert make_source(module.get_config("quick"), "test").centre == "none"
    with pytest.raises(ValueError, match="no variant"):
        module.get_config("large")
