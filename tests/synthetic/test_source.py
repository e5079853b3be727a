"""Synthetic frames: deterministic, inside the contract, plausible, and unlike the test split."""

import functools

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from hpe_jax import camera as cameras
from hpe_jax.datasets.msra import read_labels
from hpe_jax.datasets.patches import find_hand
from hpe_jax.errors import InputError
from hpe_jax.hand.kinematics import FINGER_LIMITS, THUMB_LIMITS, palm_points
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.kernels.localise import localise
from hpe_jax.metrics.files import read_joints
from hpe_jax.metrics.inside import inside_hand
from hpe_jax.metrics.protocols import PROTOCOLS, to_xyz
from hpe_jax.synthetic import frame, make_source, poses
from hpe_jax.synthetic.mesh import HandMesh


def config(**changes):
    data = dict(
        dataset="nyu",
        centre="com",
        cube_mm=250.0,
        patch=64,
        extent_mm=340.0,
        centre_jitter_mm=5.0,
        synthetic=dict(sensor=True, forearm=True),
    )
    return ConfigDict(data | changes)


@functools.cache
def expander(split="train", seed=0, dataset="nyu", sensor=True, forearm=True, **synthetic):
    """A source and its compiled expansion: most of these tests' time is compiling it."""
    synthetic |= {"sensor": sensor, "forearm": forearm}
    source = make_source(config(dataset=dataset, synthetic=synthetic), split, seed)
    return source, jax.jit(source.expand)


