"""Equations 1-3 of Dense 3D Regression against loops, and their inverse."""

import jax.numpy as jnp
import numpy as np

from hpe_jax.kernels.offsets import image_heatmaps, joint_field, vote


def scene(seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-100, 100, (5, 6, 3)).astype(np.float32)
    joints = rng.uniform(-80, 80, (4, 3)).astype(np.float32)
    joints[3] = points[2, 2]  # A joint on the surface.
    return points, rng.random((5, 6)) > 0.2, joints


def fields(points, seen, joints):
    return joint_field(*map(jnp.asarray, (points, seen, joints)), 80.0)


def test_fields_equal_a_loop():
    points, seen, joints = scene()
    seen[2, 2] = True
    heat, unit = (np.asarray(a) for a in fields(points, seen, joints))
    near = 0
    for y, x, j in np.ndindex(5, 6, 4):
        offset = joints[j].astype(float) - points[y, x]
        distance = np.sqrt((offset**2).sum())
        s, v = 0.0, np.zeros(3)
        if seen[y, x] and distance <= 80:
            near += 1
            s = (80 - distance) / 80
            v = offset / distance if distance > 0 else v
        np.testing.assert_allclose(heat[y, x, j], s, atol=1e-4)
        np.testing.assert_allclose(unit[y, x, j], v, atol=1e-4)
    assert 5 < near < 100
    assert heat[2, 2, 3] == 1


def test_votes_undo_the_fields():
    points, seen, joints = scene(1)
    heat, unit = fields(points, seen, joints)
    votes = np.asarray(vote(jnp.asarray(points), heat, unit, 80.0))
    inside = np.asarray(heat) > 0
    gap = np.linalg.norm(votes - joints, axis=-1)
    assert inside.any(axis=(0, 1)).all() and gap[inside].max() < 1e-2
    # Beyond the radius nothing is known: the vote is the point itself.
    outside = ~inside
    np.testing.assert_allclose(
        votes[outside], np.broadcast_to(points[..., None, :], votes.shape)[outside]
    )


def test_image_heatmaps_equal_a_loop():
    pixels = np.array([[3.2, 1.7], [-2.0, 5.0], [5.0, 2.0]], np.float32)
    maps = np.asarray(image_heatmaps(jnp.asarray(pixels), 7, 4.0))
    for y, x, j in np.ndindex(7, 7, 3):
        distance = np.hypot(x - pixels[j, 0], y - pixels[j, 1])
        np.testing.assert_allclose(maps[y, x, j], max(4 - distance, 0) / 4, atol=1e-4)
    assert maps[2, 5, 2] == 1
