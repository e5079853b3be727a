"""frames.py: the order of examples is a function of (seed, step), and no number comes twice."""

import numpy as np

from hpe_jax.frames import epoch_indices


def test_endless_sources_count_up():
    assert epoch_indices(None, 4, 0, 3).tolist() == [12, 13, 14, 15]


def test_every_epoch_is_a_permutation_even_across_batches():
    size, batch = 10, 4
    order = np.concatenate([epoch_indices(size, batch, 5, s) for s in range(15)])
    for epoch in range(6):
        numbers = sorted(order[epoch * size : (epoch + 1) * size])
        assert numbers == list(range(epoch * size, (epoch + 1) * size))
    assert order[:size].tolist() != (order[size : 2 * size] % size).tolist()


def test_order_depends_on_seed_and_step_alone():
    first = epoch_indices(100, 8, 3, 11)
    for other in range(4):
        epoch_indices(100, 8, other, 2)
    assert (epoch_indices(100, 8, 3, 11) == first).all()
    assert (epoch_indices(100, 8, 4, 11) != first).any()


def test_no_two_seeds_share_an_order():
    orders = {tuple(epoch_indices(10, 10, seed, e) % 10) for seed in range(3) for e in range(3)}
    assert len(orders) == 9
