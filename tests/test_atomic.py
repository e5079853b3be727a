"""Writing is all or nothing."""

from __future__ import annotations

import os

import pytest

from hpe_jax import atomic
from hpe_jax.atomic import write_atomic


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new" * 1000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    sizes, fsync = [], os.fsync

    def measured(number):
        sizes.append(os.fstat(number).st_size)
        fsync(number)

    monkeypatch.setattr(atomic.os, "fsync", measured)
    write_atomic(tmp_path / "a.txt", "some content")
    assert sizes == [12]


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "deep" / "er" / "a.bin"
    write_atomic(path, b"1")
    write_atomic(path, b"22")
    assert path.read_bytes() == b"22"
