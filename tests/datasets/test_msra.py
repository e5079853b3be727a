"""The MSRA15 reader on made-up trees in the published layout; real validity and label files."""

from __future__ import annotations

import logging
import os
import struct

import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax.camera import MSRA, uvd_to_xyz
from hpe_jax.datasets import make_source, msra
from hpe_jax.errors import InputError
from hpe_jax.metrics.protocols import PROTOCOLS

CAMERA = MSRA.intrinsics.astype(np.float64)


def config(root, **changes):
    fields = dict(
        dataset="msra", root=str(root), centre="gt", centre_file="", cube_mm=200.0, patch=96,
        extent_mm=300.0, centre_jitter_mm=0.0, skip_unreadable=False, stand_in=False, subject=0,
    )  # fmt: skip
    return ConfigDict(fields | changes)


def frame_bytes(left, top, box):
    rows, columns = box.shape
    header = struct.pack("<6I", 320, 240, left, top, left + columns, top + rows)
    return header + box.astype("<f4").tobytes()


def joint_line(joints):
    """Camera space, y down, to the file's numbers: y up, z negative."""
    return " ".join(f"{x:.4f}" for x in (joints * [1, -1, -1]).ravel())


def make_tree(root, frames=2):
    """Every subject and gesture, a square "hand" in each frame."""
    rng = np.random.default_rng(0)
    labels = {}
    for subject in range(9):
        for gesture in msra.GESTURES:
            folder = root / f"P{subject}" / gesture
            folder.mkdir(parents=True)
            lines = [str(frames)]
            for i in range(frames):
                uvd = rng.uniform([120, 90, 280], [200, 150, 450]) + rng.uniform(-9, 9, (21, 3))
                u, v, d = uvd.mean(0).round().astype(int)
                box = np.zeros((60, 50), np.float32)
                box[5:-5, 5:-5] = d
                (folder / f"{i:06d}_depth.bin").write_bytes(frame_bytes(u - 25, v - 30, box))
                joints = np.asarray(uvd_to_xyz(uvd, CAMERA))
                labels[subject, gesture, i] = joints
                lines.append(joint_line(joints))
            (folder / "joint.txt").write_text("\n".join(lines) + "\n")
    return labels


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("msra")
    return root, make_tree(root)


def test_folds_order_and_labels(tree):
    root, labels = tree
    test = make_source(config(root, subject=3), "test", 0)
    train = make_source(config(root, subject=3), "train", 0)
    assert (test.name, test.size, train.size) == ("msra", 34, 8 * 34)
    assert test.centres_y_up
    batch = test.load(np.arange(34))
    expected = np.stack([labels[3, g, i] for g in msra.GESTURES for i in range(2)])
    np.testing.assert_allclose(batch["joints"], expected, atol=0.01)
    np.testing.assert_allclose(batch["centre"], expected.mean(1), atol=0.01)
    assert np.allclose(batch["cube"], 180)
    for depth, joints in zip(batch["depth"], expected, strict=True):
        assert abs(np.median(depth[depth > 0]) - joints[:, 2].mean()) < 1
    # Subject 4 follows subject 2 where 3 is left out.
    after = train.load(np.array([3 * 34 - 1, 3 * 34]))
    np.testing.assert_allclose(after["joints"][0], labels[2, "Y", 1], atol=0.01)
    np.testing.assert_allclose(after["joints"][1], labels[4, "1", 0], atol=0.01)
    np.testing.assert_allclose(train.load(np.arange(8 * 34))["cube"][[0, -1]], [200, 150])


def test_every_subject_has_its_cube_unless_told_otherwise(tree):
    for changes, expected in (
        ({}, [200, 200, 200, 180, 180, 180, 170, 160, 150]),
        ({"cube_by_subject": False}, [200] * 9),
    ):
        sources = (make_source(config(tree[0], subject=s, **changes), "test", 0) for s in range(9))
        cubes = [source.load(np.array([0]))["cube"][0] for source in sources]
        np.testing.assert_allclose(cubes, expected)


def test_the_depth_lies_where_the_joints_project(tmp_path):
    """A reading at one pixel of the box comes back at that pixel of the frame."""
    box = np.zeros((4, 7), np.float32)
    box[1, 2], box[3, 6] = 300.5, np.nan
    path = tmp_path / "0.bin"
    path.write_bytes(frame_bytes(100, 50, box))
    depth = msra.read_frame(path)
    assert depth.shape == (240, 320) and depth[51, 102] == 300.5 and (depth > 0).sum() == 1


def test_a_root_may_hold_the_published_folder(tree, tmp_path):
    (tmp_path / "cvpr15_MSRAHandGestureDB").symlink_to(tree[0])
    assert make_source(config(tmp_path), "test", 0).size == 34


def test_counts_of_the_published_data(tmp_path, shared_data):
    """A tree with as many frames as the data set, 76,375: every subject's count comes out."""
    from scipy.io import loadmat

    valid = loadmat(shared_data / "msra15" / "msra_valid.mat")["msra_valid"]
    line = joint_line(np.tile([0.0, 0.0, 300.0], (21, 1)))
    for subject in range(9):
        one = tmp_path / f"{subject}.bin"  # File systems limit the links to one file.
        one.write_bytes(frame_bytes(150, 110, np.full((20, 20), 300.0)))
        for gesture, frames in zip(msra.GESTURES, valid[subject], strict=True):
            folder = tmp_path / f"P{subject}" / gesture
            folder.mkdir(parents=True)
            for i in range(frames.size):
                os.link(one, folder / f"{i:06d}_depth.bin")
            (folder / "joint.txt").write_text("\n".join([str(frames.size), *[line] * frames.size]))
    sizes = [make_source(config(tmp_path, subject=s), "test", 0).size for s in range(9)]
    assert list(PROTOCOLS["msra"].parts) == [(f"P{i}", n) for i, n in enumerate(sizes)]
    assert sum(sizes) == 76_375
    assert make_source(config(tmp_path, subject=8), "train", 0).size == 76_375 - sizes[8]


