"""V2V-PoseNet as a method: geometry, loss, training and bad configs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import SKELETON, fit
from ml_collections import ConfigDict

from hpe_jax import camera as cam
from hpe_jax.errors import InputError
from hpe_jax.kernels.augment import draw_affine
from hpe_jax.kernels.heatmaps import gaussian_heatmaps
from hpe_jax.kernels.voxels import coarsen, make_grid, occupancy, to_voxels
from hpe_jax.methods import METHODS
from hpe_jax.methods.v2v import V2VNet, masked_mse, volumes


def config(**changes):
    return ConfigDict(
        {
            "input": 16, "canvas": 18, "widths": (4, 6, 8, 8), "sigma": 1.2,
            "decode": "subvoxel", "top_k": 8, "scale": (0.8, 1.2), "rotation_deg": 40.0,
            "kernel_std": 0.0, "output_std": 0.001, "dtype": "float32", **changes,
        }
    )  # fmt: skip


def make_batch(size=2, seed=0):
    """Balls of 25 mm at the joints, rendered as depth."""
    rng = np.random.default_rng(seed)
    camera = np.tile(np.array([150.0, 150.0, 40.0, 30.0], np.float32), (size, 1))
    centre = np.tile(np.array([8.0, -12.0, 600.0], np.float32), (size, 1))
    joints = (centre[:, None] + rng.uniform(-60, 60, (size, 3, 3))).astype(np.float32)
    corner = np.tile(np.array([12.0, -3.0], np.float32), (size, 1))
    rays = cam.patch_rays(corner, camera, (64, 64))
    uv = cam.xyz_to_uvd(joints, camera[:, None])[..., :2]
    depth = np.zeros((size, 64, 64), np.float32)
    for b in range(size):
        for j in np.argsort(-joints[b, :, 2]):
            gap = (rays[b] - (uv[b, j] - camera[b, 2:]) / camera[b, :2]) * joints[b, j, 2]
            ball = 25.0**2 - (gap**2).sum(-1)
            depth[b] = np.where(ball > 0, joints[b, j, 2] - np.sqrt(np.maximum(ball, 0)), depth[b])
    return jax.tree.map(
        jnp.asarray,
        {
            "depth": depth, "corner": corner, "camera": camera, "centre": centre,
            "joints": joints, "joint_valid": np.ones((size, 3), bool),
            "cube": np.full(size, 200.0, np.float32),
        },
    )  # fmt: skip


def test_paper_network_has_the_paper_shapes():
    shapes = jax.eval_shape(
        lambda v: V2VNet(14).init_with_output(jax.random.key(0), v, train=False),
        jax.ShapeDtypeStruct((1, 88, 88, 88, 1), jnp.float32),
    )
    heatmaps, variables = shapes
    assert heatmaps.shape == (1, 44, 44, 44, 14)
    params = variables["params"]
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 7, 1, 16)
    assert params["middle2"]["conv2"]["kernel"].shape == (3, 3, 3, 128, 128)
    assert params["up2"]["kernel"].shape == (2, 2, 2, 128, 64)
    # Counted from the description: kernels, biases, and scale and bias of each norm.
    blocks = [(16, 32), *[(32, 32)] * 4, (32, 64), *[(64, 64)] * 2, (64, 128), *[(128, 128)] * 2]
    total = 343 * 16 + 3 * 16 + 8 * (128 * 64 + 64 * 32) + 3 * 96 + 2 * (32 * 32 + 3 * 32) + 33 * 14
    for inputs, outputs in blocks:
        total += 27 * (inputs + outputs) * outputs + 6 * outputs
        total += (inputs * outputs + 3 * outputs) if inputs != outputs else 0
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == total


def test_init_is_deterministic_and_output_is_near_zero():
    method = METHODS["v2v"](config(), SKELETON)
    one, two, other = (method.init(jax.random.key(k)) for k in (0, 0, 1))
    assert type(one) is dict and type(one["params"]["stem"]) is dict
    jax.tree.map(np.testing.assert_array_equal, one, two)
    kernel = one["params"]["output"]["kernel"]
    assert 0 < np.abs(kernel).max() < 0.005
    assert not np.array_equal(kernel, other["params"]["output"]["kernel"])
    paper = METHODS["v2v"](config(kernel_std=0.001), SKELETON).init(jax.random.key(0))
    assert np.std(paper["params"]["front1"]["conv1"]["kernel"]) == pytest.approx(0.001, rel=0.1)


def test_joints_without_a_label_add_nothing_to_the_loss():
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(2, 2, 3, 4, 5, 3)))
    valid = jnp.array([[1.0, 1, 0], [0, 1, 1]])
    expected = sum(((a - b) ** 2)[i, ..., j].mean() for i, j in np.argwhere(valid)) / valid.size
    np.testing.assert_allclose(masked_mse(a, b, valid), expected, rtol=1e-5)
    parts = [masked_mse(a[i : i + 1], b[i : i + 1], valid[i : i + 1]) for i in (0, 1)]
    np.testing.assert_allclose(np.mean(parts), expected, rtol=1e-5)
    np.testing.assert_allclose(masked_mse(a, b, jnp.ones((2, 3))), ((a - b) ** 2).mean(), rtol=1e-5)
    assert masked_mse(a, b, jnp.zeros((2, 3))) == 0


def test_first_loss_from_the_parts():
    """One evaluation of the loss, rebuilt from the draws, the targets and the network."""
    settings, batch, key = config(), make_batch(), jax.random.key(5)
    method = METHODS["v2v"](settings, SKELETON)
    variables = method.init(jax.random.key(0))
    value, (metrics, state) = jax.jit(method.loss)(variables, batch, key)
    assert set(metrics) == {"loss", "error_mm"} and set(state) == {"batch_stats"}

    @jax.jit
    def parts():
        target, grids = [], []
        for n, k in enumerate(jax.random.split(key, 2)):
            affine = draw_affine(k, scale=(0.8, 1.2), rotation_deg=40.0, margin=2)
            grids.append(make_grid(batch["centre"][n], 200.0, 16, **affine._asdict()))
            voxels = to_voxels(batch["joints"][n], coarsen(grids[n], 2))
            target.append(gaussian_heatmaps(voxels, 8, 1.2))
        grid = jax.tree.map(lambda *a: jnp.stack(a), *grids)
        net, seen = V2VNet(3, (4, 6, 8, 8)), volumes(batch, grid, 16)
        heatmaps, _ = net.apply(variables, seen, train=True, mutable=["batch_stats"])
        return heatmaps, jnp.stack(target)

    heatmaps, target = parts()
    np.testing.assert_allclose(value, np.mean((heatmaps - target) ** 2), rtol=1e-4)
    # Another key is another augmentation, the same key the same one.
    assert jax.jit(method.loss)(variables, batch, jax.random.key(6))[0] != value
    assert jax.jit(method.loss)(variables, batch, key)[0] == value


def test_invalid_joints_do_not_train():
    batch = make_batch()
    method = METHODS["v2v"](config(), SKELETON)
    variables = method.init(jax.random.key(0))
    batch["joint_valid"] = batch["joint_valid"].at[:, 1].set(False)
    wrong = {**batch, "joints": batch["joints"].at[:, 1].set(1e4)}
    run = jax.jit(lambda b: method.loss(variables, b, jax.random.key(0)))
    (a, (metrics_a, _)), (b, (metrics_b, _)) = run(batch), run(wrong)
    assert a == b and metrics_a["error_mm"] == metrics_b["error_mm"]


def test_augmented_points_and_heatmaps_move_together():
    joints = jnp.array([[30.0, -20.0, 640.0], [-50.0, 40.0, 580.0]])
    centre = jnp.array([0.0, 0.0, 600.0])

    @jax.jit
    def draw(key):
        affine = draw_affine(key, scale=(0.8, 1.2), rotation_deg=40.0, margin=8)
        grid = make_grid(centre, 250.0, 88, **affine._asdict())
        maps = gaussian_heatmaps(to_voxels(joints, coarsen(grid, 2)), 44, 1.7)
        return maps, [occupancy(j[None], jnp.array([True]), grid, 88) for j in joints]

    for seed in range(8):
        maps, occupied = draw(jax.random.key(seed))
        for j in range(2):
            occupied_at = np.argwhere(occupied[j])[0]
            peak = np.unravel_index(np.argmax(maps[..., j]), (44,) * 3)
            assert np.abs(occupied_at - 2 * np.array(peak)).max() <= 1


def test_it_learns_a_batch():
    settings = config(scale=(1.0, 1.0), rotation_deg=0.0, canvas=16)
    method, batch = METHODS["v2v"](settings, SKELETON), make_batch(4)
    variables = method.init(jax.random.key(0))
    variables, history = fit(method, variables, batch, rate=5e-3, steps=150)
    assert history[-1][0] < 0.25 * history[0][0]
    # An output voxel is 25 mm here, whose rounding alone costs 12 mm.
    for decode, limit in (("argmax", 20.0), ("topk", 14.0), ("subvoxel", 12.0)):
        settings.decode = decode
        joints = jax.jit(METHODS["v2v"](settings, SKELETON).predict)(variables, batch)
        assert joints.shape == (4, 3, 3)
        assert np.linalg.norm(joints - batch["joints"], axis=-1).mean() < limit


def test_occupancy_of_training_and_prediction():
    batch = make_batch()
    absent, binary, linear = config(), config(occupancy="binary"), config(occupancy="linear")
    variables = METHODS["v2v"](absent, SKELETON).init(jax.random.key(0))

    def both(settings):
        method = METHODS["v2v"](settings, SKELETON)
        value, _ = jax.jit(method.loss)(variables, batch, jax.random.key(0))
        return float(value), np.asarray(jax.jit(method.predict)(variables, batch))

    (a, there), (b, here), (c, smooth) = both(absent), both(binary), both(linear)
    assert a == b and np.array_equal(there, here)  # runs from before the field are binary
    assert a != c and not np.array_equal(there, smooth)


def test_bfloat16_predicts_nearly_the_same():
    batch = make_batch()
    exact, rough = (METHODS["v2v"](config(dtype=d), SKELETON) for d in ("float32", "bfloat16"))
    variables = exact.init(jax.random.key(0))
    a, b = (jax.jit(m.loss)(variables, batch, jax.random.key(0)) for m in (exact, rough))
    assert a[0] != b[0]
    np.testing.assert_allclose(a[0], b[0], rtol=0.02)
    assert b[0].dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(b[1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": 20}, "method.input=20: expected a multiple of 8"),
        ({"canvas": 8}, "method.canvas=8: expected at least method.input, 16"),
        ({"widths": (4, 8)}, r"method.widths=\(4, 8\): expected 4 numbers"),
        ({"dtype": "float16"}, "method.dtype='float16': expected one of float32, bfloat16"),
        ({"occupancy": "soft"}, "method.occupancy='soft': expected one of binary, linear"),
        ({"decode": "mean"}, "unknown decode"),
        ({"decode": "topk", "top_k": 0}, "method.top_k=0: expected 1 to .* voxels"),
        ({"widths": (4, 8, 0, 8)}, "at least 1"),
        ({"scale": (1.2, 0.8)}, r"method.scale=\(1.2, 0.8\): expected .* low <= high"),
        ({"sigma": 0.0}, "method.sigma=0.0: expected a positive number"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(InputError, match=message):
        METHODS["v2v"](config(**changes), SKELETON)
