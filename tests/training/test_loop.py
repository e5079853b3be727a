"""What the loop refuses, what it leaves behind, and what a second start does with that."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import toy

from hpe_jax.errors import InputError, TrainingError
from hpe_jax.settings import read_json
from hpe_jax.training import loop, results
from hpe_jax.training.checkpoints import load_model
from hpe_jax.training.checks import check_config, check_resumed
from hpe_jax.training.loop import number_of_steps, train
from hpe_jax.training.progress import Clock, Window
from hpe_jax.training.sources import READ_AHEAD, read_ahead, training_batches

METHOD = toy.make_method()


def test_steps_from_epochs():
    config = toy.make_config(steps=0, epochs=3, batch=8, epoch_examples=100)
    assert number_of_steps(config, toy.make_source()) == 38
    assert number_of_steps(config, toy.make_source(size=16)) == 6
    with pytest.raises(InputError, match="steps=0 and epochs=0"):
        number_of_steps(toy.make_config(steps=0, epochs=0), toy.make_source())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_every": 0}, "log_every=0, expected at least 1"),
        ({"eval_batch": -1}, "eval_batch=-1, expected at least 0"),
        ({"test_frames": -5}, "test_frames=-5, expected at least 0"),
        ({"steps": -1}, "steps=-1, expected at least 0"),
        ({"seed": -1}, "seed=-1, expected at least 0"),
        ({"optimizer__lr": -1.0}, "optimizer.lr=-1.0, expected a positive number"),
        ({"optimizer__clip_value": -0.2}, "optimizer.clip_value=-0.2, expected at least 0"),
        ({"optimizer__b1": 1.0}, "optimizer.b1=1.0, expected at least 0 and below 1"),
        ({"optimizer__adam_share": -1.0}, "optimizer.adam_share=-1.0, expected at least 0"),
        ({"optimizer__lr": float("nan")}, "optimizer.lr=nan"),
        ({"optimizer__ema": 1.0}, "optimizer.ema=1.0, expected at least 0 and below 1"),
        ({"optimizer__name": "sgd"}, "optimizer.name='sgd' is unknown"),
        ({"batch": 0}, "batch=0"),
    ],
)
def test_a_bad_config_leaves_the_directory_alone(tmp_path, changes, message):
    config = toy.make_config(**changes)
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run", METHOD, toy.make_source(), toy.make_source("test", 8))
    assert not (tmp_path / "run").exists()


def test_a_config_without_a_field_is_refused():
    config = toy.make_config()
    del config.optimizer.ema
    with pytest.raises(InputError, match="lacks a field.*ema"):
        check_config(config)


def run(workdir, test=None, **changes):
    config = toy.make_config(**{"log_every": 2, "checkpoint_every": 2, **changes})
    return train(config, workdir, METHOD, toy.make_source(), test or toy.make_source("test", 8))


def history_of(workdir):
    return [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]


def test_what_metrics_and_history_hold(tmp_path):
    changes = {"eval_every": 2, "optimizer__schedule": "constant", "optimizer__warmup": 4}
    metrics = run(tmp_path, steps=6, **changes)
    assert metrics["skeleton"] == "nyu" and len(metrics["joints"]) == toy.JOINTS
    assert metrics["camera"] == [588.03, 587.07, 320.0, 240.0]
    assert metrics["frames_skipped"] == 0 and "parts" not in metrics
    history = history_of(tmp_path)
    tests = {row["step"]: row["test_error_mm"] for row in history if "test_error_mm" in row}
    assert set(tests) == {2, 4} and all(v > 0 for v in tests.values())
    rates = [row["lr"] for row in history if "lr" in row]
    assert rates == pytest.approx([0.0025, 0.0075, 0.01])  # Of the last update before each line.

    # Killed between saving step 4 and looking at the test split there: it is made up for.
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    kept = [row for row in history if row["step"] <= 4]
    assert kept[-1] == {"step": 4, "test_error_mm": tests[4]}
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept[:-1]))
    run(tmp_path, steps=6, **changes)
    assert history_of(tmp_path) == history


def test_a_resumed_run_counts_what_was_before_it(tmp_path, monkeypatch):
    """Killed between two log lines: their means and the time spent are those of all lives."""
    monkeypatch.setattr(Clock, "seconds", lambda self: 10.0)
    monkeypatch.setattr(results, "write_report", lambda *_, **__: None)  # Its pictures take long.
    changes = {"steps": 4, "log_every": 4, "checkpoint_every": 3}
    assert run(tmp_path, **changes)["train_seconds"] == 10
    whole = history_of(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    assert [run(tmp_path, **changes)["train_seconds"] for _ in range(2)] == [20, 30]
    assert history_of(tmp_path) == whole


def test_metrics_are_written_last(tmp_path, monkeypatch):
    """A run without its report is not taken for finished."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_report", fail)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, steps=2)
    assert not (tmp_path / "metrics.json").exists()


