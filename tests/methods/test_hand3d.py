"""Hand3D: the networks of table 3, learning of both, and what a stage takes from another."""

import importlib.util
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from learning import SKELETON, fit, squares
from ml_collections import ConfigDict
from small_v2v import make_noise_source

from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import ICVL, NYU
from hpe_jax.methods import METHODS
from hpe_jax.methods.hand3d import PAPER, QUICK, STAGES, Hand3DNet, RefineNet
from hpe_jax.training import loop, stages

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"input": 16, "refine_widths": (2, 3, 4), "features": 3, "hidden": 16, "dropout": 0.0}


def config(**changes):
    return ConfigDict(PAPER | SMALL | changes)


def make_batch(seed=0):
    """Squares of depth; "clean" has the hole that the depth has."""
    batch = squares(2, seed, reach_mm=40.0, half=6)
    holes = batch["depth"].at[:, ::3].set(0.0)
    return batch | {"depth": holes, "clean": batch["depth"]}


def shapes(settings, skeleton):
    params = jax.eval_shape(METHODS["hand3d"](settings, skeleton).init, jax.random.key(0))["params"]
    return {
        f"{part}/{name}": leaf["kernel"].shape
        for part, layers in params.items()
        for name, leaf in layers.items()
    }


def test_table_3():
    found = shapes(ConfigDict(PAPER), NYU)
    refine = {n.split("/")[1]: s for n, s in found.items() if n.startswith("refine")}
    assert {n: s[-2:] for n, s in refine.items()} == {
        "encoder1a": (1, 32), "encoder1b": (32, 32), "encoder2a": (32, 64), "encoder2b": (64, 64),
        "middlea": (64, 128), "middleb": (128, 128),
        "decoder2a": (128 + 64, 64), "decoder2b": (64, 64),
        "decoder1a": (64 + 32, 32), "decoder1b": (32, 16), "distances": (16, 1),
    }  # fmt: skip
    assert {s[:3] for s in refine.values()} == {(3, 3, 3)}
    assert {n: s for n, s in found.items() if n.startswith("pose")} == {
        "pose/conv1": (5, 5, 5, 1, 8), "pose/conv2": (5, 5, 5, 8, 8),
        "pose/fc1": (15**3 * 8, 2048), "pose/fc2": (2048, 2048), "pose/output": (2048, 42),
    }  # fmt: skip
    assert shapes(ConfigDict(PAPER), ICVL)["pose/output"] == (2048, 48)


def test_parts_of_a_stage():
    assert not any(n.startswith("refine") for n in shapes(config(refine=False), NYU))
    assert not any(n.startswith("pose") for n in shapes(config(learn="tsdf"), NYU))


@pytest.mark.parametrize("refine", [True, False])
def test_joints_are_learned(refine):
    method, batch = METHODS["hand3d"](config(refine=refine), SKELETON), make_batch()
    variables = method.init(jax.random.key(0))
    assert set(variables) == {"params"} and method.measure is None
    variables, errors = fit(method, variables, batch, rate=1e-3, steps=60)
    assert errors[-1][1] < 0.3 * errors[0][1]
    # What training reports is the distance that it minimises, in halves of the cube.
    assert errors[0][0] == pytest.approx(errors[0][1] / 100, rel=1e-2)
    joints = jax.jit(method.predict)(variables, batch)
    apart = np.linalg.norm(joints - batch["joints"], axis=-1).mean()
    assert apart < 0.3 * errors[0][1]


@pytest.mark.parametrize("residual", [False, True])
def test_holes_are_filled(residual):
    settings = config(learn="tsdf", refine_widths=(8, 8, 8), residual=residual)
    method, batch = METHODS["hand3d"](settings, SKELETON), make_batch()
    variables, _ = fit(method, method.init(jax.random.key(0)), batch, rate=1e-3, steps=150)
    figures = jax.jit(method.measure)(variables, batch)
    assert {name: f.shape for name, f in figures.items()} == {
        f"tsdf_{when}{where}_mm": (2,)
        for when in ("before", "refined")
        for where in ("", "_rms", "_near")
    }
    assert (figures["tsdf_refined_mm"] < 0.5 * figures["tsdf_before_mm"]).all()
    with pytest.raises(InputError, match="estimates no joints"):
        method.predict(variables, batch)


def test_before_is_nothing_where_nothing_is_wrong():
    method, batch = METHODS["hand3d"](config(learn="tsdf"), SKELETON), make_batch()
    variables = jax.jit(method.init)(jax.random.key(0))
    batch |= {"depth": batch["clean"]}
    figures = jax.jit(method.measure)(variables, batch)
    assert figures["tsdf_before_mm"].max() == figures["tsdf_before_near_mm"].max() == 0
    assert figures["tsdf_before_rms_mm"].max() == 0
    assert figures["tsdf_refined_mm"].min() > 1
    # A residual network begins with its input.
    method = METHODS["hand3d"](config(learn="tsdf", residual=True), SKELETON)
    figures = jax.jit(lambda: method.measure(method.init(jax.random.key(0)), batch))()
    assert figures["tsdf_refined_mm"].max() < 0.1


