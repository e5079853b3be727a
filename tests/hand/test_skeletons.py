"""The joint sets have the sizes, orders and trees of their data sets."""

import pytest

from hpe_jax.hand.skeletons import NYU_COLUMNS, SKELETONS


@pytest.mark.parametrize("name,joints", [("nyu", 14), ("icvl", 16), ("msra", 21)])
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
