"""A method that learns in a blink and a source that needs no hands, for tests of training.

The "depth patch" is 8 x 8, brighter where the single hand is; the method is
one dense layer with running statistics, so that every part of a training state is exercised.

As a program, trains in the directory of its first argument: tests kill and resume it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hpe_jax.frames import Source
from hpe_jax.methods.base import Method

JOINTS = 14
SIZE = 8


def make_method(*, noise: float = 0.01, poison: float | None = None) -> Method:
    """`noise` depends on the step's key; a joint beyond `poison` mm makes the loss NaN."""

    def init(key):
        kernel = 0.01 * jax.random.normal(key, (SIZE * SIZE, JOINTS * 3))
        return {
            "params": {"out": {"kernel": kernel, "bias": jnp.zeros(JOINTS * 3)}},
            "batch_stats": {"out": {"mean": jnp.zeros(SIZE * SIZE)}},
        }

    def forward(variables, batch, mean):
        x = batch["depth"].reshape(len(batch["depth"]), -1) - mean
        out = x @ variables["params"]["out"]["kernel"] + variables["params"]["out"]["bias"]
        return batch["centre"][:, None] + 100.0 * out.reshape(-1, JOINTS, 3)

    def loss(variables, batch, key):
        mean = batch["depth"].reshape(len(batch["depth"]), -1).mean(0)
        joints = forward(variables, batch, mean)
        error = jnp.linalg.norm(joints - batch["joints"] + 1e-6, axis=-1).mean()
        value = error / 100.0 + noise * jax.random.normal(key) * jnp.mean(joints) / 100.0
        if poison is not None:
            value = jnp.where(batch["joints"].max() > poison, jnp.nan, value)
        kept = 0.9 * variables["batch_stats"]["out"]["mean"] + 0.1 * mean
        return value, ({"error_mm": error}, {"batch_stats": {"out": {"mean": kept}}})

    def predict(variables, batch):
        return forward(variables, batch, variables["batch_stats"]["out"]["mean"])

    return Method(init, loss, predict)


def make_source(split: str = "train", size: int | None = None, poison_at: int = -1) -> Source:
    """Examples are a function of their index; the one at `poison_at` lies very far off."""

    def load(indices):
        return {"index": indices.astype(np.int32)}

    def one(index):
        key = jax.random.fold_in(jax.random.key(7 if split == "train" else 8), index)
        depth = jax.random.uniform(key, (SIZE, SIZE), minval=0.0, maxval=1.0)
        weights = jax.random.normal(jax.random.key(1), (SIZE * SIZE, JOINTS * 3))
        offset = 10.0 * (depth.reshape(-1) @ weights).reshape(JOINTS, 3)
        centre = jnp.array([0.0, 0.0, 600.0])
        return {
            "depth": depth,
            "corner": jnp.array([316.0, 236.0]),
            "camera": jnp.array([588.03, 587.07, 320.0, 240.0]),
            "centre": centre,
            "joints": centre + offset + jnp.where(index == poison_at, 1e7, 0.0),
            "joint_valid": jnp.ones(JOINTS, bool),
            "cube": jnp.array(250.0),
        }

    return Source(
        name="synthetic-nyu",
        split=split,
        size=size,
        centre="gt",
        skeleton="nyu",
        camera=np.array([588.03, 587.07, 320.0, 240.0], np.float32),
        load=load,
        expand=lambda data: jax.vmap(one)(data["index"]),
    )


def make_config(**changes) -> ConfigDict:
    """The fields of a config that training reads; keyword `optimizer__lr` sets optimizer.lr."""
    config = ConfigDict(
        {
            "seed": 3,
            "method": {"name": "toy"},
            "data": {"root": "", "centre": "com"},
            "optimizer": {
                **{"name": "adam", "lr": 1e-2, "decay": 0.99, "schedule": "step"},
                **{"warmup": 0, "onecycle_peak": 0.3, "step_epochs": 1.875, "step_factor": 0.5},
                **{"weight_decay": 0.0, "adam_share": 0.1, "clip_norm": 0.0, "clip_value": 0.0},
                "b1": 0.9,
                **{"accumulate": 1, "ema": 0.9},
            },
            **{"batch": 8, "steps": 40, "epochs": 1, "epoch_examples": 64, "test_frames": 0},
            **{"eval_every": 0, "eval_batch": 0, "log_every": 10, "checkpoint_every": 7},
            **{"keep_checkpoints": 2, "init_from": "", "init_pattern": ".*", "frozen": ""},
        }
    )
    for name, value in changes.items():
        *section, key = name.split("__")
        (config[section[0]] if section else config)[key] = value
    return config


def main() -> int:
    """`toy.py WORKDIR CHANGES`: CHANGES is a JSON object for `make_config` and this program."""
    from absl import logging

    from hpe_jax.errors import InputError, TrainingError
    from hpe_jax.training import loop

    changes = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    pause, poison_at = changes.pop("pause", 0.0), changes.pop("poison_at", -1)
    file_limit = changes.pop("file_limit", 0)
    train, test = make_source(poison_at=poison_at), make_source("test", 37)
    if pause:
        plain = train.load

        def slow(indices):
            time.sleep(pause)
            return plain(indices)

        object.__setattr__(train, "load", slow)
    if file_limit:  # As on a full disk: writes beyond so many bytes a file fail.
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    method = make_method(poison=1e6)
    logging.set_verbosity(logging.FATAL)
    try:
        loop.train(make_config(**changes), Path(sys.argv[1]), method, train, test)
    except (InputError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
