"""The renderer against slow NumPy ray casting of the same sphere mesh."""

import jax.numpy as jnp
import numpy as np

from hpe_jax.synthetic.render import render_depth
from hpe_jax.synthetic.surface import SphereMesh, Topology

CAMERA = np.array([60.0, 61.0, 12.0, 11.5], np.float32)
CORNER = np.array([0.0, 0.0], np.float32)


def inside_hull(points, centres, radii, weights):
    """Whether points lie in the union of the spheres interpolated with these weights."""
    c, r = weights @ centres, weights @ radii
    return (((points[:, None] - c) ** 2).sum(-1) < r**2).any(1)


def march(centres, radii, groups, size, near, far, step):
    """Slow twin: walk along each ray until it is inside a hull of spheres."""
    out = np.zeros(size)
    t = np.arange(near, far, step)
    for i, j in np.ndindex(size):
        ray = np.array([(j - CAMERA[2]) / CAMERA[0], (i - CAMERA[3]) / CAMERA[1], 1.0])
        points = t[:, None] * ray
        hit = np.zeros(len(t), bool)
        for group, weights in groups:
            hit |= inside_hull(points, centres[list(group)], radii[list(group)], weights)
        if hit.any():
            out[i, j] = t[hit.argmax()]
    return out


def segment(n=60):
    a = np.linspace(0, 1, n)
    return np.stack([1 - a, a], 1)


def triangle(n=30):
    a, b = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n))
    keep = a + b <= 1
    return np.stack([1 - a - b, a, b], -1)[keep]


def check(centres, radii, topology, groups):
    depth = np.asarray(
        render_depth(
            SphereMesh(jnp.asarray(centres), jnp.asarray(radii)),
            topology,
            jnp.asarray(CORNER),
            jnp.asarray(CAMERA),
            (24, 26),
        )
    )
    slow = march(centres.astype(float), radii.astype(float), groups, (24, 26), 380, 640, 0.5)
    both = (depth > 0) & (slow > 0)
    assert both.sum() > 40
    assert ((depth > 0) != (slow > 0)).sum() <= 6  # silhouettes of the sampled twin
    off = np.abs(depth - slow)[both]
    assert np.percentile(off, 95) < 1.5 and np.median(off) < 0.6


def test_tapered_cone():
    centres = np.array([[-50, -30, 500], [45, 40, 560]], np.float32)
    radii = np.array([30, 14], np.float32)
    nothing = np.zeros((0, 3), int)
    check(centres, radii, Topology(np.array([[0, 1]]), nothing), [((0, 1), segment())])


def test_cone_seen_end_on():
    centres = np.array([[0, 0, 450], [4, 3, 560]], np.float32)
    radii = np.array([18, 40], np.float32)
    nothing = np.zeros((0, 3), int)
    check(centres, radii, Topology(np.array([[0, 1]]), nothing), [((0, 1), segment())])


def test_wedge():
    centres = np.array([[-60, -40, 500], [60, -30, 540], [0, 60, 470]], np.float32)
    radii = np.array([24, 14, 18], np.float32)
    cones = np.array([[0, 1], [1, 2], [0, 2]])
    check(centres, radii, Topology(cones, np.array([[0, 1, 2]])), [((0, 1, 2), triangle())])


def test_wedge_does_not_depend_on_the_order_of_its_spheres():
    centres = np.array([[-60, -40, 500], [60, -30, 540], [0, 60, 470]], np.float32)
    radii = np.array([24, 14, 18], np.float32)
    cones = np.array([[0, 1], [1, 2], [0, 2]])
    images = [
        np.asarray(
            render_depth(
                SphereMesh(jnp.asarray(centres), jnp.asarray(radii)),
                Topology(cones, np.array([order])),
                jnp.asarray(CORNER),
                jnp.asarray(CAMERA),
                (24, 26),
            )
        )
        for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1])
    ]
    np.testing.assert_allclose(images[0], images[1], atol=0.05)
    np.testing.assert_allclose(images[0], images[2], atol=0.05)
