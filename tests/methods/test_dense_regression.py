"""Dense 3D Regression: Algorithm 1 in NumPy, perfect maps, baselines, shapes, bad configs."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import SKELETON, fit, squares
from ml_collections import ConfigDict

from hpe_jax import camera as cam
from hpe_jax.errors import InputError
from hpe_jax.kernels.crops import make_crop, sample, to_camera, to_pixels, to_space
from hpe_jax.kernels.offsets import image_heatmaps, joint_field
from hpe_jax.methods import METHODS
from hpe_jax.methods.dense_regression import (
    BASELINES,
    PAPER,
    SWEEPS,
    DenseNet,
    _error,
    draw,
    estimate,
)

SETTINGS = dict(radius_mm=80.0, candidates=5, kernel_mm=40.0, iterations=10)
estimate = jax.jit(estimate, static_argnums=3, static_argnames=["weighted", *SETTINGS])


def config(**changes):
    small = {"input": 32, "features": 8, "depth": 1, "hidden": 16, "renorm_ramp": 20}
    return ConfigDict(PAPER | small | changes)


def make_batch(size=2, seed=0):
    return squares(size, seed, reach_mm=60.0, half=5)


def algorithm1(found, points, seen, project, *, radius_mm, candidates, kernel_mm, iterations):
    """The paper's Algorithm 1, joint by joint."""
    size, _, joints = found["R"].shape
    out = np.zeros((joints, 3))
    for j in range(joints):
        s = np.where(seen, found["S"][..., j], -np.inf).reshape(-1)
        best = np.argsort(-s, kind="stable")[:candidates]
        p = points + radius_mm * (1 - found["S"][..., j])[..., None] * found["V"][:, :, j]
        p = p.reshape(-1, 3)[best]
        w = np.zeros(candidates)
        for i in range(candidates):
            x, y = np.round(np.asarray(project(jnp.asarray(p[i])))).astype(int)
            if 0 <= x < size and 0 <= y < size:
                w[i] = max(found["R"][y, x, j], 0)
        w = np.maximum(w, 1e-6)
        place = (w[:, None] * p).sum(0) / w.sum()
        for _ in range(iterations):
            k = np.exp(-((p - place) ** 2).sum(1) / (2 * kernel_mm**2))
            place = ((k * w)[:, None] * p).sum(0) / (k * w).sum()
        out[j] = place
    return out


def project(points):
    """An orthographic camera: 10 mm to a pixel."""
    return points[..., :2] / 10.0 + 4.5


def random_maps(seed):
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=(10, 10, 3, 3))
    return (
        {
            "R": rng.uniform(-0.2, 1, (10, 10, 3)).astype(np.float32),
            "S": rng.uniform(-0.2, 1, (10, 10, 3)).astype(np.float32),
            "V": (unit / np.linalg.norm(unit, axis=-1, keepdims=True)).astype(np.float32),
        },
        rng.uniform(-40, 40, (10, 10, 3)).astype(np.float32),
        rng.random((10, 10)) > 0.3,
    )


def test_estimate_equals_algorithm_1():
    for seed in range(4):
        found, points, seen = random_maps(seed)
        fast = estimate(found, points, jnp.asarray(seen), project, **SETTINGS)
        slow = algorithm1(found, points, seen, project, **SETTINGS)
        np.testing.assert_allclose(fast, slow, atol=1e-3)


def test_unweighted_is_near_and_few_pixels_are_enough():
    found, points, seen = random_maps(5)
    found["V"] = found["V"] * 0 + np.array([0, 0, 1], np.float32)
    plain = estimate(found, points, jnp.asarray(seen), project, weighted=False, **SETTINGS)
    assert np.isfinite(plain).all()
    one = np.zeros((10, 10), bool)
    one[3, 4] = True
    for weighted in (True, False):
        place = np.asarray(
            estimate(found, points, jnp.asarray(one), project, weighted=weighted, **SETTINGS)
        )
        expected = points[3, 4] + 80 * (1 - found["S"][3, 4])[:, None] * found["V"][3, 4]
        np.testing.assert_allclose(place, expected, atol=0.1)
    nothing = estimate(found, points, jnp.zeros((10, 10), bool), project, **SETTINGS)
    np.testing.assert_array_equal(nothing, 0)


