"""Blocks of the 3-D networks against NumPy and against Linen's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hpe_jax.layers.init import init_variables
from hpe_jax.layers.volumetric import BatchNorm, ResidualBlock


def test_batch_norm_equals_linen():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 3, 5, 2, 6))
    ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = ours.init(jax.random.key(0), x, train=False)
    params = {"scale": jnp.linspace(0.5, 2, 6), "bias": jnp.linspace(-1, 1, 6)}
    variables = {"params": params, "batch_stats": variables["batch_stats"]}
    y, state = ours.apply(variables, x, train=True, mutable=["batch_stats"])
    z, wanted = theirs.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    np.testing.assert_allclose(y, z, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wanted)
    later = {"params": params, **state}
    np.testing.assert_allclose(
        ours.apply(later, x, train=False),
        theirs.apply(later, x, use_running_average=True),
        atol=1e-5,
    )


def test_residual_block_shortcut():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    for width, names in ((3, set()), (5, {"conv_skip", "norm_skip"})):
        block = ResidualBlock(width)
        variables = init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
        assert names == {n for n in variables["params"] if n.endswith("skip")}
        assert block.apply(variables, x, train=False).shape == (2, 4, 4, 4, width)
    # With kernels of zero only the shortcut is left.
    block = ResidualBlock(3)
    variables = jax.tree.map(
        jnp.zeros_like, init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
    )
    np.testing.assert_array_equal(block.apply(variables, x, train=False), np.maximum(x, 0))


def test_bfloat16_is_for_compute_only():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    block, exact = ResidualBlock(8, dtype=jnp.bfloat16), ResidualBlock(8)
    variables = init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
    y, state = block.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, state)))
    z, _ = exact.apply(variables, x, train=True, mutable=["batch_stats"])
    assert 0 < np.abs(y.astype(np.float32) - z).max() < 0.15
