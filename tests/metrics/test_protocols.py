"""Every figure of the field's tables that published prediction files must give."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from hpe_jax.errors import InputError
from hpe_jax.evaluate import evaluate
from hpe_jax.hand.skeletons import NYU_COLUMNS
from hpe_jax.metrics.files import JointFile, write_joints
from hpe_jax.metrics.protocols import (
    PROTOCOLS,
    check_same_frames,
    read_groundtruth,
    to_uvd,
    to_xyz,
)

# mean mm, % of frames with the worst joint within 20 and 40 mm
NYU = {
    "CVPR18_NYU_V2V_PoseNet": (8.419, 71.24, 88.09),
    "CVPR18_NYU_denseReg": (10.214, 56.42, 85.79),
    "NEUCOM18_NYU_Pose_REN": (11.811, 48.69, 79.77),
    "ICCVW17_NYU_DeepPrior++": (12.238, 44.72, 83.53),
    "JVCI18_NYU_REN_9x6x6": (12.694, 45.88, 82.60),
    "CVPR17_NYU_3DCNN": (14.113, 33.59, 75.53),
    "IJCV16_NYU_LieX": (14.507, 31.81, 74.38),
    "ICCV15_NYU_Feedback": (15.973, 18.94, 65.85),
    "CVWW15_NYU_Prior": (20.750, 16.27, 49.24),
}
ICVL = {
    "CVPR18_ICVL_V2V_PoseNet": (6.284, 84.65, 97.18),
    "NEUCOM18_ICVL_Pose_REN": (6.791, 77.69, 95.30),
    "CVPR18_ICVL_denseReg": (7.239, 79.64, 97.06),
    "JVCI18_ICVL_REN_9x6x6": (7.305, 71.24, 95.55),
    "CVPR14_LRF_Results": (12.578, 20.74, 70.86),
}
CADSTN = {
    "mix": 8.036,
    "baseline": 8.320,
    "depth": 9.052,
    "3D": 9.706,
    "3D_and_depth": 8.209,
    "lstm": 8.980,
}
# first subject, second subject, mean-aligned, translation
NYU_PARTS = {
    "CVPR18_NYU_V2V_PoseNet": (4.22, 10.18, 7.67, 4.02),
    "CVPR18_NYU_denseReg": (6.46, 11.79, 9.54, 4.79),
}


@functools.cache
def _truth(folder: str, dataset: str) -> JointFile:
    return read_groundtruth(PROTOCOLS[dataset], [f"{folder}/{dataset}/groundtruth.txt"])


@pytest.fixture(scope="module")
def score(shared_data):
    folder = shared_data / "published"
    if not folder.is_dir():
        pytest.skip(f"no published predictions in {shared_data}")

    def run(dataset: str, name: str, form: str = "uvd", camera=None) -> dict:
        predictions = PROTOCOLS[dataset].read(folder / dataset / f"{name}.txt", form)
        truth = _truth(str(folder), dataset)
        return evaluate(PROTOCOLS[dataset], truth, predictions, form, camera)[0]

    return run


@pytest.mark.parametrize(
    ("dataset", "name", "figures"),
    [("nyu", *item) for item in NYU.items()] + [("icvl", *item) for item in ICVL.items()],
)
def test_published_tables(score, dataset, name, figures):
    result = score(dataset, name)
    assert result["frames"] == {"nyu": 8252, "icvl": 1596}[dataset]
    assert result["split"] == "test"
    assert result["mean_error_mm"] == pytest.approx(figures[0], abs=0.005)
    assert 100 * result["success_20mm"] == pytest.approx(figures[1], abs=0.05)
    assert 100 * result["success_40mm"] == pytest.approx(figures[2], abs=0.05)


@pytest.mark.parametrize(("name", "figures"), NYU_PARTS.items())
def test_nyu_subjects_and_alignment(score, name, figures):
    result = score("nyu", name)
    parts = result["parts"]
    assert [parts[p]["frames"] for p in ("subject_1", "subject_2")] == [2440, 5812]
    mine = [parts["subject_1"]["mean_error_mm"], parts["subject_2"]["mean_error_mm"]]
    mine += [result["mean_aligned_mm"], result["translation_mm"]]
    assert mine == pytest.approx(figures, abs=0.006)  # printed with two decimals


@pytest.mark.parametrize(("name", "mean"), CADSTN.items())
def test_cadstn_xyz_with_its_camera(score, name, mean):
    camera = (241.42, 241.42, 160.0, 120.0)
    result = score("icvl", f"CADSTN_hand_{name}_xyz", "xyz", camera)
    assert result["mean_error_mm"] == pytest.approx(mean, abs=0.005)


def test_dense_regression_s_own_file_equals_its_uvd_file(score):
    own = score("nyu", "CVPR18_NYU_denseReg_original_xyz", "xyz")
    uvd = score("nyu", "CVPR18_NYU_denseReg")
    assert own["mean_error_mm"] == pytest.approx(10.214, abs=0.005)
    assert own["per_joint_mm"] == pytest.approx(uvd["per_joint_mm"], abs=0.001)


def test_sign_of_fy_says_which_way_y_points(score, capsys):
    """The file has y down; told that y is up, the result is far off and says why."""
    camera = (588.03, -587.07, 320.0, 240.0)
    upside_down = score("nyu", "CVPR18_NYU_denseReg_original_xyz", "xyz", camera)
    assert upside_down["mean_error_mm"] > 100
    assert "change the sign of fy" in capsys.readouterr().err
    # For uvd it changes nothing.
    assert score("nyu", "CVPR18_NYU_denseReg", "uvd", camera)["mean_error_mm"] == pytest.approx(
        10.214, abs=0.005
    )


def test_icvl_label_files_are_the_ground_truth(shared_data):
    folder = shared_data / "published" / "icvl"
    if not folder.is_dir():
        pytest.skip(f"no published predictions in {shared_data}")
    paths = [str(folder / f"test_seq_{i}.txt") for i in (1, 2)]
    labels = read_groundtruth(PROTOCOLS["icvl"], paths)
    assert labels.names is not None and labels.names[702] == "test_seq_2/image_0000.png"
    whole = PROTOCOLS["icvl"].read(folder / "groundtruth.txt")
    np.testing.assert_array_equal(labels.values, whole.values)
    with pytest.raises(InputError, match="test_seq_2/.* stands where test_seq_1 belongs"):
        read_groundtruth(PROTOCOLS["icvl"], paths[::-1])


def test_protocol_sizes():
    assert {name: p.frames for name, p in PROTOCOLS.items()} == {
        "nyu": 8252,
        "icvl": 1596,
        "msra": 76375,
    }
    assert [len(p.skeleton) for p in PROTOCOLS.values()] == [14, 16, 21]
    assert PROTOCOLS["nyu"].slices(8252) == {
        "subject_1": slice(0, 2440),
        "subject_2": slice(2440, 8252),
    }
    assert PROTOCOLS["nyu"].slices(2048) == {}


def test_thirty_six_nyu_joints_are_cut_to_the_scored_ones(tmp_path):
    values = np.arange(2 * 36 * 3, dtype=float).reshape(2, 36, 3)
    write_joints(tmp_path / "all.txt", values)
    read = PROTOCOLS["nyu"].read(tmp_path / "all.txt")
    np.testing.assert_array_equal(read.values, values[:, list(NYU_COLUMNS)])


@pytest.mark.parametrize("fy", [587.07, -587.07])
def test_uvd_and_xyz_are_inverse(fy):
    camera = (588.03, fy, 320.0, 240.0)
    xyz = np.random.default_rng(0).normal(0, 80, (4, 14, 3)) + [0, 0, 700]
    uvd = to_uvd(xyz, camera)
    x, y, z = xyz[2, 5]
    np.testing.assert_allclose(uvd[2, 5], [320 + 588.03 * x / z, 240 + 587.07 * y / z, z])
    np.testing.assert_allclose(to_xyz(uvd, camera, "uvd"), xyz)
    flipped = to_xyz(xyz, camera, "xyz")
    np.testing.assert_allclose(flipped, xyz * [1, np.sign(fy), 1])


def test_files_with_and_without_names_are_refused(tmp_path):
    values = np.ones((2, 16, 3))
    write_joints(tmp_path / "1.txt", values, ["a.png", "b.png"])
    write_joints(tmp_path / "2.txt", values)
    for order in ("12", "21"):
        with pytest.raises(InputError, match="with and without frame names"):
            read_groundtruth(PROTOCOLS["icvl"], [f"{tmp_path}/{i}.txt" for i in order])


def test_other_frames_are_refused():
    truth = JointFile("gt.txt", np.zeros((3, 2, 3)), ["a", "b", "c"])
    with pytest.raises(InputError, match="p.txt: 2 frames, expected 3 as in gt.txt"):
        check_same_frames(JointFile("p.txt", np.zeros((2, 2, 3))), truth)
    with pytest.raises(InputError, match="frame 2 is named x, expected b"):
        check_same_frames(JointFile("p.txt", np.zeros((3, 2, 3)), ["a", "x", "c"]), truth)
    check_same_frames(JointFile("p.txt", np.zeros((3, 2, 3))), truth)
