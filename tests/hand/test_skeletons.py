"""The joint sets have the sizes, orders and trees of their data sets, and map onto each other."""

import itertools

import numpy as np
import pytest

from hpe_jax.hand.skeletons import NYU_COLUMNS, SKELETONS, map_joints

SIZES = {"nyu": 14, "nyu36": 36, "icvl": 16, "msra": 21, "bighand": 21, "mano": 21, "freihand": 21}


@pytest.mark.parametrize("name,joints", SIZES.items())
def test_sizes(name, joints):
    skeleton = SKELETONS[name]
    assert len(skeleton) == joints == len(skeleton.finger) == len(set(skeleton.joints))


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_bones_form_a_tree(name):
    skeleton = SKELETONS[name]
    children = [child for _, child in skeleton.bones]
    assert len(skeleton.bones) == len(skeleton) - 1
    assert len(set(children)) == len(children)
    reached = {skeleton.bones[0][0] if skeleton.bones else 0}  # one joint is a tree, too
    for parent, child in skeleton.bones:
        assert parent in reached
        reached.add(child)
    assert len(reached) == len(skeleton)


def test_nyu_order():
    assert NYU_COLUMNS == (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
    assert SKELETONS["nyu"].joints[0] == "little_tip"
    assert SKELETONS["nyu"].joints[8] == "thumb_tip"
    assert SKELETONS["nyu"].joints[13] == "palm"
    assert [SKELETONS["nyu36"].joints[c] for c in NYU_COLUMNS] == list(SKELETONS["nyu"].joints)


def test_published_maps_between_the_orders():
    # Joints carry their own index, so that a map shows which one went where.
    bighand = np.repeat(np.arange(21.0)[:, None], 3, 1)
    to_msra = [0, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20, 1, 6, 7, 8]
    to_thumb_first = [0, 1, 6, 7, 8, 2, 9, 10, 11, 3, 12, 13, 14, 4, 15, 16, 17, 5, 18, 19, 20]
    assert map_joints(bighand, "bighand", "msra")[:, 0].tolist() == to_msra
    assert map_joints(bighand, "bighand", "freihand")[:, 0].tolist() == to_thumb_first
    # MANO's own joints, then its tips: thumb, index, middle, ring, little.
    from_mano = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]
    assert map_joints(bighand, "mano", "freihand")[:, 0].tolist() == from_mano


@pytest.mark.parametrize("source,target", itertools.permutations(SIZES, 2))
def test_every_pair_keeps_what_both_have(source, target):
    have, want = SKELETONS[source].joints, SKELETONS[target].joints
    joints = np.random.default_rng(0).normal(size=(2, len(have), 3))
    mapped = map_joints(joints, source, target)
    assert mapped.shape == (2, len(want), 3)
    for k, name in enumerate(want):
        if name in have:
            np.testing.assert_array_equal(mapped[:, k], joints[:, have.index(name)])
        else:
            assert np.isnan(mapped[:, k]).all()
    common = set(have) & set(want)
    assert common  # every pair shares the tips at least
    back = map_joints(mapped, target, source)
    kept = [i for i, name in enumerate(have) if name in common]
    np.testing.assert_array_equal(back[:, kept], joints[:, kept])
    assert len(common) == 21 or {source, target} & {"nyu", "nyu36", "icvl"}


def test_maps_refuse_what_they_do_not_know():
    with pytest.raises(ValueError, match="'hand': expected one of nyu"):
        map_joints(np.zeros((21, 3)), "msra", "hand")
    with pytest.raises(ValueError, match=r"\(14, 3\), expected \(\.\.\., 21, 3\)"):
        map_joints(np.zeros((14, 3)), "msra", "nyu")