def test_refined_distances_stay_in_range():
    net, volume = RefineNet((2, 3, 4)), jnp.ones((1, 8, 8, 8, 1))

    @jax.jit
    def refined():
        big = jax.tree.map(lambda x: x + 3.0, net.init(jax.random.key(0), volume))
        return net.apply(big, volume)

    assert jnp.abs(refined()).max() <= 1.0


class Says(nn.Module):
    """Refinement that says one number everywhere."""

    @nn.compact
    def __call__(self, volume):
        return jnp.zeros_like(volume) + self.param("number", nn.initializers.zeros, ())


def test_a_residual_leads_from_any_distance_to_any_other_and_back():
    net, volume = Hand3DNet(Says(), None, True), jnp.ones((1, 4, 4, 4, 1))

    def refined(number):
        return net.apply({"params": {"refine": {"number": number}}}, volume, False)[0]

    np.testing.assert_array_equal(refined(-1.0), -volume)
    np.testing.assert_array_equal(refined(1.0), volume)  # Cut off, but its slope is not.
    assert jax.grad(lambda n: refined(n).mean())(1.0) == pytest.approx(2.0)


def test_dropout_is_for_training_only():
    settings = config(dropout=0.5, output_std=0.5, refine=False)
    method, batch = METHODS["hand3d"](settings, SKELETON), make_batch()
    variables = jax.jit(method.init)(jax.random.key(0))
    loss, predict = jax.jit(method.loss), jax.jit(method.predict)
    losses = {float(loss(variables, batch, jax.random.key(k))[0]) for k in range(3)}
    assert len(losses) == 3
    np.testing.assert_array_equal(predict(variables, batch), predict(variables, batch))


def test_what_lies_outside_the_cube_is_background():
    """A wall behind the hand and a thing before it change nothing."""
    method, batch = METHODS["hand3d"](config(output_std=0.5), SKELETON), make_batch()
    variables, depth = jax.jit(method.init)(jax.random.key(0)), batch["depth"]
    wall = batch | {"depth": jnp.where(depth > 0, depth, 1500.0).at[:, :, 0].set(200.0)}
    predict = jax.jit(method.predict)
    np.testing.assert_array_equal(predict(variables, batch), predict(variables, wall))


def test_empty_crops_give_finite_numbers():
    batch = make_batch() | {"depth": jnp.zeros((2, 64, 64))}
    method = METHODS["hand3d"](config(), SKELETON)

    @jax.jit
    def found():
        variables = method.init(jax.random.key(0))
        return jax.value_and_grad(
            lambda p: method.loss(variables | {"params": p}, batch, jax.random.key(0))[0]
        )(variables["params"])

    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found()))