def frames(indices=range(24), split="train", **changes):
    """So many of `expander`'s frames, always in batches of 8, so that all share a compilation."""
    source, expand = expander(split, **changes)
    pieces = np.resize(np.asarray(indices), (-(-len(indices) // 8), 8))
    found = [expand(source.load(piece)) for piece in pieces]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(indices)], *found)


def test_contract():
    batch = frames()
    shapes = {k: v.shape for k, v in batch.items()}
    assert shapes == {
        "depth": (24, 64, 64),
        "corner": (24, 2),
        "camera": (24, 4),
        "centre": (24, 3),
        "joints": (24, 14, 3),
        "joint_valid": (24, 14),
        "cube": (24,),
    }
    assert all(np.isfinite(v).all() for v in batch.values())
    assert (batch["depth"] >= 0).all() and ((batch["depth"] > 0).sum((1, 2)) > 100).all()


def test_joints_lie_on_the_rendered_hand():
    """Most joints project onto the depth image, a little behind the surface or hidden by it.

    Without the sensor's faults: they put readings at silhouettes behind the joints there.
    """
    batch = frames(sensor=False)
    behind = []
    for i in range(24):
        uvd = cameras.xyz_to_uvd(batch["joints"][i], batch["camera"][i])
        pixel = np.round(uvd[:, :2] - batch["corner"][i]).astype(int)
        ok = ((pixel >= 0) & (pixel < 64)).all(1)
        depth = batch["depth"][i][pixel[ok, 1], pixel[ok, 0]]
        behind.append((uvd[ok, 2] - depth)[depth > 0])
    behind = np.concatenate(behind)
    assert len(behind) > 0.8 * 24 * 14
    assert (behind > -8).mean() > 0.97
    assert 2 < np.median(behind) < 25


def test_frames_depend_on_seed_and_index_alone():
    a, b = frames(range(8)), frames([5, 4, 3, 2, 1, 0, 6, 7])
    np.testing.assert_array_equal(a["depth"][5], b["depth"][0])
    np.testing.assert_array_equal(a["joints"][2], b["joints"][3])
    other = make_source(config(), "train", 1)
    joints = jax.jit(lambda loaded: other.expand(loaded)["joints"])(other.load(np.arange(8)))
    assert np.abs(a["joints"] - np.asarray(joints)).max() > 1


def test_the_test_split_is_fixed_and_has_no_jitter():
    assert expander("test")[0].size == 2048 and expander()[0].size is None
    a, b = frames(range(8), "test"), frames(range(8), "test", seed=9)
    np.testing.assert_array_equal(a["depth"], b["depth"])
    np.testing.assert_array_equal(a["centre"], b["centre"])


def test_test_subjects_have_shorter_or_longer_hands_than_any_in_training():
    """Measured on the pivots of a posed hand, from the wrist along the middle finger."""
    keys = jax.random.split(jax.random.key(0), 500)

    def lengths(held_out, proportions):
        def one(key):
            shape = poses.sample_shape(key, held_out, proportions)
            middle = palm_points(shape, jnp.zeros((4, 4)), jnp.zeros(5))[2]
            steps = jnp.diff(jnp.concatenate([jnp.zeros((1, 3)), middle]), axis=0)
            return jnp.linalg.norm(steps, axis=-1).sum()

        return np.asarray(jax.jit(jax.vmap(one))(keys))

    test = lengths(True, "usual")
    for train in (lengths(False, "usual"), lengths(False, "wide")):
        assert not ((test > train.min()) & (test < train.max())).any()
        assert (test < train.min()).mean() > 0.3 and (test > train.max()).mean() > 0.3
        assert 155 < train.min() < 170 and 220 < train.max() < 235  # mm


def test_wide_proportions_change_training_subjects_alone():
    """The test split is one and the same whatever training sees; a palm may then be a fifth
    smaller for its fingers than the template's, as that of the Kinect frames is."""
    keys = jax.random.split(jax.random.key(0), 2000)

    def ratio(held_out, proportions):
        shape = jax.jit(jax.vmap(lambda k: poses.sample_shape(k, held_out, proportions)))(keys)
        assert (shape.palm >= 0.8).all() and (shape.palm <= 1.2).all()
        assert (shape.fingers >= 0.8).all() and (shape.fingers <= 1.2).all()
        return np.asarray(shape.fingers[:, :4].mean(1) / shape.palm.mean(1))

    usual, wide, test = ratio(False, "usual"), ratio(False, "wide"), ratio(True, "wide")
    np.testing.assert_array_equal(test, ratio(True, "usual"))
    assert (usual > 1.2).mean() == 0.0 and 0.01 < (wide > 1.2).mean() < 0.15
    assert usual.std() < 0.07 < 0.08 < wide.std()

    one, two = (frames(range(8), "test", **p) for p in ({}, {"proportions": "wide"}))
    np.testing.assert_array_equal(one["depth"], two["depth"])
    wider = frames(range(8), proportions="wide", sensor=False, forearm=False)
    assert (wider["joints"] != frames(range(8))["joints"]).any()


def test_wide_thumbs_change_training_frames_alone():
    """They bend towards the palm, further, and wherever they are; fingers stay as they are."""
    keys = jax.random.split(jax.random.key(0), 2000)

    def angles(thumbs):
        fingers, thumb = jax.jit(jax.vmap(lambda k: poses.sample_fingers(k, thumbs)))(keys)
        assert (thumb >= THUMB_LIMITS[:, 0] - 1e-6).all()
        assert (thumb <= THUMB_LIMITS[:, 1] + 1e-6).all()
        return np.asarray(fingers), np.degrees(thumb)

    (fingers, usual), (same, wide) = angles("usual"), angles("wide")
    np.testing.assert_array_equal(fingers, same)
    assert usual[:, 2].min() >= 0 and 0.2 < (wide[:, 2] < 0).mean() < 0.5
    off = wide[:, 1] > 30  # off the palm
    assert (usual[:, 4] > 60).mean() < 0.1 < 0.15 < (wide[off, 4] > 60).mean()

    one, two = (frames(range(8), "test", **p) for p in ({}, {"thumbs": "wide"}))
    np.testing.assert_array_equal(one["depth"], two["depth"])
    one, two = (frames(range(8), sensor=False, forearm=False, thumbs=t) for t in ("usual", "wide"))
    apart = np.linalg.norm(one["joints"] - two["joints"], axis=-1)
    assert apart[:, 8].max() > 20.0  # of the thumb's tip


@pytest.mark.parametrize("name", ["proportions", "thumbs"])
def test_unknown_proportions_and_thumbs_are_refused(name):
    data = config()
    data.synthetic[name] = "odd"
    with pytest.raises(InputError, match=f"{name}='odd': expected one of .'usual', 'wide'."):
        make_source(data, "train", 0)


def test_poses_keep_their_limits_and_do_not_intersect():
    shape = hands.subject_shape(jax.random.key(1), False)
    view = poses.VIEWS["nyu"]
    keys = jax.random.split(jax.random.key(2), 400)
    pose, _, depth = jax.jit(jax.vmap(lambda k: poses.sample_hand(k, shape, view)))(keys)
    assert (pose.fingers >= FINGER_LIMITS[:, 0] - 1e-5).all()
    assert (pose.fingers <= FINGER_LIMITS[:, 1] + 1e-5).all()
    assert (pose.thumb >= THUMB_LIMITS[:, 0] - 1e-5).all()
    assert (pose.thumb <= THUMB_LIMITS[:, 1] + 1e-5).all()
    # Skin gives: up to 3 mm passes as touching.
    assert (depth <= 3.0).mean() > 0.97
    assert np.isfinite(pose.position).all() and (pose.position[:, 2] > 250).all()
    spread = np.degrees(np.std(np.asarray(pose.fingers), 0))
    assert (spread[:, 0] > 20).all() and (spread[:, 2] > 25).all()


def test_overlap_sees_two_fingers_in_one_place():
    shape = hands.subject_shape(jax.random.key(1), False)
    thumb = np.radians(np.array([60, 0, 0, 0, 0], np.float32))
    points = jax.jit(palm_points)(shape, np.zeros((4, 4), np.float32), thumb)
    overlap = jax.jit(poses.overlap)
    assert overlap(shape, points) < 3.0
    assert overlap(shape, points.at[1].set(points[2])) > 10.0


@pytest.mark.parametrize("dataset", ["icvl", "msra"])
def test_other_cameras_and_skeletons(dataset):
    source, _ = expander(dataset=dataset)
    out = frames(range(8), dataset=dataset)
    assert out["joints"].shape == (8, len(SKELETONS[dataset]), 3)
    assert source.name == f"synthetic-{dataset}" and source.synthetic
    uvd = cameras.xyz_to_uvd(out["joints"], source.camera)
    spec = cameras.CAMERAS[dataset]
    inside = (uvd[..., 0] > -40) & (uvd[..., 0] < spec.width + 40)
    assert inside.mean() > 0.9


def anatomy(joints, dataset):
    """By index to little finger: how far, of a bent finger, the second of two bones bends to the
    side on which the palm of a right hand is, and how long the first is for the second."""
    at = SKELETONS[dataset].joints.index
    first, middle, ends, radial, ulnar = {
        "nyu": ("palm", "{}_pip", "{}_tip", "wrist_radial", "wrist_ulnar"),
        "icvl": ("{}_root", "{}_mid", "{}_tip", "index_root", "little_root"),
        "msra": ("{}_mcp", "{}_pip", "{}_dip", "index_mcp", "little_mcp"),
    }[dataset]
    bends, ratios = [], []
    for finger in ("index", "middle", "ring", "little"):
        a, b, c = (joints[:, at(name.format(finger))] for name in (first, middle, ends))
        long, short = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (b - a, c - b))
        before, after = (b - a) / long, (c - b) / short
        aside = after - before * (before * after).sum(-1, keepdims=True)
        normal = np.cross(joints[:, at(radial)] - joints[:, at(ulnar)], before)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        bends.append((aside * normal).sum(-1)[np.linalg.norm(aside, axis=-1) > 0.4].mean())
        ratios.append(np.median(long / short))
    return np.array(bends), np.array(ratios)


