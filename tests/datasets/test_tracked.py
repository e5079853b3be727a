"""Tracked poses: pivots found from centres of mass, a right hand, and bad files by line."""

import json
import shutil

import numpy as np
import pytest

from hpe_jax.datasets.tracked import BONES, PARENTS, TIPS, read_tracked
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS

FRAMES = 60


def turns_of(quaternions):
    """Rotations, written out by elements."""
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


@pytest.fixture
def made(tmp_path):
    """A model and poses of it, in the files' format: paths and the true joints (mm)."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(-10, 10, (BONES, 3)) + [0, 0, 40]
    # A cage is a box 30 mm long, whose far end is 25 mm from the pivot.
    box = np.array([[x, y, z] for x in (-8, 8) for y in (-12, 4) for z in (-5, 25)], float)
    model = {
        "joints": [
            {"rbi0": PARENTS[b], "rbi1": b, "p0": (starts[b] / 1e3).tolist(), "p1": [0, 0, 0]}
            for b in range(1, BONES)
        ],
        "controlcages": [{"verts": (box / 1e3).tolist()} for _ in range(BONES)],
    }
    (tmp_path / "model_hand.json").write_text(json.dumps(model))
    masses = box.mean(0) + rng.uniform(-3, 3, (BONES, 3))
    quaternions = rng.normal(size=(FRAMES, BONES, 4))
    quaternions /= np.linalg.norm(quaternions, axis=-1, keepdims=True)
    turns = turns_of(quaternions)
    pivots = np.empty((FRAMES, BONES, 3))
    pivots[:, 0] = rng.uniform(-100, 100, (FRAMES, 3)) + [0, 0, 500]
    for b in range(1, BONES):
        pivots[:, b] = pivots[:, PARENTS[b]] + turns[:, PARENTS[b]] @ starts[b]
    positions = (pivots + np.einsum("nbij,bj->nbi", turns, masses)) / 1e3
    rows = np.concatenate([positions, quaternions], -1).reshape(FRAMES, -1)
    path = tmp_path / "some.pose"
    np.savetxt(path, rows, fmt="%.8f")
    joints = [pivots[:, 1]]
    for tip in TIPS:
        joints += [pivots[:, tip - 2], pivots[:, tip - 1], pivots[:, tip]]
        joints.append(pivots[:, tip] + turns[:, tip] @ np.array([0, -4, 25.0]))
    return path, np.stack(joints, 1)


def test_pivots_and_tips(made):
    path, true = made
    joints = read_tracked(path)
    assert joints.dtype == np.float32
    np.testing.assert_allclose(joints, true, atol=0.05)


def test_a_few_frames_are_roughly_right(made):
    """Too few to find the centres of mass of all bones: those of the cages stand in."""
    path, true = made
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    assert np.linalg.norm(read_tracked(path) - true[:2], axis=-1).max() < 8.0


def test_real_poses_are_a_right_hand(shared_data):
    joints = read_tracked(shared_data / "poses" / "animbank.pose")
    assert joints.shape == (2336, 21, 3)
    names = SKELETONS["freihand"].joints
    at = {name: joints[:, i] for i, name in enumerate(names)}
    for i in range(1, 21):
        if i % 4 != 1:  # along the fingers: lengths of an adult's bones, always the same
            length = np.linalg.norm(joints[:, i] - joints[:, i - 1], axis=-1)
            assert length.std() < 0.1 and 20 < length.mean() < 66
    # From the little finger to the index and from the wrist to the fingers: their cross product
    # leaves the palm of a right hand, and that is where fingers bend and the thumb is.
    across, along = at["index_mcp"] - at["little_mcp"], at["middle_mcp"] - at["wrist"]
    out = np.cross(across, along)
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    for finger in ("index", "middle", "ring", "little"):
        bent = ((at[f"{finger}_tip"] - at[f"{finger}_mcp"]) * out).sum(-1)
        assert np.mean(bent > -5) > 0.99 and np.percentile(bent, 90) > 25
    row = [(at[f"{f}_mcp"] * across).sum(-1) for f in ("little", "ring", "middle", "index")]
    assert (np.diff(row, axis=0) > 0).all()
    thumb = ((at["thumb_mcp"] - at["middle_mcp"]) * across).sum(-1)
    assert (thumb > 0).mean() > 0.99
    # A person's hand in front of a camera, fingers mostly above the wrist (y looks down).
    assert (joints[..., 2] > 100).all() and (joints[..., 2] < 700).all()
    assert np.median(along[:, 1]) < 0


def edited(path, line, change):
    lines = path.read_text().splitlines()
    lines[line] = change(lines[line].split())
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda w: " ".join(w[:100]), "some.pose, line 8: 100 numbers, expected 119"),
        (lambda w: " ".join([*w, "1"]), "some.pose, line 8: 120 numbers, expected 119"),
        (lambda w: "", "some.pose, line 8: 0 numbers, expected 119"),
        (lambda w: " ".join(["nan", *w[1:]]), "some.pose, line 8: expected 119 finite"),
        (lambda w: " ".join(["x", *w[1:]]), "some.pose, line 8: expected 119 finite"),
        (lambda w: " ".join([*w[:3], *"0000", *w[7:]]), "line 8: bone 0 has a quaternion of"),
        (lambda w: " ".join(["9.0", *w[1:]]), "line 8: bones are .* mm apart at a joint"),
    ],
)
def test_bad_lines(made, change, message):
    path, _ = made
    edited(path, 7, change)
    with pytest.raises(InputError, match=message):
        read_tracked(path)


def test_bad_files(made, tmp_path):
    path, _ = made
    model = path.parent / "model_hand.json"
    text = model.read_text()
    for content in (
        "",
        "{}",
        "[1]",
        '{"joints": [], "controlcages": []}',
        text.replace("0.025", "NaN"),
    ):
        model.write_text(content)
        with pytest.raises(InputError, match="model_hand.json: expected the hand model"):
            read_tracked(path)
    model.unlink()
    with pytest.raises(InputError, match="model_hand.json: expected the hand model .* beside"):
        read_tracked(path)
    path.write_text("")
    with pytest.raises(InputError, match="some.pose: empty"):
        read_tracked(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="some.pose: expected a readable text"):
        read_tracked(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="some.pose: expected a readable text"):
        read_tracked(path)
