"""`predict` on drawn frames, with a toy model that knows one rigid hand."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.io import savemat

from hpe_jax import command as command_module
from hpe_jax import methods, predict, progress
from hpe_jax import recording as recording_module
from hpe_jax.camera import CAMERAS, NYU, mirror_camera, mirror_x, uvd_to_xyz, xyz_to_uvd
from hpe_jax.camera_flag import doubt
from hpe_jax.datasets import depth_io
from hpe_jax.datasets.centres import write_centres
from hpe_jax.datasets.depth_io import read_depth
from hpe_jax.datasets.patches import find_hand, hand_patch
from hpe_jax.errors import InputError
from hpe_jax.hand import skeletons
from hpe_jax.methods.base import Method
from hpe_jax.metrics.files import read_joints
from hpe_jax.predict import main, report
from hpe_jax.predictor import Predictor
from hpe_jax.recording import HandChoice, Writer
from hpe_jax.training.checkpoints import Checkpoints

CAMERA = NYU.intrinsics
FLAG = "--camera=588.03,587.07,320,240"
WIDTH = 640


def draw(u=300, v=220):
    """A flat right hand, 700 mm away: a palm with a thumb on the right; and its joints."""
    frame = np.zeros((480, WIDTH), np.float32)
    frame[v - 60 : v + 60, u - 30 : u + 30] = 700
    frame[v + 10 : v + 30, u + 30 : u + 90] = 700
    spots = [(u + du, v + dv) for du in (-20, 0, 20) for dv in (-50, -20, 20, 50)]
    spots += [(u + 60, v + 20), (u + 85, v + 20)]
    uvd = np.array([(*spot, 710) for spot in spots], float)
    z = uvd[:, 2]
    x, y = (uvd[:, 0] - 320) * z / 588.03, (uvd[:, 1] - 240) * z / 587.07
    return frame, np.stack([x, y, z], -1)


def make_toy(config, skeleton):
    """Joints at fixed offsets from the centre, whatever the depth."""

    def predict(variables, batch):
        joints = batch["centre"][:, None] + variables["params"]["offsets"]
        return joints + 0 * batch["depth"].sum() + 0 * batch["cube"].sum()

    return Method(lambda key: {}, lambda *_: None, predict)


@pytest.fixture(scope="module")
def variables():
    frame, joints = draw()
    centre = find_hand(frame, CAMERA)
    return {"params": {"offsets": jnp.asarray(joints - centre, jnp.float32)}}


def make_config():
    data = dict(dataset="nyu", root="", cube_mm=250.0, patch=96, extent_mm=360.0)
    return ConfigDict({"method": {"name": "toy"}, "data": data})


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(methods.METHODS, "toy", make_toy)
    monkeypatch.setenv("HPE_JAX_CACHE", "")


@pytest.fixture
def predictor(toy, variables):
    return Predictor(make_config(), variables)


@pytest.fixture(scope="module")
def workdir(variables, tmp_path_factory):
    """A run with one checkpoint, as training leaves it."""
    folder = tmp_path_factory.mktemp("run")
    state = {"step": jnp.zeros((), jnp.int32), **variables, "rest": {}, "opt_state": {}, "ema": {}}
    info = {"step": 1, "config": make_config().to_dict(), "source": "synthetic-nyu"}
    with Checkpoints(folder / "checkpoints", 1) as checkpoints:
        checkpoints.save(state, info)
    return folder


def save(path, frame, unit=1.0):
    Image.fromarray(np.round(frame / unit).astype(np.uint16)).save(path)


@pytest.fixture
def recording(tmp_path):
    """Four frames of a hand that moves, the third without one."""
    folder = tmp_path / "frames"
    folder.mkdir()
    shown = []
    for i in range(4):
        frame, joints = draw(u=300 + 10 * i)
        save(folder / f"{i}.png", 0 * frame if i == 2 else frame)
        shown.append(joints)
    return folder, shown


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path, skeletons.NYU, CAMERA)
    writer.open()
    yield writer
    writer.close({})


def lines_of(out):
    return [json.loads(line) for line in (out / "joints.jsonl").read_text().splitlines()]


def command(workdir, frames, out, *more):
    return main(["predict", f"--workdir={workdir}", f"--input={frames}", f"--out={out}", *more])


def failure(capsys, *arguments):
    """The one line on stderr of a command that fails."""
    assert command(*arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
    return errors


def test_right_hand(predictor):
    frame, joints = draw(u=340, v=250)
    found = predictor(frame, CAMERA)
    # The toy knows the hand from another place; the localiser samples every fourth pixel.
    np.testing.assert_allclose(found.joints, joints, atol=5)
    assert found.inside == 1.0 and found.latency_ms > 0
    np.testing.assert_allclose(found.centre, find_hand(frame, CAMERA), atol=1e-3)
    assert predictor(np.zeros_like(frame), CAMERA) is None


def test_latency_is_in_milliseconds(predictor, monkeypatch):
    clock = iter((1.0, 1.25))
    told = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr("hpe_jax.predictor.time", told)
    assert predictor(draw()[0], CAMERA).latency_ms == 250.0


def test_a_model_is_given_what_it_was_trained_on(predictor):
    """The patch of its config's size and extent about the hand, and the edge of the cube."""
    frame, _ = draw()
    given = {}

    def predict(_, batch):
        given.update(batch)
        return batch["centre"][:, None]

    predictor._predict = predict
    located = predictor(frame, CAMERA).located
    expected = hand_patch(frame, located, CAMERA, patch=96, extent_mm=360.0)
    expected["cube"] = np.float32(250)
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(given[name], value[None])