def test_no_groundtruth_where_a_joint_is_not_labelled(tmp_path):
    test = toy.make_source("test", 8)

    def expand(data):
        batch = test.expand(data)
        return batch | {"joint_valid": batch["joint_valid"].at[0, 2].set(False)}

    run(tmp_path, dataclasses.replace(test, expand=expand), steps=2)
    assert not (tmp_path / "groundtruth.txt").exists()
    assert (tmp_path / "predictions.txt").is_file()


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_what_is_not_finite_stops_the_run(name):
    metrics = {"loss": 1.0, "gradient_norm": 1.0} | {name: np.inf}
    with pytest.raises(TrainingError, match=f"step 4: {name} is inf"):
        Window().add(3, metrics, None)


def test_skipped_frames_are_counted_over_a_resume(tmp_path):
    config = toy.make_config(steps=2, checkpoint_every=2)
    sources = (toy.make_source(), toy.make_source("test", 8))
    sources[0].skipped.update({5, 9})
    assert train(config, tmp_path, METHOD, *sources)["frames_skipped"] == 2
    config.steps = 4
    sources = (toy.make_source(), toy.make_source("test", 8))
    sources[0].skipped.update({5, 11})
    assert train(config, tmp_path, METHOD, *sources)["frames_skipped"] == 3


def test_figures_of_a_shorter_run_do_not_outlive_it(tmp_path):
    """They would stand beside a newer config and newer checkpoints."""
    first = run(tmp_path, steps=4)
    before = (tmp_path / "metrics.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="beyond the 2 asked for"):
        run(tmp_path, steps=2)
    assert (tmp_path / "metrics.json").stat().st_mtime_ns == before
    poisoned = toy.make_method(poison=0.0)
    config = toy.make_config(steps=8, log_every=2, checkpoint_every=2)
    assert list((tmp_path / "report").iterdir())
    with pytest.raises(TrainingError, match="loss is nan"):
        train(config, tmp_path, poisoned, toy.make_source(), toy.make_source("test", 8))
    assert not (tmp_path / "metrics.json").exists()
    assert not list((tmp_path / "report").iterdir())
    again = run(tmp_path, steps=4)
    assert again["mean_error_mm"] == first["mean_error_mm"]


def test_a_part_of_a_published_split_is_called_so(tmp_path):
    told = "note: not the whole published test split"
    config, test = toy.make_config(steps=2), toy.make_source("test", 8)
    for name, expected in (("nyu", True), ("synthetic-nyu", False)):
        source = dataclasses.replace(test, name=name)
        train(config, tmp_path / name, METHOD, toy.make_source(), source)
        assert (told in (tmp_path / name / "log.txt").read_text()) == expected


def test_figures_are_those_of_the_config_beside_them(tmp_path):
    """A test of another kind replaces both, but not before it is done; more training at once."""
    run(tmp_path, steps=2)
    names = ("metrics.json", "predictions.txt", "groundtruth.txt", "config.json")
    before = [(tmp_path / name).read_bytes() for name in names]

    def interrupted(indices):
        raise KeyboardInterrupt

    test = dataclasses.replace(toy.make_source("test", 8), load=interrupted)
    config = toy.make_config(steps=2, log_every=2, checkpoint_every=2, test_frames=4)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, METHOD, toy.make_source(), test)
    assert [(tmp_path / name).read_bytes() for name in names] == before
    assert run(tmp_path, steps=2, test_frames=4)["frames"] == 4
    assert read_json(tmp_path / "config.json")["test_frames"] == 4

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, test, steps=4)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"metrics.json", "predictions.txt", "groundtruth.txt"}
    assert {"checkpoints", "config.json"} <= left


