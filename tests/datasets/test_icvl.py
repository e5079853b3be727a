"""The ICVL reader on small made-up trees in the published layout, with its real test labels."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from hpe_jax.camera import ICVL, uvd_to_xyz
from hpe_jax.datasets import icvl, make_source
from hpe_jax.datasets.centres import write_centres
from hpe_jax.errors import InputError

CAMERA = ICVL.intrinsics.astype(np.float64)


def config(root, **changes):
    fields = dict(
        dataset="icvl", root=str(root), centre="gt", centre_file="", cube_mm=200.0, patch=96,
        extent_mm=300.0, centre_jitter_mm=0.0, skip_unreadable=False, rotated=False,
    )  # fmt: skip
    return ConfigDict(fields | changes)


def make_tree(root):
    """A square "hand" in each of six training frames (two rotated) and of two test sequences."""
    rng = np.random.default_rng(0)
    wanted = {
        "Training/labels.txt": [
            *(f"201403121135/image_{i:04d}.png" for i in range(3)),
            *("201403121140/image_0000.png", "-90/image_0000.png", "45/image_0002.png"),
        ],
        "Testing/test_seq_1.txt": [f"test_seq_1/image_{i:04d}.png" for i in range(2)],
        "Testing/test_seq_2.txt": ["test_seq_2/image_0000.png"],
    }
    labels = {}
    for file, names in wanted.items():
        folder = root / file.split("/")[0]
        lines = []
        for name in names:
            middle = rng.uniform([120, 90, 250], [200, 150, 450])
            uvd = middle + rng.uniform(-20, 20, (16, 3))
            depth = np.zeros((240, 320), np.uint16)
            u, v = middle[:2].astype(int)
            depth[v - 35 : v + 35, u - 35 : u + 35] = round(middle[2])
            path = folder / "Depth" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(depth).save(path)
            labels[name] = uvd
            lines.append(" ".join([name, *(f"{x:.3f}" for x in uvd.ravel())]) + " ")
        (root / file).write_text("\n".join(lines) + "\n\n")
    return labels


def test_frames_labels_and_order(tmp_path):
    labels = make_tree(tmp_path)
    source = make_source(config(tmp_path), "test", 0)
    assert (source.name, source.size, source.skeleton) == ("icvl", 3, "icvl")
    assert not source.centres_y_up
    batch = source.load(np.arange(3))
    names = ["test_seq_1/image_0000.png", "test_seq_1/image_0001.png", "test_seq_2/image_0000.png"]
    expected = uvd_to_xyz(np.stack([labels[n] for n in names]), CAMERA)
    np.testing.assert_allclose(batch["joints"], expected, atol=0.02)
    np.testing.assert_allclose(batch["centre"], expected.mean(1), atol=0.02)
    for i, name in enumerate(names):  # Each frame with its own labels.
        seen = batch["depth"][i][batch["depth"][i] > 0]
        assert abs(np.median(seen) - labels[name][:, 2].mean()) < 15
    assert (batch["cube"] == 200).all() and batch["joint_valid"].all()


def test_rotated_copies_are_left_out_unless_asked_for(tmp_path):
    labels = make_tree(tmp_path)
    assert make_source(config(tmp_path), "train", 0).size == 4
    source = make_source(config(tmp_path, rotated=True), "train", 0)
    assert source.size == 6
    np.testing.assert_allclose(
        source.load(np.array([4]))["joints"][0],
        uvd_to_xyz(labels["-90/image_0000.png"], CAMERA),
        atol=0.02,
    )
    path = tmp_path / "Training/labels.txt"
    text = path.read_text()
    for name in ("22-5", "-112-5"):  # The published copies' other names.
        path.write_text(text.replace("45/", f"{name}/"))
        assert make_source(config(tmp_path), "train", 0).size == 4


def test_centre_files_may_be_of_all_frames_that_the_labels_list(tmp_path):
    """As V2V's published ones are, rotated copies and all."""
    make_tree(tmp_path)
    path = tmp_path / "Training/labels.txt"
    *lines, last = path.read_text().split("\n")[:6]
    path.write_text("\n".join([last, *lines]))  # A rotated one comes first.
    of_all = make_source(config(tmp_path, rotated=True), "train", 0).load(np.arange(6))["centre"]
    kept = of_all[1:5]
    data = config(tmp_path, centre="file", centre_file=str(tmp_path / "c.txt"))
    for rows in (of_all, kept):
        write_centres(tmp_path / "c.txt", rows)
        found = make_source(data, "train", 0).load(np.arange(4))["centre"]
        np.testing.assert_allclose(found, kept, atol=1e-3)
    write_centres(tmp_path / "c.txt", of_all[:5])
    with pytest.raises(InputError, match="5 centres, expected one a frame, 4 or 6 in all"):
        make_source(data, "train", 0)