def test_left_hand_is_the_mirror_image(predictor):
    """A mirrored frame through `hand="left"` gives the mirrored joints, seen by its camera."""
    frame, _ = draw()
    right = predictor(frame, CAMERA)
    camera = np.array([*CAMERA[:2], WIDTH - 1 - CAMERA[2], CAMERA[3]], np.float32)
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    found = predictor(mirrored, camera, hand="left")
    # The localiser samples every fourth pixel, which are others in the mirrored frame.
    np.testing.assert_allclose(found.joints, mirror_x(right.joints), atol=5)
    left = predictor(mirrored, camera, hand="left", centre=mirror_x(right.centre))
    np.testing.assert_allclose(left.joints, mirror_x(right.joints), atol=1e-3)
    np.testing.assert_allclose(left.centre, mirror_x(right.centre), atol=1e-3)
    assert left.inside == right.inside == 1.0
    wrong = predictor(mirrored, camera, hand="right")
    assert wrong.inside < 1.0
    # The picture of a left hand shows the frame as it was recorded.
    view = left.view
    uv = xyz_to_uvd(left.joints, view["camera"])[:, :2] - view["corner"]
    u, v = np.round(uv).astype(int).T
    assert (view["depth"][v, u] == 700).mean() > 0.9


def test_a_data_set_of_left_hands(predictor, variables, monkeypatch):
    """Its models are shown left hands as they are, and right ones mirrored."""
    monkeypatch.setitem(CAMERAS, "nyu", NYU._replace(left=True))
    other, (frame, _) = Predictor(make_config(), variables), draw()
    for hand, same in (("left", "right"), ("right", "left")):
        found, expected = (p(frame, CAMERA, hand=h) for p, h in ((other, hand), (predictor, same)))
        np.testing.assert_array_equal(found.joints, expected.joints)


def test_given_centre_and_second_pass(predictor):
    frame, joints = draw()
    start = find_hand(frame, CAMERA) + np.array([5, -5, 5], np.float32)
    one = predictor(frame, CAMERA, centre=start)
    np.testing.assert_allclose(one.centre, start)
    two = predictor(frame, CAMERA, centre=start, passes=2)
    np.testing.assert_allclose(two.centre, one.joints.mean(0), atol=1e-3)
    np.testing.assert_array_equal(two.located, start)
    left = predictor(frame, CAMERA, centre=start, hand="left")
    np.testing.assert_allclose(left.centre, start, atol=1e-3)


def test_second_pass_is_judged_about_the_located_centre(toy, variables):
    """A model that walks away from the hand must not choose what counts as the hand."""
    frame, _ = draw()
    offsets = variables["params"]["offsets"]
    walled = np.where((frame == 0) & (np.arange(WIDTH) > 420), 720, frame).astype(np.float32)
    away = {"params": {"offsets": offsets + jnp.array([100.0, 0, 12])}}
    found = Predictor(make_config(), away)(walled, CAMERA, passes=2)
    assert found.inside == 0.0 and found.inside_cube > 0.3
    # Where the second look finds nothing at all, or has no place, the first answer stays.
    for step in ([260.0, 0, 12], [np.nan] * 3):
        away = {"params": {"offsets": offsets + jnp.array(step)}}
        one, two = (Predictor(make_config(), away)(frame, CAMERA, passes=p) for p in (1, 2))
        np.testing.assert_array_equal(one.joints, two.joints)
        np.testing.assert_array_equal(two.centre, two.located)


def test_camera_and_centre_may_be_lists(predictor):
    frame, _ = draw()
    given = predictor(frame, [float(c) for c in CAMERA])
    expected = predictor(frame, CAMERA)
    np.testing.assert_array_equal(given.joints, expected.joints)
    for hand in ("right", "left"):
        two = [
            predictor(frame, CAMERA, hand=hand, centre=c(expected.located)) for c in (list, tuple)
        ]
        np.testing.assert_array_equal(two[0].joints, two[1].joints)


def test_command(toy, workdir, recording, tmp_path, capsys):
    folder, shown = recording
    out = tmp_path / "out"
    assert command(workdir, folder, out, FLAG) == 0
    lines = lines_of(out)
    assert [line["frame"] for line in lines] == ["0.png", "1.png", "2.png", "3.png"]
    assert lines[2]["joints_mm"] is None and lines[2]["inside_hand"] is None
    for i in (0, 1, 3):
        np.testing.assert_allclose(lines[i]["joints_mm"], shown[i], atol=5)
        assert len(lines[i]["centre_mm"]) == 3 and lines[i]["latency_ms"] > 0
        assert 0.9 < lines[i]["inside_hand"] <= 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 4 and summary["frames_without_hand"] == 1
    assert summary["skeleton"] == "nyu" and len(summary["joints"]) == 14
    assert summary["inside_hand"] == pytest.approx(
        np.mean([lines[i]["inside_hand"] for i in (0, 1, 3)]), abs=1e-3
    )
    assert (
        0
        < summary["frames_per_second"]
        <= 1000 / np.mean([lines[i]["latency_ms"] for i in (0, 1, 3)])
    )
    assert sorted(p.name for p in (out / "overlays").iterdir()) == ["0.png", "1.png", "3.png"]
    with Image.open(out / "animation.gif") as gif:
        assert gif.n_frames == 3
    uvd = read_joints(out / "predictions.txt", 14, gaps=True).values
    assert np.isnan(uvd[2]).all()
    known = [np.array(lines[i]["joints_mm"]) for i in (0, 1, 3)]
    np.testing.assert_allclose(uvd_to_xyz(uvd[[0, 1, 3]], CAMERA), known, atol=3e-3)
    assert "1 of 4 frames show no hand" in capsys.readouterr().out


