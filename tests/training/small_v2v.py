"""A V2V of 16 voxels and a few channels on rendered hands, for tests of training.

As a program, trains in the directory of its first argument for as many steps as its second
says: tests kill and resume it, and run it on several devices. It then calculates in double
precision: the number of devices decides the last bits, which in single precision a network this
small sometimes lets grow to 1e-3 of the loss within 20 steps.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from toy import make_source as make_toy_source

from hpe_jax.datasets import make_source
from hpe_jax.frames import Source
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "v2v_nyu.py"


def make_config(steps: int) -> ConfigDict:
    """The quick config with the paper's augmentation, as small as the network allows."""
    spec = importlib.util.spec_from_file_location("v2v_nyu", CONFIG)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("quick")
    with config.unlocked():
        config.update_from_flattened_dict(
            {
                **{"method.input": 16, "method.canvas": 20, "method.widths": (2, 4, 4, 4)},
                **{"method.scale": (0.8, 1.2), "method.rotation_deg": 40.0, "data.patch": 32},
                **{"steps": steps, "log_every": 1, "checkpoint_every": 4, "eval_batch": 8},
            }
        )
    return config


def make_noise_source(split: str = "test") -> Source:
    """Noise in front of the camera, where rendering hands would compile for too long.

    With "clean", which is flatter, as methods that learn from depth before the sensor need it.
    """
    source = make_toy_source(split, 16)
    camera = np.array([13.0, 13.0, 4.0, 4.0], np.float32)  # 8 pixels show 370 mm at 600 mm

    def expand(data):
        batch = source.expand(data)
        depth = 500.0 + 200.0 * batch["depth"]
        seen = {"camera": jnp.tile(camera, (len(depth), 1)), "corner": jnp.zeros((len(depth), 2))}
        return {**batch, **seen, "depth": depth, "clean": jnp.maximum(depth, 600.0)}

    return dataclasses.replace(source, camera=camera, expand=expand)


def use_double_precision() -> None:
    """Make this process calculate V2V and its training in float64."""
    from hpe_jax.methods import v2v

    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64
    single = v2v.V2VNet
    v2v.V2VNet = lambda joints, widths, _: single(joints, widths, jnp.float64)


def main() -> None:
    """`small_v2v.py WORKDIR STEPS`."""
    use_double_precision()
    from hpe_jax.training import loop

    config = make_config(int(sys.argv[2]))
    train = make_source(config.data, "train", config.seed)
    method = METHODS["v2v"](config.method, SKELETONS[train.skeleton])
    loop.train(config, Path(sys.argv[1]), method, train, make_noise_source())


if __name__ == "__main__":
    main()
