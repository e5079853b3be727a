"""Log, history and TensorBoard, on full disks too."""

from __future__ import annotations

import json
import logging
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from hpe_jax.errors import InputError, one_line
from hpe_jax.training.console import Board, History, Log, Stop, warnings_heard


@pytest.mark.parametrize("torn", ['{"step": 40, "lo', "{}", "4"])
def test_history_forgets_what_a_resumed_run_repeats(tmp_path, torn):
    path = tmp_path / "history.jsonl"
    rows = [{"step": s, "loss": 1.0 / s} for s in (10, 20, 30)]
    path.write_text("\n".join([json.dumps(rows[0]), torn, *map(json.dumps, rows[1:]), torn]))
    history = History(path, 20)
    history.add({"step": 30, "loss": 0.5})
    assert [json.loads(x) for x in path.read_text().splitlines()] == history.rows
    assert history.rows == [*rows[:2], {"step": 30, "loss": 0.5}]


def test_warnings_of_the_library_reach_the_log(tmp_path):
    with Log(tmp_path / "log.txt") as log:
        log.line("begins")
        logging.getLogger("hpe_jax.datasets.nyu").warning("skipped frame %d", 3)
    logging.getLogger("hpe_jax.datasets.nyu").warning("too late")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["begins", "warning: skipped frame 3"]


def test_warnings_are_not_printed_once_more_by_others(tmp_path, caplog):
    with Log(tmp_path / "log.txt"):
        logging.getLogger("hpe_jax.datasets.nyu").warning("skipped")
    assert not caplog.records
    logging.getLogger("hpe_jax.datasets.nyu").warning("nobody hears")
    assert caplog.messages == ["nobody hears"]


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signals_wait_for_what_is_saved(number, end, capfd):
    with Stop() as stop:
        signal.raise_signal(number)
        assert stop.requested
        # A second one, of either kind, is not waited for.
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        with pytest.raises(end) as error:
            stop.saved()
    assert getattr(error.value, "code", None) in (None, 0)
    told = capfd.readouterr().err.split("\n\n")
    assert told[0] == "\nstopping as soon as this step is saved; a second signal stops at once"
    assert told[1] == "stopping before the test is done; the same command does it\n"
    with Stop() as stop:
        stop.saved()
        with pytest.raises(end):
            signal.raise_signal(number)


def test_signals_wait_again_for_what_is_not_saved():
    with Stop() as stop:
        stop.saved()
        stop.resumed()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_what_tensorboard_has_of_the_step_of_a_resume_stays(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "hpe_jax.training.console.SummaryWriter",
        lambda *given, **named: made.append(named["purge_step"]) or SummaryWriter(*given, **named),
    )
    with Board(tmp_path) as board:
        board.start = 20
        board.scalars(20, {"loss": 1.0}, "test")
        board.picture(20, None, "nothing")
    assert made == [21]


def test_only_ctrl_c_ends_more_than_the_run():
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.leave()
    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        stop.leave()


def test_warnings_before_there_is_a_log_are_kept():
    with warnings_heard() as heard:
        logging.getLogger("hpe_jax.datasets.labels").warning("%d labels left out", 3)
    logging.getLogger("hpe_jax.datasets.labels").warning("too late")
    assert heard == ["3 labels left out"]


def test_two_runs_in_one_directory_are_refused(tmp_path):
    with (
        Log(tmp_path / "log.txt"),
        pytest.raises(InputError, match="another process is at work there, expected another"),
    ):
        Log(tmp_path / "log.txt")
    with Log(tmp_path / "log.txt"):
        pass


def test_a_dead_writer_of_tensorboard_does_not_hang(tmp_path, caplog, capsys):
    with Board(tmp_path / "tensorboard") as board:
        board.scalars(1, {"loss": 1.0}, "train")
        # The thread fails as on a full disk: whatever it takes next cannot be written.
        assert board._writer is not None and board._thread is not None

        def fail(*_):
            raise OSError(28, "No space left on device")

        board._writer.file_writer.event_writer._ev_writer.write_event = fail
        image = np.zeros((256, 256, 3), np.uint8)
        for step in range(2, 60):
            board.picture(step, image, "picture")
            board.scalars(step, {"loss": 1.0}, "train")
            time.sleep(0.01)
        assert not board._thread.is_alive()
    assert caplog.text.count("cannot be written any more") == 1
    assert "No space left" in caplog.text and "Traceback" not in capsys.readouterr().err


def test_full_disks_name_the_file(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full, a file on a full disk")
    (tmp_path / "log.txt").symlink_to(full)
    with Log(tmp_path / "log.txt") as log, pytest.raises(OSError) as error:
        log.line("something")
    assert one_line(error.value) == f"{tmp_path / 'log.txt'}: No space left on device"
    history = History(tmp_path / "history.jsonl", 0)
    (tmp_path / "history.jsonl").unlink()
    (tmp_path / "history.jsonl").symlink_to(full)
    with pytest.raises(OSError) as error:
        history.add({"step": 1})
    assert one_line(error.value) == f"{tmp_path / 'history.jsonl'}: No space left on device"