def test_long_recordings_show_progress(toy, workdir, recording, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_LINE_S", 0.0)
    assert command(workdir, recording[0], tmp_path / "out", FLAG) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "/4 frames" in line]
    assert told[0] == "1/4 frames" and told[-1].startswith("3/4 frames, ")


def test_long_animations_leave_frames_out(toy, workdir, recording, tmp_path, monkeypatch):
    monkeypatch.setattr(recording_module, "GIF_FRAMES", 2)
    assert command(workdir, recording[0], tmp_path / "out", FLAG) == 0
    with Image.open(tmp_path / "out" / "animation.gif") as gif:
        assert gif.n_frames == 2  # of three, and as long as the recording
        assert gif.info["duration"] == pytest.approx(2 * 66, abs=5)


def test_single_frame_has_no_animation(toy, workdir, recording, tmp_path):
    out = tmp_path / "out"
    assert command(workdir, recording[0] / "1.png", out, FLAG) == 0
    assert len(lines_of(out)) == 1 and not (out / "animation.gif").exists()


def test_pictures_can_be_done_without(toy, workdir, recording, tmp_path):
    with_them, without = tmp_path / "with", tmp_path / "without"
    assert command(workdir, recording[0], with_them, FLAG) == 0
    assert command(workdir, recording[0], without, FLAG, "--nopictures") == 0
    assert {p.name for p in without.iterdir()} == {*recording_module.LINES, "summary.json"}
    same = "predictions.txt"
    assert (without / same).read_bytes() == (with_them / same).read_bytes()
    assert command(workdir, recording[0], with_them, FLAG, "--nopictures") == 0
    assert not list((with_them / "overlays").iterdir())  # They would pass for these joints'.
    assert not (with_them / "animation.gif").exists()


@pytest.mark.parametrize("hand", ["right", "left"])
def test_auto_finds_out_the_hand(toy, workdir, tmp_path, capsys, hand):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(2):
        frame, _ = draw(u=300 + 10 * i)
        np.save(folder / f"{i}.npy", (frame if hand == "right" else frame[:, ::-1]) / 8)
    camera = FLAG if hand == "right" else "--camera=588.03,587.07,319,240"
    out = tmp_path / "out"
    assert command(workdir, folder, out, camera, "--hand=auto", "--depth_unit=8") == 0
    summary = json.loads((out / "summary.json").read_text())
    shares = summary["inside_hand_by_hand"]
    assert summary["hand"] == hand and summary["inside_hand"] == shares[hand]
    assert shares[hand] == 1.0 > max(v for k, v in shares.items() if k != hand)
    assert f"taken for a {hand} hand" in capsys.readouterr().out
    assert len(lines_of(out)) == 2


@pytest.mark.parametrize(("torn", "calls"), [(None, 6), (1, 2), (3, 5)])
def test_auto_decides_on_the_first_frames(
    toy, predictor, tmp_path, monkeypatch, recording, torn, calls
):
    """Then it goes on with one hand; what is known is written even if a frame is unreadable."""
    folder, _ = recording
    save(folder / "2.png", draw(u=320)[0])
    frames = sorted(folder.iterdir())
    if torn is not None:
        frames[torn].write_bytes(b"nothing")
    monkeypatch.setattr(recording_module, "DECIDE_AFTER", 2)
    asked = []

    def counting(*given, hand, **more):
        asked.append(hand)
        return predictor(*given, hand=hand, **more)

    for name in ("skeleton", "skeleton_name", "cube_mm", "centre_source", "centre_model"):
        setattr(counting, name, getattr(predictor, name))
    out = tmp_path / "out"
    if torn is None:
        summary = predict.predict_frames(counting, frames, CAMERA, out, hand="auto")
        assert summary["hand"] == "right" and summary["frames"] == 4
    else:
        with pytest.raises(InputError, match=f"the {torn} frames before it"):
            predict.predict_frames(counting, frames, CAMERA, out, hand="auto")
    # One more than a frame and hand: the first call compiles.
    assert len(asked) == calls + 1 and asked.count("left") == min(torn or 2, 2)
    assert len(lines_of(out)) == (4 if torn is None else torn)


