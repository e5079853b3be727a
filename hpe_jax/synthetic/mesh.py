"""Skinned hands: triangle meshes that follow the bones by linear blend skinning.

X. Deng et al., "Hand3D", 2017, section 3.3 and supplement B.2. The meshes come from
`synthetic.base_hands`, in an open rest pose.

A vertex is kept as the centre of the sphere that the surface belongs to there, `core`, and the
way from it to the skin, `offset`. Other proportions stretch the cores with their bones and swell
the offsets, so that bone lengths, the palm's width and thickness change independently, and one
mesh serves every `HandShape` near its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hpe_jax.hand.kinematics import HandPose, HandShape
from hpe_jax.synthetic import bones
from hpe_jax.synthetic.surface import FOREARM, FOREARM_RADII

# The rest pose: spread, and a little bent, so that a fist is not as far away.
REST_FINGERS = np.radians([[20, a, 25, 15] for a in (-22, -8, 5, 19)]).astype(np.float32)
REST_THUMB = np.radians([45, 10, 25, 8, 8]).astype(np.float32)
REST_WRIST = np.zeros(2, np.float32)
REST_FOREARM_MM = float(FOREARM[-1])


class HandMesh(NamedTuple):
    """A hand in its rest pose, in the palm frame (mm).

    Attributes:
      core: (V, 3), centres of the spheres under the skin.
      offset: (V, 3), from there to the skin.
      weights: (V, 17), of the bones of `synthetic.bones`: at most four a vertex, summing to one.
      faces: (F, 3), anticlockwise seen from outside.
      rest: (17, 4, 4), frames of the bones.
      shape: the proportions that it was extracted with.
    """

    core: Float[Array, "V 3"]
    offset: Float[Array, "V 3"]
    weights: Float[Array, "V 17"]
    faces: Int[Array, "F 3"]
    rest: Float[Array, "17 4 4"]
    shape: HandShape


def posed_vertices(
    mesh: HandMesh, shape: HandShape, pose: HandPose, forearm_mm: Float[Array, ""]
) -> Float[Array, "V 3"]:
    """The vertices of a hand of any proportions in a pose, in the camera, mm.

    Where `shape` is the mesh's own they are the rest pose's, skinned. Otherwise, lengths follow the
    bones, widths `scale` and the palm's factors, flesh `thickness`; the surface is then no longer
    quite that of `surface.hand_surface` (a forearm that is shown short is too narrow by some mm).

    Args:
      mesh: of a base hand.
      shape: the subject.
      pose: angles and place.
      forearm_mm: visible length of the forearm.
    """
    own = mesh.shape
    size = shape.scale / own.scale
    longer = jnp.repeat(shape.fingers / own.fingers, 3)
    one = jnp.ones(15)
    visible = forearm_mm / REST_FOREARM_MM
    stretch = jnp.concatenate(
        [
            (size * shape.palm / own.palm)[None],
            size * jnp.stack([one, longer, one], -1),
            jnp.stack([size, visible, size])[None],
        ]
    )
    frames = bones.bone_frames(shape, pose.fingers, pose.thumb, pose.wrist)
    local = jnp.linalg.inv(mesh.rest)
    scaled = frames * jnp.append(stretch, jnp.ones((bones.BONES, 1)), -1)[:, None]
    core = skin(mesh.core, mesh.weights, scaled @ local)
    turn = jnp.einsum("vb,bij->vij", mesh.weights, (frames @ local)[:, :3, :3])
    offset = jnp.einsum("vij,vj->vi", turn, mesh.offset)
    swell = size * shape.thickness / own.thickness
    # The forearm is as thick as what it shows of its length, whatever its `stretch`.
    arm = local[bones.FOREARM]
    height = jnp.clip(-(mesh.core @ arm[1, :3] + arm[1, 3]), 0.0, REST_FOREARM_MM)

    def thick(shown: Array | float, factors: Array) -> Array:
        along = height / REST_FOREARM_MM
        wide = jnp.interp(along * shown, FOREARM, FOREARM_RADII)
        rows = jnp.linspace(factors[0], factors[1], len(FOREARM))
        return wide * jnp.interp(height, FOREARM, rows)

    ratio = thick(forearm_mm, shape.forearm) / thick(REST_FOREARM_MM, own.forearm)
    swell = swell * (1.0 + mesh.weights[:, bones.FOREARM] * (ratio - 1.0))
    return (core + swell[:, None] * offset) @ pose.rotation.T + pose.position


def skin(
    vertices: Float[Array, "V 3"],
    weights: Float[Array, "V B"],
    transforms: Float[Array, "B 4 4"],
) -> Float[Array, "V 3"]:
    """Linear blend skinning: every vertex moved by the weighted mean of its bones' transforms.

    Args:
      vertices: in the rest pose.
      weights: of the bones, summing to one.
      transforms: from the rest pose to the pose, that is posed frame @ inverse(rest frame).
    """
    blend = jnp.einsum("vb,bij->vij", weights, transforms[:, :3])
    return jnp.einsum("vij,vj->vi", blend[:, :, :3], vertices) + blend[:, :, 3]