def test_a_test_of_other_data_is_told(tmp_path):
    run(tmp_path, steps=2)
    run(tmp_path, steps=2, data__root="elsewhere", eval_batch=4)
    told = [x for x in (tmp_path / "log.txt").read_text().splitlines() if "told otherwise" in x]
    assert len(told) == 1 and told[0].endswith("was: data.root is '' there, elsewhere here")


def test_a_finished_run_alone_is_tested_with_other_centres(tmp_path):
    run(tmp_path, steps=4, checkpoint_every=2)
    with pytest.raises(InputError, match="have been com up to step 4 of 6, expected .* not gt"):
        run(tmp_path, steps=6, data__centre="gt")
    run(tmp_path, steps=4, data__centre="gt")
    assert "was: data.centre is com there, gt here" in (tmp_path / "log.txt").read_text()
    assert read_json(tmp_path / "config.json")["data"]["centre"] == "gt"
    assert load_model(tmp_path)[0].data.centre == "com"
    assert run(tmp_path, steps=6)["examples_seen"] == 48  # It goes on with those that it had.


def test_frames_that_others_stood_in_for_are_counted(tmp_path):
    test = toy.make_source("test", 8)

    def load(indices):
        test.skipped.update({3} & set(indices.tolist()))  # It is looked at in the test alone.
        return test.load(indices)

    config = toy.make_config(steps=2)
    metrics = train(
        config, tmp_path, METHOD, toy.make_source(), dataclasses.replace(test, load=load)
    )
    assert (metrics["frames_skipped"], metrics["frames_stood_in"]) == (0, 1)


def test_a_method_without_depth_is_measured_in_x_and_y_too(tmp_path):
    far = dataclasses.replace(
        METHOD,
        flat=True,
        predict=lambda v, b: METHOD.predict(v, b) + jnp.array([0.0, 0.0, 500.0]),
    )
    config = toy.make_config(steps=4, log_every=2, eval_every=2)
    sources = toy.make_source(), toy.make_source("test", 8)
    metrics = train(config, tmp_path / "flat", far, *sources)
    assert metrics["estimates"] == "xy" and metrics["mean_error_mm"] > 300
    assert metrics["mean_error_xy_mm"] < 300 and metrics["baseline_mean_error_xy_mm"] < 300
    rows = history_of(tmp_path / "flat")
    assert next(row["test_error_mm"] for row in rows if "test_error_mm" in row) < 300
    assert "mean_error_xy_mm" not in train(config, tmp_path / "whole", METHOD, *sources)


def test_a_schedule_of_the_run_s_length_refuses_another_length(tmp_path):
    run(tmp_path, steps=4, optimizer__schedule="onecycle")
    with pytest.raises(InputError, match="'onecycle' over 4 steps, expected the same.*not 6"):
        run(tmp_path, steps=6, optimizer__schedule="onecycle")


def test_warnings_of_the_data_are_in_the_log(tmp_path):
    source = toy.make_source()
    config = toy.make_config(steps=2)
    train(config, tmp_path, METHOD, source, toy.make_source("test", 8), ["3 labels left out"])
    assert "warning: 3 labels left out" in (tmp_path / "log.txt").read_text()


def test_a_resumed_run_has_the_same_epochs_and_files(tmp_path):
    """The step schedule counts epochs; a file's content stands in no config."""

    def go_on(steps, epoch, content):
        config = toy.make_config(steps=steps, epoch_examples=epoch, checkpoint_every=2)
        source = dataclasses.replace(toy.make_source(), files={"data.centre_file": content})
        return train(config, tmp_path, METHOD, source, toy.make_source("test", 8))

    go_on(4, 64, "a1")
    with pytest.raises(InputError, match="have had 64 examples, expected the same, not 32"):
        go_on(6, 32, "a1")
    with pytest.raises(InputError, match="what data.centre_file names has changed since"):
        go_on(6, 64, "b2")
    go_on(4, 64, "b2")  # A finished run is tested on whatever is asked for.
    assert go_on(6, 64, "a1")["examples_seen"] == 48


