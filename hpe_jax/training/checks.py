"""Numbers in a config that no run can use are refused here, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.training.optimizers import OF_RUN_LENGTH

AT_LEAST_1 = ("batch", "epoch_examples", "log_every", "checkpoint_every", "keep_checkpoints")
AT_LEAST_0 = ("steps", "epochs", "test_frames", "eval_every", "eval_batch")


def check_config(config: ConfigDict) -> None:
    """Check the fields that the loop and the optimiser read.

    Raises:
      InputError: a field is absent, or its value is out of range.
    """
    o = config.get("optimizer", ConfigDict())
    try:
        for least, names in ((1, AT_LEAST_1), (0, AT_LEAST_0)):
            for name in names:
                _check(name, config[name], config[name] >= least, f"at least {least}")
        _check("seed", config.seed, 0 <= config.seed < 2**32, "at least 0 and below 2^32")
        for name, good, expected in (
            ("lr", 0 < o.lr < float("inf"), "a positive number"),
            ("decay", 0 <= o.decay < 1, "at least 0 and below 1"),
            ("ema", 0 <= o.ema < 1, "at least 0 and below 1"),
            ("onecycle_peak", 0 < o.onecycle_peak < 1, "between 0 and 1"),
            ("warmup", o.warmup >= 0, "at least 0"),
            ("step_factor", 0 < o.step_factor < float("inf"), "a positive number"),
            ("b1", 0 <= o.b1 < 1, "at least 0 and below 1"),
            ("adam_share", o.adam_share >= 0, "at least 0"),
            ("clip_norm", o.clip_norm >= 0, "at least 0"),
            ("clip_value", o.clip_value >= 0, "at least 0"),
            ("weight_decay", o.weight_decay >= 0, "at least 0"),
            ("accumulate", o.accumulate >= 1, "at least 1"),
        ):
            _check(f"optimizer.{name}", o[name], good, expected)
    except (AttributeError, KeyError) as error:
        missing = str(error).strip("'\"").split(chr(10))[0]
        raise InputError(f"the config lacks a field that training reads: {missing}") from error


def check_resumed(
    workdir: Path, info: dict[str, Any], config: ConfigDict, source: Source, steps: int, epoch: int
) -> None:
    """Check that a run would go on as it began.

    Args:
      workdir: of the run.
      info: of its latest checkpoint.
      config, source: of now, found to be of the same experiment.
      steps: that the run is to have.
      epoch: examples of an epoch.

    Raises:
      InputError: it has more steps already, or goes on with another learning rate, other centres or
        other examples than it would have had.
    """
    if info["step"] > steps:
        raise InputError(f"{workdir}: holds step {info['step']}, beyond the {steps} asked for")
    schedule, planned = config.optimizer.schedule, info.get("steps", steps)
    if planned != steps and schedule in OF_RUN_LENGTH:
        raise InputError(
            f"{workdir}: its learning rate follows the schedule {schedule!r} over {planned} steps, "
            f"expected the same number of steps, not {steps}, or another --workdir"
        )
    if info["step"] == steps:
        return  # Only its test is left, which may look at other data.
    had, has = (data.get("centre") for data in (info["config"]["data"], config.data))
    if had != has:
        raise InputError(
            f"{workdir}: its centres have been {had} up to step {info['step']} of {steps}, "
            f"expected the same, not {has}, until it has ended, or another --workdir"
        )
    before = info.get("epoch_size", epoch)
    if before != epoch and (source.size or schedule == "step"):
        raise InputError(
            f"{workdir}: its epochs have had {before:,} examples, expected the same, not "
            f"{epoch:,}, or another --workdir"
        )
    for name, content in info.get("files", {}).items():
        if source.files.get(name, content) != content:
            raise InputError(
                f"{workdir}: what {name} names has changed since the run began, expected the same, "
                "or another --workdir"
            )


def _check(name: str, value: Any, good: bool, expected: str) -> None:
    if not good:
        raise InputError(f"{name}={value}, expected {expected}")
