"""The synthetic benchmark's command, without its trainings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.errors import InputError
from launch import compare_methods

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    command = [sys.executable, "-m", "launch.compare_methods", *arguments]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_help_is_all_of_the_docstring(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_methods", "--help"])
    with pytest.raises(SystemExit) as end:
        compare_methods.main()
    assert end.value.code == 0 and compare_methods.__doc__.strip() in capsys.readouterr().out


def test_configs_that_only_read_in_another_way_share_a_training():
    base, again, other = (
        compare_methods.load_config(f"{ROOT}/configs/dense_regression_nyu.py:{variant}", 800, [])
        for variant in ("quick", "quick_k10", "quick_stacks1")
    )
    key = compare_methods.training_key
    assert key(base) == key(again) != key(other)
    names = ("configs/v2v_nyu.py", "configs/v2v_nyu.py:quick")
    assert [compare_methods.slug(n) for n in names] == ["v2v_nyu", "v2v_nyu-quick"]


def test_table_and_errors_in_x_and_y(tmp_path):
    rng = np.random.default_rng(0)
    camera = [300.0, 300.0, 160.0, 120.0]
    true = rng.uniform(-50, 50, (5, 14, 3)) + [0, 0, 600]
    off = true + [3.0, 4.0, 100.0]
    for name, xyz in (("predictions", off), ("groundtruth", true)):
        np.savetxt(tmp_path / f"{name}.txt", xyz_to_uvd(xyz, np.array(camera)).reshape(5, -1))
    (tmp_path / "metrics.json").write_text(json.dumps({"skeleton": "nyu", "camera": camera}))
    _, *read = compare_methods.read_result(tmp_path)
    assert abs(compare_methods.xy_error(*read) - 5) < 1e-6
    figures = {
        "mean_error_mm": 9.876, "baseline_mean_error_mm": 50.0, "success_20mm": 0.25,
        "success_40mm": 0.5, "xy_mm": 5.0, "frames": 12, "examples": 8, "train_seconds": 3.0,
        "centre": "gt", "device": "1 x cpu", "parameters": 1234, "gflops": 0.5,
        "frames_per_second": 80.0,
    }  # fmt: skip
    rows = [figures | {"name": f"configs/a.py:{v}", "flat": v == "b4"} for v in ("quick", "b4")]
    compare_methods.write_table(tmp_path, rows, [])
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2].startswith("| `a-quick` | 9.88 mm | 5.00 mm | 25.0% | 50.0% | 1,234 |")
    assert lines[3].startswith("| `a-b4` | – | 5.00 mm | – | – |")  # It estimates no depth.
    assert "12 test frames, 8 training examples, centres `gt`" in lines[5]


def test_examples_are_counted_with_the_batch_that_is_used():
    name = f"{ROOT}/configs/v2v_nyu.py:quick"
    config = compare_methods.load_config(
        name, 800, ["--config.batch=16", "--config.data.centre=gt", "--config.method.scale=(1, 2)"]
    )
    assert (config.steps, config.data.centre, config.method.scale) == (50, "gt", (1, 2))


def test_all_train_on_the_same_frames():
    names = [f"{ROOT}/configs/{n}_nyu.py:quick" for n in ("v2v", "hourglass3d", "dense_regression")]
    configs = {n: compare_methods.load_config(n, 800, []) for n in names}
    compare_methods.check_alike(configs)
    configs[names[2]].data.synthetic.forearm = False
    odd = r"dense_\w+.py:quick: .* than .*v2v_nyu.py:quick: data.synthetic.forearm is True there"
    with pytest.raises(InputError, match=odd):
        compare_methods.check_alike(configs)
    other = compare_methods.load_config(f"{ROOT}/configs/hourglass3d_msra.py:quick", 800, [])
    with pytest.raises(InputError, match="data.dataset is nyu there, msra here"):
        compare_methods.check_alike({names[0]: configs[names[0]], "msra": other})


def test_a_run_with_other_settings_is_not_taken_for_this_one(tmp_path):
    config = compare_methods.load_config(f"{ROOT}/configs/v2v_nyu.py:quick", 800, [])
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    compare_methods.train("x", tmp_path, config, [])
    config.test_frames = 32
    with pytest.raises(InputError, match="was made with other settings; expected another --out"):
        compare_methods.train("x", tmp_path, config, [])


def test_what_an_earlier_training_gave_is_read_again(tmp_path):
    config = compare_methods.load_config(f"{ROOT}/configs/dense_regression_nyu.py:quick", 800, [])
    trained, again = tmp_path / "trained", tmp_path / "again"
    for folder in (trained, again):
        folder.mkdir()
        (folder / "metrics.json").write_text("{}")
    compare_methods.read_again(trained, again, config)
    later = (again / "metrics.json").stat().st_mtime + 1
    os.utime(trained / "metrics.json", (later, later))
    with pytest.raises(InputError, match="trained: no checkpoints/ in it"):  # It has begun to.
        compare_methods.read_again(trained, again, config)


def test_mistakes_are_named(tmp_path):
    (tmp_path / "broken.py").write_text("x = (")
    (tmp_path / "empty.py").write_text("")
    name = f"{ROOT}/configs/v2v_nyu.py:quick"
    for words, message in (
        ([f"--configs={tmp_path}/none.py"], "none.py: expected a config file"),
        ([f"--configs={ROOT}/configs/v2v_nyu.py:fast"], "no variant 'fast'"),
        ([f"--configs={name}", "--examples=4"], "batch, 8"),
        (
            [f"--configs={ROOT}/configs/hand3d_nyu.py:quick"],
            "hand3d_nyu.py:quick: trains in stages",
        ),
        ([f"--configs={name}", "--config.bach=4"], "--config.bach=4: "),
        ([f"--configs={name}", "--config.data.root=x"], "data.root=x, expected none"),
        ([f"--configs={ROOT}/configs/centre_nyu.py:quick"], "centre_nyu.py:quick: finds hand cent"),
        ([f"--configs={tmp_path}/broken.py"], "broken.py: no config ("),
        ([f"--configs={tmp_path}/empty.py"], "no attribute 'get_config'"),
    ):
        result = run(*words, f"--out={tmp_path}")
        assert result.returncode == 2 and message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert "unexpected '--examlpes=3'" in run("--configs=a", "--out=b", "--examlpes=3").stderr
