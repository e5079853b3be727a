"""From a whole depth frame to the part of it that methods see: find the hand, cut it out.

Data sets and `predict` both come through here, so that a model is always used on patches cut
the way its training patches were.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from jaxtyping import Float

from hpe_jax.camera import (
    cut_patch,
    decimate,
    patch_window,
    xyz_to_uvd,
)
from hpe_jax.kernels.localise import localise, segment_hand

# The hand is looked for in an image about this wide: a hand of 250 mm still covers hundreds
# of pixels there, and a search costs a sixteenth of what it would on a VGA frame.
SEARCH_WIDTH = 160


def hand_patch(
    depth: Float[np.ndarray, "H W"],
    centre: Float[np.ndarray, "3"],
    camera: Float[np.ndarray, "4"],
    *,
    patch: int,
    extent_mm: float,
) -> dict[str, np.ndarray]:
    """Cut a square patch of native pixels about the hand.

    Args:
      depth: the whole frame, mm, 0 = no reading.
      centre: mm, the middle of the hand; in front of the camera.
      camera: fx, fy, cx, cy of the whole frame.
      patch: edge of the patch in pixels.
      extent_mm: what the patch must span at the hand's distance, if it is smaller than the frame;
        decides which k-th pixels are taken (`camera.patch_window`).

    Returns:
      `depth` (patch, patch), `corner` (2,), `camera` (4,) and `centre` (3,) of the batch
      contract, float32; the decimation is folded into the camera.
    """
    centre = np.asarray(centre, np.float32)
    camera = np.asarray(camera, np.float32)
    step, corner = patch_window(centre, camera, depth.shape, extent_mm, patch)
    return {
        "depth": cut_patch(depth, np.asarray(corner), int(step), patch),
        "corner": np.asarray(corner, np.float32),
        "camera": np.asarray(decimate(camera, int(step)), np.float32),
        "centre": centre,
    }


def search_step(width: int) -> int:
    """Every how many pixels of so wide an image the hand is looked for."""
    return max(1, round(width / SEARCH_WIDTH))


def whole_frame(
    depth: Float[np.ndarray, "H W"],
    centre: Float[np.ndarray, "3"],
    camera: Float[np.ndarray, "4"],
) -> dict[str, np.ndarray]:
    """Every k-th pixel of a frame, about `SEARCH_WIDTH` columns, as `hand_patch` gives patches."""
    step = search_step(depth.shape[1])
    return {
        "depth": np.ascontiguousarray(depth[::step, ::step], np.float32),
        "corner": np.zeros(2, np.float32),
        "camera": np.asarray(decimate(np.asarray(camera, np.float32), step), np.float32),
        "centre": np.asarray(centre, np.float32),
    }


def find_hand(
    depth: Float[np.ndarray, "H W"], camera: Float[np.ndarray, "4"]
) -> Float[np.ndarray, "3"] | None:
    """The hand's centre of mass (mm) in a whole frame, or None if there is no hand.

    Runs `kernels.localise` on every k-th pixel, k such that about `SEARCH_WIDTH` columns are
    left. The k-th pixels of each frame are exactly what `hand_patch` cuts from for that k.
    """
    small = whole_frame(depth, np.zeros(3), camera)
    # On the CPU: reader threads must not queue behind the training step of an accelerator.
    # Explicit transfers: the training loop forbids the implicit ones.
    arguments = jax.device_put((small["depth"], small["corner"], small["camera"]), _host())
    centre = np.asarray(jax.device_get(_localise(*arguments)), np.float32)
    return centre if np.isfinite(centre).all() and centre[2] > 0 else None


_localise = jax.jit(localise)


@functools.cache
def _host() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out.
        return jax.local_devices()[0]


def outside_frame(
    centre: Float[np.ndarray, "3"], camera: Float[np.ndarray, "4"], size: tuple[int, int]
) -> bool:
    """Whether a centre is not in front of an (height, width) image."""
    if not (np.isfinite(centre).all() and centre[2] > 0):
        return True
    uvd = xyz_to_uvd(np.asarray(centre, np.float64), np.asarray(camera, np.float64))
    u, v, _ = np.asarray(uvd)
    return not (0 <= u <= size[1] - 1 and 0 <= v <= size[0] - 1)


def empty_cube(example: dict[str, np.ndarray], cube_mm: float) -> bool:
    """Whether a patch from `hand_patch` has no reading inside the hand's cube."""
    depth, corner, camera = (example[name] for name in ("depth", "corner", "camera"))
    return not bool(np.any(segment_hand(depth, corner, camera, example["centre"], cube_mm)))