def test_offsets_lead_from_a_pixel_to_the_joint():
    found, points, seen = random_maps(3)
    joints = np.random.default_rng(0).uniform(-30, 30, (3, 3)).astype(np.float32)
    maps = {"R": np.abs(found["R"]) + 0.1, "O": (joints - points[:, :, None]) / 80.0}
    places = estimate(maps, points, jnp.asarray(seen), project, **SETTINGS)
    np.testing.assert_allclose(places, joints, atol=1e-3)


def test_offsets_are_learned_near_the_joint_only():
    near = jnp.zeros((1, 4, 4, 2)).at[0, 1, 2, 0].set(0.5)
    wanted = {"O": jnp.zeros((1, 4, 4, 2, 3)), "S": near}
    np.testing.assert_allclose(_error("O", jnp.ones((1, 4, 4, 2, 3)), wanted), [[3.0, 0.0]])


@pytest.mark.parametrize("weighted", [True, False])
def test_perfect_maps_give_the_joints_back(weighted):
    """Maps of joints near the surface, at the paper's resolution, decode to within 0.5 mm."""
    rng = np.random.default_rng(0)
    camera = np.array([588.0, 587.0, 320.0, 240.0], np.float32)
    centre = np.array([20.0, 10.0, 700.0], np.float32)
    corner = np.round(cam.xyz_to_uvd(centre, camera)[:2] - 160).astype(np.float32)
    v, u = np.meshgrid(np.arange(320), np.arange(320), indexing="ij")
    depth = (700 + 30 * np.sin(u / 40) * np.cos(v / 50)).astype(np.float32)
    pixels = rng.integers(80, 240, (12, 2))
    uvd = np.concatenate([pixels + corner, depth[pixels[:, 1], pixels[:, 0]][:, None]], 1)
    joints = cam.uvd_to_xyz(uvd.astype(np.float32), camera)

    @jax.jit
    def found_again(angle):
        crop = make_crop(
            jnp.asarray(centre), jnp.asarray(camera), jnp.float32(250.0), 128, angle=angle
        )
        points = sample(jnp.asarray(depth), jnp.asarray(corner), crop, 32, 150.0)
        local, seen = to_space(points, crop), points[..., 2] > 0
        where = to_space(jnp.asarray(joints), crop)
        heat, unit = joint_field(local, seen, where, 80.0)

        def on_grid(p):
            return (to_pixels(to_camera(p, crop), crop) + 0.5) / 4 - 0.5

        flat = image_heatmaps(on_grid(where), 32, 4.0)
        found = {"R": flat, "S": heat, "V": unit}
        local_joints = estimate(found, local, seen, on_grid, weighted=weighted, **SETTINGS)
        return to_camera(local_joints, crop)

    for angle in (0.0, 1.1):
        error = np.linalg.norm(found_again(angle) - joints, axis=-1)
        assert error.max() < 0.5


def test_paper_network_has_the_paper_shapes():
    net = DenseNet(14)
    shapes = [jax.ShapeDtypeStruct((1, n, n, 1), jnp.float32) for n in (128, 32)]
    outputs, variables = jax.eval_shape(
        lambda *a: net.init_with_output(jax.random.key(0), *a, train=False), *shapes
    )
    assert [{k: v.shape for k, v in o.items()} for o in outputs] == 2 * [
        {"R": (1, 32, 32, 14), "S": (1, 32, 32, 14), "V": (1, 32, 32, 14, 3)}
    ]
    params = variables["params"]
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 1, 64)
    assert params["S0_head"]["conv"]["kernel"].shape == (1, 1, 129, 128)
    assert params["V1_head"]["conv"]["kernel"].shape == (1, 1, 128 + 14 + 14 + 128, 128)
    assert params["maps0"]["kernel"].shape == (1, 1, 14 * 5, 128)
    block = params["hourglass0"]["inner"]["inner"]["inner"]["middle"]
    kernels = {name: part["conv"]["kernel"].shape for name, part in block.items()}
    assert kernels == {"narrow": (1, 1, 128, 64), "look": (3, 3, 64, 64), "wide": (1, 1, 64, 128)}


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_its_outputs(name):
    method = METHODS["dense_regression"](config(**BASELINES[name]), SKELETON)
    variables, batch = jax.eval_shape(method.init, jax.random.key(0)), make_batch()
    value, (_, rest) = jax.eval_shape(method.loss, variables, batch, jax.random.key(0))
    assert value.shape == () and jax.tree.structure({"params": variables["params"], **rest}) == (
        jax.tree.structure(variables)
    )
    assert jax.eval_shape(method.predict, variables, batch).shape == (2, 3, 3)


