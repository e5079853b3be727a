"""Numbers drawn together are those that `jax.random` draws one by one."""

import jax
import numpy as np

from hpe_jax.synthetic import draws

WIDTH = 40
SHARES = (0.45, 0.2, 0.2, 0.15)


@jax.jit
def together(keys):
    words = draws.bits(keys, WIDTH)
    between = draws.uniform(words, -3.0, 5.0)
    each = draws.uniform(words[:, :2], (0.8, -2.0), (1.3, 4.0))
    choice = draws.choose(words, SHARES)
    return draws.uniform(words), between, each, draws.normal(words), choice


@jax.jit
def one_by_one(key):
    random, shape = jax.random, (WIDTH,)
    between = random.uniform(key, shape, minval=-3.0, maxval=5.0)
    low, high = np.array([0.8, -2.0], np.float32), np.array([1.3, 4.0], np.float32)
    each = random.uniform(key, (2,), minval=low, maxval=high)
    choice = random.choice(key, 4, shape, p=np.array(SHARES))
    return random.uniform(key, shape), between, each, random.normal(key, shape), choice


def test_numbers_are_those_of_jax_random():
    keys = jax.random.split(jax.random.key(5), 50)
    expected = jax.tree.map(lambda *rows: np.stack(rows), *map(one_by_one, keys))
    for found, known in zip(together(keys), expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-6, atol=1e-6)
    assert set(np.unique(expected[-1])) == {0, 1, 2, 3}


def test_fewer_words_are_the_first_of_more():
    keys = jax.random.split(jax.random.key(5), 3)
    few = np.asarray(draws.bits(keys, 3))
    np.testing.assert_array_equal(few, draws.bits(keys, WIDTH)[:, :3])
    np.testing.assert_array_equal(few[1], jax.random.bits(keys[1], (3,)))
