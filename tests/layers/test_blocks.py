"""Blocks of the networks against NumPy and against Linen's own layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hpe_jax.layers.blocks import (
    BatchNorm,
    BatchRenorm,
    Bottleneck,
    Conv,
    Hourglass,
    ResidualBlock,
)
from hpe_jax.layers.init import init_variables


@partial(jax.jit, static_argnums=0, static_argnames=("train", "mutable", "use_running_average"))
def apply(module, variables, x, **options):
    """Compiled once a shape, instead of each operation on its own."""
    return module.apply(variables, x, **options)


@partial(jax.jit, static_argnums=0)
def start(module, x):
    return module.init(jax.random.key(0), x, train=False)


def test_batch_norm_equals_linen():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 3, 5, 2, 6))
    ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = start(ours, x)
    params = {"scale": jnp.linspace(0.5, 2, 6), "bias": jnp.linspace(-1, 1, 6)}
    variables = {"params": params, "batch_stats": variables["batch_stats"]}
    y, state = apply(ours, variables, x, train=True, mutable="batch_stats")
    z, wanted = apply(theirs, variables, x, use_running_average=False, mutable="batch_stats")
    np.testing.assert_allclose(y, z, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wanted)
    later = {"params": params, **state}
    np.testing.assert_allclose(
        apply(ours, later, x, train=False),
        apply(theirs, later, x, use_running_average=True),
        atol=1e-5,
    )


def test_residual_block_shortcut():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    for width, names in ((3, set()), (5, {"conv_skip", "norm_skip"})):
        block = ResidualBlock(width)
        variables = init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
        assert names == {n for n in variables["params"] if n.endswith("skip")}
        assert apply(block, variables, x, train=False).shape == (2, 4, 4, 4, width)
    # With kernels of zero only the shortcut is left.
    block = ResidualBlock(3)
    variables = jax.tree.map(
        jnp.zeros_like, init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
    )
    np.testing.assert_array_equal(apply(block, variables, x, train=False), np.maximum(x, 0))


def test_bottleneck_narrows_to_half():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    for width, names in ((6, {"narrow", "look", "wide"}), (5, {"narrow", "look", "wide", "skip"})):
        block = Bottleneck(width)
        variables = init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
        shapes = {k: v["conv"]["kernel"].shape for k, v in variables["params"].items()}
        assert set(shapes) == names and shapes["look"] == (3, 3, 3, 3)
        y = apply(block, variables, x, train=False)
        assert y.shape == (2, 4, 4, width)
        # What is added to the shortcut comes out of a ReLU; nothing follows the sum.
        if width == 6:
            assert (y >= x).all() and (y < 0).any()
            none = jax.tree.map(jnp.zeros_like, variables)
            np.testing.assert_array_equal(apply(block, none, x, train=False), x)
        else:  # Both parts of the sum come out of one.
            assert (y >= 0).all() and (y == 0).any() and (y > 0).any()


def test_bfloat16_is_for_compute_only():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 4, 3))
    block, exact = ResidualBlock(8, dtype=jnp.bfloat16), ResidualBlock(8)
    variables = init_variables(block, jax.random.key(1), x, kernel_std=0, train=False)
    y, state = apply(block, variables, x, train=True, mutable="batch_stats")
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((variables, state)))
    z, _ = apply(exact, variables, x, train=True, mutable="batch_stats")
    assert 0 < np.abs(y.astype(np.float32) - z).max() < 0.15


def test_one_definition_for_images_and_volumes():
    """A volume that repeats an image along its depth, under kernels that look along no depth."""
    image = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    flat = init_variables(Conv(5, 3), jax.random.key(1), image, kernel_std=0)
    kernel = flat["params"]["kernel"]
    assert kernel.shape == (3, 3, 3, 5)
    deep = jnp.zeros((3, *kernel.shape)).at[1].set(kernel)
    volume = jnp.broadcast_to(image[:, None], (2, 6, 8, 8, 3))
    one = apply(Conv(5, 3), flat, image)
    two = apply(Conv(5, 3), {"params": {"kernel": deep, "bias": flat["params"]["bias"]}}, volume)
    np.testing.assert_allclose(two, jnp.broadcast_to(one[:, None], two.shape), atol=1e-5)


def shortcuts(x, depth):
    """An hourglass whose residual blocks add nothing."""
    axes = tuple(range(1, x.ndim - 1))
    low = np.maximum(x, 0)
    for axis in axes:
        low = np.maximum(
            low.take(range(0, low.shape[axis], 2), axis),
            low.take(range(1, low.shape[axis], 2), axis),
        )
    low = shortcuts(low, depth - 1) if depth > 1 else low
    for axis in axes:
        low = np.repeat(low, 2, axis)
    return np.maximum(x, 0) + low


def test_hourglass_keeps_extents_and_sees_everything():
    for extents in ((4, 4), (4, 4, 4)):
        x = jax.random.normal(jax.random.key(0), (1, *extents, 4))
        net = Hourglass(4, depth=2)
        variables = init_variables(net, jax.random.key(1), x, kernel_std=0, train=False)
        y = apply(net, variables, x, train=False)
        assert y.shape == x.shape
        inner = variables["params"]["inner"]
        assert set(inner) == {"skip", "down", "middle", "up"}
        # The smallest size is one pixel: a corner of the input reaches the opposite corner.
        moved = apply(net, variables, x.at[(0,) * (len(extents) + 1)].add(3.0), train=False)
        assert np.abs(moved - y)[(0, *(-1,) * len(extents))].max() > 0
        no = jax.tree.map(jnp.zeros_like, variables)
        # With kernels of zero only the shortcuts are left: of the skip, and of the way down.
        plain = np.asarray(apply(net, no, x, train=False))
        np.testing.assert_allclose(plain, shortcuts(np.asarray(x), 2), atol=1e-6)


def slow_renorm(x, mean, var, count, r_max=3.0, d_max=5.0, ramp=10):
    """Ioffe 2017, algorithm 1, without scale and bias."""
    axes = tuple(range(x.ndim - 1))
    own_mean, own_std = x.mean(axes), np.sqrt(x.var(axes) + 1e-5)
    std, opened = np.sqrt(var + 1e-5), min(count / ramp, 1.0)
    top, far = 1 + (r_max - 1) * opened, d_max * opened
    r = np.clip(own_std / std, 1 / top, top)
    d = np.clip((own_mean - mean) / std, -far, far)
    return (x - own_mean) / own_std * r + d


def test_batch_renorm_equals_the_algorithm():
    layer = BatchRenorm(ramp=10)
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 3, 5, 6))
    params = {"scale": jnp.linspace(0.5, 2, 6), "bias": jnp.linspace(-1, 1, 6)}
    mean, var = np.linspace(2, 5, 6), np.linspace(1, 9, 6)
    for count in (0.0, 4.0, 30.0):
        stats = {"mean": jnp.asarray(mean), "var": jnp.asarray(var), "count": jnp.asarray(count)}
        variables = {"params": params, "batch_stats": stats}
        y, state = apply(layer, variables, x, train=True, mutable="batch_stats")
        expected = slow_renorm(np.asarray(x, np.float64), mean, var, count)
        np.testing.assert_allclose(y, expected * params["scale"] + params["bias"], atol=1e-4)
        keep = min(0.99, (1 + count) / (10 + count))
        np.testing.assert_allclose(
            state["batch_stats"]["mean"], keep * mean + (1 - keep) * x.mean((0, 1, 2)), rtol=1e-4
        )
        assert state["batch_stats"]["count"] == count + 1
        # In use it is batch norm with the running statistics.
        used = (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * params["scale"] + params["bias"]
        np.testing.assert_allclose(apply(layer, variables, x, train=False), used, atol=1e-4)


def test_batch_renorm_begins_as_batch_norm():
    x = 1 + jax.random.normal(jax.random.key(0), (4, 5, 6))
    outputs = []
    for layer in (BatchRenorm(), BatchNorm()):
        variables = start(layer, x)
        y, _ = apply(layer, variables, x, train=True, mutable="batch_stats")
        outputs.append(y)
    np.testing.assert_allclose(*outputs, atol=1e-5)