def published(folder, dataset):
    if dataset == "msra":
        return read_labels(folder / "msra14" / "joint.txt")
    values = read_joints(folder / "published" / dataset / "groundtruth.txt", (14, 16)).values
    return to_xyz(values, PROTOCOLS[dataset].camera, "uvd")


@pytest.mark.parametrize("dataset", ["nyu", "icvl", "msra"])
def test_hands_and_labels_are_as_in_the_data_set(dataset, shared_data):
    """ICVL's hands are left ones, and its labels the middles of bones."""
    right = -1 if cameras.CAMERAS[dataset].left else 1
    real, ratios = anatomy(published(shared_data, dataset), dataset)
    own, own_ratios = anatomy(frames(range(64), split="test", dataset=dataset)["joints"], dataset)
    assert (right * real).mean() > 0.3 and (right * own).mean() > 0.3
    np.testing.assert_allclose(own_ratios, ratios, rtol=0.25)


@pytest.mark.parametrize("hand", ["spheres", "skinned"])
def test_left_hands_are_rendered_where_their_joints_are(hand):
    out = frames(range(8), dataset="icvl", sensor=False, hand=hand)
    names = ("joints", "depth", "corner", "camera", "centre")
    given = zip(*(out[name] for name in names), strict=True)
    assert np.mean([inside_hand(*frame, 250.0) for frame in given]) > 0.75


def test_sensor_and_forearm_can_be_switched_off():
    a, b = (frames(range(8), sensor=False, forearm=forearm) for forearm in (False, True))
    np.testing.assert_array_equal(a["joints"], b["joints"])
    assert (b["depth"] > 0).sum() > 1.2 * (a["depth"] > 0).sum()


