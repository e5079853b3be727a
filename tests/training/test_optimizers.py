"""Update rules against plain NumPy, schedules at their corners."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from hpe_jax.errors import InputError
from hpe_jax.training.optimizers import make_optimizer, make_schedule


def config(**changes):
    return toy.make_config(**{f"optimizer__{k}": v for k, v in changes.items()}).optimizer


def run(rule, gradients, start):
    params, state = start, rule.init(start)
    for gradient in gradients:
        updates, state = rule.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


GRADIENTS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
START = np.linspace(-1, 1, 5, dtype=np.float32)


def test_rmsprop_is_the_one_that_papers_used():
    rule = make_optimizer(config(name="rmsprop", decay=0.9), optax.constant_schedule(0.01))
    params, square = START.astype(np.float64), np.zeros(5)
    for g in GRADIENTS.astype(np.float64):
        square = 0.9 * square + 0.1 * g * g
        params = params - 0.01 * g / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(run(rule, GRADIENTS, START), params, atol=1e-5)


def test_adam():
    rule = make_optimizer(config(name="adam"), optax.constant_schedule(0.01))
    params, m, v = START.astype(np.float64), np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        params = params - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(run(rule, GRADIENTS, START), params, atol=1e-5)


def test_adam_with_an_l2_penalty_momentum_and_clipped_values():
    """As DenseReg's release trains: the penalty is part of the gradient that Adam scales."""
    rule = make_optimizer(
        config(name="adam", b1=0.5, weight_decay=0.3, clip_value=0.2), optax.constant_schedule(0.01)
    )
    params, m, v = START.astype(np.float64), np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        g = np.clip(g + 0.3 * params, -0.2, 0.2)
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g * g
        params = params - 0.01 * (m / (1 - 0.5**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    kernel = run(rule, GRADIENTS[:, None], START[None])
    np.testing.assert_allclose(kernel[0], params, atol=1e-5)
    bias = run(rule, np.zeros_like(GRADIENTS), START)
    np.testing.assert_array_equal(bias, START)  # which no penalty moves


def test_adamw_decays_what_has_no_gradient():
    rule = make_optimizer(config(name="adamw", weight_decay=0.3), optax.constant_schedule(0.01))
    found = run(rule, np.zeros((2, 5), np.float32), START)
    np.testing.assert_allclose(found, START * (1 - 0.01 * 0.3) ** 2, rtol=1e-6)


def test_adamw_without_decay_is_adam():
    rate = optax.constant_schedule(0.01)
    rules = (make_optimizer(config(name=name, b1=0.5), rate) for name in ("adamw", "adam"))
    np.testing.assert_allclose(*(run(rule, GRADIENTS, START) for rule in rules), atol=1e-6)


def test_muon_turns_kernels_orthogonally_and_all_else_like_adam():
    rng = np.random.default_rng(1)
    dense = jnp.asarray(GRADIENTS)
    start = {"kernel": jnp.zeros((3, 3, 4, 6)), "dense": 0 * dense, "bias": jnp.asarray(START)}
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 6)), jnp.float32)
    gradient = {"kernel": kernel, "dense": dense, "bias": dense[0]}
    rule = make_optimizer(config(name="muon", adam_share=0.2), optax.constant_schedule(0.1))
    updates, _ = rule.update(gradient, rule.init(start), start)
    matrix = np.asarray(updates["kernel"]).reshape(36, 6)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    assert (s > 0.06).all() and (s < 0.13).all()  # Newton-Schulz ends near 1, not at it.
    expected_u, _, expected_v = np.linalg.svd(kernel.reshape(36, 6), full_matrices=False)
    np.testing.assert_allclose(u @ v, -expected_u @ expected_v, atol=1e-4)
    adam = optax.adam(0.02, nesterov=True)
    expected, _ = adam.update(gradient, adam.init(start))
    for name in ("dense", "bias"):
        np.testing.assert_allclose(updates[name], expected[name], atol=1e-6)


def test_adam_s_share_of_muon_follows_the_schedule():
    schedule = make_schedule(config(schedule="cosine", lr=0.1), 6, 8, 49)
    rule = make_optimizer(config(name="muon", adam_share=0.2), schedule)
    adam = optax.adam(lambda count: 0.2 * schedule(count), nesterov=True)
    gradients = [{"bias": jnp.asarray(g)} for g in GRADIENTS]
    found = run(rule, gradients, {"bias": jnp.asarray(START)})["bias"]
    np.testing.assert_allclose(found, run(adam, GRADIENTS, START), atol=1e-6)


