"""Skeletons drawn on depth frames; PIL and NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from hpe_jax.camera import xyz_to_uvd
from hpe_jax.hand.skeletons import Skeleton

# By finger as in `hand.skeletons.FINGERS` (little, ring, middle, index, thumb), last the palm.
COLOURS = (
    (178, 102, 255),
    (64, 148, 255),
    (56, 210, 110),
    (255, 196, 40),
    (255, 82, 72),
    (222, 222, 222),
)
BACKGROUND = (17, 19, 24)
SLAB_MM = 150.0
_SMOOTH = 2  # drawn this much larger, then reduced, for smooth lines


def overlay(
    depth_patch: Float[np.ndarray, "H W"],
    corner: Float[np.ndarray, " 2"],
    camera: Float[np.ndarray, " 4"],
    joints: Float[np.ndarray, "J 3"] | None,
    skeleton: Skeleton,
    true: Float[np.ndarray, "J 3"] | None = None,
    scale: float = 4,
    valid: Bool[np.ndarray, " J"] | None = None,
    middle_mm: float | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """A depth patch as a shaded surface with a skeleton in finger colours on it.

    Surfaces within 150 mm of the hand's depth are shaded, others are left dark.

    Args:
      depth_patch: mm, 0 = no reading.
      corner: (u, v) of the patch's first pixel.
      camera: fx, fy, cx, cy.
      joints: predicted joints in mm, or None to draw none; those that are not finite or not in
        front of the camera are left out.
      skeleton: which joints to connect.
      true: true joints, drawn thin, white and dashed.
      scale: pixels of the picture for one of the patch.
      valid: which of the true joints to draw.
      middle_mm: the hand's depth; by default the median of the true joints, else of the predicted
        ones, else the nearest surface.

    Returns:
      RGB, uint8, `H * scale` by `W * scale` pixels (rounded).
    """
    depth_patch = np.asarray(depth_patch, np.float64)
    height, width = (max(round(n * scale), 1) for n in depth_patch.shape)
    shown = [np.array(j, np.float64) for j in (true, joints) if j is not None]
    if true is not None and valid is not None:
        shown[0][~np.asarray(valid, bool)] = np.nan
    if middle_mm is None:
        middle_mm = next((m for m in map(_middle_depth, shown) if m is not None), None)
    picture = _shade(depth_patch, camera, middle_mm, (width * _SMOOTH, height * _SMOOTH))
    draw = ImageDraw.Draw(picture)
    places = [_project(j, corner, camera, scale * _SMOOTH) for j in shown]
    unit = _line_unit(places)
    if joints is not None:
        _draw_skeleton(draw, places[-1], skeleton, unit)
    if true is not None:
        _draw_dashed(draw, places[0], skeleton, unit)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def grid(
    cells: Sequence[Sequence[UInt8[np.ndarray, "H W 3"]]],
    captions: Sequence[str],
    columns: int = 4,
    title: str = "",
    headings: Sequence[str] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Frames side by side.

    Args:
      cells: for each frame its pictures, all of one size, left to right.
      captions: one a frame, under its pictures.
      columns: frames in a row.
      title: above everything; may have several lines.
      headings: above each picture of the first row's frames, as many as a frame has pictures.
    """
    if not cells or len(cells) != len(captions):
        raise ValueError(f"{len(cells)} frames with {len(captions)} captions, expected one each")
    height, width = cells[0][0].shape[:2]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    gap, line, small = 10, 22, 18
    lines = title.splitlines()
    top = gap + line * len(lines) + (small if headings else 0) + (gap // 2 if lines else 0)
    frame_width = len(cells[0]) * (width + 2) - 2
    frame_height = height + small + gap
    page = Image.new(
        "RGB", (gap + columns * (frame_width + gap), top + rows * frame_height + gap), BACKGROUND
    )
    draw = ImageDraw.Draw(page)
    for i, text in enumerate(lines):
        draw.text(
            (gap, gap + i * line), text, fill=(235, 235, 235), font=_font(16 if i == 0 else 13)
        )
    for i, (pictures, caption) in enumerate(zip(cells, captions, strict=True)):
        row, column = divmod(i, columns)
        x0, y = gap + column * (frame_width + gap), top + row * frame_height
        for k, picture in enumerate(pictures):
            x = x0 + k * (width + 2)
            page.paste(Image.fromarray(picture), (x, y))
            if row == 0 and headings:
                draw.text((x + 2, y - small), headings[k], fill=(160, 165, 175), font=_font(12))
        draw.text((x0 + 2, y + height + 2), caption, fill=(210, 213, 220), font=_font(12))
    return np.asarray(page)


def _shade(
    depth: np.ndarray, camera: np.ndarray, middle: float | None, size: tuple[int, int]
) -> Image.Image:
    """Lambertian shading of the surface about `middle` (mm), its edges kept sharp."""
    reading = depth > 0
    if middle is None:
        middle = float(np.percentile(depth[reading], 2)) if reading.any() else 0.0
    hand = reading & (np.abs(depth - middle) < SLAB_MM)
    surface = _blur(np.where(hand, depth - middle, 0.0), hand)
    down, right = _slope(surface, hand, 0), _slope(surface, hand, 1)
    pixel = max(middle, 1.0) / np.array([float(camera[1]), float(camera[0])])  # mm
    normal = np.stack([right / pixel[1], down / pixel[0], -np.ones_like(surface)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array([-0.45, -0.55, -0.70])
    lit = np.clip(normal @ (light / np.linalg.norm(light)), 0, 1)
    near = np.clip(0.5 - surface / (2 * SLAB_MM), 0, 1)
    grey = np.where(hand, 40 + 150 * (0.25 + 0.75 * lit) * (0.55 + 0.6 * near), 0.0)
    # Grey is filled in beyond the edge before enlarging, and the mask enlarged apart from it.
    grey = np.where(hand, grey, _blur(grey, hand))
    smooth = _enlarge(np.clip(grey, 0, 255), size, Image.Resampling.BICUBIC)
    alpha = _enlarge(255.0 * hand, size, Image.Resampling.BILINEAR)
    alpha = (
        np.clip((alpha - 127.5) * max(size[0] / depth.shape[1], 2) / 2 + 127.5, 0, 255)[..., None]
        / 255
    )
    back = np.where(reading & ~hand, 1.0, 0.0)[..., None] * 9 + np.array(BACKGROUND)
    back = np.stack([_enlarge(back[..., c], size, Image.Resampling.NEAREST) for c in range(3)], -1)
    return Image.fromarray(np.uint8(np.rint(alpha * smooth[..., None] + (1 - alpha) * back)))


def _enlarge(image: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    return np.clip(np.asarray(Image.fromarray(image.astype(np.float32)).resize(size, how)), 0, 255)


def _blur(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the 3 x 3 neighbours inside `mask`, 0 where there is none."""
    total = np.pad(np.where(mask, values, 0.0), 1)
    count = np.pad(mask.astype(np.float64), 1)
    for axis in (0, 1):
        total = total + np.roll(total, 1, axis) + np.roll(total, -1, axis)
        count = count + np.roll(count, 1, axis) + np.roll(count, -1, axis)
    return (total / np.maximum(count, 1))[1:-1, 1:-1]


def _slope(surface: np.ndarray, mask: np.ndarray, axis: int) -> np.ndarray:
    """Change per pixel from the neighbours inside `mask`; steps between fingers are cut off."""
    step = np.diff(surface, axis=axis)
    pair = np.logical_and(
        *(
            np.take(mask, range(a, b), axis)
            for a, b in ((0, mask.shape[axis] - 1), (1, mask.shape[axis]))
        )
    )
    pair &= np.abs(step) < 12
    step = np.where(pair, step, 0.0)
    before, after = [[(0, 0), (0, 0)] for _ in range(2)]
    before[axis], after[axis] = (1, 0), (0, 1)
    count = np.pad(pair, before).astype(float) + np.pad(pair, after)
    return (np.pad(step, before) + np.pad(step, after)) / np.maximum(count, 1)


def _middle_depth(joints: np.ndarray) -> float | None:
    z = joints[np.isfinite(joints).all(-1) & (joints[..., 2] > 0), 2]
    return float(np.median(z)) if z.size else None


def _project(
    joints: np.ndarray, corner: np.ndarray, camera: np.ndarray, scale: float
) -> np.ndarray:
    """(x, y) in the enlarged picture and depth, (J, 3); NaN for a joint that has no place."""
    joints = np.array(joints, np.float64)
    joints[~(np.isfinite(joints).all(-1) & (joints[:, 2] > 0))] = np.nan
    uvd = np.array(xyz_to_uvd(joints, np.asarray(camera, np.float64)))
    # The centre of patch pixel 0 lies half an enlarged pixel in.
    uvd[:, :2] = (uvd[:, :2] - np.asarray(corner, np.float64) + 0.5) * scale
    uvd[np.abs(uvd[:, :2]).max(-1) > 1e5] = np.nan
    return uvd


def _line_unit(places: list[np.ndarray]) -> float:
    """A length for line widths, from the size of the first skeleton that can be drawn."""
    for place in places:
        finite = place[np.isfinite(place).all(-1), :2]
        if len(finite) > 1:
            return float(np.clip(np.ptp(finite, axis=0).max() / 45, 1.2 * _SMOOTH, 5 * _SMOOTH))
    return 3.0 * _SMOOTH


def _draw_skeleton(
    draw: ImageDraw.ImageDraw, places: np.ndarray, skeleton: Skeleton, unit: float
) -> None:
    width, radius = max(round(0.75 * unit), 2), max(0.85 * unit, 2.0)
    edge = max(round(unit / 4), 1)
    dark = (10, 10, 12)
    bones = [(a, b) for a, b in skeleton.bones if np.isfinite(places[[a, b]]).all()]
    # Far ones first, so that near ones cover them.
    bones.sort(key=lambda bone: -float(places[list(bone), 2].mean()))
    for a, b in bones:
        ends = [tuple(places[a, :2]), tuple(places[b, :2])]
        draw.line(ends, fill=dark, width=width + 2 * edge)
        draw.line(ends, fill=COLOURS[skeleton.finger[b]], width=width)
    for j in np.argsort(-np.nan_to_num(places[:, 2])):
        if np.isfinite(places[j]).all():
            x, y = places[j, :2]
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=COLOURS[skeleton.finger[j]], outline=dark, width=edge)


def _draw_dashed(
    draw: ImageDraw.ImageDraw, places: np.ndarray, skeleton: Skeleton, unit: float
) -> None:
    width, dash = max(round(unit / 4), 1), 1.5 * unit
    for a, b in skeleton.bones:
        if not np.isfinite(places[[a, b]]).all():
            continue
        start, along = places[a, :2], places[b, :2] - places[a, :2]
        count = max(int(np.hypot(*along) / dash), 1)
        for k in range(0, count, 2):
            ends = [tuple(start + along * (k + d) / count) for d in (0, 1)]
            draw.line(ends, fill=(255, 255, 255), width=width)
    radius = 0.55 * unit
    for x, y in places[np.isfinite(places).all(-1), :2]:
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, outline=(255, 255, 255), width=width)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
