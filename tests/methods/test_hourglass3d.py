"""The structure-aware 3D hourglass: shapes of the paper, boxes, losses, baselines, bad configs."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import SKELETON, fit, squares
from ml_collections import ConfigDict

from hpe_jax import camera as cam
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import MSRA
from hpe_jax.kernels.augment import draw_affine
from hpe_jax.kernels.decode import decoder
from hpe_jax.kernels.heatmaps import bone_heatmaps, gaussian_heatmaps
from hpe_jax.kernels.voxels import coarsen, make_grid, tighten, to_voxels
from hpe_jax.methods import METHODS, hourglass3d
from hpe_jax.methods.hourglass3d import BASELINES, PAPER, HourglassNet, squared_error


def config(**changes):
    small = {"input": 16, "features": 6, "depth": 1, "hidden": 16, "top_k": 4, "kernel_std": 0.0}
    return ConfigDict(PAPER | small | changes)


def make_batch(size=2, seed=0):
    return squares(size, seed, reach_mm=50.0, half=4)


def test_paper_network_has_the_paper_shapes():
    net = HourglassNet(21, len(MSRA.bones))
    outputs, variables = jax.eval_shape(
        lambda v: net.init_with_output(jax.random.key(0), v, train=False),
        jax.ShapeDtypeStruct((1, 64, 64, 64, 1), jnp.float32),
    )
    assert [o.shape for o in outputs] == [(1, 32, 32, 32, 41), (1, 32, 32, 32, 21)]
    params = variables["params"]
    assert params["stem"]["conv"]["kernel"].shape == (3, 3, 3, 1, 128)
    assert params["output0"]["kernel"].shape == (1, 1, 1, 128, 41)
    assert params["maps0"]["kernel"].shape == (1, 1, 1, 41, 128)
    inner = params["hourglass1"]
    for _ in range(3):
        inner = inner["inner"]
    assert inner["middle"]["conv2"]["kernel"].shape == (3, 3, 3, 128, 128)


@pytest.mark.parametrize("name", ["", *BASELINES])
def test_every_row_of_table_1_has_its_maps(name):
    method = METHODS["hourglass3d"](config(**BASELINES.get(name, {})), SKELETON)
    variables, batch = jax.eval_shape(method.init, jax.random.key(0)), make_batch()
    value, (_, rest) = jax.eval_shape(method.loss, variables, batch, jax.random.key(0))
    assert value.shape == () and jax.tree.structure({"params": variables["params"], **rest}) == (
        jax.tree.structure(variables)
    )
    assert jax.eval_shape(method.predict, variables, batch).shape == (2, 3, 3)


def test_an_image_is_read_at_a_face_of_the_volume_s_pixels(monkeypatch):
    read = []
    monkeypatch.setattr(hourglass3d, "decoder", lambda name, k: read.append(k) or decoder(name, k))
    for dims, k in ((3, 64), (2, 64), (3, 27), (2, 27), (2, 1)):
        METHODS["hourglass3d"](config(dims=dims, top_k=k), SKELETON)
    assert read == [64, 16, 27, 9, 1]


@pytest.mark.parametrize("name", ["b1", "b5"])
def test_it_trains_and_predicts(name):
    """Coordinates from volumes, heatmaps of images: the error falls on two examples."""
    settings = config(rotation_deg=0.0, aspect=(1.0, 1.0), **BASELINES.get(name, {}))
    method, batch = METHODS["hourglass3d"](settings, SKELETON), make_batch()
    variables = method.init(jax.random.key(0))
    shapes = {k: v["kernel"].shape for k, v in variables["params"].items() if "kernel" in v}
    assert ("fc2" in shapes) == (settings.target == "direct")
    if "output0" in shapes:
        assert shapes["output0"][-1] == 3 + 2 * settings.bones
        assert len(shapes["output0"]) == settings.dims + 2
    variables, errors = fit(method, variables, batch, rate=3e-3, steps=60)
    assert errors[-1][0] < 0.5 * errors[0][0]
    assert errors[-1][1] < 0.7 * errors[0][1]
    joints = jax.jit(method.predict)(variables, batch)
    assert joints.shape == (2, 3, 3) and np.isfinite(joints).all()
    if name == "b5":
        # No depth is estimated: all joints lie in the middle of their box.
        assert np.ptp(np.asarray(joints)[..., 2], axis=1).max() < 1e-3


def test_first_loss_from_the_parts():
    """Equations 1 and 2, rebuilt from the draws, the box, the targets and the network."""
    settings, batch, key = config(), make_batch(), jax.random.key(5)
    batch["joint_valid"] = jnp.array([[True, True, False], [True, True, True]])
    method = METHODS["hourglass3d"](settings, SKELETON)
    variables = method.init(jax.random.key(0))
    value, (_, state) = jax.jit(method.loss)(variables, batch, key)
    assert set(state) == {"batch_stats"}

    @jax.jit
    def parts(n, key):
        affine = draw_affine(key, rotation_deg=30.0, aspect=(0.8, 1.2))
        grid = make_grid(batch["centre"][n], 200.0, 16, angle=affine.angle, aspect=affine.aspect)
        points = cam.depth_to_points(batch["depth"][n], batch["corner"][n], batch["camera"][n])
        points, valid = points.reshape(-1, 3), (batch["depth"][n] > 0).reshape(-1)
        grid = tighten(points, valid, grid, 16)
        voxels = to_voxels(batch["joints"][n], coarsen(grid, 2))
        maps = gaussian_heatmaps(voxels, 8, 1.0), bone_heatmaps(voxels, SKELETON.bones, 8, 0.5)
        return affine, to_voxels(points, grid), valid, maps

    seen, targets = [], []
    for n, k in enumerate(jax.random.split(key, 2)):
        affine, points, valid, maps = jax.device_get(parts(n, k))
        assert 0.8 <= affine.aspect <= 1.2 and affine.scale == 1
        volume = np.zeros((16, 16, 16, 1), np.float32)
        for x, y, z in np.floor(points + 0.5).astype(int)[valid]:
            if min(x, y, z) >= 0 and max(x, y, z) < 16:
                volume[z, y, x] = 1
        seen.append(volume)
        targets.append(maps)
    net = HourglassNet(3, 2, features=6, depth=1)
    outputs, _ = jax.jit(lambda v: net.apply(variables, v, train=True, mutable=["batch_stats"]))(
        np.stack(seen)
    )
    expected = 0.0
    for n, (joints, bones) in enumerate(targets):
        ok = np.asarray(batch["joint_valid"][n])
        for maps in outputs:
            expected += ((np.asarray(maps[n, ..., :3]) - joints) ** 2)[..., ok].sum()
        usable = [ok[a] and ok[b] for a, b in SKELETON.bones]
        expected += ((np.asarray(outputs[0][n, ..., 3:]) - bones) ** 2)[..., usable].sum()
    np.testing.assert_allclose(value, expected / 2, rtol=1e-4)
    assert value != jax.jit(method.loss)(variables, batch, jax.random.key(6))[0]


def test_the_box_of_the_points_or_the_cube():
    """`points` follows the hand however badly the centre was found; `cube` does not."""
    batch = make_batch()
    moved = batch | {"centre": batch["centre"] + jnp.array([9.0, -7.0, 5.0])}
    for box, same in (("points", True), ("cube", False)):
        method = METHODS["hourglass3d"](config(box=box, output_std=0.3), SKELETON)
        variables = method.init(jax.random.key(0))
        one, two = (jax.jit(method.predict)(variables, b) for b in (batch, moved))
        assert np.allclose(one, two, atol=0.05) == same


def test_squared_error_is_a_sum_for_each_map():
    a, b = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 4, 5, 3)))
    np.testing.assert_allclose(squared_error(a, b), ((a - b) ** 2).sum((1, 2, 3)), rtol=1e-5)


def test_empty_crops_give_finite_numbers():
    batch = make_batch() | {"depth": jnp.zeros((2, 64, 64))}
    method = METHODS["hourglass3d"](config(), SKELETON)
    variables = method.init(jax.random.key(0))
    value, _ = jax.jit(method.loss)(variables, batch, jax.random.key(0))
    assert np.isfinite(value)
    assert np.isfinite(jax.jit(method.predict)(variables, batch)).all()


def test_without_depth_joints_lie_at_the_middle_of_the_cube():
    batch = make_batch()
    method = METHODS["hourglass3d"](config(box="cube", **BASELINES["b4"]), SKELETON)
    joints = jax.jit(method.predict)(method.init(jax.random.key(0)), batch)
    middle = np.broadcast_to(batch["centre"][:, None, 2], joints.shape[:2])
    np.testing.assert_allclose(joints[..., 2], middle)


@pytest.mark.parametrize("name", ["b1", "b2", "b3", "b4", "b5"])
def test_it_says_which_baselines_estimate_no_depth(name):
    method = METHODS["hourglass3d"](config(**BASELINES[name]), SKELETON)
    assert method.flat == (name in ("b4", "b5"))


@pytest.mark.parametrize("data_set", ["nyu", "msra"])
def test_configs(data_set):
    module = importlib.import_module(f"configs.hourglass3d_{data_set}")
    paper = module.get_config()
    method = paper.method
    assert (method.input, method.features, method.stacks) == (64, 128, 2)
    assert (method.joint_sigma, method.bone_sigma, method.bones) == (1.0, 0.5, True)
    assert (paper.optimizer.name, paper.optimizer.lr, paper.optimizer.step_factor) == (
        "rmsprop", 1e-5, 0.3,
    )  # fmt: skip
    assert (paper.batch, paper.epochs, paper.data.dataset) == (16, 20, data_set)
    assert method.box == {"nyu": "cube", "msra": "points"}[data_set]
    assert module.get_config("b5").method.dims == 2 and module.get_config("b5").method.bones
    quick = module.get_config("quick_b1")
    assert quick.method.target == "direct" and quick.method.input == 32 and quick.steps
    with pytest.raises(ValueError, match="no variant 'b6'"):
        module.get_config("b6")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"input": 18}, "method.input=18: expected a multiple of 4"),
        ({"stacks": 0}, "method.stacks=0: expected at least 1"),
        ({"dims": 1}, "method.dims=1: expected one of 2, 3"),
        ({"target": "map"}, "method.target='map': expected one of heatmap, direct"),
        ({"box": "hand"}, "method.box='hand': expected one of points, cube"),
        ({"bone_sigma": 0}, "method.bone_sigma=0: expected a positive number"),
        ({"aspect": (1.2, 0.8)}, r"method.aspect=\(1.2, 0.8\): expected .* low <= high"),
        ({"top_k": 0}, "method.top_k=0: expected 1 to 512 voxels"),
        ({"decode": "subvoxel", "dims": 2}, "method.decode=subvoxel needs method.dims=3"),
        ({"decode": "mean"}, "method.decode: unknown decode 'mean'"),
        ({"dtype": "float16"}, "method.dtype='float16'"),
        ({"rotation_deg": -1.0}, "method.rotation_deg=-1.0: expected at least 0"),
    ],
)
def test_bad_configs(changes, match):
    with pytest.raises(InputError, match=match):
        METHODS["hourglass3d"](config(**changes), SKELETON)
