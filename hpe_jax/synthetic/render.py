"""Depth images of sphere meshes by exact ray casting, batched and inside `jit`.

Each pixel's ray is `t * (x, y, 1)`, so `t` is the depth. It is met with every sphere, with
the tangent cone between two spheres and with the tangent planes on three, all in closed form;
the smallest t wins. Rays that meet nothing read 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hpe_jax.camera import patch_rays
from hpe_jax.synthetic.surface import SphereMesh, Topology

_FAR = 1e6


def _sphere_depth(ray, dd, centre, radius):
    along = ray[0] * centre[0] + ray[1] * centre[1] + centre[2]
    inside = along * along - dd * ((centre * centre).sum() - radius * radius)
    t = (along - jnp.sqrt(jnp.maximum(inside, 0.0))) / dd
    return jnp.where(inside > 0.0, t, _FAR)


def _cone_depth(ray, dd, a, ra, b, rb):
    """The cone that is tangent to two spheres, between its two circles of contact.

    With w = t d - a, s = w·u and sin α = (ra - rb) / |b - a|, the surface is
    cos²α (|w|² - s²) = (ra - s sin α)², a quadratic in t.
    """
    axis = b - a
    length = jnp.sqrt((axis * axis).sum() + 1e-6)
    u = axis / length
    sin = jnp.clip((ra - rb) / length, -0.999, 0.999)
    cos2 = 1.0 - sin * sin
    au = (a * u).sum()
    du = ray[0] * u[0] + ray[1] * u[1] + u[2]
    da = ray[0] * a[0] + ray[1] * a[1] + a[2]
    q2 = cos2 * dd - du * du
    q1 = du * (au + ra * sin) - cos2 * da
    q0 = cos2 * (a * a).sum() - au * au - 2.0 * ra * sin * au - ra * ra
    inside = q1 * q1 - q2 * q0
    # The ray enters at the root where the quadratic turns negative, whatever the sign of q2
    # (it is negative for rays that are steeper than the cone).
    q2 = jnp.where(jnp.abs(q2) > 1e-6, q2, 1e-6)
    t = -(q1 + jnp.sqrt(jnp.maximum(inside, 0.0))) / q2
    s = t * du - au
    hit = (inside > 0.0) & (s > ra * sin) & (s < length + rb * sin)
    return jnp.where(hit & (t > 0.0), t, _FAR)


def _wedge_depth(ray, c, r):
    """The plane on three spheres that faces the camera, inside its triangle of contact.

    The outward normal m satisfies m·cᵢ + rᵢ = const. Of the two such planes the one that the
    rays enter (m·d < 0) is the one with the smaller m·c₀.
    """
    e1, e2 = c[1] - c[0], c[2] - c[0]
    n = jnp.cross(e1, e2)
    n2 = (n * n).sum() + 1e-6
    # The part of m inside the triangle's plane, from m·e1 = r0 - r1, m·e2 = r0 - r2.
    flat = ((r[0] - r[1]) * jnp.cross(e2, n) + (r[0] - r[2]) * jnp.cross(n, e1)) / n2
    up = 1.0 - (flat * flat).sum()
    towards = jnp.where((n * c[0]).sum() > 0.0, -1.0, 1.0)
    m = flat + towards * jnp.sqrt(jnp.maximum(up, 0.0) / n2) * n
    contact = c + r[:, None] * m
    f1, f2 = contact[1] - contact[0], contact[2] - contact[0]
    k = jnp.cross(f1, f2)
    k2 = (k * k).sum() + 1e-6
    g1, g2 = jnp.cross(f2, k) / k2, jnp.cross(k, f1) / k2
    h1, h2 = (g1 * contact[0]).sum(), (g2 * contact[0]).sum()
    md = ray[0] * m[0] + ray[1] * m[1] + m[2]
    t = (m * contact[0]).sum() / jnp.where(md < -1e-6, md, -1.0)
    b1 = t * (ray[0] * g1[0] + ray[1] * g1[1] + g1[2]) - h1
    b2 = t * (ray[0] * g2[0] + ray[1] * g2[1] + g2[2]) - h2
    hit = (up > 0.0) & (md < -1e-6) & (t > 0.0) & (b1 >= 0.0) & (b2 >= 0.0) & (b1 + b2 <= 1.0)
    return jnp.where(hit, t, _FAR)


def render_depth(
    mesh: SphereMesh,
    topology: Topology,
    corner: Float[Array, "2"],
    camera: Float[Array, "4"],
    size: tuple[int, int],
) -> Float[Array, "H W"]:
    """Depth (mm) of a sphere mesh seen by a pinhole camera; 0 where no surface is met.

    Args:
      mesh: sphere centres (S, 3) and radii (S,); everything must lie in front of the camera.
      topology: the pairs and triples of spheres that are wrapped.
      corner: pixel of the patch's first pixel.
      camera: fx, fy, cx, cy.
      size: (H, W).
    """
    rays = patch_rays(corner, camera, size)
    ray = (rays[..., 0], rays[..., 1])
    dd = ray[0] * ray[0] + ray[1] * ray[1] + 1.0
    cones, wedges = topology
    used = np.unique(np.concatenate([cones.ravel(), wedges.ravel()]))
    centres, radii = mesh.centres, mesh.radii

    def fold(kernel, items):
        def body(best, item):
            return jnp.minimum(best, kernel(*item)), None

        return lambda best: jax.lax.scan(body, best, items)[0]

    best = jnp.full(size, _FAR)
    best = fold(lambda c, r: _sphere_depth(ray, dd, c, r), (centres[used], radii[used]))(best)
    best = fold(
        lambda a, ra, b, rb: _cone_depth(ray, dd, a, ra, b, rb),
        (centres[cones[:, 0]], radii[cones[:, 0]], centres[cones[:, 1]], radii[cones[:, 1]]),
    )(best)
    best = fold(lambda c, r: _wedge_depth(ray, c, r), (centres[wedges], radii[wedges]))(best)
    return jnp.where(best < _FAR, best, 0.0)
