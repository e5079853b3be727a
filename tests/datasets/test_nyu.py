"""The NYU reader on its real first frame, and on small made-up trees in the same layout."""

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.io import savemat

from hpe_jax.camera import NYU, depth_to_points, flip_y, uvd_to_xyz, xyz_to_uvd
from hpe_jax.datasets import make_source, nyu, recorded
from hpe_jax.errors import InputError
from hpe_jax.frames import epoch_indices
from hpe_jax.hand.skeletons import NYU_COLUMNS
from hpe_jax.metrics.protocols import PROTOCOLS
from launch.joints_to_angles import read_frames

CAMERA = NYU.intrinsics.astype(np.float64)


def config(root, **changes):
    fields = dict(
        dataset="nyu", root=str(root), centre="gt", centre_file="", cube_mm=250.0, patch=96,
        extent_mm=360.0, centre_jitter_mm=0.0, skip_unreadable=False,
    )  # fmt: skip
    return ConfigDict(fields | changes)


def save_frame(path, depth):
    """NYU's packing, written independently of the reader: green high byte, blue low byte."""
    whole = np.where(depth > 0, np.round(depth), 2001).astype(int)
    rgb = np.stack([np.zeros_like(whole), whole // 256, whole % 256], -1).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def save_labels(path, uvd, xyz_up=None):
    if xyz_up is None:
        xyz_up = flip_y(uvd_to_xyz(uvd, CAMERA))
    # Other cameras hold something else, so that reading the wrong one cannot go unnoticed.
    savemat(
        path,
        {"joint_uvd": np.stack([uvd, uvd + 50, uvd + 90]),
         "joint_xyz": np.stack([xyz_up, xyz_up + 500, xyz_up + 900])},
    )  # fmt: skip


def make_tree(root, frames=6, split="train", seed=0):
    """A made-up tree: a square "hand" 700-900 mm away, its joints scattered in it."""
    rng = np.random.default_rng(seed)
    folder = root / split
    folder.mkdir(parents=True)
    middle = np.stack(
        [rng.uniform(250, 390, frames), rng.uniform(200, 280, frames),
         rng.uniform(700, 900, frames)], -1
    )  # fmt: skip
    uvd = middle[:, None] + rng.uniform(-30, 30, (frames, 36, 3))
    for i, (u, v, d) in enumerate(middle):
        depth = np.zeros((480, 640))
        depth[int(v) - 60 : int(v) + 60, int(u) - 60 : int(u) + 60] = d
        save_frame(folder / f"depth_1_{i + 1:07d}.png", depth)
        (folder / f"depth_2_{i + 1:07d}.png").write_bytes(b"never read")
    save_labels(folder / "joint_data.mat", uvd)
    return uvd


@pytest.fixture(scope="module")
def real_tree(shared_data, tmp_path_factory):
    """The real first test frame with its real labels, as a data set of one frame."""
    folder = tmp_path_factory.mktemp("nyu") / "dataset" / "test"
    folder.mkdir(parents=True)
    sample = shared_data / "nyu"
    shutil.copyfile(sample / "depth_1_0000001.png", folder / "depth_1_0000001.png")
    columns = [np.loadtxt(sample / f"joint_1_{c}.csv", delimiter=",", max_rows=1) for c in "uvd"]
    uvd = np.stack(columns, -1)[None]
    # The data set's own constants, which differ a little from those everybody evaluates with.
    own = np.array([588.036865, 587.075073, 320.0, 240.0])
    save_labels(folder / "joint_data.mat", uvd, flip_y(uvd_to_xyz(uvd, own)))
    return SimpleNamespace(root=folder.parent.parent, uvd=uvd, sample=sample)


def test_real_frame(real_tree):
    source = make_source(config(real_tree.root), "test", seed=0)
    assert (source.name, source.size, source.skeleton, source.centre) == ("nyu", 1, "nyu", "gt")
    batch = source.expand(source.load(np.array([0, 0])))
    assert {k: v.shape for k, v in batch.items()} == {
        "depth": (2, 96, 96), "corner": (2, 2), "camera": (2, 4), "centre": (2, 3),
        "joints": (2, 14, 3), "joint_valid": (2, 14), "cube": (2,),
    }  # fmt: skip
    assert all(v.dtype == np.float32 for k, v in batch.items() if k != "joint_valid")
    expected = real_tree.uvd[0, list(NYU_COLUMNS)]
    np.testing.assert_allclose(xyz_to_uvd(batch["joints"][0], CAMERA), expected, atol=1e-3)
    np.testing.assert_allclose(batch["centre"][0], batch["joints"][0].mean(0), atol=1e-3)
    # y is down: the finger tips, which point up in this frame, are above the wrist.
    assert batch["joints"][0, :8:2, 1].max() < batch["joints"][0, 11:13, 1].min()
    # Every labelled joint lies behind the surface that its patch pixel shows.
    uv = xyz_to_uvd(batch["joints"][0], batch["camera"][0])[:, :2] - batch["corner"][0]
    u, v = np.round(uv).astype(int).T
    behind = batch["joints"][0, :, 2] - batch["depth"][0][v, u]
    assert ((behind > -10) & (behind < 40)).mean() > 0.8
    assert batch["cube"].tolist() == [250.0, 250.0]


def test_real_frame_with_published_centres(real_tree, tmp_path):
    lines = (real_tree.sample / "center_test_refined.txt").read_text().splitlines()
    (tmp_path / "centres_test.txt").write_text(lines[0] + "\n")
    data = config(real_tree.root, centre="file", centre_file=str(tmp_path / "centres_{split}.txt"))
    batch = make_source(data, "test", 0).load(np.array([0]))
    off = np.linalg.norm(batch["centre"][0] - batch["joints"][0].mean(0))
    assert off < 40
    data.centre_file = str(real_tree.sample / "center_test_refined.txt")
    with pytest.raises(InputError, match="8252 centres, expected one a frame, 1 in all"):
        make_source(data, "test", 0)


def test_real_frame_localised(real_tree):
    batch = make_source(config(real_tree.root, centre="com"), "test", 0).load(np.array([0]))
    assert np.linalg.norm(batch["centre"][0] - batch["joints"][0].mean(0)) < 60


def test_made_up_tree_order_and_labels(tmp_path):
    uvd = make_tree(tmp_path)
    source = make_source(config(tmp_path), "train", seed=3)
    indices = epoch_indices(source.size, 4, 3, 1)
    batch = source.load(indices)
    joints = uvd_to_xyz(uvd, CAMERA)[:, list(NYU_COLUMNS)]
    assert indices.max() >= 6  # Into the second epoch.
    np.testing.assert_allclose(batch["joints"], joints[indices % 6], atol=1e-2)
    again = make_source(config(tmp_path), "train", seed=3).load(indices)
    for key in batch:
        np.testing.assert_array_equal(batch[key], again[key])


def test_patches_are_native_pixels(tmp_path):
    uvd = make_tree(tmp_path, frames=1)
    batch = make_source(config(tmp_path), "train", 0).load(np.array([0]))
    points = depth_to_points(batch["depth"], batch["corner"], batch["camera"])[0]
    seen = points[points[..., 2] > 0]
    # The made-up hand is 120 pixels wide; at its distance that is known in millimetres.
    distance = seen[0, 2]
    width = seen[:, 0].max() - seen[:, 0].min()
    step = round(588.03 / batch["camera"][0, 0])
    assert 120 - step <= width * 588.03 / distance <= 120
    assert len(np.unique(seen[:, 2])) == 1 and abs(distance - uvd[0, :, 2].mean()) < 30


def test_jitter_is_by_seed_and_number_and_only_in_training(tmp_path):
    make_tree(tmp_path)
    make_tree(tmp_path, split="test")
    steady = make_source(config(tmp_path), "train", 0).load(np.arange(6))["centre"]
    data = config(tmp_path, centre_jitter_mm=10.0)
    one = make_source(data, "train", 0).load(np.arange(6))["centre"]
    two = make_source(data, "train", 0).load(np.array([5, 2]))["centre"]
    np.testing.assert_array_equal(one[[5, 2]], two)
    later = make_source(data, "train", 0).load(np.arange(6, 12))
    assert (later["centre"] != one).all()  # Another epoch, another jitter.
    np.testing.assert_allclose(later["joints"].mean(1), steady, atol=1e-3)
    others = [make_source(data, "train", s).load(np.arange(6))["centre"] for s in (1, 2)]
    assert (np.abs(one - steady) > 0).all() and (one != others[0]).all()
    moved = np.concatenate([centre - steady for centre in (one, *others)])
    assert len(np.unique(moved.round(3), axis=0)) == 18  # No frame's is another's of another seed.
    assert 4 < (one - steady).std() < 20
    test = make_source(data, "test", 0).load(np.arange(6))
    np.testing.assert_allclose(test["centre"], test["joints"].mean(1), atol=1e-3)


def test_hands_are_looked_for_once_a_frame(tmp_path, monkeypatch):
    make_tree(tmp_path)
    looked, find_hand = [], recorded.find_hand

    def counting(*given):
        looked.append(1)
        return find_hand(*given)

    monkeypatch.setattr(recorded, "find_hand", counting)
    data = config(tmp_path, centre="com", centre_jitter_mm=10.0)
    source = make_source(data, "train", 0)
    first, again, later = (source.load(np.array(n)) for n in ([0, 1], [1, 0], [6, 7]))
    assert len(looked) == 2
    np.testing.assert_array_equal(first["centre"], again["centre"][::-1])
    assert (first["centre"] != later["centre"]).all()  # The jitter is not kept.


def test_the_second_subject_begins_where_the_published_parts_say():
    assert dict(PROTOCOLS["nyu"].parts)["subject_1"] == nyu.SECOND_SUBJECT


def test_second_subject_has_a_smaller_cube(tmp_path, monkeypatch):
    monkeypatch.setattr(nyu, "SECOND_SUBJECT", 2)
    make_tree(tmp_path, frames=3, split="test")
    make_tree(tmp_path, frames=3)
    cube = make_source(config(tmp_path), "test", 0).load(np.arange(3))["cube"]
    np.testing.assert_allclose(cube, [250, 250, 250 * 5 / 6], rtol=1e-6)
    alike = make_source(config(tmp_path, cube_by_subject=False), "test", 0).load(np.arange(3))
    assert (alike["cube"] == 250).all()
    assert (make_source(config(tmp_path), "train", 0).load(np.arange(3))["cube"] == 250).all()


def test_unreadable_training_frames_are_replaced_and_counted(tmp_path, caplog):
    make_tree(tmp_path)
    make_tree(tmp_path, split="test")
    for split in ("train", "test"):
        (tmp_path / split / "depth_1_0000003.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"depth_1_0000003\.png: truncated"):
        make_source(config(tmp_path), "train", 0).load(np.arange(6))
    data = config(tmp_path, skip_unreadable=True)
    source = make_source(data, "train", 0)
    with caplog.at_level(logging.WARNING):
        batch = source.load(np.array([1, 2, 3, 8]))
    assert source.skipped == {2}
    np.testing.assert_array_equal(batch["joints"][1], batch["joints"][2])
    np.testing.assert_array_equal(batch["joints"][3], batch["joints"][2])
    assert caplog.text.count("depth_1_0000003.png") == 1 and "1 frames skipped" in caplog.text
    with pytest.raises(InputError, match=r"depth_1_0000003\.png"):
        make_source(data, "test", 0).load(np.array([2]))


def test_of_many_unusable_frames_some_are_named(tmp_path, monkeypatch, caplog):
    make_tree(tmp_path)
    for number in (1, 2, 3, 4):
        (tmp_path / "train" / f"depth_1_{number:07d}.png").write_bytes(b"")
    monkeypatch.setattr(recorded, "_TOLD", 2)
    source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
    with caplog.at_level(logging.WARNING):
        source.load(np.array([0]))
    assert source.skipped == {0, 1, 2, 3} and len(caplog.records) == 2
    assert "depth_1_0000002.png" in caplog.text and "every thousandth is told" in caplog.text


def test_missing_or_misrooted_data(tmp_path):
    with pytest.raises(InputError, match="expected .*joint_data.mat and .*depth_1_0000001.png"):
        make_source(config(tmp_path / "nothing"), "train", 0)
    make_tree(tmp_path / "nyu" / "dataset")
    assert make_source(config(tmp_path / "nyu"), "train", 0).size == 6
    with pytest.raises(InputError, match="expected .*dataset/test/joint_data.mat"):
        make_source(config(tmp_path / "nyu"), "test", 0)
    with pytest.raises(InputError, match="not the NYU data set"):
        make_source(config(tmp_path / "nyu" / "dataset" / "train"), "train", 0)
    with pytest.raises(InputError, match="cameras 1, 2 and 3"):
        make_source(config(tmp_path / "nyu", view=4), "train", 0)


def test_frame_count_must_match_the_labels(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "train" / "depth_1_0000004.png").unlink()
    with pytest.raises(InputError, match=r"5 frames .* expected 6.*missing: depth_1_0000004\.png"):
        make_source(config(tmp_path), "train", 0)
    for i in (4, 7):
        save_frame(tmp_path / "train" / f"depth_1_{i:07d}.png", np.zeros((480, 640)))
    with pytest.raises(InputError, match="7 frames .* expected 6"):
        make_source(config(tmp_path), "train", 0)


def test_a_missing_frame_is_skipped_like_a_torn_one(tmp_path, caplog):
    make_tree(tmp_path)
    (tmp_path / "train" / "depth_1_0000004.png").unlink()
    source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
    with caplog.at_level(logging.WARNING):
        batch = source.load(np.array([3, 4]))
    assert source.skipped == {3} and "depth_1_0000004.png" in caplog.text
    np.testing.assert_array_equal(batch["joints"][0], batch["joints"][1])
    # Frames without labels are another data set's, whatever may be skipped.
    save_frame(tmp_path / "train" / "depth_1_0000007.png", np.zeros((480, 640)))
    with pytest.raises(InputError, match="expected 6"):
        make_source(config(tmp_path, skip_unreadable=True), "train", 0)


def test_the_first_frame_may_be_missing_too(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "train/depth_1_0000001.png").unlink()
    with pytest.raises(InputError, match="expected .*depth_1_0000001.png"):
        make_source(config(tmp_path), "train", 0)
    source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
    source.load(np.arange(6))
    assert source.skipped == {0}


def test_bad_labels(tmp_path):
    uvd = make_tree(tmp_path)
    path = tmp_path / "train" / "joint_data.mat"

    def refused(match):
        with pytest.raises(InputError, match=match) as error:
            make_source(config(tmp_path), "train", 0)
        assert "joint_data.mat" in str(error.value) and "\n" not in str(error.value)

    for axis, value in ((0, np.nan), (2, 0.0), (2, -700.0)):
        broken = uvd.copy()
        broken[4, 3, axis] = value
        save_labels(path, broken)
        refused(
            r"1 of 6 frames have a joint that is not a number.* is frame 5 .*skip_unreadable=True"
        )
        source = make_source(config(tmp_path, skip_unreadable=True), "train", 0)
        valid = source.load(np.arange(6))["joint_valid"]
        assert (~valid).sum() == 1 and not valid[4, NYU_COLUMNS.index(3)] and not source.skipped
    # Labels whose xyz is already y down are not NYU's.
    save_labels(path, uvd, uvd_to_xyz(uvd, CAMERA))
    refused("joint_uvd and joint_xyz .y up. disagree")
    save_labels(path, uvd[:, :14])
    refused(r"joint_uvd is \(3, 6, 14, 3\), expected \(3, frames, 36, 3\)")
    savemat(path, {"joint_xyz": uvd})
    refused("expected the variables joint_uvd and joint_xyz")
    save_labels(path, uvd)
    path.write_bytes(path.read_bytes()[:-200])
    refused("unreadable, expected a MATLAB file")


def test_slips_of_the_annotators_are_told_and_many_refused(tmp_path, caplog):
    path = tmp_path / "joint_data.mat"
    uvd = np.random.default_rng(0).uniform(300, 700, (200, 36, 3))
    xyz = np.array(flip_y(uvd_to_xyz(uvd, CAMERA)))
    xyz[7] += 30
    save_labels(path, uvd, xyz)
    with caplog.at_level(logging.WARNING):
        assert len(nyu.read_labels(path)) == 200
    assert "disagree in 1 frames" in caplog.text
    xyz[:6] += 30
    save_labels(path, uvd, xyz)
    with pytest.raises(InputError, match="in 7 of 200 frames, the first is frame 1"):
        nyu.read_labels(path)


def test_bad_centres(tmp_path):
    make_tree(tmp_path)
    path = tmp_path / "c_train.txt"
    data = config(tmp_path, centre="file", centre_file=str(tmp_path / "c_{split}.txt"))

    def refused(line, match):
        path.write_text("\n".join(["0 0 800"] * 2 + [line] + ["0 0 800"] * 3))
        with pytest.raises(InputError, match=match):
            make_source(data, "train", 0).load(np.arange(6))

    hashes = set()
    for line in ("0 0 800", "0 0 801", "0 0 800"):
        path.write_text("\n".join([line] * 6))
        hashes.add(make_source(data, "train", 0).files["data.centre_file"])
    assert len(hashes) == 2  # by which a resumed run knows its centres
    refused("invalid", r"no centre for .*0000003\.png, the first of 1 such.*skip_unreadable=True")
    refused("900 0 800", r"depth_1_0000003\.png: its centre .*c_train\.txt. is outside the frame")
    refused("0 0 -800", "is outside the frame")
    refused("0 0 5000", r"depth_1_0000003\.png: empty crop, no reading within 250 mm")
    with pytest.raises(InputError, match="data.centre=refined: expected one of gt, com, file"):
        make_source(config(tmp_path, centre="refined"), "train", 0)
    with pytest.raises(InputError, match="expected one of gt, com, file"):
        make_source(config(tmp_path, centre="mean"), "train", 0)
    with pytest.raises(InputError, match="expected data.centre_file"):
        make_source(config(tmp_path, centre="file"), "train", 0)


def test_wrong_frame_size(tmp_path):
    make_tree(tmp_path)
    save_frame(tmp_path / "train" / "depth_1_0000001.png", np.full((240, 320), 800))
    with pytest.raises(InputError, match="320 x 240 pixels, expected 640 x 480"):
        make_source(config(tmp_path), "train", 0).load(np.array([0]))


def test_labels_are_those_of_the_camera(tmp_path):
    path = tmp_path / "joint_data.mat"
    uvd = np.random.default_rng(0).uniform(300, 700, (3, 4, 36, 3))
    xyz = np.asarray(uvd_to_xyz(uvd, CAMERA))
    savemat(path, {"joint_uvd": uvd, "joint_xyz": flip_y(xyz)})
    for view in (1, 2, 3):
        expected = xyz[view - 1][:, list(NYU_COLUMNS)]
        np.testing.assert_allclose(nyu.read_labels(path, view), expected, rtol=1e-5)


def test_frames_and_labels_of_another_camera(tmp_path):
    uvd = make_tree(tmp_path, frames=2)
    other = uvd + [20.0, -10.0, 40.0]
    every = np.stack([uvd, other, uvd])
    labels = {"joint_uvd": every, "joint_xyz": flip_y(uvd_to_xyz(every, CAMERA))}
    savemat(tmp_path / "train/joint_data.mat", labels)
    for i, joints in enumerate(other):
        save_frame(tmp_path / f"train/depth_2_{i + 1:07d}.png", np.full((480, 640), joints[0, 2]))
    source = make_source(config(tmp_path, view=2), "train", 0)
    assert (source.name, source.centres_y_up) == ("nyu-view2", True)
    batch = source.load(np.arange(2))
    expected = uvd_to_xyz(other, CAMERA)[:, list(NYU_COLUMNS)]
    np.testing.assert_allclose(batch["joints"], expected, atol=1e-2)
    np.testing.assert_array_equal(batch["depth"].max((1, 2)), other[:, 0, 2].round())


def test_all_points_of_a_label_file_with_gaps(tmp_path):
    uvd = np.random.default_rng(1).uniform(300, 700, (5, 36, 3))
    gaps = uvd.copy()
    gaps[1, 7], gaps[2, 30, 2] = np.nan, 0.0
    save_labels(tmp_path / "joint_data.mat", gaps)
    points = nyu.read_points(tmp_path / "joint_data.mat")
    expected = np.array(uvd_to_xyz(uvd, CAMERA))
    expected[1, 7] = expected[2, 30] = np.nan
    np.testing.assert_allclose(points, expected, rtol=1e-5)
    joints, skeleton, parts = read_frames("nyu", str(tmp_path / "joint_data.mat"), "uvd", None)
    assert (skeleton, parts) == ("nyu36", {"hand": slice(None)})
    np.testing.assert_array_equal(joints, points)


def test_all_real_labels_are_the_published_ground_truth(shared_data, tmp_path):
    """8,252 real labels of 36 joints give the 14 that everybody's prediction files follow."""
    columns = [np.loadtxt(shared_data / "nyu" / f"joint_1_{c}.csv", delimiter=",") for c in "uvd"]
    save_labels(tmp_path / "joint_data.mat", np.stack(columns, -1))
    joints = nyu.read_labels(tmp_path / "joint_data.mat")
    published = np.loadtxt(shared_data / "published" / "nyu" / "groundtruth.txt")
    expected = uvd_to_xyz(published.reshape(-1, 14, 3), CAMERA)
    assert joints.shape == expected.shape == (8252, 14, 3)
    assert np.linalg.norm(joints - expected, axis=-1).max() < 0.5