def test_auto_counts_frames_with_a_hand_and_judges_where_it_was_located(
    writer, tmp_path, monkeypatch, predictor
):
    """Not about the cube of a second pass, which a model of the wrong hand has placed."""
    monkeypatch.setattr(recording_module, "DECIDE_AFTER", 1)
    choice = HandChoice(writer, ("right", "left"))
    choice.add("0.png", {"right": None, "left": None})
    assert choice.hands == ("right", "left")
    found = predictor(draw()[0], CAMERA)
    right, left = (replace(found, inside=a, inside_cube=b) for a, b in ((0.9, 0.1), (0.5, 0.8)))
    choice.add("1.png", {"right": right, "left": left})
    assert choice.hands == ("right",) and choice.shares == {"right": 0.9, "left": 0.5}
    assert [line["joints_mm"] is None for line in lines_of(tmp_path)] == [True, False]


def test_ctrl_c_while_the_first_frames_are_written_loses_none(writer, tmp_path, monkeypatch):
    choice = HandChoice(writer, ("right", "left"))
    for number in range(4):
        choice.add(f"{number}.png", {"right": None, "left": None})
    add = writer.add

    def interrupted(name, found):
        add(name, found)
        if name == "2.png":  # As it draws the picture.
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(writer, "add", interrupted)
        choice.decide()
    choice.decide()
    assert [line["frame"] for line in lines_of(tmp_path)] == [f"{n}.png" for n in range(4)]


def test_centre_file(toy, workdir, recording, tmp_path, capsys):
    folder, shown = recording
    centres = np.array([joints.mean(0) for joints in shown])
    centres[1:3] = np.nan
    path = tmp_path / "centres.txt"
    write_centres(path, centres, y_up=True)
    out = tmp_path / "out"
    given = f"--centres={path}"
    assert command(workdir, folder, out, FLAG, given, "--centres_y_up") == 0
    lines = lines_of(out)
    np.testing.assert_allclose(lines[3]["centre_mm"], centres[3], atol=1e-2)
    assert lines[1]["joints_mm"] is None and lines[2]["joints_mm"] is None
    assert json.loads((out / "summary.json").read_text())["centre"] == "file"
    centres[2] = (0, 0, 300)
    write_centres(path, centres)
    assert "2.png: no reading in the cube of 250 mm about its centre [0.0, 0.0, 300.0]" in failure(
        capsys, workdir, folder, out, FLAG, given
    )
    assert [line["frame"] for line in lines_of(out)] == ["0.png", "1.png"]
    assert command(workdir, folder, out, FLAG, given, "--skip_unreadable") == 0
    assert "skipped: " in capsys.readouterr().err
    assert [line["joints_mm"] is None for line in lines_of(out)] == [False, True, True, False]
    write_centres(path, centres[:3])
    assert "3 centres, expected one a frame, 4 in all" in failure(
        capsys, workdir, folder, out, FLAG, given
    )
    centres[0] = (2000, 0, 700)
    write_centres(path, centres)
    before = (out / "joints.jsonl").read_text()
    assert "0.png: its centre [2000.0, 0.0, 700.0] mm is outside the frame" in failure(
        capsys, workdir, folder, out, FLAG, given
    )
    assert (out / "joints.jsonl").read_text() == before


def test_centres_in_pixels(toy, workdir, recording, tmp_path):
    folder, shown = recording
    centre = shown[1].mean(0)
    path = tmp_path / "c.mat"
    savemat(path, {"centre_pixel": xyz_to_uvd(centre, CAMERA)[None, None]})
    out = tmp_path / "out"
    assert command(workdir, folder / "1.png", out, FLAG, f"--centres={path}") == 0
    np.testing.assert_allclose(lines_of(out)[0]["centre_mm"], centre, atol=0.01)


def test_a_frame_that_one_hand_alone_shows_is_used(toy, predictor, tmp_path, recording):
    """The call that compiles asks for one hand: of no reading there nothing follows."""
    folder, shown = recording
    frames = sorted(folder.iterdir())[:2]

    def left_alone(*given, hand, **more):
        return predictor(*given, hand=hand, **more) if hand == "left" else None

    for name in ("skeleton", "skeleton_name", "cube_mm", "centre_source", "centre_model"):
        setattr(left_alone, name, getattr(predictor, name))
    centres = np.array([joints.mean(0) for joints in shown[:2]])
    out = tmp_path / "out"
    summary = predict.predict_frames(left_alone, frames, CAMERA, out, hand="auto", centres=centres)
    assert summary["hand"] == "left" and summary["frames_without_hand"] == 0


@pytest.mark.parametrize("passes", [1, 2])
def test_passes(toy, workdir, recording, tmp_path, passes):
    folder, shown = recording
    write_centres(tmp_path / "c.txt", np.array([joints.mean(0) + [5, -5, 5] for joints in shown]))
    out, more = tmp_path / "out", (f"--centres={tmp_path / 'c.txt'}", f"--passes={passes}")
    assert command(workdir, folder, out, FLAG, "--skip_unreadable", *more) == 0
    line = lines_of(out)[0]
    assert json.loads((out / "summary.json").read_text())["passes"] == passes
    assert (line["centre_mm"] == line["located_mm"]) == (passes == 1)


def test_lines_are_on_disk_as_soon_as_they_are_added(tmp_path, writer):
    writer.add("0.png", None)
    assert lines_of(tmp_path)[0]["frame"] == "0.png"


