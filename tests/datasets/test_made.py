"""Training frames from a made data set: as they were made, with the experiment's own jitter."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pytest
from small_v2v import make_config, make_noise_source

from hpe_jax.datasets import made, make_source, making
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.training import loop

FRAMES = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    recipe = making.make_recipe(make_config(1).data, 0, FRAMES, 2)
    for shard in making.prepare(out, recipe):
        making.make_shard(out, recipe, shard)
    making.finish(out, recipe)
    return out


@pytest.fixture
def copy(root, tmp_path):
    shutil.copytree(root, tmp_path / "set")
    return tmp_path / "set"


def config(root, **changes):
    data = make_config(1).data
    data.root, data.centre_jitter_mm = str(root), 0.0
    data.update(changes)
    return data


def batch(source, numbers):
    return jax.device_get(jax.jit(source.expand)(source.load(np.asarray(numbers))))


def test_its_frames_are_the_rendered_ones(root):
    source = make_source(config(root), "train", 5)
    assert source.synthetic and source.size == FRAMES and source.centre == "com"
    rendered = make_source(config(""), "train", 0)
    numbers = [39, 3, 20, 3]
    a, b = batch(source, numbers), batch(rendered, numbers)
    assert set(a) == set(b)
    for name in a:
        assert a[name].shape == b[name].shape and a[name].dtype == b[name].dtype, name
        # Rendered in batches of another size, which has other last bits.
        np.testing.assert_allclose(a[name], b[name], atol=0.0502 if name == "depth" else 2e-3)
    np.testing.assert_array_equal(a["joints"][1], a["joints"][3])


def test_every_epoch_has_its_own_jitter(root):
    plain = batch(make_source(config(root), "train", 0), np.arange(FRAMES))
    jittered = make_source(config(root, centre_jitter_mm=10.0), "train", 0)
    numbers = np.arange(20 * FRAMES)
    one = batch(jittered, numbers)
    moved = one["centre"] - np.tile(plain["centre"], (20, 1))
    assert 9.0 < moved.std() < 11.0 and np.abs(moved.mean()) < 1.0
    assert len(np.unique(moved.round(3), axis=0)) == 20 * FRAMES
    np.testing.assert_array_equal(one["depth"][:FRAMES], plain["depth"])
    # A function of (seed, number), in whatever order.
    np.testing.assert_array_equal(batch(jittered, [777])["centre"][0], one["centre"][777])
    other = make_source(config(root, centre_jitter_mm=10.0), "train", 1)
    assert (batch(other, [777])["centre"][0] != one["centre"][777]).any()


def test_the_test_split_is_the_built_in_one(root):
    ours, built_in = (make_source(config(r), "test", 0) for r in (root, ""))
    assert ours.name == "synthetic-nyu" and ours.size == built_in.size
    # Joints follow from (split, index) alone, and need no depth to be compiled.
    a, b = (jax.jit(lambda d, s=s: s.expand(d)["joints"])(s.load(np.array([1, 2])))
            for s in (ours, built_in))  # fmt: skip
    np.testing.assert_array_equal(a, b)


def test_one_joint_for_centre_networks(root):
    out = batch(make_source(config(root, target="centre"), "train", 0), [0, 1])
    assert out["joints"].shape == (2, 1, 3) and out["joint_valid"].all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "icvl"}, "made with data.dataset=nyu, the experiment has data.dataset=icvl"),
        (
            {"extent_mm": 300.0},
            "made with data.extent_mm=.*, .* data.extent_mm=300",
        ),
        ({"patch": 64}, "made with data.patch=32, the experiment has data.patch=64"),
        ({"cube_mm": 200.0}, "made with data.cube_mm=250.0, the experiment has data.cube_mm=200"),
        ({"centre": "gt"}, "made with data.centre=com, the experiment has data.centre=gt"),
        ({"whole": True}, "made with data.whole=False, the experiment has data.whole=True"),
    ],
)
def test_what_does_not_fit_is_refused(root, changes, message):
    with pytest.raises(InputError, match=f"{root.name}/config.json: {message}"):
        make_source(config(root, **changes), "train", 0)


def test_poses_are_those_that_it_was_made_of(root):
    data = config(root)
    with data.unlocked():
        data.synthetic.poses = "angles.npz"
    with pytest.raises(InputError, match="made with data.synthetic.poses='', .* 'angles.npz'"):
        make_source(data, "train", 0)


def test_clean_depth_must_have_been_made(root):
    data = config(root)
    data.synthetic.clean = True
    with pytest.raises(InputError, match="holds no depth before the sensor"):
        make_source(data, "train", 0)


def test_clean_depth_is_stored_like_depth(tmp_path):
    data = config("")
    data.synthetic.clean = True
    recipe = making.make_recipe(data, 0, 4, 1)
    making.prepare(tmp_path, recipe)
    making.make_shard(tmp_path, recipe, 0)
    making.finish(tmp_path, recipe)
    rendered = batch(make_source(data, "train", 0), np.arange(4))
    data.root = str(tmp_path)
    stored = batch(make_source(data, "train", 0), np.arange(4))
    np.testing.assert_allclose(stored["clean"], rendered["clean"], atol=0.0502)
    assert (stored["clean"] != stored["depth"]).any()
    assert "clean" not in batch(make_source(config(tmp_path), "train", 0), np.arange(4))


def test_an_unfinished_set_is_refused(copy):
    (copy / "dataset_info.json").unlink()
    made.read_recipe(made.read_config(copy)).path(copy, 1).unlink()
    with pytest.raises(InputError, match="set: unfinished, 1 of 2 shards"):
        make_source(config(copy), "train", 0)


def test_damage_is_named(copy):
    first, second = made.read_recipe(made.read_config(copy)).paths(copy)
    content = bytearray(second.read_bytes())
    middle = len(bytes(content[: len(content) // 2]).rstrip(b"\0")) // 2
    content[middle - 2000 : middle + 2000] = bytes(4000)
    second.write_bytes(content)
    source = make_source(config(copy), "train", 0)
    with pytest.raises(InputError, match="00001-of-00002: frame .* cannot be read"):
        source.load(np.arange(FRAMES))
    second.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{second.name}: {len(content) - 1} bytes, expected"):
        make_source(config(copy), "train", 0)
    second.unlink()
    with pytest.raises(InputError, match=f"{second.name}: missing, expected"):
        make_source(config(copy), "train", 0)
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="dataset_info.json: .*expected what hpe_jax"):
        make_source(config(copy), "train", 0)


def test_a_model_trains_on_it_and_goes_on_with_nothing_else(root, tmp_path):
    def train(steps, workdir):
        full = make_config(steps)
        full.data.root = str(root)
        source = make_source(full.data, "train", full.seed)
        method = METHODS["v2v"](full.method, SKELETONS["nyu"])
        return loop.train(full, workdir, method, source, make_noise_source())

    def losses(workdir):
        return (workdir / "history.jsonl").read_text().splitlines()

    metrics = train(6, tmp_path / "one")
    assert np.isfinite(metrics["mean_error_mm"]) and metrics["examples_seen"] == 48
    rows = losses(tmp_path / "one")
    assert len(rows) >= 6  # 48 examples are more than an epoch
    train(6, tmp_path / "two")
    assert losses(tmp_path / "two") == rows
    rendered = make_config(6)
    source = make_source(rendered.data, "train", rendered.seed)
    method = METHODS["v2v"](rendered.method, SKELETONS["nyu"])
    named = "trained on synthetic-nyu .40 frames of seed 0, recipe [0-9a-f]{6}., not"
    with pytest.raises(InputError, match=named):
        loop.train(rendered, tmp_path / "one", method, source, make_noise_source())
