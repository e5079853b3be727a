"""One update: accumulation, averages, frozen layers, placement on devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from hpe_jax.errors import InputError
from hpe_jax.training import optimizers
from hpe_jax.training import step as steps
from hpe_jax.training.state import eval_variables, init_state, matching, name_mask

METHOD = toy.make_method(noise=0.0)
SOURCE = toy.make_source()


def one_step(rate=0.1, updates=1, optimizer=None, ema=0.0, method=METHOD, **options):
    optimizer = optimizer or optax.sgd(rate)
    state = init_state(method.init(jax.random.key(0)), optimizer, ema > 0)
    step = steps.make_train_step(method, SOURCE.expand, optimizer, ema=ema, **options)
    for i in range(updates):
        data = jax.tree.map(jnp.asarray, SOURCE.load(np.arange(8 * i, 8 * i + 8)))
        state, metrics = jax.jit(step)(state, data, jax.random.key(1))
    return state, metrics


def test_accumulated_gradients_equal_the_whole_batch():
    # Without normalisation by the batch, whose parts differ from the whole.
    def loss(variables, batch, key):
        joints = METHOD.predict(variables, batch)
        value = jnp.square(joints - batch["joints"]).mean() / 1e4
        return value, ({}, {"batch_stats": variables["batch_stats"]})

    plain = type(METHOD)(METHOD.init, loss, METHOD.predict)
    whole, metrics = one_step(method=plain)
    for parts in (2, 4):
        split, split_metrics = one_step(method=plain, accumulate=parts)
        np.testing.assert_allclose(split_metrics["loss"], metrics["loss"], rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            split["params"],
            whole["params"],
        )


def test_running_statistics_see_every_part_of_a_batch():
    state, _ = one_step(accumulate=2)
    depth = SOURCE.expand(SOURCE.load(np.arange(8)))["depth"].reshape(8, -1)
    # A part is every second example, so that it lies on all devices.
    expected = 0.9 * 0.1 * depth[0::2].mean(0) + 0.1 * depth[1::2].mean(0)
    np.testing.assert_allclose(state["rest"]["batch_stats"]["out"]["mean"], expected, rtol=1e-5)


def test_updates_and_parts_of_a_batch_have_keys_of_their_own():
    def loss(variables, batch, key):
        draw, rest = jax.random.normal(key), {"batch_stats": variables["batch_stats"]}
        value = jnp.square(METHOD.predict(variables, batch) - batch["joints"]).mean() / 1e6
        return value, ({"draw": draw, "square": draw**2}, rest)

    drawing = type(METHOD)(METHOD.init, loss, METHOD.predict)
    for i in range(3):
        _, metrics = one_step(method=drawing, updates=i + 1)
        expected = jax.random.normal(jax.random.fold_in(jax.random.key(1), i))
        np.testing.assert_allclose(metrics["draw"], expected, rtol=1e-6)
    _, metrics = one_step(method=drawing, accumulate=2)
    assert metrics["square"] > metrics["draw"] ** 2 + 1e-3  # Means of two that differ.


def test_what_stands_for_an_unknown_joint_does_not_matter():
    def loss(variables, batch, key):
        error = jnp.linalg.norm(METHOD.predict(variables, batch) - batch["joints"], axis=-1)
        value = (error * batch["joint_valid"]).mean()
        return value, ({}, {"batch_stats": variables["batch_stats"]})

    masked = type(METHOD)(METHOD.init, loss, METHOD.predict)
    state = init_state(METHOD.init(jax.random.key(0)), optax.sgd(0.1), False)
    outcomes = []
    for placeholder in (0.0, jnp.nan):

        def expand(data, placeholder=placeholder):
            batch = SOURCE.expand(data)
            return batch | {
                "joints": batch["joints"].at[:, 3].set(placeholder),
                "joint_valid": batch["joint_valid"].at[:, 3].set(False),
            }

        step = jax.jit(steps.make_train_step(masked, expand, optax.sgd(0.1)))
        outcomes.append(step(state, SOURCE.load(np.arange(8)), jax.random.key(1)))
    assert np.isfinite(outcomes[1][1]["gradient_norm"])
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


def test_a_step_does_what_it_says():
    start = METHOD.init(jax.random.key(0))
    state, metrics = one_step()
    batch = SOURCE.expand(SOURCE.load(np.arange(8)))
    key = jax.random.fold_in(jax.random.key(1), 0)
    gradient = jax.grad(
        lambda p: METHOD.loss({**start, "params": p}, batch, key)[0], allow_int=True
    )(start["params"])
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start["params"], gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        state["params"],
        expected,
    )
    assert int(state["step"]) == 1
    np.testing.assert_allclose(metrics["gradient_norm"], optax.global_norm(gradient), rtol=1e-5)
    assert np.abs(state["rest"]["batch_stats"]["out"]["mean"]).max() > 0


def test_running_mean_of_parameters():
    state, _ = one_step(updates=5, ema=0.9)
    mean, params, step = METHOD.init(jax.random.key(0))["params"]["out"]["kernel"], [], 0
    for step in range(5):
        params.append(one_step(updates=step + 1)[0]["params"]["out"]["kernel"])
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * params[-1]
    np.testing.assert_allclose(state["ema"]["out"]["kernel"], mean, atol=1e-6)
    assert eval_variables(state)["params"] is state["ema"]


def test_frozen_names_do_not_change():
    start = METHOD.init(jax.random.key(0))
    frozen = matching(start["params"], "out/kernel", "frozen")
    config = toy.make_config(optimizer__name="adamw", optimizer__weight_decay=0.1).optimizer
    rule = optimizers.make_optimizer(config, optax.constant_schedule(0.1), frozen)
    rest = name_mask({"batch_stats": start["batch_stats"]}, "out/.*", "frozen")
    state, _ = one_step(optimizer=rule, updates=3, keep_rest=rest)
    np.testing.assert_array_equal(
        state["params"]["out"]["kernel"], start["params"]["out"]["kernel"]
    )
    assert np.abs(state["params"]["out"]["bias"]).max() > 0
    assert np.abs(state["rest"]["batch_stats"]["out"]["mean"]).max() == 0


def test_frozen_parameters_have_no_gradient():
    """Nor a part in its norm."""
    frozen = {"out": {"kernel": True, "bias": False}}
    _, whole = one_step()
    state, metrics = one_step(rate=1.0, frozen=frozen)
    start = METHOD.init(jax.random.key(0))["params"]["out"]
    np.testing.assert_array_equal(state["params"]["out"]["kernel"], start["kernel"])
    moved = np.linalg.norm(state["params"]["out"]["bias"] - start["bias"])
    np.testing.assert_allclose(metrics["gradient_norm"], moved, rtol=1e-5)
    assert metrics["gradient_norm"] < whole["gradient_norm"]


def test_batch_must_divide():
    mesh = steps.make_mesh()
    steps.check_batch(8 * mesh.size, 4, mesh)
    with pytest.raises(InputError, match=r"batch=6 must be a multiple of .*accumulate=4"):
        steps.check_batch(6, 4, mesh)


def test_pattern_without_a_match_is_named():
    with pytest.raises(InputError, match="frozen='decoder' matches none of the 2 parameters"):
        matching(METHOD.init(jax.random.key(0))["params"], "decoder", "frozen")
    with pytest.raises(InputError, match="not a regular expression"):
        matching(METHOD.init(jax.random.key(0))["params"], "(", "frozen")