def test_lines_wait_until_an_earlier_recording_may_go(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    writer = Writer(tmp_path, skeletons.NYU, CAMERA)
    writer.add("0.png", None)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    writer.open()
    writer.add("1.png", None)
    assert [line["frame"] for line in lines_of(tmp_path)] == ["0.png", "1.png"]
    assert len((tmp_path / "predictions.txt").read_text().splitlines()) == 2
    assert not (tmp_path / "summary.json").exists()


def test_a_summary_has_means_of_shares_and_medians(writer, predictor):
    found = predictor(draw()[0], CAMERA)
    for share, latency, z in ((0.9, 9.0, 700.0), (0.3, 1.0, 500.0), (0.3, 2.0, 900.0)):
        located = np.array([0, 0, z])
        given = {"inside": share, "inside_cube": share / 2, "latency_ms": latency}
        writer.add("0.png", replace(found, located=located, **given))
    summary = writer.close({})
    assert summary["inside_hand"] == pytest.approx(0.5)
    assert summary["inside_hand_about_cube"] == pytest.approx(0.25)
    assert (summary["latency_ms"], summary["distance_mm"]) == (2.0, 700.0)


def test_unreadable_frame_stops_but_keeps_what_was_there(toy, workdir, recording, tmp_path, capsys):
    folder, _ = recording
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:100])
    out = tmp_path / "out"
    message = failure(capsys, workdir, folder, out, FLAG)
    assert "1.png: truncated or unreadable PNG" in message and "1 frames before it" in message
    assert [line["frame"] for line in lines_of(out)] == ["0.png"]
    assert json.loads((out / "summary.json").read_text())["frames"] == 1
    assert command(workdir, folder, out, FLAG, "--skip_unreadable") == 0
    lines = lines_of(out)
    assert len(lines) == 4 and lines[1]["joints_mm"] is None and lines[3]["joints_mm"]
    assert json.loads((out / "summary.json").read_text())["frames_unreadable"] == 1
    assert "skipped: " in capsys.readouterr().err


def test_earlier_results_stay_until_a_frame_was_read(toy, workdir, recording, tmp_path, capsys):
    folder, _ = recording
    out = tmp_path / "out"
    assert command(workdir, folder, out, FLAG) == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    assert "0.png: truncated or unreadable PNG" in failure(capsys, workdir, folder, out, FLAG)
    assert command(workdir, folder, out, FLAG, "--skip_unreadable") == 2
    assert "none of the 4 frames could be read" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert command(workdir, folder, tmp_path / "new", FLAG) == 2
    assert not (tmp_path / "new").exists()


def test_pictures_of_an_earlier_recording_go(toy, workdir, recording, tmp_path):
    folder, _ = recording
    out = tmp_path / "out"
    assert command(workdir, folder, out, FLAG) == 0
    assert (out / "animation.gif").is_file() and len(list((out / "overlays").iterdir())) > 1
    assert command(workdir, folder / "0.png", out, FLAG) == 0
    assert [p.name for p in (out / "overlays").iterdir()] == ["0.png"]
    assert not (out / "animation.gif").exists()


def test_a_recording_among_the_pictures_is_not_replaced(toy, workdir, recording, tmp_path, capsys):
    folder = recording[0].rename(tmp_path / "overlays")
    before = sorted(folder.iterdir())
    for given in (folder, before[0]):
        message = f"--input={given}: pictures of --out={tmp_path} would replace it"
        assert message in failure(capsys, workdir, given, tmp_path, FLAG)
    assert sorted(folder.iterdir()) == before


def test_no_hand_or_another_unit_is_one_line(toy, workdir, recording, tmp_path, capsys):
    folder, _ = recording
    out = tmp_path / "out"
    np.save(tmp_path / "empty.npy", np.zeros((480, 640), np.float32))
    message = failure(capsys, workdir, tmp_path / "empty.npy", out, FLAG)
    assert "none of the 1 frames shows a hand" in message and "empty.npy" in message
    assert not out.exists()
    message = failure(capsys, workdir, folder, out, FLAG, "--depth_unit=0.001")
    assert "0.png: the hand is" in message and "--depth_unit says how many mm" in message
    message = failure(capsys, workdir, folder, out, FLAG, "--depth_unit=inf")
    assert "--depth_unit=inf: expected a positive number" in message


@pytest.mark.parametrize(("unit", "told"), [(1.0, False), (8.0, True)])
def test_a_distance_no_hand_has_is_told(toy, workdir, recording, tmp_path, capsys, unit, told):
    """Depth in eighths of a millimetre, of which nobody was told, is still a hand 5.6 m away."""
    assert command(workdir, recording[0], tmp_path / "out", FLAG, f"--depth_unit={unit}") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["distance_mm"] == pytest.approx(700 * unit, rel=0.01)
    assert summary["depth_unit"] == unit
    printed = capsys.readouterr().out
    assert ("mm from the camera, a count of depth taken for 8 mm" in printed) == told


@pytest.mark.parametrize(
    ("right", "left", "frames", "distance", "told"),
    [
        (0.9, 0.5, 40, 700.0, ""),
        (0.5, 0.9, 40, 700.0, ""),
        (0.9, 0.5, 39, 700.0, "may mislead"),
        (0.90, 0.88, 400, 700.0, "may mislead"),
        (0.88, 0.90, 400, 700.0, "may mislead"),
        (0.9, 0.5, 40, 100.0, "is --depth_unit right"),
    ],
)
def test_what_may_be_wrong_is_told(tmp_path, right, left, frames, distance, told):
    summary = {
        "camera": CAMERA.tolist(), "pixels": (480, 640), "hand": "right", "frames": frames,
        "inside_hand_by_hand": {"right": right, "left": left}, "frames_without_hand": 0,
        "inside_hand": 0.9, "latency_ms": 5.0, "frames_per_second": 100.0,
        "distance_mm": distance, "depth_unit": 1.0, "frames_of_odd_size": 0,
    }  # fmt: skip
    text = report(summary, tmp_path, auto=True)
    for warning in ("may mislead", "is --depth_unit right"):
        assert (warning in text) == (warning == told)