def test_joints_without_a_label_teach_nothing():
    method, batch = METHODS["hand3d"](config(), SKELETON), make_batch()
    batch["joint_valid"] = jnp.array([[True, True, False]] * 2)
    variables = jax.jit(method.init)(jax.random.key(0))
    moved = batch | {"joints": batch["joints"].at[:, 2].add(500.0)}
    loss = jax.jit(method.loss)
    one, two = (loss(variables, b, jax.random.key(0))[0] for b in (batch, moved))
    assert one == two


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    """However many labels each has, or `optimizer.accumulate` would change it."""
    method, batch = METHODS["hand3d"](config(dropout=0.0, batch_norm=False), SKELETON), make_batch()
    batch["joint_valid"] = jnp.array([[True, False, False], [True] * 3])
    variables, loss = jax.jit(method.init)(jax.random.key(0)), jax.jit(method.loss)
    parts = [{k: v[i : i + 1] for k, v in batch.items()} for i in (0, 1)]
    one, *two = (float(loss(variables, b, jax.random.key(0))[0]) for b in (batch, *parts))
    assert one == pytest.approx(np.mean(two), rel=1e-5) and two[0] < 0.6 * two[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": 30}, "method.input=30: expected a multiple of 4"),
        ({"truncation_mm": 0.0}, "method.truncation_mm=0.0: expected a positive number"),
        ({"learn": "both"}, "method.learn='both': expected one of joints, tsdf"),
        ({"learn": "tsdf", "refine": False}, "expected method.refine"),
        ({"refine_widths": (8, 8)}, r"method.refine_widths=\(8, 8\): expected 3 numbers"),
        ({"hidden": 0}, "method.hidden=0: expected at least 1"),
        ({"dropout": 1.0}, "method.dropout=1.0"),
        ({"dtype": "float16"}, "method.dtype='float16'"),
        ({"kernel_std": -1.0}, "method.kernel_std=-1.0: expected at least 0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(InputError, match=message):
        METHODS["hand3d"](config(**changes), SKELETON)


def test_recorded_frames_have_no_clean_depth():
    method, batch = METHODS["hand3d"](config(learn="tsdf"), SKELETON), make_batch()
    del batch["clean"]
    with pytest.raises(InputError, match="expected frames rendered with data.synthetic.clean=True"):
        method.loss(method.init(jax.random.key(0)), batch, jax.random.key(0))


@pytest.mark.parametrize("name", ["nyu", "icvl"])
def test_variants_differ_as_documented(name):
    get_config = load(name)
    whole = get_config("")
    assert whole.order == tuple(STAGES) == ("refine", "pose", "end_to_end")
    assert [whole.stages[s] for s in STAGES] == [get_config(s) for s in STAGES]
    paper = whole.stages.pose
    assert (paper.method.to_dict(), paper.batch, paper.epochs) == (PAPER, 6, 30)
    assert (paper.optimizer.name, paper.optimizer.lr, paper.data.cube_mm) == ("adam", 1e-4, 300.0)
    assert name != "icvl" or paper.data.rotated
    assert paper.init_from == "../refine" and paper.frozen == "refine/.*"
    assert not whole.stages.end_to_end.frozen
    base, augmented, refined = (get_config(v) for v in ("base", "augmented", "refined"))
    assert not base.method.refine and not base.init_from
    assert (base.data.synthetic.subjects, augmented.data.synthetic.subjects) == (1, 0)
    base.data.synthetic.subjects = 0
    assert base == augmented
    assert all(refined.stages[s].data.synthetic.subjects == 1 for s in STAGES)
    assert get_config("quick_refine").method.to_dict() == PAPER | QUICK | {"learn": "tsdf"}
    with pytest.raises(ValueError, match="no variant 'fast'"):
        get_config("fast")


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/hand3d_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


def test_stages_follow_one_another(tmp_path, monkeypatch):
    """Frozen parameters are the earlier stage's; a second start finds everything done."""
    monkeypatch.setattr(loop, "make_source", lambda config, split: make_noise_source(split))
    config = load("nyu")("quick")
    for stage in config.stages.values():
        stage.method.update(SMALL)
        stage.batch, stage.steps, stage.test_frames = 2, 2, 4
    metrics = stages.run(config, tmp_path)
    assert metrics["frames"] == 4 and metrics["mean_error_mm"] > 0
    first = json.loads((tmp_path / "refine" / "metrics.json").read_text())
    assert first["frames"] == 4 and 0 < first["tsdf_before_mm"] < 50
    assert not (tmp_path / "refine" / "predictions.txt").exists()

    from hpe_jax.training.checkpoints import load_model

    models = {name: load_model(tmp_path / name)[1]["params"] for name in STAGES}
    same = jax.tree.map(np.array_equal, models["refine"]["refine"], models["pose"]["refine"])
    assert all(jax.tree.leaves(same))
    still = jax.tree.map(np.array_equal, models["pose"], models["end_to_end"])
    assert not still["refine"]["distances"]["kernel"] and not still["pose"]["output"]["kernel"]

    def stamps():
        return {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}

    before = stamps()
    assert stages.run(config, tmp_path) == metrics
    with pytest.raises(InputError, match="pose: holds a run without stages"):
        stages.run(config, tmp_path / "pose")
    assert stamps() == before
    # What decides no figure may change, such as where the same frames lie.
    config.stages.refine.log_every += 1
    assert stages.run(config, tmp_path) == metrics
    assert stamps() == before
    written = tmp_path / "refine" / "config.json"
    text = written.read_text()
    written.write_text(text.replace('"root": ""', '"root": "there"'))
    with pytest.raises(InputError, match="refine: not finished"):
        stages.run(config, tmp_path)
    config.stages.refine.data.root = "here"
    assert stages.run(config, tmp_path) == metrics
    config.stages.refine.data.root = ""
    written.write_text(text)
    before = stamps()
    # A stage with other settings is not taken for done, and what began from it neither.
    config.stages.pose.steps = 3
    with pytest.raises(InputError, match="pose: not finished.*end_to_end began from it"):
        stages.run(config, tmp_path)
    assert stamps() == before
    shutil.rmtree(tmp_path / "end_to_end")
    with pytest.raises(InputError, match="schedule 'onecycle' over 2 steps"):
        stages.run(config, tmp_path)


def test_a_stage_alone_says_what_it_needs(tmp_path):
    config = load("nyu")("quick_pose")
    with pytest.raises(InputError, match="refine: no checkpoints/ in it"):
        stages.run(config, tmp_path / "pose")
    assert not (tmp_path / "pose").exists()
    config = load("nyu")("quick")
    config.order = ("refine", "poes")
    with pytest.raises(InputError, match="expected some of"):
        stages.run(config, tmp_path)