def test_clean_is_the_depth_before_the_sensor():
    noisy, faultless = frames(range(8), clean=True), frames(range(8), sensor=False)
    np.testing.assert_allclose(noisy["clean"], faultless["depth"], atol=1e-3)
    assert (noisy["clean"] != noisy["depth"]).any()


def centres(count, split="test", **changes):
    """The middle of the joints, and the centres, of the first frames."""
    plain = config(synthetic=dict(sensor=False, forearm=False), **changes)
    source = make_source(plain, split, 0)
    step = jax.jit(lambda loaded: {k: source.expand(loaded)[k] for k in ("centre", "joints")})
    batch = step(source.load(np.arange(count)))
    return batch["joints"].mean(1), batch["centre"]


def test_fine_patches_are_searched_where_they_are(monkeypatch):
    """Every second pixel of them, which is another camera's picture of the same place."""

    def middle_of_the_picture(depth, corner, camera):
        assert depth.shape == (192, 192)
        uv = corner + (jnp.array(depth.shape[::-1]) - 1) / 2
        return cameras.uvd_to_xyz(jnp.append(uv, 700.0), camera)

    monkeypatch.setattr(frame, "localise", middle_of_the_picture)
    middle, found = centres(8, patch=384)
    along = found * (middle / found)[:, 2:]  # The same ray, as far away as the hand.
    assert np.median(np.linalg.norm(along - middle, axis=-1)) < 40


@pytest.mark.parametrize(("patch", "every"), [(128, 1), (384, 2)])
def test_narrow_patches_are_searched_more_finely(patch, every):
    """They leave out native pixels already."""
    source = make_source(config(patch=patch), "test", 0)
    fields = ("depth", "corner", "camera", "centre")
    step = jax.jit(lambda loaded: {k: source.expand(loaded)[k] for k in fields})
    batch = step(source.load(np.arange(8)))
    found = jax.jit(jax.vmap(localise))(
        batch["depth"][:, ::every, ::every],
        batch["corner"] / every,
        cameras.decimate(batch["camera"], every),
    )
    np.testing.assert_allclose(batch["centre"], found, atol=0.01)


def test_patches_as_wide_as_the_image_are_searched_as_recorded_frames_are():
    source = make_source(config(dataset="icvl", patch=320), "test", 0)
    fields = ("depth", "corner", "camera", "centre")
    step = jax.jit(lambda loaded: {k: source.expand(loaded)[k] for k in fields})
    batch = jax.device_get(step(source.load(np.arange(16))))
    assert (batch["camera"] == cameras.ICVL.intrinsics).all()
    assert (batch["corner"][:, 0] == 0).all()
    tops = -batch["corner"][:, 1].astype(int)
    images = [depth[v : v + 240] for depth, v in zip(batch["depth"], tops, strict=True)]
    recorded = [find_hand(image, cameras.ICVL.intrinsics) for image in images]
    # But where it is the other one of every two pixels, or the image cuts the arm off.
    apart = np.linalg.norm(np.array(recorded) - batch["centre"], axis=-1)
    assert (apart < 0.001).mean() > 0.25 and np.median(apart) < 3


def test_where_nothing_is_found_the_centre_is_that_of_the_joints(monkeypatch):
    monkeypatch.setattr(frame, "localise", lambda *_: jnp.zeros(3))
    middle, found = centres(2)
    np.testing.assert_allclose(found, middle, atol=1e-3)


def test_training_centres_are_jittered_by_so_much(monkeypatch):
    monkeypatch.setattr(frame, "localise", lambda *_: jnp.zeros(3))
    middle, found = centres(32, "train", centre_jitter_mm=8.0)
    off = np.asarray(found - middle)
    assert 6.8 < off.std() < 9.2 and np.abs(off.mean(0)).max() < 4


def test_the_sensor_is_told_how_wide_a_pixel_is_at_the_hand(monkeypatch):
    monkeypatch.setattr(frame, "sense", lambda key, depth, mm: jnp.full(depth.shape, mm))
    source = make_source(config(centre="gt"), "test", 0)
    batch = jax.jit(source.expand)(source.load(np.array([0, 40])))
    expected = batch["centre"][:, 2] / batch["camera"][:, 0]
    np.testing.assert_allclose(batch["depth"][:, 0, 0], expected, rtol=1e-5)


