"""Initial variables: deterministic, of the configured spread, named as Linen names them."""

import jax
import numpy as np

from hpe_jax.layers.blocks import ResidualBlock, Upsample
from hpe_jax.layers.init import init_variables

VOLUME = jax.ShapeDtypeStruct((1, 4, 4, 4, 8), np.float32)


def test_spread_and_constants():
    block = ResidualBlock(64)
    variables = init_variables(
        block, jax.random.key(0), VOLUME, kernel_std=0.001, std={"conv2": 0.5}, train=False
    )
    assert type(variables) is dict and set(variables) == {"params", "batch_stats"}
    params = variables["params"]
    assert abs(np.std(params["conv1"]["kernel"]) / 0.001 - 1) < 0.05
    assert abs(np.std(params["conv2"]["kernel"]) / 0.5 - 1) < 0.05
    assert not np.any(params["conv1"]["bias"]) and np.all(params["norm1"]["scale"] == 1)
    assert np.all(variables["batch_stats"]["norm1"]["var"] == 1)
    same = jax.eval_shape(lambda k, x: block.init(k, x, train=False), jax.random.key(1), VOLUME)
    assert jax.tree.map(np.shape, dict(same)) == jax.tree.map(np.shape, variables)


def test_he_and_determinism():
    draw = [
        init_variables(ResidualBlock(64), jax.random.key(k), VOLUME, kernel_std=0, train=False)
        for k in (0, 0, 1)
    ]
    kernel = [np.asarray(v["params"]["conv1"]["kernel"]) for v in draw]
    assert np.array_equal(kernel[0], kernel[1]) and not np.array_equal(kernel[0], kernel[2])
    assert abs(kernel[0].std() / np.sqrt(2 / (27 * 8)) - 1) < 0.05
    up = init_variables(Upsample(64), jax.random.key(0), VOLUME, kernel_std=0, train=False)
    assert abs(np.std(up["params"]["kernel"]) / np.sqrt(2 / 8) - 1) < 0.05
