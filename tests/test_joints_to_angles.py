"""`launch.joints_to_angles`: what it leaves, and one line for every kind of bad input."""

import json
import subprocess
import sys
from pathlib import Path

import hands
import jax
import numpy as np
import pytest

from hpe_jax.errors import InputError
from hpe_jax.hand.bvh import read_bvh
from hpe_jax.hand.markers import subject_of
from hpe_jax.hand.motion import hand_points
from hpe_jax.hand.subject import _unit
from hpe_jax.metrics.files import write_joints
from hpe_jax.synthetic.bank import read_bank
from launch import joints_to_angles

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 24


@pytest.fixture(scope="module")
def joints():
    shape = hands.subject_shape(jax.random.key(2), False)
    subject = subject_of(shape, "msra")
    poses, _, _ = hands.draw(jax.random.split(jax.random.key(3), FRAMES), shape, "msra")
    return hands.observed(subject, poses)


def run(monkeypatch, path, out, *more):
    argv = ["joints_to_angles", "--dataset=msra", f"--joints={path}", f"--out={out}", *more]
    monkeypatch.setattr(sys, "argv", argv)
    return joints_to_angles.main()


def test_angles_and_motion_are_left(joints, tmp_path, monkeypatch, capsys):
    write_joints(tmp_path / "xyz.txt", joints)
    lines = (tmp_path / "xyz.txt").read_text().splitlines()
    # A joint that is missing, a palm that is: the second frame keeps its place without a pose.
    words = lines[1].split()
    lines[1] = " ".join(["nan"] * 3 + words[3:])
    words = lines[2].split()
    lines[2] = " ".join(words[:9] + ["0", "0", "0"] + words[12:])
    (tmp_path / "xyz.txt").write_text("\n".join(lines) + "\n")
    assert run(monkeypatch, tmp_path / "xyz.txt", tmp_path / "out", "--format=xyz") == 0
    said = capsys.readouterr()
    assert "hand: 23 of 24 frames solved" in said.out
    assert said.err.startswith("frame 1: no wrist, expected all joints of the root")
    kept = np.load(tmp_path / "out" / "angles.npz")
    assert kept["fingers"].shape == (FRAMES, 4, 4) and kept["thumb"].shape == (FRAMES, 5)
    assert np.isnan(kept["fingers"][1]).all() and np.isfinite(kept["fingers"][2]).all()
    assert (
        run(monkeypatch, tmp_path / "xyz.txt", tmp_path / "few", "--format=xyz", "--limit=3") == 0
    )
    few = json.loads((tmp_path / "few" / "summary.json").read_text())
    assert few["frames"] == 3 and np.load(tmp_path / "few" / "angles.npz")["thumb"].shape == (3, 5)
    assert np.isnan(kept["error_mm"][2, 3]) and np.nanmean(kept["error_mm"]) < 0.5
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    part = summary["parts"]["hand"]
    # Measured on all frames, however few are solved.
    assert few["parts"]["hand"]["bone_lengths_mm"] == part["bone_lengths_mm"]
    assert (part["frames"], part["solved"], summary["solver"]) == (FRAMES, 23, "lm")
    assert part["residual_mm"]["mean"] == pytest.approx(np.nanmean(kept["error_mm"]), abs=0.02)
    points = hand_points(read_bvh(tmp_path / "out" / "hand.bvh"))
    assert len(points) == FRAMES
    np.testing.assert_allclose(points[1], points[0])  # held
    # Index finger's pivots, which MSRA15 labels as joints 1 to 4.
    shift = np.linalg.norm(points[5:, 13:17] - joints[5:, 1:5], axis=-1)
    assert shift.mean() < 0.5
    assert len((tmp_path / "out" / "problems.txt").read_text().splitlines()) == 1


def test_one_part_alone(joints, tmp_path, monkeypatch, capsys):
    """The published test split in two, of which one is solved; messages count the file's lines."""
    whole = np.concatenate([joints, joints])
    whole[FRAMES + 1, 0] = np.nan
    parts = {"first": slice(0, FRAMES), "second": slice(FRAMES, 2 * FRAMES)}
    monkeypatch.setattr(joints_to_angles, "read_frames", lambda *_: (whole, "msra", parts))
    assert run(monkeypatch, "x", tmp_path, "--part=second", "--axes=template", "--limit=8") == 0
    said = capsys.readouterr()
    assert "second: 7 of 8 frames solved" in said.out and f"frame {FRAMES + 1}: no" in said.err
    assert not (tmp_path / "first.bvh").exists() and (tmp_path / "second.bvh").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] == 8 and list(summary["parts"]) == ["second"]
    bank = read_bank(str(tmp_path / "angles.npz"))
    assert bank.fingers.shape == (7, 4, 4)
    assert run(monkeypatch, "x", tmp_path, "--part=third") == 2
    assert "--part=third: x has first, second" in capsys.readouterr().err


