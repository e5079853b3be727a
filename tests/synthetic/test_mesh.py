"""Skinned hands: sound meshes, skinning by a slow twin, and the analytic hand's images."""

import hands
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.camera import CAMERAS, decimate, patch_corner
from hpe_jax.hand.kinematics import HandPoints, HandPose, palm_points, place
from hpe_jax.synthetic import base_hands, bones, mesh
from hpe_jax.synthetic.distance import signed_distance
from hpe_jax.synthetic.isosurface import edges
from hpe_jax.synthetic.rasterise import rasterise
from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import HAND_AND_FOREARM, hand_surface

# Jitted: compiled once a shape, instead of each of their operations on its own.
palm_points, bone_frames = jax.jit(palm_points), jax.jit(bones.bone_frames)
posed_vertices = jax.jit(mesh.posed_vertices)

PATCH = 96
FOREARM = jnp.float32(220.0)
REST = HandPose(
    *(jnp.asarray(a) for a in (mesh.REST_FINGERS, mesh.REST_THUMB, mesh.REST_WRIST)),
    rotation=jnp.eye(3),
    position=jnp.zeros(3),
)


@pytest.fixture(scope="module")
def hand():
    return base_hands.base_hand("average")


@pytest.fixture(scope="module")
def sampled():
    """Poses of the average hand in front of NYU's camera."""
    shape = base_hands.BASE_HANDS["average"]
    return hands.draw(jax.random.split(jax.random.key(3), 12), shape, "nyu")[0]


@pytest.mark.parametrize("name", list(base_hands.BASE_HANDS))
def test_base_hands_are_closed_on_the_surface_and_weighted(name):
    hand = base_hands.base_hand(name)
    vertices, faces = np.asarray(hand.core + hand.offset), np.asarray(hand.faces)
    pairs, shared = edges(faces)
    assert 3000 < len(vertices) < 7000
    # Closed; where two fingers part, four faces may share an edge.
    assert (shared % 2 == 0).all() and (shared > 2).sum() <= 4
    # Without handles: no two fingers have grown together.
    assert len(vertices) - len(pairs) + len(faces) in (1, 2)
    a, b, c = (vertices[faces[:, i]].astype(float) for i in range(3))
    assert (a * np.cross(b, c)).sum() > 0
    points = HandPoints(palm_points(hand.shape, REST.fingers, REST.thumb), jnp.eye(3), jnp.zeros(3))
    surface = jax.jit(hand_surface)(points, hand.shape, REST.wrist, mesh.REST_FOREARM_MM)
    # Vertices stand a little outside, so that the triangles between them do not lie inside.
    off, middles = (
        np.asarray(away(points, surface)) for points in (vertices, vertices[faces].mean(1))
    )
    assert np.abs(off).max() < 0.8 and abs(off.mean() + middles.mean()) < 0.1
    weights = np.asarray(hand.weights)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
    assert (weights >= 0).all() and (weights > 0).sum(1).max() <= base_hands.BONES_A_VERTEX
    assert (weights.max(0) > 0.99).all()  # Every bone has skin of its own.


@jax.jit
def away(points, surface):
    return signed_distance(points, surface, HAND_AND_FOREARM)


def test_the_rest_pose_is_the_mesh(hand):
    rest = posed_vertices(hand, hand.shape, REST, jnp.float32(mesh.REST_FOREARM_MM))
    np.testing.assert_allclose(rest, hand.core + hand.offset, atol=1e-3)


def slow_skin(vertices, weights, transforms):
    out = np.zeros_like(vertices)
    for v, w, o in zip(vertices, weights, out, strict=True):
        for b, share in enumerate(w):
            o += share * (transforms[b] @ np.append(v, 1.0))[:3]
    return out


def test_skinning_equals_a_slow_reading(hand, sampled):
    pose = jax.tree.map(lambda x: x[0], sampled)
    frames = bone_frames(hand.shape, pose.fingers, pose.thumb, pose.wrist)
    moved = np.asarray(frames @ jnp.linalg.inv(hand.rest), float)
    rest = np.asarray(hand.core + hand.offset, float)
    slow = slow_skin(rest, np.asarray(hand.weights, float), moved)
    fast = mesh.skin(jnp.asarray(rest), hand.weights, jnp.asarray(moved))
    np.testing.assert_allclose(fast, slow, atol=5e-3)
    slow = slow @ np.asarray(pose.rotation).T + np.asarray(pose.position)
    found = posed_vertices(hand, hand.shape, pose, jnp.float32(mesh.REST_FOREARM_MM))
    np.testing.assert_allclose(found, slow, atol=5e-3)