def test_clipping_bounds_the_norm_and_then_each_value():
    # Two updates: RMSprop sees by how much a gradient was scaled only beside another one.
    big, small = 100 * GRADIENTS[0], 0.1 * GRADIENTS[1]
    clipped, rate = big / np.linalg.norm(big), optax.constant_schedule(1.0)
    plain = make_optimizer(config(name="rmsprop"), rate)
    for value, first in ((0.0, clipped), (0.3, clipped.clip(-0.3, 0.3))):
        rule = make_optimizer(config(name="rmsprop", clip_norm=1.0, clip_value=value), rate)
        expected = run(plain, [first, small], START)
        np.testing.assert_allclose(run(rule, [big, small], START), expected, atol=1e-5)


def test_frozen_parameters_do_not_count_towards_the_clipped_norm():
    # Two updates, as above.
    gradients = [{"still": size * GRADIENTS[0], "moves": 0.1 * GRADIENTS[1]} for size in (100, 0)]
    rule = config(name="rmsprop", clip_norm=1.0), optax.constant_schedule(0.01)
    some = make_optimizer(*rule, {"still": True, "moves": False})
    found = run(some, gradients, {"still": START, "moves": START})
    alone = run(make_optimizer(*rule), [g["moves"] for g in gradients], START)
    np.testing.assert_allclose(found["moves"], alone, rtol=1e-5)


def test_the_penalty_of_frozen_parameters_does_not_count_either():
    rule = config(name="adam", clip_norm=1.0, weight_decay=0.1), optax.constant_schedule(0.01)
    some = make_optimizer(*rule, {"still": True, "moves": False})
    start = {"still": 100 * np.ones((2, 2), np.float32), "moves": START}
    # Adam's first steps do not depend on the size of gradients, but for whose size varies.
    gradients = [{"still": np.ones((2, 2), np.float32), "moves": s * GRADIENTS[0]} for s in (9, 1)]
    found = run(some, gradients, start)
    alone = run(make_optimizer(*rule), [g["moves"] for g in gradients], START)
    np.testing.assert_array_equal(found["still"], start["still"])
    np.testing.assert_allclose(found["moves"], alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"schedule": "constant"}, {0: 0.1, 99: 0.1}),
        ({"schedule": "constant", "warmup": 10}, {0: 0.0, 5: 0.05, 10: 0.1, 99: 0.1}),
        ({"schedule": "cosine"}, {0: 0.1, 50: 0.05, 100: 0.0}),
        ({"schedule": "cosine", "warmup": 20}, {0: 0.0, 20: 0.1, 60: 0.05, 100: 0.0}),
        ({"schedule": "onecycle", "onecycle_peak": 0.25}, {0: 0.004, 25: 0.1, 100: 0.0}),
        (
            {"schedule": "step", "step_epochs": 5.0, "step_factor": 0.3},
            {29: 0.1, 60: 0.009},
        ),
        (
            {"schedule": "step", "step_epochs": 5.0, "step_factor": 0.3, "warmup": 10},
            {0: 0.0, 5: 0.05, 29: 0.1, 30: 0.03, 60: 0.009},
        ),
    ],
)
def test_schedules(changes, values):
    schedule = make_schedule(config(lr=0.1, **changes), 100, 8, 49)
    for step, value in values.items():
        np.testing.assert_allclose(schedule(step), value, atol=1e-4, err_msg=str(step))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "linear"}, "schedule='linear' is unknown"),
        (
            {"schedule": "step", "step_epochs": 0.1},
            "step_epochs=0.1: .* expects at least a batch, 8 of the 49 examples",
        ),
        ({"name": "sgd"}, "name='sgd' is unknown"),
        ({"name": "rmsprop", "weight_decay": 0.1}, "for adam and adamw"),
        ({"name": "muon", "weight_decay": 0.1}, "for adam and adamw, not muon"),
        ({"schedule": "onecycle", "warmup": 10}, "warmup=10: the one-cycle schedule rises by"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        make_optimizer(config(**changes), make_schedule(config(**changes), 100, 8, 49))
