"""Evaluation of a whole split, the constant baseline, and small parts of the loop."""

from __future__ import annotations

import json
import logging

import jax
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from hpe_jax.errors import InputError
from hpe_jax.training.console import History, Log
from hpe_jax.training.evaluation import PICTURES, Evaluator, constant_pose
from hpe_jax.training.loop import number_of_steps, read_ahead
from hpe_jax.training.step import make_mesh

METHOD = toy.make_method()


@pytest.mark.parametrize("batch", [5, 8, 64])
def test_every_frame_once_in_order(batch):
    source = toy.make_source("test", 37)
    variables = METHOD.init(jax.random.key(0))
    result = Evaluator(METHOD, source, make_mesh(), batch=batch)(variables)
    whole = source.expand(source.load(np.arange(37)))
    np.testing.assert_allclose(result.true, whole["joints"], atol=1e-3)
    np.testing.assert_allclose(result.pred, METHOD.predict(variables, whole), atol=1e-3)
    shown = result.pictures["index"]
    assert len(shown) == PICTURES and shown[-1] == 36
    np.testing.assert_allclose(result.pictures["depth"], whole["depth"][shown], atol=1e-6)


def test_endless_sources_cannot_be_scored():
    with pytest.raises(InputError, match="endless"):
        Evaluator(METHOD, toy.make_source(), make_mesh(), batch=8)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_no_constant_beats_the_baseline(seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(30, 3)) * 50
    true = centre[:, None] + rng.normal(size=(30, 4, 3)) * rng.uniform(1, 40, (30, 1, 1))
    valid = rng.uniform(size=(30, 4)) > 0.3
    valid[0] = True

    def error(pose):
        return np.linalg.norm(pose - true, axis=-1)[valid].mean()

    best = constant_pose(true, valid, centre)
    assert np.ptp(best - centre[:, None], axis=0).max() < 1e-3
    mean = np.stack([(true - centre[:, None])[valid[:, j], j].mean(0) for j in range(4)])
    assert error(best) <= error(mean + centre[:, None]) + 1e-3
    for _ in range(5):
        assert error(best) <= error(best + rng.normal(size=(1, 4, 3))) + 1e-2


def test_history_forgets_what_a_resumed_run_repeats(tmp_path):
    path = tmp_path / "history.jsonl"
    rows = [{"step": s, "loss": 1.0 / s} for s in (10, 20, 30)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"step": 40, "lo')
    history = History(path, 20)
    history.add({"step": 30, "loss": 0.5})
    assert [json.loads(x) for x in path.read_text().splitlines()] == history.rows
    assert history.rows == [*rows[:2], {"step": 30, "loss": 0.5}]


def test_warnings_of_the_library_reach_the_log(tmp_path):
    with Log(tmp_path / "log.txt") as log:
        log.line("begins")
        logging.getLogger("hpe_jax.datasets.nyu").warning("skipped frame %d", 3)
    logging.getLogger("hpe_jax.datasets.nyu").warning("too late")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["begins", "warning: skipped frame 3"]


def test_steps_from_epochs():
    config = toy.make_config(steps=0, epochs=3, batch=8, epoch_examples=100)
    assert number_of_steps(config, toy.make_source()) == 38
    assert number_of_steps(config, toy.make_source(size=16)) == 6
    with pytest.raises(InputError, match="log_every=0, expected at least 1"):
        number_of_steps(toy.make_config(log_every=0), toy.make_source())


def test_read_ahead_is_in_order_and_passes_errors_on():
    source = toy.make_source(size=100)
    seen = list(read_ahead(source, 8, 0, 3, 9))
    assert [step for step, _ in seen] == list(range(3, 9))
    again = dict(read_ahead(source, 8, 0, 5, 6))
    np.testing.assert_array_equal(again[5]["index"], seen[2][1]["index"])

    def broken(indices):
        raise InputError("frame 3 is torn")

    object.__setattr__(source, "load", broken)
    with pytest.raises(InputError, match="torn"):
        list(read_ahead(source, 8, 0, 0, 2))
