"""How long work says how far it is."""

from __future__ import annotations

import pytest

from hpe_jax import progress
from hpe_jax.progress import Rate, Status
from hpe_jax.training.progress import Clock


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test lets them."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def sleep(seconds):
        now[0] += seconds

    return sleep


def test_rate_counts_from_the_first_look(clock):
    rate = Rate(7301, 100)
    clock(50.0)  # compiling
    assert rate.text() == "100/7,301 frames"
    clock(2.0)
    assert rate.text(1) == "101/7,301 frames, 0.5 frames/s, 4:00:00 left"
    rate.done = 300
    assert rate.text() == "300/7,301 frames, 100.0 frames/s, 0:01:10 left"


def test_updates_per_second_are_not_those_of_the_tests_between_them(clock):
    training = Clock(batch=8, steps=300, start=100)
    clock(50.0)  # compiling
    training.begin()
    clock(10.0)
    with training.paused():
        clock(90.0)
    clock(10.0)
    assert training.text(200, {}) == "step 200/300, 40.0 examples/s, 0:00:20 left"
    assert training.seconds() == 160.0


def test_elsewhere_than_on_terminals_a_line_stays_now_and_then(clock, capsys):
    status = Status()
    for i in range(100):
        status.show(str(i))
        clock(1.0)
        if i == 40:
            status.line("a line")
    status.clear()
    assert capsys.readouterr().out.split("\n") == ["30", "a line", "71", ""]

    kept = []
    status = Status(kept.append)
    clock(progress.EVERY_LINE_S)
    status.show("half a minute")
    assert kept == ["half a minute"] and capsys.readouterr().out == ""


def test_on_terminals_the_next_replaces_the_last(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress.sys.stdout, "isatty", lambda: True, raising=False)
    status = Status()
    for i in range(10):
        clock(0.125)
        status.show(str(i))
    status.line("a line")
    status.show("too soon")
    clock(1.0)
    status.show("last")
    status.clear()
    back = "\r\x1b[K"
    shown = "".join(back + i for i in "13579")
    assert capsys.readouterr().out == f"{shown}{back}a line\n{back}last{back}"