def test_bones_are_rigid_and_begin_at_the_pivots(hand, sampled):
    pose = jax.tree.map(lambda x: x[1], sampled)
    frames = np.asarray(bone_frames(hand.shape, pose.fingers, pose.thumb, pose.wrist))
    turns = frames[:, :3, :3]
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.eye(3)[None] + 0 * turns, atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-5)
    pivots = np.asarray(palm_points(hand.shape, pose.fingers, pose.thumb))
    for f in range(5):
        for i in range(3):
            frame = frames[bones.bone(f, i)]
            np.testing.assert_allclose(frame[:3, 3], pivots[f, i], atol=1e-4)
            length = np.linalg.norm(pivots[f, i + 1] - pivots[f, i])
            np.testing.assert_allclose((frame @ [0, length, 0, 1])[:3], pivots[f, i + 1], atol=1e-3)


@jax.jit
def images(hand, shape, poses):
    """Depth of the analytic hand and of the skinned one, a pose each."""

    def one(pose):
        points = place(palm_points(shape, pose.fingers, pose.thumb), pose)
        surface = hand_surface(points, shape, pose.wrist, FOREARM)
        camera = decimate(jnp.asarray(CAMERAS["nyu"].intrinsics), 3.0)
        corner = patch_corner(surface.centres[:32].mean(0), camera, PATCH)
        view = (corner, camera, (PATCH, PATCH))
        vertices = posed_vertices(hand, shape, pose, FOREARM)
        a = render_depth(surface, HAND_AND_FOREARM, *view)
        return a, rasterise(vertices, hand.faces, *view)

    return jax.vmap(one)(poses)


def compare(a, b):
    """IoU of silhouettes and median depth difference (mm), an image each."""
    both = (a > 0) & (b > 0)
    overlap = both.sum((1, 2)) / ((a > 0) | (b > 0)).sum((1, 2))
    off = np.where(both, np.abs(a - b), np.nan)
    return overlap, np.nanmedian(off, (1, 2))


def test_images_agree_with_the_analytic_hand(hand, sampled):
    a, b = jax.device_get(images(hand, hand.shape, sampled))
    overlap, off = compare(a, b)
    assert overlap.mean() > 0.975 and overlap.min() > 0.95
    assert off.max() < 1.0
    # No pinholes, neither to the background nor to the far side of the hand.
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    around = np.stack([np.roll(b, s, (1, 2)) for s in steps])
    alone = (around > 0).all(0) & ((b == 0) | (b > around.max(0) + 8.0)) & (a > 0)
    assert not (alone & (np.abs(a - b) > 8.0)).any()


def test_other_proportions_agree_too(hand, sampled):
    """Bone lengths, the palm's width and thickness of another hand on this one's mesh."""
    for name in ("broad", "long"):
        pictures = jax.device_get(images(hand, base_hands.BASE_HANDS[name], sampled))
        overlap, off = compare(*pictures)
        assert overlap.mean() > 0.96 and overlap.min() > 0.9, name
        assert off.max() < 2.0, name


def test_stacked_hands_are_the_single_ones(sampled):
    pose = jax.tree.map(lambda x: x[2], sampled)
    stacked = base_hands.stacked_base_hands()
    view = (jnp.zeros(2), decimate(jnp.asarray(CAMERAS["nyu"].intrinsics), 6.0), (80, 107))
    draw = jax.jit(
        lambda hand: rasterise(posed_vertices(hand, hand.shape, pose, FOREARM), hand.faces, *view)
    )
    many = jax.jit(jax.vmap(draw))(stacked)
    assert ((many > 0).sum((1, 2)) > 100).all()
    # The smallest mesh, most of which had to be filled up.
    alone = draw(base_hands.base_hand("slight"))
    np.testing.assert_allclose(many[list(base_hands.BASE_HANDS).index("slight")], alone, atol=1e-2)


def test_thickness_and_length_change_one_thing_each(hand):
    def rest(**changes):
        shape = hand.shape._replace(**{k: jnp.asarray(v) for k, v in changes.items()})
        return np.asarray(posed_vertices(hand, shape, REST, FOREARM))

    own = rest()
    tip = np.asarray(hand.weights)[:, bones.bone(2, 2)] > 0.999
    thick = rest(thickness=1.2)
    # The middle finger's last bone: one fifth thicker, no longer but for its thicker end.
    middle = own[tip].mean(0)
    wide = [np.ptp((v[tip] - middle)[:, 0]) for v in (own, thick)]
    assert 1.1 < wide[1] / wide[0] < 1.25
    long = rest(fingers=[1.0, 1.0, 1.1, 1.0, 1.0])
    moved = np.linalg.norm(long - own, axis=1)
    others = np.asarray(hand.weights)[
        :, [bones.bone(f, i) for f in (0, 1, 3, 4) for i in (0, 1, 2)]
    ]
    assert moved[others.sum(1) > 0.999].max() < 1e-3
    assert 7 < moved[tip].mean() < 12
    wider = rest(palm=[1.1, 1.0, 1.0])
    assert np.ptp(wider[:, 0]) > np.ptp(own[:, 0]) + 3


def test_differentiable(hand):
    slope = jax.grad(
        lambda f: posed_vertices(hand, hand.shape, REST._replace(fingers=f), FOREARM).sum()
    )(REST.fingers)
    assert np.isfinite(slope).all() and (np.abs(slope) > 0).any()