def test_the_cube_can_be_another(toy, workdir, recording, tmp_path, monkeypatch, capsys):
    folder, out = recording[0], tmp_path / "out"
    given = []

    def make_asking(config, skeleton):
        def predict(variables, batch):
            jax.debug.callback(lambda cube: given.append(float(cube[0])), batch["cube"])
            return make_toy(config, skeleton).predict(variables, batch)

        return Method(lambda key: {}, lambda *_: None, predict)

    monkeypatch.setitem(methods.METHODS, "toy", make_asking)
    assert command(workdir, folder / "0.png", out, FLAG, "--cube_mm=208.5") == 0
    jax.effects_barrier()
    assert set(given) == {208.5}
    assert json.loads((out / "summary.json").read_text())["cube_mm"] == 208.5
    told = failure(capsys, workdir, folder, out, FLAG, "--cube_mm=0")
    assert "--cube_mm=0: expected a positive number of mm" in told


def test_models_of_left_hands_ask_which_hand(
    workdir, toy, recording, tmp_path, monkeypatch, capsys
):
    frame, told = recording[0] / "0.png", "the model's data set shows left ones (--hand=left)"
    for left, more in ((False, ()), (True, ()), (True, ("--hand=right",))):
        monkeypatch.setitem(CAMERAS, "nyu", NYU._replace(left=left))
        assert command(workdir, frame, tmp_path / "out", FLAG, *more) == 0
        assert (told in capsys.readouterr().err) == (left and not more)


def test_centres_of_another_kind_than_training_s_are_told(
    toy, variables, recording, tmp_path, monkeypatch, capsys
):
    frame, joints = recording[0] / "0.png", recording[1][0]
    write_centres(tmp_path / "c.txt", joints.mean(0)[None])
    config = make_config()
    monkeypatch.setattr("hpe_jax.training.checkpoints.load_model", lambda _: (config, variables))
    for centre, more, told in (
        ("com", (), False), ("file", (), True), ("gt", (), True),
        ("file", (f"--centres={tmp_path / 'c.txt'}",), False),
    ):  # fmt: skip
        config.data.centre = centre
        assert command("run", frame, tmp_path / "out", FLAG, *more) == 0
        said = capsys.readouterr().err
        assert (f"trained on other centres (data.centre={centre})" in said) == told


def test_what_is_no_hand_by_its_size_is_told(toy, workdir, tmp_path, capsys):
    """A hand, a wall, a pen."""
    folder, out = tmp_path / "frames", tmp_path / "out"
    folder.mkdir()
    save(folder / "0.png", draw()[0])
    save(folder / "1.png", np.full((480, 640), 700.0))
    save(folder / "2.png", np.where(np.abs(np.arange(640) - 300) < 3, draw()[0], 0))
    assert command(workdir, folder, out, FLAG) == 0
    hand, wall, pen = (line["seen_cm2"] for line in lines_of(out))
    # 60 x 120 pixels of palm, 60 x 20 of thumb.
    assert hand == pytest.approx(8400 * 700**2 / 588.03 / 587.07 / 100, abs=0.1)
    assert wall > 300 and 0 < pen < 30
    assert json.loads((out / "summary.json").read_text())["frames_of_odd_size"] == 2
    assert "in 2 frames what was taken for the hand shows less than" in capsys.readouterr().out
    assert command(workdir, folder / "0.png", out, FLAG) == 0
    assert "shows less than" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("camera", "odd"),
    [("588,587,320,240", False), ("0.588,0.587,0.320,0.240", True), ("320,240,588,587", True)],
)
def test_an_odd_camera_is_told(toy, workdir, recording, tmp_path, capsys, camera, odd):
    command(workdir, recording[0], tmp_path / "out", f"--camera={camera}")
    assert ("is odd for 640 x 480 pixels" in capsys.readouterr().out) == odd


def test_a_camera_of_turned_frames_is_told():
    told = doubt((588, 587, 240, 320), (480, 640))
    assert told and "fits frames of 480 x 640 pixels, but these have 640 x 480" in told
    assert doubt((475, 475, 240, 320), (640, 480)) is None
    assert doubt((500, 500, 250, 250), (500, 500)) is None


def test_a_centre_that_is_no_point_of_the_frame_shows_no_hand(predictor):
    frame, joints = draw()
    for centre in ([0, 0, 0], [np.nan, 0, 700], [0, 0, -700], [5000, 0, 700]):
        assert predictor(frame, CAMERA, centre=np.array(centre, np.float32)) is None
    assert predictor(frame, CAMERA, centre=joints.mean(0)) is not None


