"""What a checkpoint restores, and whom it refuses."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from hpe_jax.errors import InputError, TrainingError
from hpe_jax.settings import to_json
from hpe_jax.training import checkpoints as reading
from hpe_jax.training.checkpoints import Checkpoints, any_in, count_parameters, load_model
from hpe_jax.training.state import init_state, warm_start
from hpe_jax.training.step import make_mesh, replicated

OPTIMIZER = optax.adam(1e-3)


def make_state(seed=0, method=None):
    variables = (method or toy.make_method()).init(jax.random.key(seed))
    return jax.device_put(init_state(variables, OPTIMIZER, True), replicated(make_mesh()))


def info(step, config, source="synthetic-nyu"):
    return {"step": step, "config": to_json(config), "source": source, "window": {"sums": {}}}


def test_round_trip_keeps_the_latest(tmp_path):
    config = toy.make_config()
    states = {step: make_state(step) for step in (3, 5, 8)}
    with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
        assert checkpoints.restore(make_state(), config, "synthetic-nyu") is None
        for step, state in states.items():
            checkpoints.save(state, info(step, config))
        checkpoints.save(states[8], info(8, config))  # Twice does nothing.
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["5", "8"]
    with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
        assert checkpoints.latest == 8
        state, found = checkpoints.restore(make_state(), config, "synthetic-nyu")
    assert found == info(8, config)
    assert jax.tree.structure(state) == jax.tree.structure(states[8])
    jax.tree.map(np.testing.assert_array_equal, state, states[8])

    loaded_config, variables = load_model(tmp_path)
    assert loaded_config.to_dict() == config.to_dict()
    np.testing.assert_array_equal(
        variables["params"]["out"]["kernel"], states[8]["ema"]["out"]["kernel"]
    )
    assert set(variables) == {"params", "batch_stats"}
    assert count_parameters(variables) == 64 * 42 + 42
    with ThreadPoolExecutor() as threads:  # Only the main one may handle signals.
        assert threads.submit(load_model, tmp_path).result()[0].to_dict() == config.to_dict()


def test_an_unfinished_checkpoint_is_none_and_goes(tmp_path):
    """It has another name until it is whole, which it keeps in a killed run's directory."""
    assert not any_in(tmp_path / "absent")
    (tmp_path / "1.orbax-checkpoint-tmp").mkdir()
    assert not any_in(tmp_path)
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(make_state(), info(2, toy.make_config()))
    assert any_in(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_maps_are_read_as_in_the_last_test(tmp_path):
    """`config.json` is newer than the checkpoint of a finished run that is tested anew."""
    config = toy.make_config(method__decode="argmax")
    with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
        checkpoints.save(make_state(), info(1, config))
    config.method.decode = "subvoxel"
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    assert load_model(tmp_path)[0].method.decode == "subvoxel"
    config.method.name = "other"
    (tmp_path / "config.json").write_text(json.dumps(to_json(config)))
    with pytest.raises(InputError, match="config.json: of another experiment .*method.name"):
        load_model(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match="config.json: not a JSON object"):
            load_model(tmp_path)


def test_a_state_that_is_not_finite_is_not_saved(tmp_path):
    state, config = make_state(), toy.make_config()
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(state, info(1, config))
        kept = state["rest"]["batch_stats"]
        for part, name in ((state["params"], "bias"), (kept, "mean"), (state["ema"], "kernel")):
            good = part["out"][name]
            part["out"][name] = good.at[3].set(jnp.inf)
            with pytest.raises(TrainingError, match="of step 2 are not finite; .*step 1 is intact"):
                checkpoints.save(state, info(2, config))
            part["out"][name] = good
        assert checkpoints.latest == 1


def test_refuses_another_experiment(tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(make_state(), info(4, toy.make_config()))
        for changes, message in (
            ({"method__name": "hourglass"}, "method.name is toy there, hourglass here"),
            ({"batch": 16}, "batch is 8 there, 16 here"),
            # What decides most stands first.
            ({"method__name": "hourglass", "batch": 16}, ": method.name is .*, batch is"),
            ({"seed": 4}, "seed is 3 there, 4 here"),
            ({"optimizer__lr": 1.0}, "optimizer.lr is 0.01 there, 1.0 here"),
        ):
            with pytest.raises(InputError, match=message):
                checkpoints.restore(make_state(), toy.make_config(**changes), "synthetic-nyu")
        with pytest.raises(InputError, match="trained on synthetic-nyu, not nyu"):
            checkpoints.restore(make_state(), toy.make_config(), "nyu")
        longer = toy.make_config(steps=1000, log_every=3)
        assert checkpoints.restore(make_state(), longer, "synthetic-nyu") is not None
        smaller = make_state()
        smaller["params"]["out"]["kernel"] = smaller["params"]["out"]["kernel"][:3]
        with pytest.raises(InputError, match=r"params/out/kernel is \(64, 42\) there, \(3, 42\)"):
            checkpoints.restore(smaller, toy.make_config(), "synthetic-nyu")


def test_where_data_lie_and_how_often_to_look_may_change(tmp_path):
    config = toy.make_config()
    places = ("root", "centre", "centre_file", "centre_model", "skip_unreadable", "stand_in")
    config.data = ConfigDict(dict.fromkeys(places, "here"))
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(make_state(), info(4, config))
        config.data.update(dict.fromkeys(places, "there"))
        for name in (
            *("steps", "epochs", "epoch_examples", "log_every", "eval_every", "eval_batch"),
            *("test_frames", "checkpoint_every", "keep_checkpoints"),
        ):
            config[name] += 1
        assert checkpoints.restore(make_state(), config, "synthetic-nyu") is not None


def test_directory_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="no checkpoints/ in it"):
        load_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        load_model(tmp_path)


def test_a_run_of_stages_says_which_it_has(tmp_path):
    for name in ("refine", "pose"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(InputError, match="expected one of pose, refine in it"):
        load_model(tmp_path)


@pytest.mark.parametrize("foreign", [None, {"step": 1}, {"config": 3, "step": 1, "source": ""}])
def test_foreign_checkpoints_are_named(tmp_path, foreign):
    with ocp.training.Checkpointer(tmp_path / "checkpoints") as orbax:
        orbax.save(1, {"weights": np.ones(3)}, custom_metadata=foreign)
    expected = f"{tmp_path}/checkpoints: step 1 .*expected a checkpoint that hpe_jax wrote"
    with pytest.raises(InputError, match=expected):
        load_model(tmp_path)
    with (
        Checkpoints(tmp_path / "checkpoints", 2) as checkpoints,
        pytest.raises(InputError, match=expected),
    ):
        checkpoints.restore(make_state(), toy.make_config(), "synthetic-nyu")


@pytest.mark.parametrize("damage", ["arrays", "torn", "metadata"])
def test_damaged_checkpoints_are_named(tmp_path, damage):
    config = toy.make_config()
    with Checkpoints(tmp_path / "checkpoints", 2) as checkpoints:
        checkpoints.save(make_state(), info(4, config))
    step = tmp_path / "checkpoints" / "4"
    if damage == "metadata":
        for path in step.rglob("*"):
            if path.is_file() and "METADATA" in path.name.upper():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        data = [p for p in step.rglob("*") if p.is_file() and p.parent.name == "d"]
        assert data
        for path in data:
            if damage == "arrays":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:10])
    expected = f"{tmp_path}/checkpoints: .*step 4"
    with pytest.raises(InputError, match=expected):
        load_model(tmp_path)
    with (
        Checkpoints(tmp_path / "checkpoints", 2) as checkpoints,
        pytest.raises(InputError, match=expected),
    ):
        checkpoints.restore(make_state(), config, "synthetic-nyu")


