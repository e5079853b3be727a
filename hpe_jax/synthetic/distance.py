"""The signed distance of sphere meshes: what `synthetic.render` draws, asked of points in space.

A cone is the union of the spheres that lead from one sphere to another, a wedge that of the
spheres between three; the distance to either is the least |p - c| - r over its spheres, which is
convex in the place on the segment or triangle and has a closed form. The mesh is the union of its
cones and wedges, so its distance is the least of theirs.

Outside that is exact. Inside it is exact for each cone and wedge, and for the union never deeper
than the truth: where parts overlap the surface may be further away than the nearest part's own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hpe_jax.synthetic.surface import SphereMesh, Topology


class Nearest(NamedTuple):
    """Of each point: `distance` (...,) mm to the surface, negative inside, and the sphere that
    the surface belongs to there, `centre` (..., 3) and `radius` (...,)."""

    distance: Float[Array, "..."]
    centre: Float[Array, "... 3"]
    radius: Float[Array, "..."]


def _cone(p: Array, a: Array, ra: Array, b: Array, rb: Array) -> Nearest:
    """At height s and aside h of the axis, x minimises |(s - x, h)| - ra + x sin α, as in
    `render`: the sphere's centre lies h tan α before the foot of p."""
    axis = b - a
    length = jnp.sqrt((axis * axis).sum() + 1e-12)
    u = axis / length
    sin = (ra - rb) / length
    w = p - a
    s = w @ u
    h = jnp.linalg.norm(w - s[..., None] * u, axis=-1)
    tan = sin / jnp.sqrt(jnp.maximum(1.0 - sin * sin, 1e-12))
    x = jnp.clip(s - h * tan, 0.0, length)
    # A sphere that holds the other is all there is.
    x = jnp.where(jnp.abs(sin) < 1.0, x, jnp.where(sin > 0.0, 0.0, length))
    radius = ra - x * sin
    return Nearest(jnp.hypot(s - x, h) - radius, a + x[..., None] * u, radius)


def _wedge(p: Array, c: Array, r: Array) -> Nearest:
    """The tangent plane on the side of p, where p meets the triangle along the plane's normal;
    elsewhere infinite, since there an edge, that is a cone, is nearer."""
    e1, e2 = c[1] - c[0], c[2] - c[0]
    n = jnp.cross(e1, e2)
    n2 = (n * n).sum() + 1e-6
    g1, g2 = jnp.cross(e2, n) / n2, jnp.cross(n, e1) / n2
    # The outward normal m satisfies m·cᵢ + rᵢ = const.
    flat = (r[0] - r[1]) * g1 + (r[0] - r[2]) * g2
    up = 1.0 - (flat * flat).sum()
    w = p - c[0]
    aside = w @ n / jnp.sqrt(n2)
    rise = jnp.sqrt(jnp.maximum(up, 1e-6))
    m = flat + (jnp.where(aside < 0.0, -rise, rise) / jnp.sqrt(n2))[..., None] * n
    foot = w - (jnp.abs(aside) / rise)[..., None] * m
    b1, b2 = foot @ g1, foot @ g2
    here = (up > 0.0) & (b1 >= 0.0) & (b2 >= 0.0) & (b1 + b2 <= 1.0)
    radius = r[0] + b1 * (r[1] - r[0]) + b2 * (r[2] - r[0])
    distance = (w * m).sum(-1) - r[0]
    return Nearest(jnp.where(here, distance, jnp.inf), c[0] + foot, radius)


def nearest_sphere(points: Float[Array, "... 3"], mesh: SphereMesh, topology: Topology) -> Nearest:
    """The nearest of all spheres that a sphere mesh wraps.

    Args:
      points: (..., 3) mm, in the axes of the mesh.
      mesh: sphere centres (S, 3) and radii (S,), mm.
      topology: the pairs and triples of spheres that are wrapped; every edge of a wedge must be
        among the cones, as in `surface.HAND`.

    Returns:
      The signed distance (see the module's docstring), the sphere's centre and its radius: the
      nearest point of the surface lies on the ray from the centre through the point.
    """
    cones, wedges = topology
    c, r = mesh.centres, mesh.radii

    def fold(kernel, items, best):
        def body(best, item):
            new = kernel(points, *item)
            nearer = new.distance < best.distance
            centre = jnp.where(nearer[..., None], new.centre, best.centre)
            radius = jnp.where(nearer, new.radius, best.radius)
            return Nearest(jnp.minimum(new.distance, best.distance), centre, radius), None

        return jax.lax.scan(body, best, items)[0]

    shape = points.shape[:-1]
    best = Nearest(jnp.full(shape, jnp.inf), jnp.zeros((*shape, 3)), jnp.zeros(shape))
    best = fold(_cone, (c[cones[:, 0]], r[cones[:, 0]], c[cones[:, 1]], r[cones[:, 1]]), best)
    return fold(_wedge, (c[wedges], r[wedges]), best)


def signed_distance(
    points: Float[Array, "... 3"], mesh: SphereMesh, topology: Topology
) -> Float[Array, "..."]:
    """Signed distance (mm, negative inside) of points to a sphere mesh.

    The distance that truncated signed distances approximate (section 3.1 of X. Deng et al.,
    "Hand3D", 2017). Arguments as for `nearest_sphere`, limits in the module's docstring; memory
    is that of a few arrays of the points' size, whatever the mesh.
    """
    return nearest_sphere(points, mesh, topology).distance