def wrists(joints):
    """How wide each one is, by which subjects are told apart."""
    return np.linalg.norm(joints[:, 11] - joints[:, 12], axis=-1)


def test_so_many_subjects():
    """Bones of the training hands: two subjects in turn, one, or everybody another."""

    def lengths(subjects):
        source = make_source(
            config(synthetic=dict(sensor=False, forearm=False, subjects=subjects)), "train", 0
        )
        step = jax.jit(lambda loaded: source.expand(loaded)["joints"])  # no depth: compiled sooner
        return wrists(np.asarray(step(source.load(np.arange(6)))))

    np.testing.assert_allclose(np.ptp(lengths(1)), 0.0, atol=1e-3)
    two = lengths(2)
    np.testing.assert_allclose(two[:2].repeat(3), [*two[::2], *two[1::2]], atol=1e-3)
    assert abs(two[0] - two[1]) > 0.1
    assert len(np.unique(lengths(0).round(2))) == 6


def test_default_frames_are_those_that_were_measured():
    """What published figures were trained and tested on, recorded when sizes and the sensor model
    were last corrected. Rounding differs between machines, another draw would be far off."""
    recorded = {
        "train": ([[56.684, 103.204, 689.341], [42.383, 190.953, 930.913]], [418, 231]),
        "test": ([[337.254, -222.919, 1021.154], [93.764, -195.91, 645.292]], [686, 343]),
    }
    for split, (tips, pixels) in recorded.items():
        out = frames(range(2), split)
        np.testing.assert_allclose(out["joints"][:, 0], tips, atol=0.01)
        np.testing.assert_allclose((out["depth"] > 0).sum((1, 2)), pixels, atol=3)


def test_skinned_hands_are_the_same_hands():
    """Labels stay; images agree with the analytic ones; a subject keeps its base hand."""
    a, b = frames(range(12), sensor=False), frames(range(12), sensor=False, hand="skinned")
    for name in ("joints", "camera", "corner"):
        np.testing.assert_array_equal(a[name], b[name])
    one, two = a["depth"], b["depth"]
    both = (one > 0) & (two > 0)
    overlap = both.sum((1, 2)) / ((one > 0) | (two > 0)).sum((1, 2))
    assert overlap.min() > 0.9 and (one != two).any((1, 2)).all()
    off = [np.median(np.abs(x - y)[m]) for x, y, m in zip(one, two, both, strict=True)]
    assert max(off) < 2.0


def test_a_test_subject_keeps_its_hand_for_32_frames(monkeypatch):
    """Its proportions and, of skinned hands, the mesh that they change."""
    meshes = HandMesh(*6 * [jnp.arange(15.0).reshape(5, 1, 3)])
    monkeypatch.setattr("hpe_jax.synthetic.stacked_base_hands", lambda: meshes)
    monkeypatch.setattr(frame, "posed_vertices", lambda hand, *_: hand.core)
    monkeypatch.setattr(frame, "rasterise", lambda core, *_: jnp.full((64, 64), core[0, 0]))
    plain = config(centre="gt", synthetic=dict(sensor=False, forearm=False, hand="skinned"))
    source = make_source(plain, "test", 0)
    first_and_last = np.add.outer(32 * np.arange(12), [0, 31])
    batch = jax.jit(source.expand)(source.load(first_and_last.ravel()))
    sizes = wrists(np.asarray(batch["joints"])).reshape(12, 2)
    np.testing.assert_allclose(sizes[:, 0], sizes[:, 1], atol=1e-3)
    assert len(np.unique(sizes[:, 0].round(3))) == 12
    shown = np.asarray(batch["depth"])[:, 0, 0].reshape(12, 2)
    assert (shown[:, 0] == shown[:, 1]).all() and len(np.unique(shown)) > 1


def test_skinned_hands_without_a_forearm_end_at_the_wrist():
    alone, armed = (
        (frames(range(8), sensor=False, forearm=forearm, hand="skinned")["depth"] > 0).sum()
        for forearm in (False, True)
    )
    assert armed > 1.2 * alone > 0


def test_bad_config_is_one_clear_line():
    with pytest.raises(InputError, match="spheres or skinned"):
        make_source(config(synthetic=dict(sensor=True, forearm=True, hand="mano")), "train", 0)
    with pytest.raises(InputError, match="com, gt and file"):
        make_source(config(centre="refined"), "train", 0)
    with pytest.raises(InputError, match="icvl"):
        make_source(config(dataset="no such"), "train", 0)