def test_a_data_set_of_another_size_is_not_gone_on_with(tmp_path):
    """Examples that repeat come in an order that its size decides, whatever the schedule."""
    config = toy.make_config(optimizer__schedule="constant")
    info = {"step": 4, "steps": 8, "epoch_size": 16, "config": config.to_dict()}
    with pytest.raises(InputError, match="have had 16 examples, expected the same, not 24"):
        check_resumed(tmp_path, info, config, toy.make_source(size=24), 8, 24)
    check_resumed(tmp_path, info, config, toy.make_source(), 8, 24)  # Endless: no epochs.


def test_a_warm_start_is_for_the_beginning_only(tmp_path):
    """A resumed run neither needs nor heeds the run it was started from."""
    run(tmp_path / "first", steps=2)
    run(tmp_path / "second", steps=2, init_from=str(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    metrics = run(tmp_path / "second", steps=4, init_from=str(tmp_path / "first"))
    told = "init_from=gone is not read: the run goes on from its own weights"
    assert told not in (tmp_path / "second" / "log.txt").read_text()
    assert run(tmp_path / "second", steps=4, init_from="gone") is not None
    assert told in (tmp_path / "second" / "log.txt").read_text()
    assert metrics["examples_seen"] == 32
    with pytest.raises(InputError, match="first: no checkpoints/ in it"):
        run(tmp_path / "third", steps=2, init_from=str(tmp_path / "first"))
    assert not (tmp_path / "third").exists()


def test_a_stage_begins_from_a_finished_one(tmp_path, monkeypatch):
    """Named by where it lies, from the run's own folder too; the log says what it was."""
    run(tmp_path / "first", steps=4, checkpoint_every=2)
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "second")
    run(Path(), steps=2, init_from="../first")
    told = (tmp_path / "second" / "log.txt").read_text()
    assert f"began from {tmp_path / 'first'}, step 4 of 4" in told
    shutil.rmtree(tmp_path / "first" / "checkpoints" / "4")
    with pytest.raises(InputError, match="first: stopped at step 2 of 4, expected a finished"):
        run(tmp_path / "third", steps=2, init_from="../first")
    run(tmp_path / "third", steps=2, init_from=str(tmp_path / "first"))
    assert "step 2 of 4" in (tmp_path / "third" / "log.txt").read_text()


def test_a_signal_during_a_test_on_the_way_loses_nothing(tmp_path, monkeypatch):
    """Nor does it wait for the test, which the resumed run makes up for."""
    changes = {"steps": 4, "eval_every": 2, "checkpoint_every": 100, "log_every": 100}
    whole = run(tmp_path / "whole", **changes)
    score = loop.score

    def interrupted(*given):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the test went on")

    monkeypatch.setattr(loop, "score", interrupted)
    with pytest.raises(SystemExit) as error:
        run(tmp_path / "stopped", **changes)
    assert error.value.code == 0
    assert [p.name for p in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["2"]
    monkeypatch.setattr(loop, "score", score)
    assert run(tmp_path / "stopped", **changes)["mean_error_mm"] == whole["mean_error_mm"]
    assert history_of(tmp_path / "stopped") == history_of(tmp_path / "whole")


def test_training_batches_are_in_order_and_pass_errors_on():
    source = toy.make_source(size=100)
    seen = list(training_batches(source, 8, 0, 3, 9))
    assert [step for step, _ in seen] == list(range(3, 9))
    again = dict(training_batches(source, 8, 0, 5, 6))
    np.testing.assert_array_equal(again[5]["index"], seen[2][1]["index"])

    def broken(indices):
        raise InputError("frame 3 is torn")

    object.__setattr__(source, "load", broken)
    with pytest.raises(InputError, match="torn"):
        list(training_batches(source, 8, 0, 0, 2))


def test_a_few_batches_are_read_while_one_is_worked_on():
    read = {number: threading.Event() for number in range(9)}

    def load(number):
        read[number].set()
        return {"number": np.array(number)}

    for number, data in read_ahead(load, range(9)):
        assert data["number"] == number
        ahead = range(number + 1, min(number + READ_AHEAD, 8) + 1)
        assert all(read[later].wait(60) for later in ahead)
        assert not any(read[later].is_set() for later in range(number + READ_AHEAD + 1, 9))