def test_arguments_that_cannot_be_meant_are_refused(predictor):
    frame, _ = draw()
    for arguments, more, message in (
        ((frame, CAMERA), {"hand": "auto"}, "hand='auto': expected right or left"),
        ((frame, CAMERA[:3]), {}, r"camera \(3,\): expected \(H, W\) and \(4,\)"),
        ((frame[None], CAMERA), {}, r"depth \(1, 480, 640\)"),
        ((frame[:0], CAMERA), {}, r"depth \(0, 640\)"),
        ((frame, CAMERA * [1, -1, 1, 1]), {}, "camera .*: expected .* fx and fy positive"),
        ((frame, CAMERA * [np.nan, 1, 1, 1]), {}, "camera .nan, .*: expected fx, fy, cx, cy"),
        ((frame, CAMERA), {"passes": 0}, "passes=0: expected 1 or 2"),
        ((frame, CAMERA), {"centre": (0, 0)}, r"centre \(2,\): expected \(3,\)"),
        ((frame / 1000, CAMERA), {}, "expected 50 to 10000; depth must be in mm, is it in metres"),
        ((frame / 20, CAMERA), {}, "expected 50 to 10000; depth must be in mm$"),
    ):
        with pytest.raises(InputError, match=message):
            predictor(*arguments, **more)
    holes = np.where(frame > 0, frame, np.nan)
    np.testing.assert_array_equal(predictor(holes, CAMERA).joints, predictor(frame, CAMERA).joints)


def test_pictures_are_the_hand_s_cube(toy, workdir, recording, tmp_path):
    """Of one size whatever the recording, and filled by the hand."""
    out = tmp_path / "out"
    assert command(workdir, recording[0], out, FLAG) == 0
    for path in (out / "overlays").iterdir():
        with Image.open(path) as picture:
            assert picture.size == (512, 512)
            lit = np.asarray(picture).max(-1) > 60
        # The drawn hand is 120 pixels of 210 high and 120 wide.
        assert 0.5 < np.ptp(np.nonzero(lit)[0]) / 512 < 0.75


def test_frames_of_another_size(toy, workdir, recording, tmp_path, capsys):
    folder, _ = recording
    save(folder / "3.png", np.ones((100, 100)))
    message = failure(capsys, workdir, folder, tmp_path / "out", FLAG)
    assert "3.png: the frame is 100 x 100 pixels, expected 640 x 480" in message


def test_bad_arguments(toy, workdir, recording, tmp_path, capsys):
    folder, out = recording[0], tmp_path / "out"
    for arguments, expected in [
        ((workdir, folder, out, "--camera=588.03,-587.07,320,240"), "y points down here"),
        ((workdir, folder, out, "--camera=588.03,587.07,320"), "expected four numbers"),
        ((workdir, folder, out, "--camera=588.03,x,320,240"), "expected four numbers"),
        ((workdir, folder, out), "--camera: missing"),
        ((workdir, folder, out, FLAG, "--depth_unit=0"), "expected a positive number"),
        ((workdir, folder, out, FLAG, "--hand=both"), "--hand=both"),
        ((workdir, folder, out, FLAG, "--artifact=a"), "not built yet"),
        ((workdir, folder, out, FLAG, "stray"), "stray: unexpected"),
        ((workdir, folder, out, FLAG, "--passes=3"), "passes"),
        ((workdir, tmp_path / "none", out, FLAG), "none: no such file or directory"),
        ((tmp_path, folder, out, FLAG), "no checkpoints/"),
    ]:
        assert expected in failure(capsys, *arguments)
    assert not out.exists()


def test_ctrl_c_keeps_what_was_predicted(toy, workdir, recording, tmp_path, capsys, monkeypatch):
    # In truth the process ends by the signal, which `test_main` sees.
    monkeypatch.setattr(command_module, "interrupted", command_module.fail)

    def read(path, **given):
        if path.name == "3.png":
            raise KeyboardInterrupt
        return read_depth(path, **given)

    monkeypatch.setattr(depth_io, "read_depth", read)
    out = tmp_path / "out"
    command(workdir, recording[0], out, FLAG)
    told = capsys.readouterr().err
    assert told == f"error: interrupted; the 3 frames before it are in {out}\n"
    assert len(lines_of(out)) == 3 == json.loads((out / "summary.json").read_text())["frames"]