@pytest.mark.parametrize("name", ["", "baseline3"])
def test_it_trains_and_predicts(name):
    """Votes, and detection with depth: the error falls on two examples."""
    settings = config(rotation_deg=0.0, aspect_std=0.0, **BASELINES.get(name, {}))
    method, batch = METHODS["dense_regression"](settings, SKELETON), make_batch()
    variables = method.init(jax.random.key(0))
    variables, history = fit(method, variables, batch, rate=5e-3, steps=80)
    assert history[-1][0] < 0.5 * history[0][0]
    assert history[-1][1] < 0.6 * history[0][1]
    joints = jax.jit(method.predict)(variables, batch)
    assert joints.shape == (2, 3, 3) and np.isfinite(joints).all()
    assert np.linalg.norm(joints - batch["joints"], axis=-1).mean() < 60


def silent(**changes):
    """A network whose outputs are all zero, and a batch of one example."""
    settings = config(rotation_deg=0.0, aspect_std=0.0, **changes)
    method = METHODS["dense_regression"](settings, SKELETON)
    variables = jax.tree.map(jnp.zeros_like, method.init(jax.random.key(0)))
    return settings, method, variables, make_batch(1)


@pytest.mark.parametrize("name", ["baseline1", "baseline2"])
def test_direct_coordinates_are_read_in_the_unit_that_they_are_learned_in(name):
    settings, method, variables, batch = silent(**BASELINES[name])
    wanted = (batch["joints"][0] - batch["centre"][0]).ravel() / settings.reach_mm
    for i in range(settings.stacks):
        variables["params"][f"C{i}_output"]["bias"] = wanted
    found = jax.jit(method.predict)(variables, batch)
    np.testing.assert_allclose(found, batch["joints"], atol=1e-2)
    if name == "baseline1":  # The other one also learns maps.
        assert jax.jit(method.loss)(variables, batch, jax.random.key(0))[0] < 1e-6


def test_a_detected_pixel_is_the_middle_of_its_part_of_the_crop():
    """Of equal maps the first pixel is taken, at the depth of the centre."""
    _, method, variables, batch = silent(candidates=1, **BASELINES["baseline3"])
    joints = jax.jit(method.predict)(variables, batch)[0]
    crop = make_crop(batch["centre"][0], batch["camera"][0], batch["cube"][0], 32)
    np.testing.assert_allclose(to_pixels(joints, crop), 1.5, atol=1e-3)


def test_loss_is_equation_4():
    """Unaugmented, from the fields and the network's outputs; an invalid joint counts nothing."""
    settings, batch = config(rotation_deg=0.0, aspect_std=0.0), make_batch()
    batch["joint_valid"] = jnp.array([[True, True, False], [True, True, True]])
    method = METHODS["dense_regression"](settings, SKELETON)
    variables = method.init(jax.random.key(0))
    value, (_, state) = jax.jit(method.loss)(variables, batch, jax.random.key(3))
    counts = [x for p, x in jax.tree_util.tree_leaves_with_path(state) if "count" in str(p[-1])]
    assert counts and all(c == 1 for c in counts)

    @jax.jit
    def parts(n):
        crop = make_crop(batch["centre"][n], batch["camera"][n], batch["cube"][n], 32)
        big, points = (sample(batch["depth"][n], batch["corner"][n], crop, s, 150.0)
                       for s in (32, 8))  # fmt: skip
        seen = [
            jnp.where(z > 0, (z - 600) / 150, -1)[..., None] for z in (big[..., 2], points[..., 2])
        ]
        joints = to_space(batch["joints"][n], crop)
        heat, unit = joint_field(to_space(points, crop), points[..., 2] > 0, joints, 80.0)
        pixels = (to_pixels(batch["joints"][n], crop) + 0.5) / 4 - 0.5
        return *seen, {"R": image_heatmaps(pixels, 8, 4.0), "S": heat, "V": unit}

    pictures, smalls, wanted = zip(*jax.device_get([parts(n) for n in range(2)]), strict=True)
    net = DenseNet(3, depth=1, features=8, ramp=20)
    outputs, _ = jax.jit(lambda *a: net.apply(variables, *a, train=True, mutable=["batch_stats"]))(
        np.stack(pictures), np.stack(smalls)
    )
    expected = 0.0
    for stack in outputs:
        for n in range(2):
            ok = np.asarray(batch["joint_valid"][n])
            for name in "RSV":
                squared = (np.asarray(stack[name][n]) - wanted[n][name]) ** 2
                expected += squared[:, :, ok].sum()
    np.testing.assert_allclose(value, expected / 2, rtol=1e-4)


