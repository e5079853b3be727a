"""The command: table, JSON, files left behind, and one line for every kind of bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from hpe_jax import evaluate
from hpe_jax.metrics.files import write_joints
from hpe_jax.metrics.protocols import PROTOCOLS, to_uvd

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path) -> dict:
    rng = np.random.default_rng(0)
    protocol = PROTOCOLS["icvl"]
    true = rng.uniform(-80, 80, (1596, 16, 3)) + [0, 0, 400]
    pred = true + rng.normal(0, 8, true.shape)
    write_joints(tmp_path / "gt.txt", to_uvd(true, protocol.camera))
    write_joints(tmp_path / "good.txt", to_uvd(pred, protocol.camera))
    write_joints(tmp_path / "exact.txt", to_uvd(true, protocol.camera))
    write_joints(tmp_path / "metres.txt", to_uvd(pred, protocol.camera) * [1, 1, 0.001])
    write_joints(tmp_path / "down.txt", pred)
    write_joints(tmp_path / "up.txt", pred * [1, -1, 1])
    write_joints(tmp_path / "away.txt", pred * [1, -1, -1])  # as MSRA15's labels
    error = np.linalg.norm(pred - true, axis=-1)
    return {"dir": tmp_path, "error": error, "true": true}


def _run(data: dict, *more: str, predictions: str = "good.txt") -> int:
    files = ",".join(str(data["dir"] / name) for name in predictions.split(","))
    return evaluate.main(
        [
            "evaluate",
            "--dataset=icvl",
            f"--groundtruth={data['dir'] / 'gt.txt'}",
            f"--predictions={files}",
            *more,
        ]
    )


def test_json_holds_each_file_s_figures(data, capsys):
    assert _run(data, "--json", "--centre=refined", predictions="good.txt,exact.txt") == 0
    results = json.loads(capsys.readouterr().out)
    assert list(results) == ["good.txt", "exact.txt"]
    good = results["good.txt"]
    assert good["mean_error_mm"] == pytest.approx(data["error"].mean(), abs=1e-3)
    worst = data["error"].max(1)
    assert good["success_20mm"] == pytest.approx((worst <= 20).mean(), abs=2e-3)
    assert good["success_40mm"] == pytest.approx((worst <= 40).mean(), abs=2e-3)
    np.testing.assert_allclose(good["per_joint_mm"], data["error"].mean(0), atol=2e-3)
    assert (good["dataset"], good["split"], good["frames"]) == ("icvl", "test", 1596)
    assert good["centre"] == "refined" and good["camera"] == [240.99, 240.96, 160, 120]
    assert good["parts"]["test_seq_2"]["frames"] == 894
    assert results["exact.txt"]["mean_error_mm"] == 0.0


def test_table_has_a_line_for_each_file(data, capsys):
    assert _run(data, predictions="good.txt,exact.txt") == 0
    out = capsys.readouterr().out.splitlines()
    assert "icvl, test, 1596 frames, 16 joints" in out[0] and "centre unknown" in out[0]
    row = next(line for line in out if line.startswith("good.txt")).split()
    assert float(row[1]) == pytest.approx(data["error"].mean(), abs=1e-3)
    assert len({len(line) for line in out[3:]}) == 1  # columns are aligned


def test_columns_of_the_table(data, capsys):
    assert _run(data, "--json") == 0
    good = json.loads(capsys.readouterr().out)["good.txt"]
    assert _run(data) == 0
    names, row = (line.split() for line in capsys.readouterr().out.splitlines()[3:5])
    shown = dict(zip(names, row, strict=True))
    expected = {
        "mean": good["mean_error_mm"], "median": good["median_error_mm"], "auc": good["auc_0_80"],
        "<=20": 100 * good["success_20mm"], "<=40": 100 * good["success_40mm"],
        "aligned": good["mean_aligned_mm"], "transl.": good["translation_mm"],
        **{name: part["mean_error_mm"] for name, part in good["parts"].items()},
    }  # fmt: skip
    assert {name: float(shown[name]) for name in expected} == pytest.approx(expected, abs=6e-3)


def test_xyz_follows_the_sign_of_fy(data, capsys):
    down, up = "--camera=240.99,240.96,160,120", "--camera=240.99,-240.96,160,120"
    means = {}
    for name, camera in (("down.txt", down), ("up.txt", up), ("up.txt", down)):
        assert _run(data, "--json", "--format=xyz", camera, predictions=name) == 0
        captured = capsys.readouterr()
        means[name, camera] = json.loads(captured.out)[name]["mean_error_mm"]
        assert ("change the sign of fy" in captured.err) == (means[name, camera] > 50)
    assert means["down.txt", down] == pytest.approx(data["error"].mean(), abs=1e-3)
    assert means["up.txt", up] == pytest.approx(data["error"].mean(), abs=1e-3)
    assert means["up.txt", down] > 50


def test_ground_truth_may_be_xyz(data, capsys):
    assert _run(data, "--json") == 0
    expected = json.loads(capsys.readouterr().out)["good.txt"]["mean_error_mm"]
    write_joints(data["dir"] / "gt.txt", data["true"])
    flags = ("--format=xyz", "--groundtruth_format=xyz")
    assert _run(data, "--json", *flags, predictions="down.txt") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["down.txt"]["mean_error_mm"]
    assert found == pytest.approx(expected, abs=1e-2) and not err
    # Both read as uvd, hands look like hands.
    assert _run(data, predictions="down.txt") == 0
    assert "gt.txt: 50% of the first two coordinates are positive, read as uvd; is it xyz?" in (
        capsys.readouterr().err
    )


def test_ground_truth_may_be_the_published_labels_of_nyu(data, tmp_path, capsys):
    rng = np.random.default_rng(1)
    protocol = PROTOCOLS["nyu"]
    true = rng.uniform(-80, 80, (30, 36, 3)) + [0, 0, 800]
    uvd = to_uvd(true, protocol.camera)
    # The other cameras' labels are others.
    labels = {
        "joint_uvd": np.stack([uvd, uvd + 50, uvd + 90]),
        "joint_xyz": [true * [1, -1, 1]] * 3,
    }
    savemat(tmp_path / "joint_data.mat", labels)
    kept = [0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32]
    pred = true[:, kept] + rng.normal(0, 8, (30, 14, 3))
    write_joints(tmp_path / "pred.txt", pred * [1, -1, 1])
    truth, camera = (
        f"--groundtruth={tmp_path / 'joint_data.mat'}",
        "--camera=588.03,-587.07,320,240",
    )
    flags = ("--json", f"--predictions={tmp_path / 'pred.txt'}", "--format=xyz", camera)
    for more in ([], ["--groundtruth_format=xyz"]):
        assert evaluate.main(["evaluate", "--dataset=nyu", truth, *flags, *more]) == 0
        mean = json.loads(capsys.readouterr().out)["pred.txt"]["mean_error_mm"]
        expected = np.linalg.norm(pred - true[:, kept], axis=-1).mean()
        assert mean == pytest.approx(expected, abs=1e-3)
    for wrong in (
        ["--dataset=icvl", truth],
        ["--dataset=nyu", f"{truth},{data['dir'] / 'gt.txt'}"],
    ):
        assert evaluate.main(["evaluate", *wrong, *flags]) == 2
        assert "expected text files, or NYU's joint_data.mat alone" in capsys.readouterr().err


def test_another_format_that_fits_better_is_told(data, capsys):
    for name, more, advice in (
        ("down.txt", [], "if you give --format=xyz\n"),
        ("up.txt", [], "if you give --format=xyz and change the sign of fy in --camera\n"),
        ("away.txt", ["--format=xyz"], "change the sign of fy in --camera and write z away from"),
        ("good.txt", ["--format=xyz"], "if you give --format=uvd\n"),
        ("metres.txt", [], "if you write millimetres, not metres\n"),
        ("good.txt", [], ""),
    ):
        assert _run(data, *more, predictions=name) == 0
        warned = capsys.readouterr().err
        assert advice in warned and (f"{name}: " in warned) == bool(advice)


def test_files_may_differ_in_format_and_centre(data, capsys):
    out = data["dir"] / "results"
    given = ("--format=uvd,xyz", "--centre=refined,gt", f"--out={out}")
    assert _run(data, *given, predictions="good.txt,down.txt") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("camera 240.99,240.96,160,120")
    rows = [line.split() for line in lines[3:]]
    assert rows[0][:4] == ["file", "format", "centre", "mean"]
    assert rows[1][:3] == ["good.txt", "uvd", "refined"]
    assert rows[2] == ["down.txt", "xyz", "gt", *rows[1][3:]]  # the same predictions
    kept = json.loads((out / "metrics.json").read_text())
    assert [kept[name]["centre"] for name in ("good.txt", "down.txt")] == ["refined", "gt"]
    for given in ("--centre=refined,gt,com", "--centre=gt,", "--format=uvd,mm"):
        assert _run(data, given, predictions="good.txt,exact.txt") == 2
        assert given.split(",")[0] in capsys.readouterr().err


def test_out_keeps_metrics_and_plots(data, capsys):
    out = data["dir"] / "results"
    assert _run(data, f"--out={out}", predictions="good.txt,exact.txt") == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "metrics.json", "per_joint.png", "success_curve.png"
    ]  # fmt: skip
    kept = json.loads((out / "metrics.json").read_text())["good.txt"]
    curves = kept["success_curves"]
    for per, name in (("worst", "success"), ("mean", "success_mean"), ("joint", "joints_within")):
        assert len(curves[per]) == 81
        assert all(curves[per][mm] == kept[f"{name}_{mm}mm"] for mm in (20, 40))
    assert curves["worst"][20] < curves["mean"][20]


def test_another_set_of_frames_is_scored_but_not_called_the_test_split(data, capsys):
    write_joints(data["dir"] / "gt.txt", to_uvd(data["true"][:50], PROTOCOLS["icvl"].camera))
    write_joints(data["dir"] / "good.txt", to_uvd(data["true"][:50], PROTOCOLS["icvl"].camera))
    assert _run(data, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)["good.txt"]
    assert result["frames"] == 50 and result["parts"] == {}
    assert result["split"] == "not the published test split"
    assert "50 frames, the icvl test split 1596" in captured.err


def test_files_of_one_name_are_told_apart(data, capsys):
    (data["dir"] / "other").mkdir()
    write_joints(data["dir"] / "other" / "good.txt", data["true"])
    assert _run(data, "--json", predictions="good.txt,other/good.txt") == 0
    assert list(json.loads(capsys.readouterr().out)) == [
        str(data["dir"] / "good.txt"),
        str(data["dir"] / "other" / "good.txt"),
    ]


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (lambda lines: lines[:-1], [], "good.txt: 1595 frames, expected 1596 as in"),
        (lambda lines: [*lines[:3], lines[3][:-8], *lines[4:]], [], "good.txt, line 4: 47 columns"),
        (lambda lines: ["nan" + lines[0][7:], *lines[1:]], [], "good.txt, line 1: column 1 is"),
        (lambda lines: [], [], "good.txt: empty"),
        (None, ["--dataset=nyu"], "48 numbers, expected 42 numbers"),
        (None, ["--dataset=coco"], "should be one of <nyu|icvl|msra>"),
        (None, ["--camera=1,2,3"], "--camera=1,2,3: expected four numbers"),
        (None, ["--camera=240,zero,160,120"], "expected four numbers"),
        (None, ["--camera=240,0,160,120"], "expected fx > 0 and fy other than 0"),
        (None, ["--camera=nan,240,160,120"], "all finite"),
        (None, ["--camera=240,240,inf,120"], "all finite"),
        (None, ["--groundtruth=/nowhere/gt.txt"], "/nowhere/gt.txt: No such file"),
        (None, ["--predictions="], "--predictions: missing"),
        (None, ["--predictions=good.txt,"], "--predictions=good.txt,: a name is empty"),
        (lambda lines: ["1e300" + lines[0][7:], *lines[1:]], [], "good.txt: its numbers are too"),
        (None, ["--bogus=1"], "Unknown command line flag 'bogus'"),
        (None, ["more.txt"], "more.txt: unexpected"),
        (None, ["--out=/dev/null/x"], "Not a directory"),
    ],
)
def test_bad_input_gives_one_line_and_2(data, capsys, spoil, flags, message):
    path = data["dir"] / "good.txt"
    if spoil:
        path.write_text("".join(line + "\n" for line in spoil(path.read_text().splitlines())))
    assert _run(data, *flags) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert captured.out == ""


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (0, "gt.txt: frame 7 has a joint that is not in front of"),
        (-500, "gt.txt: frame 7 has a joint that is not in front of"),
        (1e200, "gt.txt: its numbers are too large"),
    ],
)
def test_ground_truth_where_no_camera_sees_is_refused(data, capsys, depth, message):
    values = to_uvd(data["true"], PROTOCOLS["icvl"].camera)
    values[7, 3, 2] = depth
    write_joints(data["dir"] / "gt.txt", values)
    assert _run(data) == 2
    assert message in capsys.readouterr().err


def test_a_file_given_twice_is_refused(data, capsys):
    assert _run(data, predictions="good.txt,good.txt") == 2
    assert "given twice" in capsys.readouterr().err


def test_no_accelerator_is_touched(data):
    """With a platform that does not exist, JAX would fail as soon as it looked for a device."""
    command = [
        sys.executable,
        "-m",
        "hpe_jax.evaluate",
        "--dataset=icvl",
        "--json",
        f"--groundtruth={data['dir'] / 'gt.txt'}",
        f"--predictions={data['dir'] / 'good.txt'}",
        f"--out={data['dir'] / 'out'}",
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["good.txt"]["frames"] == 1596


def test_help_is_quick_and_complete():
    code = (
        "import sys; from hpe_jax import evaluate; status = evaluate.main(['evaluate', '--help']);"
        "sys.exit(status or 10 * ('jax' in sys.modules) + 20 * ('numpy' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for flag in ("dataset", "groundtruth", "predictions", "format", "camera", "centre", "out"):
        assert f"--{flag}:" in done.stdout