def test_help_needs_no_accelerator():
    root = Path(__file__).resolve().parents[1]
    code = (
        "import sys; from hpe_jax.predict import main; status = main(['predict', '--help']);"
        "sys.exit(status or ('jax' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "--camera" in done.stdout


def test_both_hands_are_looked_for_in_one_place(toy, variables):
    """Nothing about where the hand is may depend on which hand it is taken for."""
    rng = np.random.default_rng(0)
    # Noise that makes other pixels the nearest in a mirrored, decimated frame.
    frame = np.where(rng.random((480, WIDTH)) < 0.5, 0, rng.uniform(600, 1500, (480, WIDTH)))
    predictor = Predictor(make_config(), variables)
    right, left = (predictor(frame.astype(np.float32), CAMERA, hand=h) for h in ("right", "left"))
    np.testing.assert_allclose(right.centre, left.centre, atol=1e-3)


def centre_run(folder, offset, **data):
    """A run whose "network" moves the centre it is given by `offset`."""
    config = make_config()
    config.data.update(data)
    weights = {"params": {"offsets": jnp.asarray(offset, jnp.float32)[None]}}
    state = {"step": jnp.zeros((), jnp.int32), **weights, "rest": {}, "opt_state": {}, "ema": {}}
    info = {"step": 1, "config": config.to_dict(), "source": "synthetic-nyu"}
    with Checkpoints(folder / "checkpoints", 1) as checkpoints:
        checkpoints.save(state, info)
    return str(folder)


def test_a_network_refines_the_centre(toy, variables, tmp_path):
    model = centre_run(tmp_path / "centre", [5.0, 0.0, 8.0], target="centre")
    frame, _ = draw()
    rough = Predictor(make_config(), variables)(frame, CAMERA)
    predictor = Predictor(make_config(), variables, model)
    assert predictor.centre_source == "refined"
    found = predictor(frame, CAMERA)
    np.testing.assert_allclose(found.centre - rough.centre, [5.0, 0.0, 8.0], atol=1e-3)
    np.testing.assert_allclose(found.located, rough.located)
    # The network knows right hands: a left one's x is mirrored for it and back.
    left = predictor(frame, CAMERA, hand="left")
    np.testing.assert_allclose(left.centre - rough.centre, [-5.0, 0.0, 8.0], atol=0.6)
    given = predictor(frame, CAMERA, centre=rough.centre)
    np.testing.assert_allclose(given.centre, rough.centre)


def test_given_centres_are_no_network_s(toy, variables, recording, tmp_path):
    folder, shown = recording
    model = centre_run(tmp_path / "centre", [0.0] * 3, target="centre")
    predictor, out = Predictor(make_config(), variables, model), tmp_path / "out"
    centres = shown[0].mean(0)[None]
    summary = predict.predict_frames(predictor, [folder / "0.png"], CAMERA, out, centres=centres)
    assert (summary["centre"], summary["centre_model"]) == ("file", None)


def test_centre_models_that_do_not_fit(toy, variables, tmp_path, workdir, recording, capsys):
    frames, _ = recording
    assert command(workdir, frames, tmp_path / "o", FLAG, f"--centre_model={workdir}") == 2
    assert "expected a run that finds hand centres" in capsys.readouterr().err
    for name, value, expected in (("cube_mm", 200.0, 250.0), ("dataset", "icvl", "nyu")):
        other = centre_run(tmp_path / name, [0.0] * 3, target="centre", **{name: value})
        assert command(workdir, frames, tmp_path / "o", FLAG, f"--centre_model={other}") == 2
        assert f"data.{name}={value}, expected {expected}" in capsys.readouterr().err
    good = centre_run(tmp_path / "good", [0.0] * 3, target="centre")
    assert command(workdir, frames, tmp_path / "o", FLAG, f"--centre_model={good}") == 0
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["centre"], summary["centre_model"]) == ("refined", good)


def test_the_centre_model_of_the_training_has_moved(toy, variables, tmp_path):
    config = make_config()
    config.data.centre, config.data.centre_model = "refined", str(tmp_path / "gone")
    with pytest.raises(InputError, match=r"trained on .*gone.*--centre_model=DIR names another"):
        Predictor(config, variables)


@pytest.mark.parametrize(
    ("config", "field", "match"),
    [
        ("hand3d_nyu:quick", "refine", "this hand3d estimates no joints; .* the last one"),
        ("hourglass3d_nyu:quick_b5", "", "this hourglass3d estimates no depth, only x and y"),
    ],
)
def test_methods_that_estimate_no_joints_in_space_are_refused(config, field, match):
    name, _, variant = config.partition(":")
    given = importlib.import_module(f"configs.{name}").get_config(variant)
    with pytest.raises(InputError, match=match):
        Predictor(given.stages[field] if field else given, {})


def test_a_detector_decides_where_the_hand_is(toy, variables, tmp_path):
    """Also where something else is nearer, and for both hands."""
    frame, _ = draw()
    hand = Predictor(make_config(), variables)(frame, CAMERA)
    model = centre_run(tmp_path / "d", [0.0] * 3, whole=True)
    predictor = Predictor(make_config(), variables, model)
    # This "network" adds nothing to the centre it is given, and a detector is given none.
    assert predictor(frame, CAMERA) is None
    predictor._centre = lambda batch: jnp.asarray(hand.centre)[None]
    frame[400:, 500:] = 400.0
    found = predictor(frame, CAMERA)
    np.testing.assert_allclose(found.located, hand.located, atol=1e-3)
    assert found.inside == pytest.approx(hand.inside)
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    left = predictor(mirrored, np.asarray(mirror_camera(CAMERA, WIDTH)), hand="left")
    np.testing.assert_allclose(left.located, mirror_x(hand.located), atol=1e-3)
    assert left.inside == pytest.approx(hand.inside)


def test_what_finds_centres_is_no_model_of_joints(toy, tmp_path, recording, capsys):
    frames, _ = recording
    for name, data in (("detector", {"whole": True}), ("network", {"target": "centre"})):
        model = centre_run(tmp_path / name, [0.0] * 3, **data)
        assert command(model, frames, tmp_path / "o", FLAG) == 2
        assert "this one is for --centre_model" in capsys.readouterr().err
    both = ("--centres=x.txt", f"--centre_model={model}")
    assert command(model, frames, tmp_path / "o", FLAG, *both) == 2
    assert "expected one of them" in capsys.readouterr().err
