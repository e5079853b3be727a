"""Optimisers and learning-rate schedules from `config.optimizer`.

Fields: `name` (rmsprop, adam, adamw, muon), `lr` (the peak), `decay` (of RMSProp), `b1` (Adam's
momentum), `weight_decay` (adam: added to the gradient, as an L2 penalty would be; adamw:
decoupled), `adam_share` (muon), `clip_norm` and `clip_value` (0 = off), `schedule` with `warmup`
(updates of linear warm-up), `onecycle_peak` (share of the run at which the rate peaks),
`step_epochs` and `step_factor`; `accumulate` and `ema` are read by `step`.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from hpe_jax.errors import InputError

SCHEDULES = ("constant", "onecycle", "cosine", "step")
OF_RUN_LENGTH = ("onecycle", "cosine")
"""Schedules whose every value depends on how long the run is."""
OPTIMIZERS = ("rmsprop", "adam", "adamw", "muon")


def make_schedule(config: ConfigDict, steps: int, batch: int, epoch: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates, of `batch` examples, done.

    Args:
      config: the `optimizer` part.
      steps: updates of the run.
      batch: examples of an update.
      epoch: examples of an epoch, which the step schedule counts.
    """
    lr, warmup = config.lr, config.warmup
    after = max(steps - warmup, 1)
    if config.schedule == "constant":
        schedule = optax.constant_schedule(lr)
    elif config.schedule == "onecycle":
        if warmup:
            raise InputError(
                f"optimizer.warmup={warmup}: the one-cycle schedule rises by itself, over "
                "optimizer.onecycle_peak of the run; expected 0"
            )
        return optax.cosine_onecycle_schedule(max(steps, 2), lr, pct_start=config.onecycle_peak)
    elif config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(lr, after)
    elif config.schedule == "step":
        every = round(config.step_epochs * epoch) // batch
        if every < 1:
            raise InputError(
                f"optimizer.step_epochs={config.step_epochs}: the step schedule expects at least "
                f"a batch, {batch} of the {epoch} examples of an epoch"
            )
        schedule = optax.exponential_decay(lr, every, config.step_factor, staircase=True)
    else:
        raise InputError(
            f"optimizer.schedule={config.schedule!r} is unknown, expected one of {SCHEDULES}"
        )
    if not warmup:
        return schedule
    if config.schedule == "step":  # Its drops stay at the epochs that they are said to be at.
        ramp = optax.linear_schedule(0.0, 1.0, warmup)
        return lambda count: ramp(count) * schedule(count)
    return optax.join_schedules([optax.linear_schedule(0.0, lr, warmup), schedule], [warmup])


def _kernels(params: Any) -> Any:
    """Which axes of a leaf are a matrix's rows and columns; None for what is no convolution."""

    def axes(leaf: jax.Array) -> MuonDimensionNumbers | None:
        if leaf.ndim < 3:  # Fully connected layers, whose scale matters: they end in coordinates.
            return None
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree.map(axes, params)


def _penalised(params: Any) -> Any:
    """Which leaves are kernels."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    config: ConfigDict, schedule: optax.Schedule, frozen: Any = None
) -> optax.GradientTransformation:
    """The update rule.

    "muon" (K. Jordan and others, 2024) replaces the update of every kernel by the nearest
    orthogonal matrix, a kernel being read as (taps and input channels) x output channels;
    fully connected layers, biases and norms take the steps of Adam with Nesterov's momentum at
    `adam_share` times the rate.

    The weight decay of "adam" is the gradient of a penalty on kernels (Adam would take biases and
    the scales of norms towards zero as fast as its rate allows), clipped together with the loss's;
    that of "adamw" is beside the gradient, and of everything.

    `frozen` is a tree of bools like the parameters; True ones never change and do not count
    towards the clipped norm.
    """
    if config.name == "rmsprop":
        # Torch's convention, which the papers of this field trained with: the mean square
        # starts at zero and epsilon is added after the root.
        rule = optax.rmsprop(
            schedule, decay=config.decay, eps=1e-8, initial_scale=0.0, eps_in_sqrt=False
        )
    elif config.name == "adam":
        rule = optax.adam(schedule, b1=config.b1)
    elif config.name == "adamw":
        rule = optax.adamw(schedule, b1=config.b1, weight_decay=config.weight_decay)
    elif config.name == "muon":
        rule = optax.contrib.muon(
            schedule,
            muon_weight_dimension_numbers=_kernels,
            adam_learning_rate=lambda count: config.adam_share * schedule(count),
        )
    else:
        raise InputError(f"optimizer.name={config.name!r} is unknown, expected one of {OPTIMIZERS}")
    if config.weight_decay and config.name not in ("adam", "adamw"):
        raise InputError(f"optimizer.weight_decay is for adam and adamw, not {config.name}")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.clip_value:
        clip = optax.chain(clip, optax.clip(config.clip_value))
    parts = [clip, rule]
    if frozen is not None:
        still = optax.masked(optax.set_to_zero(), frozen)
        parts = [optax.chain(still, clip), rule, still]
    if config.weight_decay and config.name == "adam":
        penalty = optax.add_decayed_weights(config.weight_decay, mask=_penalised)
        parts[0] = optax.chain(penalty, parts[0])  # It does not know what is frozen.
    return optax.chain(*parts)


def update_ema(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """One step of the running mean; young means forget faster, so they leave the start behind."""
    keep = jax.numpy.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda mean, new: keep * mean + (1.0 - keep) * new, ema, params)