def test_empty_crops_give_finite_numbers():
    batch = make_batch() | {"depth": jnp.zeros((2, 64, 64))}
    for changes in ({}, BASELINES["baseline4"]):
        method = METHODS["dense_regression"](config(**changes), SKELETON)
        variables = method.init(jax.random.key(0))
        assert np.isfinite(jax.jit(method.loss)(variables, batch, jax.random.key(0))[0])
        joints = jax.jit(method.predict)(variables, batch)
        assert np.isfinite(joints).all()
        np.testing.assert_allclose(joints, np.tile([0, 0, 600.0], (2, 3, 1)), atol=1e-3)


@pytest.mark.parametrize("data_set", ["nyu", "icvl", "msra"])
def test_configs(data_set):
    module = importlib.import_module(f"configs.dense_regression_{data_set}")
    paper = module.get_config()
    method, rule = paper.method, paper.optimizer
    assert (method.input, method.features, method.stacks, method.candidates) == (128, 128, 2, 5)
    assert (method.kernel_mm, method.radius_mm, method.radius_px) == (40.0, 80.0, 4.0)
    assert (rule.name, rule.lr, rule.b1, paper.batch, paper.epochs) == ("adam", 1e-3, 0.5, 200, 80)
    for name, changes in (BASELINES | SWEEPS).items():
        for prefix in ("", "quick_"):
            changed = module.get_config(prefix + name)
            assert all(changed.method[key] == value for key, value in changes.items())
    assert module.get_config("quick").steps
    released, strict = rule, module.get_config("paper")
    assert (released.weight_decay, released.clip_value) == (2.5e-5, 0.01)
    assert (strict.batch, strict.optimizer.accumulate, strict.optimizer.schedule) == (
        40, 1, "constant",
    )  # fmt: skip
    assert strict.optimizer.weight_decay == strict.optimizer.clip_value == 0
    assert strict.method.to_dict() == method.to_dict()
    with pytest.raises(ValueError, match="no variant 'k2'"):
        module.get_config("k2")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"input": 36}, "method.input=36: expected a multiple of 8"),
        ({"target": "joints"}, "method.target='joints': expected one of dense"),
        ({"candidates": 65}, "method.candidates=65: expected 1 to 64"),
        ({"candidates": 0}, "method.candidates=0"),
        ({"kernel_mm": 0.0}, "method.kernel_mm=0.0: expected a positive number"),
        ({"iterations": -1}, "method.iterations=-1: expected at least 0"),
        ({"stacks": 0}, "method.stacks=0: expected at least 1"),
        ({"dtype": "half"}, "method.dtype='half'"),
    ],
)
def test_bad_configs(changes, match):
    with pytest.raises(InputError, match=match):
        METHODS["dense_regression"](config(**changes), SKELETON)


def test_width_and_height_are_stretched_each_by_itself():
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = jax.vmap(lambda key: draw(key, 180.0, 0.2, 0.1))(keys)
    angle, stretch = np.asarray(drawn["angle"]), np.asarray(drawn["stretch"])
    assert stretch.shape == (400, 2) and np.abs(np.corrcoef(stretch.T)[0, 1]) < 0.2
    # Of a deviation twice the limit 62 % lie beyond it, half of them on either side.
    for side in (0.9, 1.1):
        assert 0.25 < np.isclose(stretch, side).mean() < 0.37
    assert np.abs(stretch - 1).max() <= 0.1 + 1e-6
    assert np.abs(angle).max() <= np.pi and np.abs(np.abs(angle).mean() - np.pi / 2) < 0.2