def test_missing_training_images_are_named_or_replaced(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "Training/Depth/201403121135/image_0001.png").unlink()
    told = r"201403121135/image_0001\.png: no such .* of 1 missing ones of the 4 .*skip_unreadable"
    with pytest.raises(InputError, match=told):
        make_source(config(tmp_path), "train", 0)
    source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
    batch = source.load(np.arange(4))
    assert source.skipped == {1}
    np.testing.assert_array_equal(batch["joints"][1], batch["joints"][2])
    shutil.rmtree(tmp_path / "Training/Depth/-90")
    with pytest.raises(InputError, match="of 2 missing ones of the 6"):
        make_source(config(tmp_path, rotated=True), "train", 0)
    (tmp_path / "Testing/Depth/test_seq_2/image_0000.png").unlink()
    with pytest.raises(InputError, match=r"test_seq_2/image_0000\.png: no such .*data\.stand_in"):
        make_source(config(tmp_path), "test", 0)


def test_bad_training_labels_are_left_out_if_allowed(tmp_path, caplog):
    labels = make_tree(tmp_path)
    path = tmp_path / "Training/labels.txt"
    rows = [line.split() for line in path.read_text().splitlines() if line]
    rows[0][3], rows[1][1 + 3 * 7] = "0.0", "nan"  # the first joint, and the eighth
    rows[2][1:] = ["-1"] * 48
    path.write_text("\n".join(map(" ".join, rows)))
    with pytest.raises(InputError, match=r"3 of 6 frames .*line 1 .*data\.skip_unreadable=True"):
        make_source(config(tmp_path), "train", 0)
    with caplog.at_level(logging.WARNING):
        source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
    assert "3 of 6 frames" in caplog.text and "left out" in caplog.text
    batch = source.load(np.arange(4))
    assert (~batch["joint_valid"]).sum() == 2 and source.skipped == {2}
    assert not batch["joint_valid"][0, 0] and not batch["joint_valid"][1, 7]
    known = uvd_to_xyz(labels["201403121135/image_0000.png"], CAMERA)[1:]
    np.testing.assert_allclose(batch["joints"][0, 1:], known, atol=0.02)
    np.testing.assert_allclose(batch["centre"][0], known.mean(0), atol=0.02)
    # Every test label counts.
    path = tmp_path / "Testing/test_seq_1.txt"
    path.write_text(path.read_text().replace(path.read_text().split()[3], "0.0", 1))
    with pytest.raises(InputError, match="1 of 2 frames"):
        make_source(config(tmp_path, skip_unreadable=True, stand_in=True), "test", 0)


def test_missing_or_misrooted_data(tmp_path):
    with pytest.raises(InputError, match=r"expected .*Training/labels\.txt and .*Training/Depth/"):
        make_source(config(tmp_path / "nothing"), "train", 0)
    make_tree(tmp_path)
    with pytest.raises(InputError, match="not the ICVL data set"):
        make_source(config(tmp_path / "Training"), "train", 0)
    (tmp_path / "Testing/test_seq_2.txt").unlink()
    with pytest.raises(InputError, match=r"expected .*test_seq_2\.txt .a root"):
        make_source(config(tmp_path), "test", 0)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a.png 1 2 3", "line 2: expected a relative path and 16 times u, v, d"),
        ("/a.png " + "1 2 3 " * 16, "line 2: expected a relative path and 16 times u, v, d"),
        ("a.png " + "nan " * 48, "1 of 2 frames have a joint that is not a number.* is line 2"),
        ("a.png " + "1 2 -3 " * 16, "not in front of the camera, the first is line 2"),
        ("\na.png " + "1 2 -3 " * 16, "the first is line 3"),  # Blank ones are counted.
    ],
)
def test_bad_labels(tmp_path, line, match):
    make_tree(tmp_path)
    path = tmp_path / "Testing/test_seq_1.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line]))
    with pytest.raises(InputError, match=match) as error:
        make_source(config(tmp_path), "test", 0)
    assert "test_seq_1.txt" in str(error.value)
    path.write_text("\n\n")
    with pytest.raises(InputError, match="holds no label"):
        make_source(config(tmp_path), "test", 0)


def test_real_test_labels_are_the_published_ground_truth(shared_data):
    """The data set's own label files, both sequences: the rows of the field's ground truth."""
    published = shared_data / "published" / "icvl"
    files = [icvl.read_labels(published / name) for name in icvl.LABELS["test"]]
    assert [len(paths) for paths, _ in files] == [702, 894]
    uvd = np.concatenate([labels for _, labels in files])
    truth = np.loadtxt(published / "groundtruth.txt").reshape(-1, 16, 3)
    np.testing.assert_allclose(uvd, truth, atol=0.01)