def test_warm_start_takes_what_matches():
    new, old = (toy.make_method().init(jax.random.key(i)) for i in (0, 1))
    old["params"]["out"]["bias"] += 1
    mixed = warm_start(new, old, ".*/kernel")
    assert mixed["params"]["out"]["kernel"] is old["params"]["out"]["kernel"]
    assert mixed["params"]["out"]["bias"] is new["params"]["out"]["bias"]
    with pytest.raises(InputError, match="in the earlier model out/kernel .params. is absent"):
        warm_start(new, {"params": {}}, ".*/kernel")
    old["params"]["out"]["kernel"] = old["params"]["out"]["kernel"][:2]
    message = r"in the earlier model .* of shape \(2, 42\).* such as (\S+)"
    with pytest.raises(InputError, match=message) as refused:
        warm_start(new, old, ".*")
    hint = re.search(message, str(refused.value))[1]
    new["params"]["in"] = old["params"]["in"] = {"kernel": old["params"]["out"]["bias"]}
    kept = warm_start(new, old, hint)["params"]
    assert kept["out"] == new["params"]["out"] and kept["in"] == old["params"]["in"]
    old["params"]["in"] = {"kernel": np.zeros(3)}  # The hint names all that differ.
    with pytest.raises(InputError, match=r"\(2 such\).*\(\?!\((in\|out|out\|in)\)/\)"):
        warm_start(new, old, ".*")


def test_ctrl_c_while_reading_is_heard_afterwards():
    """The reader would take it for a damaged file."""
    read = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt), reading._without_interrupts():
            signal.raise_signal(signal.SIGINT)
            read.append("everything")
        assert read and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