def test_real_labels_in_the_same_format(shared_data):
    """400 frames of MSRA14: bones of constant length, a hand in front of the camera."""
    joints = msra.read_labels(shared_data / "msra14" / "joint.txt")
    assert joints.shape == (400, 21, 3) and (joints[..., 2] > 0).all()
    assert np.linalg.norm(joints[:, 1] - joints[:, 0], axis=-1).std() < 0.1
    # Fingers up in the image: the middle tip is above the wrist, y down.
    assert joints[0, 12, 1] < joints[0, 0, 1]


def test_an_empty_test_frame_is_answered_from_the_one_before(tmp_path, caplog):
    labels = make_tree(tmp_path, frames=3)
    for gesture, i in (("1", 0), ("2", 1)):
        path = tmp_path / "P0" / gesture / f"{i:06d}_depth.bin"
        path.write_bytes(frame_bytes(100, 100, np.zeros((9, 9))))
    with pytest.raises(InputError, match=r"P0/2/000001_depth\.bin: .*data\.stand_in=True"):
        make_source(config(tmp_path, centre="com"), "test", 0).load(np.array([4]))
    source = make_source(config(tmp_path, centre="com", stand_in=True), "test", 0)
    with caplog.at_level(logging.WARNING):
        batch = source.load(np.arange(6))
    assert source.skipped == {0, 4} and caplog.text.count("P0/2/000001_depth.bin") == 1
    for hole, used in ((0, 1), (4, 3)):
        np.testing.assert_array_equal(batch["depth"][hole], batch["depth"][used])
    # Each is scored against its own labels.
    np.testing.assert_allclose(batch["joints"][4], labels[0, "2", 1], atol=0.01)
    # Training frames are replaced together with their labels.
    data = config(tmp_path, centre="com", skip_unreadable=True, subject=1)
    batch = make_source(data, "train", 0).load(np.array([0]))
    np.testing.assert_allclose(batch["joints"][0], labels[0, "1", 1], atol=0.01)


def test_a_missing_frame_is_skipped_like_a_torn_one(tmp_path):
    labels = make_tree(tmp_path)
    (tmp_path / "P0" / "1" / "000000_depth.bin").unlink()
    (tmp_path / "P0" / "1" / "._000001_depth.bin").write_bytes(b"macOS")
    source = make_source(config(tmp_path, skip_unreadable=True, subject=1), "train", 0)
    np.testing.assert_allclose(
        source.load(np.array([0]))["joints"][0], labels[0, "1", 1], atol=0.01
    )
    source = make_source(config(tmp_path, stand_in=True), "test", 0)
    np.testing.assert_allclose(
        source.load(np.array([0]))["joints"][0], labels[0, "1", 0], atol=0.01
    )
    assert source.skipped == {0}


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (
            lambda p: (p / "I/7_depth.bin").touch(),
            r"P5/I: 3 frames .*, expected 2, .*; first not expected: 7_depth\.bin",
        ),
        (lambda p: (p / "Y/joint.txt").unlink(), r"expected .*P5/Y/joint\.txt"),
        (lambda p: (p / "I/000000_depth.bin").unlink(), r"P5/I: 1 frames .* missing: 000000_"),
        (lambda p: (p / "I/joint.txt").write_text("3\n1 2 3"), r"I/joint\.txt: 1 lines .*3 as"),
        (lambda p: (p / "I/joint.txt").write_text("1 2 3"), "the number of frames in the first"),
        (lambda p: (p / "I/joint.txt").write_text("1\n1 2"), "frame 0: expected 21 times x, y, z"),
        (lambda p: (p / "I/joint.txt").write_text("1\n" + "1 2 3 " * 21), "1 of 1 .* is frame 0"),
        (lambda p: (p / "I/joint.txt").write_text("1\n" + "nan " * 63), "is not a number"),
    ],
)
def test_missing_and_wrong_files(tmp_path, damage, match):
    make_tree(tmp_path)
    damage(tmp_path / "P5")
    with pytest.raises(InputError, match=match):
        make_source(config(tmp_path, subject=5), "test", 0)
    with pytest.raises(InputError, match=match):
        make_source(config(tmp_path, subject=4), "train", 0)


def test_wrong_options(tmp_path):
    with pytest.raises(InputError, match=r"expected .*P0/1/joint\.txt"):
        make_source(config(tmp_path), "test", 0)
    with pytest.raises(InputError, match="data.subject=9: MSRA15 has the subjects 0 to 8"):
        make_source(config(tmp_path, subject=9), "test", 0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\0" * 20, "20 bytes, expected a header"),
        (struct.pack("<6I", 640, 480, 0, 0, 0, 0), "640 x 480 pixels, expected 320 x 240"),
        (struct.pack("<6I", 320, 240, 9, 0, 8, 1), "its box 9, 0, 8, 1"),
        (struct.pack("<6I", 320, 240, 0, 0, 2, 241), "is not inside 320 x 240"),
        (frame_bytes(0, 0, np.ones((3, 2)))[:-1], "47 bytes, expected 48 for its box of 2 x 3"),
    ],
)
def test_broken_frames(tmp_path, content, match):
    path = tmp_path / "000000_depth.bin"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as error:
        msra.read_frame(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match="no such depth frame"):
        msra.read_frame(tmp_path / "000001_depth.bin")
