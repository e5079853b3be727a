"""All paths of the 3-D convolution are one function, in value and in gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from typechecks import as_users_call_it

from hpe_jax.kernels.conv3d import conv2d, conv3d, max_pool2, nearest2, upsample2

CASES = [
    # extents, channels in and out, kernel, stride
    ((6, 5, 4), 1, 3, (7, 7, 7), 1),
    ((5, 6, 7), 3, 2, (3, 3, 3), 1),
    ((4, 4, 4), 8, 5, (3, 3, 3), 1),
    ((1, 3, 3), 5, 4, (3, 3, 3), 1),
    ((7, 6, 5), 5, 4, (3, 5, 1), 1),
    ((8, 6, 4), 2, 4, (3, 3, 3), 2),
    ((7, 6, 5), 9, 4, (5, 3, 3), 2),
    ((4, 5, 6), 9, 4, (1, 1, 1), 1),
    ((5, 5, 6), 9, 4, (1, 1, 1), 2),
    ((5, 4, 6), 16, 40, (3, 5, 1), 1),
    ((3, 4, 5), 24, 24, (5, 1, 3), 1),
]


@pytest.fixture
def products(monkeypatch):
    """The kernel's gradient as products of matrices, two images at a time, though all is small."""
    monkeypatch.setattr("hpe_jax.kernels.conv3d.SMALL", 0)
    monkeypatch.setattr("hpe_jax.kernels.conv3d.PIECE", 1)


def data(extents, inputs, outputs, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *extents, inputs)).astype(np.float32)
    kernel = rng.normal(size=(*size, inputs, outputs)).astype(np.float32)
    kernel /= np.sqrt(np.prod(size) * inputs)
    return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(rng.normal(size=outputs), jnp.float32)


def paths(size, stride):
    names = ["auto", "taps", "sum"]
    if stride == 1:
        names += ["fold_in", "winograd"] if size[0] == 3 else ["fold_in"]
    return names


@pytest.mark.parametrize(("extents", "inputs", "outputs", "size", "stride"), CASES)
@pytest.mark.usefixtures("products")
def test_paths_equal_lax(extents, inputs, outputs, size, stride):
    args = data(extents, inputs, outputs, size)
    expected = conv3d(*args, stride=stride, path="lax")
    cotangent = jax.random.normal(jax.random.key(0), expected.shape)

    def value_and_gradients(path):
        def run(*a):
            y, pull = jax.vjp(lambda *b: conv3d(*b, stride=stride, path=path), *a)
            return y, pull(cotangent)

        return jax.jit(run)(*args)

    wanted = value_and_gradients("lax")
    for path in paths(size, stride):
        for got, want in zip(
            jax.tree.leaves(value_and_gradients(path)), jax.tree.leaves(wanted), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_lax_path_equals_loop():
    x, kernel, bias = data((4, 3, 2), 2, 3, (3, 3, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((2, 4, 3, 2, 3))
    for d, h, w in np.ndindex(4, 3, 2):
        block = padded[:, d : d + 3, h : h + 3, w : w + 3]
        expected[:, d, h, w] = np.einsum("bijkc,ijkco->bo", block, kernel) + bias
    np.testing.assert_allclose(conv3d(x, kernel, bias, path="lax"), expected, atol=1e-5)


def test_training_size_equals_lax():
    x, kernel, bias = data((16, 16, 16), 32, 32, (3, 3, 3))
    got, want = (conv3d(x, kernel, bias, path=path) for path in ("taps", "lax"))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_bad_arguments():
    x, kernel, _ = data((4, 4, 4), 2, 3, (3, 3, 3))
    conv, pool = as_users_call_it(conv3d), as_users_call_it(max_pool2)
    for message, call in (
        ("unknown path", lambda: conv(x, kernel, path="fast")),
        ("odd", lambda: conv(x, kernel[:2])),
        ("channels", lambda: conv(x[..., :1], kernel)),
        ("stride 1", lambda: conv(x, kernel, stride=2, path="winograd")),
        ("even", lambda: pool(x[:, :3])),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_upsample2_equals_transposed_convolution():
    x, kernel, bias = data((2, 3, 4), 5, 3, (2, 2, 2))

    def reference(x, kernel, bias):
        # `lax.conv_transpose` correlates, so the taps are mirrored.
        return bias + lax.conv_transpose(
            x,
            kernel[::-1, ::-1, ::-1],
            (2, 2, 2),
            "VALID",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )

    y, pull = jax.vjp(upsample2, x, kernel, bias)
    want, want_pull = jax.vjp(reference, x, kernel, bias)
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_allclose(y[0, 2, 1, 5], x[0, 1, 0, 2] @ kernel[0, 1, 1] + bias, atol=1e-5)
    for got, expected in zip(pull(want), want_pull(want), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_max_pool2():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 2, 3))
    expected = np.asarray(x).reshape(2, 2, 2, 3, 2, 1, 2, 3).max((2, 4, 6))
    np.testing.assert_array_equal(max_pool2(x), expected)
    gradient = jax.grad(lambda v: max_pool2(v).sum())(x)
    np.testing.assert_array_equal(gradient, np.isin(x, expected))


def test_images_are_pooled_and_repeated_like_volumes():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    expected = x.reshape(2, 2, 2, 3, 2, 3).max((2, 4))
    np.testing.assert_array_equal(max_pool2(jnp.asarray(x)), expected)
    np.testing.assert_array_equal(nearest2(jnp.asarray(x)), x.repeat(2, 1).repeat(2, 2))
    volume = x[:, :, None]
    big = nearest2(jnp.asarray(volume))
    np.testing.assert_array_equal(big, volume.repeat(2, 1).repeat(2, 2).repeat(2, 3))


def test_conv2d_equals_a_loop():
    rng = np.random.default_rng(1)
    x, kernel, bias = rng.normal(size=(1, 5, 4, 2)), rng.normal(size=(3, 3, 2, 3)), np.arange(3.0)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.empty((1, 5, 4, 3))
    for i, j in np.ndindex(5, 4):
        window = padded[0, i : i + 3, j : j + 3]
        expected[0, i, j] = np.einsum("abc,abcd->d", window, kernel) + bias
    y = conv2d(*(jnp.asarray(a, jnp.float32) for a in (x, kernel, bias)))
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("images", [4, 3])
@pytest.mark.usefixtures("products")
def test_gradients_of_conv2d_equal_lax(images):
    rng = np.random.default_rng(2)
    x, kernel = (rng.normal(size=s).astype("f4") for s in ((images, 6, 5, 16), (3, 5, 16, 32)))
    cotangent = rng.normal(size=(images, 6, 5, 32)).astype("f4")

    def reference(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def gradients(f, *args):
        return jax.jit(lambda x, kernel, c: jax.vjp(f, x, kernel)[1](c))(*args)

    wanted = gradients(reference, x, kernel, cotangent)
    for got, want in zip(gradients(conv2d, x, kernel, cotangent), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    # Half precision sums in single precision: as far off as one rounding of its factors.
    half = (jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, cotangent))
    for got, want in zip(gradients(conv2d, *half), wanted, strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype("f4"), want, atol=0.01 * np.abs(want).max())


def test_small_convolutions_keep_the_gradient_of_lax():
    x, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))

    def program(x):
        return jax.jit(jax.grad(lambda k: conv2d(x, k).sum())).lower(kernel).as_text()

    assert "while" not in program(x) and "while" in program(jnp.ones((64, 64, 64, 16)))