def test_real_tracked_poses(shared_data, tmp_path, monkeypatch):
    path = shared_data / "poses" / "animbank.pose"
    argv = ["joints_to_angles", "--dataset=tracked", f"--joints={path}", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", [*argv, "--axes=template", "--limit=50"])
    assert joints_to_angles.main() == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["skeleton"] == "freihand" and summary["axes"] == "template"
    part = summary["parts"]["hand"]
    assert part["solved"] == 50 and part["residual_mm"]["worst"] < 3.0


@pytest.mark.parametrize(
    "content,message",
    [
        ("1 2 3\n", "bad.txt, line 1: 3 numbers, expected 63 numbers (21 joints x uvd)"),
        (
            "1\n" + "1 2 3 " * 21 + "\n",
            "bad.txt: 1 frames of joints: expected at least one with all 21 joints",
        ),
        ("a.png " + "x " * 63 + "\n", "bad.txt, line 1: column 2 is 'x', expected a number"),
        ("nan " * 63 + "\n", "expected at least one with all 21 joints"),
        ("", "bad.txt: empty"),
    ],
)
def test_bad_files_are_named(content, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.txt").write_text(content)
    assert run(monkeypatch, tmp_path / "bad.txt", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and message in said
    assert not (tmp_path / "out" / "angles.npz").exists()


def test_a_bad_joint_of_msra_s_own_files_is_missing(joints, tmp_path, monkeypatch, capsys, caplog):
    rows = (joints * [1, -1, -1]).reshape(FRAMES, -1).astype(str).tolist()
    rows[3][:3] = ["nan"] * 3
    text = "".join(" ".join(row) + "\n" for row in [[str(FRAMES)], *rows])
    (tmp_path / "joint.txt").write_text(text)
    assert run(monkeypatch, tmp_path / "joint.txt", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "hand: 23 of 24 frames solved" in said.out and "frame 3: no wrist" in said.err
    assert "1 of 24 frames have a joint that is not a number or not in front" in caplog.text
    (tmp_path / "file").touch()
    assert run(monkeypatch, tmp_path / "joint.txt", tmp_path / "file") == 2
    assert f"{tmp_path / 'file'}: File exists" in capsys.readouterr().err


def test_numbers_of_the_other_format_are_pointed_out(tmp_path, capsys):
    write_joints(tmp_path / "uvd.txt", np.full((2, 14, 3), (100.0, 90.0, 600.0)))
    write_joints(tmp_path / "xyz.txt", np.full((2, 14, 3), (-10.0, 90.0, 600.0)))
    for name, read_as, other in (("uvd", "xyz", "uvd"), ("xyz", "uvd", "xyz")):
        joints_to_angles.read_frames("nyu", str(tmp_path / f"{name}.txt"), read_as, None)
        assert f"{name}.txt: " in (said := capsys.readouterr().err)
        assert f"read as {read_as}; is it {other}? (--format)" in said
        joints_to_angles.read_frames("nyu", str(tmp_path / f"{name}.txt"), name, None)
        assert not capsys.readouterr().err


def test_a_camera_for_what_is_in_millimetres_is_refused(tmp_path):
    (tmp_path / "joint.txt").write_text("1\n" + "1 2 -3 " * 21 + "\n")
    for dataset, name in (("msra", "joint.txt"), ("nyu", "joint_data.mat"), ("tracked", "a.pose")):
        with pytest.raises(InputError, match=f"--camera=1,1,0,0: .*{name} holds mm"):
            joints_to_angles.read_frames(dataset, str(tmp_path / name), "uvd", "1,1,0,0")


def test_joints_that_are_far_off_need_the_template_s_bones(tmp_path, monkeypatch, capsys):
    """A model's errors, which are not alike in all frames, are no hand's bones."""
    shape = hands.subject_shape(jax.random.key(2), False)
    subject = subject_of(shape, "nyu")
    poses, _, _ = hands.draw(jax.random.split(jax.random.key(3), FRAMES), shape, "nyu")
    true = hands.observed(subject, poses)
    path, out = tmp_path / "rough.txt", tmp_path / "out"
    write_joints(path, true + np.random.default_rng(0).normal(0, 12, true.shape))
    given = ["--dataset=nyu", "--format=xyz"]
    assert run(monkeypatch, path, out, *given) == 2
    told = capsys.readouterr().err
    assert "format, in poses that differ; elsewhere --bones=template" in told
    assert run(monkeypatch, path, out, *given, "--bones=template") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["bones"] == summary["axes"] == "template"
    (part,) = summary["parts"].values()
    lengths, usual = np.array(part["bone_lengths_mm"]), subject_of(_unit(), "nyu").bones.lengths
    np.testing.assert_allclose(lengths / usual, lengths[0, 0] / usual[0, 0], rtol=1e-3)
    assert part["solved"] >= FRAMES - 1 and part["residual_mm"]["mean"] < 20


def test_left_hands_are_mirrored(tmp_path):
    """ICVL's are, unless told otherwise; the others' are not, unless told so."""
    joints = np.arange(1.0, 2 * 16 * 3 + 1).reshape(2, 16, 3)
    write_joints(tmp_path / "icvl.txt", joints)
    write_joints(tmp_path / "nyu.txt", joints[:, :14])
    for dataset, usual in (("icvl", "left"), ("nyu", "right")):
        path, camera = str(tmp_path / f"{dataset}.txt"), "588,-587,320,240"
        given = {
            hand: joints_to_angles.read_frames(dataset, path, "xyz", None, hand)[0]
            for hand in (None, "right", "left")
        }
        np.testing.assert_array_equal(given[None], given[usual])
        np.testing.assert_array_equal(given["left"], given["right"] * [-1, 1, 1])
        turned = joints_to_angles.read_frames(dataset, path, "xyz", camera, "right")[0]
        np.testing.assert_array_equal(turned, given["right"] * [1, -1, 1])


def test_help_and_a_missing_file(tmp_path):
    command = [sys.executable, "-m", "launch.joints_to_angles"]
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "angles.npz" in done.stdout
    wrong = [*command, "--dataset=msra", "--joints=none.txt", f"--out={tmp_path}"]
    done = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: none.txt")
