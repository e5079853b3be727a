"""Making data sets: the same bytes whatever happens, and nothing of somebody else's touched."""

from __future__ import annotations

import os
import resource
import shutil
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from hpe_jax.datasets import making
from hpe_jax.datasets.made import to_tenths
from hpe_jax.defaults import experiment
from hpe_jax.errors import InputError

FRAMES, SHARDS = 50, 3


def recipe(seed=0, frames=FRAMES, shards=SHARDS, **changes):
    data = experiment("nyu").data
    data.patch = 32
    data.update(changes)
    return making.make_recipe(data, seed, frames, shards)


def make(out, of):
    for shard in making.prepare(out, of):
        making.make_shard(out, of, shard)
    making.finish(out, of)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made") / "set", recipe())


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    return tmp_path / "set"


def test_tfds_opens_it_and_reads_the_frames_that_are_rendered(whole):
    builder = tfds.builder_from_directory(whole)
    assert builder.info.name == "synthetic_nyu"
    assert builder.info.splits["train"].shard_lengths == [16, 17, 17]
    frames = builder.as_data_source("train")
    assert len(frames) == FRAMES and "tensorflow" not in sys.modules

    source, step = making._renderer(recipe())
    for numbers in (recipe().range(shard) for shard in range(SHARDS)):
        filled = np.minimum(np.arange(numbers.start, numbers.start + making.BATCH), numbers[-1])
        batch = jax.device_get(step(source.load(filled)))
        for row, number in enumerate(numbers):
            assert set(frames[number]) == set(batch)
            for name, value in frames[number].items():
                if name == "depth":
                    assert value.dtype == np.uint16 and (value > 0).sum() > 20
                    assert np.abs(value / 10 - batch[name][row]).max() < 0.0501
                    np.testing.assert_array_equal(value == 0, batch[name][row] == 0)
                else:
                    np.testing.assert_array_equal(value, batch[name][row])


def test_same_seed_same_bytes(whole, tmp_path):
    assert contents(make(tmp_path / "again", recipe())) == contents(whole)
    other = contents(make(tmp_path / "other", recipe(seed=1)))
    shards = [name for name in other if "array_record" in name]
    assert len(shards) == SHARDS
    assert all(other[name] != contents(whole)[name] for name in shards)


def test_an_interrupted_making_continues_to_the_same_bytes(whole, tmp_path):
    out = tmp_path / "set"
    assert making.prepare(out, recipe()) == [0, 1, 2]
    making.make_shard(out, recipe(), 1)

    def interrupt(frames):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        making.make_shard(out, recipe(), 2, interrupt)
    # What a process leaves that had no time to tidy up.
    (out / f".{recipe().path(out, 0).name}.1{making._TEMPORARY}").write_bytes(b"half a shard")
    (out / f".metadata.1{making._TEMPORARY}").mkdir()
    assert not recipe().path(out, 2).exists()
    assert making.prepare(out, recipe()) == [0, 2]
    making.clear(out)
    assert contents(make(out, recipe())) == contents(whole)


