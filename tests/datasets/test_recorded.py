"""What somebody's own reader meets: its labels and frames are checked where all data sets meet."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax import datasets
from hpe_jax.camera import NYU
from hpe_jax.datasets.centres import write_centres
from hpe_jax.datasets.recorded import Recording, recorded_source
from hpe_jax.errors import InputError

FRAMES, JOINTS = 3, 14


def config(**changes):
    fields = dict(
        dataset="nyu", root="lab", centre="com", centre_file="", cube_mm=250.0, patch=32,
        extent_mm=360.0, centre_jitter_mm=0.0, skip_unreadable=False,
    )  # fmt: skip
    return ConfigDict(fields | changes)


def recording(**changes):
    """A square 700 mm away, with all joints in its middle."""
    depth = np.zeros((480, 640), np.float32)
    depth[200:280, 280:360] = 700
    fields = dict(
        name="lab", skeleton="nyu", camera=NYU, frames=[Path(f"{i}.png") for i in range(FRAMES)],
        read=lambda i: depth, joints=np.full((FRAMES, JOINTS, 3), [0, 0, 710], np.float32),
        joint_valid=np.ones((FRAMES, JOINTS), bool), cube=np.full(FRAMES, 250, np.float32),
        centres_y_up=False,
    )  # fmt: skip
    return Recording(**fields | changes)


def load(given):
    return recorded_source(config(), "train", 0, given).load(np.arange(FRAMES))


def test_labels_of_another_shape_are_refused():
    given = recording()
    for changes, match in (
        ({"joints": given.joints[:2]}, r"joints of shape \(2, 14, 3\), expected \(3, 14, 3\)"),
        ({"skeleton": "msra"}, r"\(3, 14, 3\), expected \(3, 21, 3\) for 3 frames .* 'msra'"),
        ({"joint_valid": given.joint_valid[:, :1]}, r"joint_valid of shape \(3, 1\)"),
        (
            {"joint_valid": ~given.joint_valid},
            r"no joint of its 3 frames from .*\.png on is labelled",
        ),
        ({"cube": given.cube[0]}, r"cube of shape \(\), expected \(3,\)"),
    ):
        with pytest.raises(InputError, match=match):
            load(dataclasses.replace(given, **changes))


@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_missing_joints_must_not_count_as_labelled(missing):
    given = recording()
    given.joints[1, 3] = missing
    with pytest.raises(InputError, match=r"1\.png: a joint that counts as labelled is not in fron"):
        load(given)
    given.joint_valid[1, 3] = False
    assert load(given)["joint_valid"].sum() == FRAMES * JOINTS - 1


def test_a_frame_without_labels_is_looked_at_in_a_test_alone():
    given = recording()
    given.joint_valid[1] = False
    with pytest.raises(InputError, match=r"1\.png: no usable joint is labelled"):
        load(given)
    for centre in ("com", "gt"):
        source = recorded_source(config(centre=centre, stand_in=False), "test", 0, given)
        if centre == "gt":
            with pytest.raises(InputError, match=r"1\.png: no joint is labelled, so no mean"):
                source.load(np.arange(FRAMES))
        else:
            valid = source.load(np.arange(FRAMES))["joint_valid"]
            np.testing.assert_array_equal(valid.any(1), [True, False, True])
            assert not source.skipped


def test_frames_of_another_size_than_the_camera_s_are_refused():
    with pytest.raises(InputError, match=r"0\.png: \(240, 320\) pixels, expected \(480, 640\)"):
        load(recording(read=lambda i: np.full((240, 320), 700, np.float32)))


def test_hands_are_looked_for_alike_whatever_their_cubes():
    """As `predict` does, which knows no subjects."""
    small, large = (load(recording(cube=np.full(3, c, np.float32))) for c in (180, 300))
    np.testing.assert_array_equal(small["centre"], large["centre"])


@pytest.mark.parametrize("factor", [0.001, 0.1, [1, -1, 1]])
def test_labels_in_other_units_or_axes_are_warned_of_once(caplog, factor):
    joints = recording().joints + np.array([0, 200, 0], np.float32)
    depth = np.roll(recording().read(0), 168, 0)  # as far down
    with caplog.at_level(logging.WARNING):
        load(recording(joints=joints, read=lambda i: depth))
        assert not caplog.records
        load(recording(joints=(joints * factor).astype(np.float32), read=lambda i: depth))
    assert len(caplog.records) == 1
    assert "mm from the hand's centre (com), expected mm in camera space" in caplog.text


@pytest.mark.parametrize("y_up", [False, True])
@pytest.mark.parametrize(
    ("factor", "hint"),
    [(1, None), ([1, -1, 1], "they fit with the other sign of y"), (0.001, "if they are metres")],
)
def test_centre_files_of_other_hands_are_refused(tmp_path, factor, hint, y_up):
    centres = np.array([[0, 300, 710], [np.nan] * 3, [0, 310, 700]]) * factor
    write_centres(tmp_path / "c.txt", centres, y_up=y_up)
    joints = np.full((FRAMES, JOINTS, 3), [0, 305, 720], np.float32)
    given = recording(joints=joints, centres_y_up=y_up)
    given.joints[1] = np.nan
    given.joint_valid[1] = False
    data = config(centre="file", centre_file=str(tmp_path / "c.txt"))
    if hint is None:
        assert recorded_source(data, "train", 0, given).size == FRAMES
    else:
        sign = "up" if y_up else "down"
        expected = f"c.txt: its centres lie .* mm from the labelled hands .*, y {sign} .*{hint}"
        with pytest.raises(InputError, match=expected):
            recorded_source(data, "train", 0, given)


def test_centres_a_finger_s_breadth_from_the_middle_have_a_sign_of_y_too(tmp_path):
    """As those of ICVL."""
    joints = np.full((FRAMES, JOINTS, 3), [0, 16, 720], np.float32)
    given = recording(joints=joints, centres_y_up=False)
    data = config(centre="file", centre_file=str(tmp_path / "c.txt"))
    write_centres(tmp_path / "c.txt", np.array([[0, 16, 720.0]] * FRAMES))
    assert recorded_source(data, "train", 0, given).size == FRAMES
    write_centres(tmp_path / "c.txt", np.array([[0, -16, 720.0]] * FRAMES))
    with pytest.raises(InputError, match="32 mm .*they fit with the other sign of y"):
        recorded_source(data, "train", 0, given)


@pytest.mark.parametrize("x", [0, 50])
def test_centres_near_the_middle_of_the_picture_have_a_sign_of_y_too(tmp_path, x):
    """Mirrored ones lie within the cube, but not where any detector would put them."""
    joints = np.full((FRAMES, JOINTS, 3), [0, 40, 720], np.float32)
    for y, refused in ((50, False), (-50, True)):
        write_centres(tmp_path / "c.txt", np.array([[x, y, 710]] * FRAMES))
        data = config(centre="file", centre_file=str(tmp_path / "c.txt"))
        given = recording(joints=joints, centres_y_up=False)
        if refused and not x:
            with pytest.raises(InputError, match="91 mm .*they fit with the other sign of y"):
                recorded_source(data, "train", 0, given)
        else:
            assert recorded_source(data, "train", 0, given).size == FRAMES


def test_a_resumed_run_can_tell_that_labels_have_changed():
    def files(**changes):
        return recorded_source(config(), "train", 0, recording(**changes)).files

    assert files() == files() and files().keys() == {"data.root"}
    assert files() != files(joints=recording().joints + 1)


def test_what_a_new_data_set_needs_is_said(monkeypatch, tmp_path):
    lab = ConfigDict(config(dataset="lab", root=str(tmp_path)))
    monkeypatch.setitem(datasets.CAMERAS, "lab", NYU)
    with pytest.raises(InputError, match=r"'lab': has no entry in hand/skeletons\.py"):
        datasets.make_source(lab, "train", 0)
    monkeypatch.setitem(datasets.SKELETONS, "lab", datasets.SKELETONS["nyu"])
    with pytest.raises(InputError, match=r"'lab': no reader in datasets/__init__\.py"):
        datasets.make_source(lab, "train", 0)
    source = recorded_source(config(), "train", 0, recording())
    monkeypatch.setattr(datasets, "_source", lambda *_: source)
    with pytest.raises(InputError, match="the joints of 'nyu', expected an entry of its own name"):
        datasets.make_source(lab, "train", 0)
