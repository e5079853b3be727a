"""The centre network: shapes, learning, refined sources, and what cannot be a centre model."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learning import fit
from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.frames import Source, centre_only
from hpe_jax.hand.skeletons import CENTRE, NYU
from hpe_jax.methods import METHODS
from hpe_jax.methods.centre import PAPER
from hpe_jax.training import sources
from hpe_jax.training.sources import CentreModel, jittered, make_source, refine


def config(**changes):
    small = {"input": 16, "features": 4, "hidden": 32, "dropout": 0.0, "jitter_mm": 15.0}
    return ConfigDict(PAPER | small | changes)


def make_batch(size=8, seed=0):
    """A square "hand" of 100 mm; the rough centre is off by up to 30 mm."""
    rng = np.random.default_rng(seed)
    true = np.array([0.0, 0.0, 600.0]) + rng.uniform(-20, 20, (size, 3))
    camera = np.tile(np.array([200.0, 200.0, 64.0, 64.0], np.float32), (size, 1))
    depth = np.zeros((size, 128, 128), np.float32)
    for b in range(size):
        u, v = (true[b, :2] * 200 / true[b, 2] + 64).round().astype(int)
        depth[b, v - 17 : v + 18, u - 17 : u + 18] = true[b, 2]
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32),
        {
            "depth": depth, "corner": np.zeros((size, 2)), "camera": camera,
            "centre": true + rng.uniform(-30, 30, (size, 3)), "joints": true[:, None],
            "cube": np.full(size, 200.0),
        },
    ) | {"joint_valid": jnp.ones((size, 1), bool)}  # fmt: skip


def test_learns_where_the_hand_is():
    method, batch = METHODS["centre"](config(), CENTRE), make_batch(32)
    variables = method.init(jax.random.key(0))
    assert set(variables) == {"params"}
    variables, _ = fit(method, variables, batch, rate=3e-3, steps=150)
    other = make_batch(32, seed=1)
    found = jax.jit(method.predict)(variables, other)
    assert found.shape == (32, 1, 3)
    before = np.linalg.norm(other["centre"] - other["joints"][:, 0], axis=-1).mean()
    after = np.linalg.norm(found - other["joints"], axis=-1).mean()
    assert after < 0.5 * before


def test_three_crops_of_one_image():
    method = METHODS["centre"](config(input=128, features=8, hidden=1024), CENTRE)
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    assert {n for n in params if n.startswith("crop")} == {
        f"crop{i}_conv{j}" for i in range(3) for j in (1, 2, 3)
    }
    assert params["fc0"]["kernel"].shape == (8 * (32**2 + 16**2 + 8**2), 1024)
    assert params["output"]["kernel"].shape == (1024, 3)


def test_the_second_pass_looks_about_what_the_first_one_found():
    once, twice = (METHODS["centre"](config(output_std=0.5, passes=n), CENTRE) for n in (1, 2))
    batch, variables = make_batch(), once.init(jax.random.key(0))
    predict = jax.jit(once.predict)
    first = predict(variables, batch)
    assert np.abs(first[:, 0] - batch["centre"]).max() > 1
    again = predict(variables, batch | {"centre": first[:, 0]})
    np.testing.assert_allclose(jax.jit(twice.predict)(variables, batch), again, atol=1e-3)


@pytest.mark.parametrize(("rough_mm", "jitter_mm"), [(30.0, 0.0), (0.0, 15.0)])
def test_half_of_the_crops_lie_about_the_rough_centre_half_about_the_true_one(rough_mm, jitter_mm):
    method, batch = METHODS["centre"](config(jitter_mm=jitter_mm), CENTRE), make_batch(32)
    batch["centre"] = batch["joints"][:, 0] + jnp.array([rough_mm, 0.0, 0.0])
    # A network that finds no offset is as far off as its crop.
    variables = jax.tree.map(jnp.zeros_like, method.init(jax.random.key(0)))
    step = jax.jit(lambda key: method.loss(variables, batch, key)[1][0]["error_mm"])
    found = np.mean([step(jax.random.key(k)) for k in range(20)])
    expected = 0.5 * (rough_mm + jitter_mm * np.sqrt(8 / np.pi))  # The mean length of the noise.
    assert found == pytest.approx(expected, rel=0.15)


def test_what_lies_outside_the_cube_is_background():
    method, batch = METHODS["centre"](config(output_std=0.5), CENTRE), make_batch()
    variables, predict = method.init(jax.random.key(0)), jax.jit(method.predict)
    wall = batch["centre"][:, 2, None, None] + 150.0  # Half of the cube is 100 mm.
    walled = batch | {"depth": jnp.where(batch["depth"] > 0, batch["depth"], wall)}
    np.testing.assert_array_equal(predict(variables, batch), predict(variables, walled))


def test_running_statistics_of_batch_norm():
    method, batch = METHODS["centre"](config(batch_norm=True), CENTRE), make_batch()
    variables = method.init(jax.random.key(0))
    state = jax.jit(method.loss)(variables, batch, jax.random.key(0))[1][1]
    moved = jax.tree.map(
        lambda a, b: bool(jnp.any(a != b)), variables["batch_stats"], state["batch_stats"]
    )
    assert all(jax.tree.leaves(moved))


def test_dropout_is_for_training_only():
    # Every crop lies about the true centre, so that nothing else depends on the key.
    settings = config(dropout=0.5, output_std=0.5, jitter_mm=0.0)
    method, batch = METHODS["centre"](settings, CENTRE), make_batch()
    batch = batch | {"centre": batch["joints"][:, 0]}
    variables = method.init(jax.random.key(0))
    loss, predict = jax.jit(method.loss), jax.jit(method.predict)
    losses = {float(loss(variables, batch, jax.random.key(k))[0]) for k in range(3)}
    assert len(losses) == 3
    one, two = (predict(variables, batch) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_frames_without_a_label_do_not_count():
    method, batch = METHODS["centre"](config(output_std=0.5, jitter_mm=0.0), CENTRE), make_batch()
    variables, key = method.init(jax.random.key(0)), jax.random.key(1)
    batch = batch | {"joint_valid": batch["joint_valid"].at[3:].set(False)}
    elsewhere = batch | {"joints": batch["joints"].at[3:].add(500.0)}

    @jax.jit
    def loss(batch):
        return method.loss(variables, batch, key)[1][0]

    assert loss(batch) == loss(elsewhere)
    moved = loss(batch | {"joints": batch["joints"].at[:3].add(500.0)})
    assert min(moved[name] - loss(batch)[name] for name in moved) > 0


def test_centre_only_takes_the_mean_of_the_valid_joints():
    batch = {
        "joints": jnp.arange(36.0).reshape(3, 4, 3).at[0, 3].set(jnp.nan),
        "joint_valid": jnp.array([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool),
    }
    source = Source(
        "x", "train", 3, "com", "nyu", np.ones(4), load=lambda i: {}, expand=lambda loaded: batch
    )
    small = centre_only(source)
    assert small.skeleton == "centre" and small.skipped is source.skipped
    out = small.expand({})
    np.testing.assert_allclose(out["joints"][:2, 0], [[1.5, 2.5, 3.5], [16.5, 17.5, 18.5]])
    assert out["joint_valid"].tolist() == [[True], [True], [False]]


def test_a_refined_source_moves_the_centres_only():
    method = METHODS["centre"](config(output_std=0.5), CENTRE)
    variables, batch = jax.device_get(method.init(jax.random.key(0))), make_batch()
    source = Source(
        "x", "test", 8, "com", "nyu", np.ones(4), load=lambda i: {}, expand=lambda loaded: batch
    )
    refined = refine(source, CentreModel(ConfigDict(), method, variables))
    assert refined.centre == "refined"
    others = refine(source, CentreModel(ConfigDict(), method, jax.tree.map(np.negative, variables)))
    assert refined.files.keys() == {"data.centre_model"} and refined.files != others.files
    out = jax.jit(refined.expand)({})
    np.testing.assert_allclose(
        out["centre"], jax.jit(method.predict)(variables, batch)[:, 0], atol=1e-2
    )
    assert np.abs(out["centre"] - batch["centre"]).max() > 1
    np.testing.assert_array_equal(out["depth"], batch["depth"])


def test_noise_of_training_centres_is_a_function_of_seed_and_number():
    centre = jnp.arange(6.0).reshape(2, 3)
    source = Source(
        **{"name": "x", "split": "train", "size": None, "centre": "refined", "skeleton": "nyu"},
        **{"camera": np.ones(4), "load": lambda i: {"i": i}},
        expand=lambda loaded: {"centre": centre, "depth": loaded["i"]},
    )

    def noise(seed, *numbers, mm=10.0):
        noisy = jittered(source, mm, seed)
        batch = jax.jit(noisy.expand)(noisy.load(np.array(numbers)))
        np.testing.assert_array_equal(batch["depth"], numbers)
        return batch["centre"] - centre

    one = noise(0, 5, 6)
    np.testing.assert_array_equal(one, noise(0, 5, 6))
    np.testing.assert_allclose(one[::-1], noise(0, 6, 5), atol=1e-5)
    assert np.abs(one - noise(1, 5, 6)).min() > 1e-3
    many = np.concatenate([noise(0, 2 * i, 2 * i + 1) for i in range(500)])
    np.testing.assert_allclose(many.std(0), 10.0, rtol=0.1)
    np.testing.assert_allclose(many.mean(0), 0.0, atol=1.5)


def test_only_training_centres_get_noise_behind_the_network(monkeypatch):
    experiment = importlib.import_module("configs.v2v_nyu").get_config("quick")
    experiment.data.centre, experiment.data.centre_model = "refined", "somewhere"
    method = METHODS["centre"](config(output_std=0.5), CENTRE)
    model = CentreModel(experiment.data, method, method.init(jax.random.key(0)))
    monkeypatch.setattr(sources, "load_centre_model", lambda *_: model)
    monkeypatch.setattr(sources, "refine", lambda source, _: source)  # `com` as it is
    for split, apart in (("train", True), ("test", False)):
        found = []
        for mm in (0.0, 10.0):
            experiment.data.centre_jitter_mm = mm
            source = make_source(experiment, split)
            found.append(jax.jit(source.expand)(source.load(np.arange(4)))["centre"])
        off = np.abs(found[1] - found[0])
        assert (off.min() > 1e-3 and off.max() < 50) if apart else off.max() == 0


def test_bad_centre_models(tmp_path):
    experiment = importlib.import_module("configs.v2v_nyu").get_config("quick")
    experiment.data.centre = "refined"
    with pytest.raises(InputError, match="expected data.centre_model to name a run"):
        make_source(experiment, "test")
    experiment.data.centre_model = str(tmp_path)
    with pytest.raises(InputError, match="no checkpoints/ in it"):
        make_source(experiment, "test")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"input": 24}, "method.input=24: expected a multiple of 16"),
        ({"hidden": 0}, "method.hidden=0: expected at least 1"),
        ({"passes": 0}, "method.passes=0: expected at least 1"),
        ({"dropout": 1.0}, "method.dropout=1.0: expected at least 0 and below 1"),
        ({"jitter_mm": -1.0}, "method.jitter_mm=-1.0: expected at least 0"),
        ({"dtype": "int8"}, "method.dtype='int8'"),
    ],
)
def test_bad_configs(changes, match):
    with pytest.raises(InputError, match=match):
        METHODS["centre"](config(**changes), CENTRE)


def test_it_needs_a_source_of_centres():
    with pytest.raises(InputError, match='expected data.target="centre"'):
        METHODS["centre"](config(), NYU)
    module = importlib.import_module("configs.centre_nyu")
    assert module.get_config().data.target == module.get_config("quick").data.target == "centre"