def test_a_whole_set_is_left_as_it_is(copy, whole):
    assert making.prepare(copy, recipe()) == []
    assert contents(make(copy, recipe())) == contents(whole)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_shard_is_named(copy, whole, damage):
    path = recipe().path(copy, 1)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        # The last record begins behind the middle of what is not padding.
        used = len(bytes(content[: len(content) // 2]).rstrip(b"\0"))
        content[used // 2] ^= 1
    path.write_bytes(content[: {"cut": len(content) // 2, "flipped": None, "emptied": 0}[damage]])
    with pytest.raises(InputError, match=f"{path.name}: .*removing the file"):
        making.prepare(copy, recipe())
    path.unlink()
    assert contents(make(copy, recipe())) == contents(whole)


def test_frames_that_come_out_otherwise_are_not_mixed(copy, tmp_path):
    make(tmp_path / "other", recipe(seed=1))
    shutil.copy(recipe().path(tmp_path / "other", 0), recipe().path(copy, 0))
    recipe().path(copy, 1).unlink()
    with pytest.raises(InputError, match="00000-of-00003: its frame 0 is not what this machine"):
        making.prepare(copy, recipe())


def test_another_data_set_is_refused_and_kept(copy, whole, tmp_path):
    for of, message in (
        (recipe(seed=1), r"config.json: another data set, seed is 0 there, 1 here"),
        (recipe(frames=51), "frames is 50 there, 51 here"),
        (recipe(shards=4), "shards is 3 there, 4 here"),
        (recipe(cube_mm=200.0), "data.cube_mm is 250.0 there, 200.0 here"),
    ):
        with pytest.raises(InputError, match=message):
            making.prepare(copy, of)
    assert contents(copy) == contents(whole)
    foreign = tmp_path / "run"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"seed": 0}\n')
    with pytest.raises(InputError, match="run: holds 'config.json', expected no folder"):
        making.prepare(foreign, recipe())
    assert contents(foreign) == {"config.json": b'{"seed": 0}\n'}


def test_files_that_the_config_names_belong_to_the_recipe(tmp_path):
    one, two = tmp_path / "angles.npz", tmp_path / "more.npz"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    data = experiment("nyu").data
    with data.unlocked():
        data.synthetic.some_files = f"{one},{two}"
    of = making.make_recipe(data, 0, FRAMES, SHARDS)
    making.prepare(tmp_path / "set", of)
    two.write_bytes(b"other")
    with pytest.raises(InputError, match=r"another data set, made_with.sha256.*more.npz"):
        making.prepare(tmp_path / "set", of)


def test_a_full_disk_leaves_no_part_of_a_shard(whole, tmp_path):
    out, of = tmp_path / "set", recipe()
    making.prepare(out, of)
    making.make_shard(out, of, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=f"write.*{of.path(out, 1).name}"):
            making.make_shard(out, of, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in out.iterdir()} == {"config.json", of.path(out, 0).name}
    with pytest.raises(InputError, match="00001-of-00003: missing, expected 3 shards"):
        making.finish(out, of)
    assert contents(make(out, of)) == contents(whole)


def test_what_says_that_it_is_whole_comes_last(tmp_path, monkeypatch):
    """A shard has its name once it is on the disk, and a set its dataset_info.json in the end."""
    out, of, events = tmp_path / "set", recipe(frames=2, shards=1), []
    making.prepare(out, of)

    def told(name, real):
        return lambda *given: (events.append(name), real(*given))[1]

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(making.os, name, told(name, getattr(os, name)))
        making.make_shard(out, of, 0)
    assert events == ["fsync", "replace"]

    names, write = [], making.write_atomic

    def named(path, content):
        names.append(path.name)
        write(path, content)

    monkeypatch.setattr(making, "write_atomic", named)
    making.finish(out, of)
    assert len(names) == 3 and names[-1] == "dataset_info.json"


def test_tenths_of_a_millimetre():
    depth = np.array([[0.0, 0.04, 712.34, 6553.5]], np.float32)
    np.testing.assert_array_equal(to_tenths(depth), [[0, 0, 7123, 65535]])
    for bad in (6553.6, -1.0, np.nan):
        with pytest.raises(InputError, match="expected 0 to 6553.5 mm"):
            to_tenths(np.full((1, 1), bad, np.float32))


def test_bad_numbers_are_refused():
    for changes, message in (
        ({"frames": 0}, "--frames=0: expected at least 1"),
        ({"seed": -1}, "--seed=-1: expected at least 0"),
        ({"shards": 51}, "--shards=51: expected 1 to 50"),
        ({"root": "somewhere"}, "data.root=somewhere: frames are rendered"),
        ({"centre": "refined"}, "synthetic hands offer com, gt and file"),
    ):
        with pytest.raises(InputError, match=message):
            recipe(**changes)
    assert recipe(frames=3000, shards=0).shards == 3
    assert recipe(frames=10**6, shards=0).shards == making.MOST_SHARDS
