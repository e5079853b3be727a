"""Reading depth frames from disk: always float32 millimetres, 0 where there is no reading."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from hpe_jax.errors import InputError

SUFFIXES = (".png", ".npy")

# NYU's frames store 2001 where nothing was measured; its tools keep what is nearer than 2 m.
NYU_BACKGROUND = 2000
# Its folders hold the frames of three cameras, and what else they saw.
_NYU_FRAME = re.compile(r"((?:depth|rgb|synthdepth)_\d)_\d{7}\.png")

# What broken files make their readers raise; a size that cannot be true, want of memory or a bomb.
_BROKEN = (OSError, ValueError, EOFError, SyntaxError, MemoryError)
_BROKEN_NPY = (*_BROKEN, zipfile.BadZipFile)
_BROKEN_PNG = (*_BROKEN, zlib.error, struct.error, Image.DecompressionBombError)


def read_depth(
    path: str | Path, *, depth_unit: float = 1.0, size: tuple[int, int] | None = None
) -> Float[np.ndarray, "H W"]:
    """Read one depth frame.

    Three kinds of file are told apart by their content: a 16-bit single-channel PNG and a
    two-dimensional `.npy`, both in units of `depth_unit` mm, and NYU's packing, an 8-bit RGB
    PNG with `green * 256 + blue` mm and nothing in red.

    Args:
      path: a `.png` or `.npy` file.
      depth_unit: millimetres per count; NYU's packing is in millimetres whatever this says,
        so anything but 1 is an error there.
      size: (height, width) that the frame must have; None takes any.

    Returns:
      (H, W) float32 mm; 0 where there is no reading. Non-finite and negative values count as
      no reading, and so does NYU's background.

    Raises:
      InputError: the file is missing, truncated, of another kind or of another size.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such depth frame")
    if path.suffix.lower() == ".npy":
        depth = _read_npy(path) * np.float32(depth_unit)
    elif path.suffix.lower() == ".png":
        depth = _read_png(path, depth_unit)
    else:
        raise InputError(f"{path}: expected a depth frame as .png or .npy")
    if size is not None and depth.shape != tuple(size):
        raise InputError(
            f"{path}: the frame is {depth.shape[1]} x {depth.shape[0]} pixels, "
            f"expected {size[1]} x {size[0]}"
        )
    # In place: a large array more is memory more to be asked for, which costs as much as the sums.
    np.copyto(depth, 0, where=~((depth > 0) & (depth < np.inf)))
    return depth


def unpack_nyu(rgb: np.ndarray) -> Float[np.ndarray, "H W"]:
    """NYU's packing, (H, W, 3) uint8 -> (H, W) float32 mm, its background turned into 0."""
    # Cast before shifting: 256 does not fit the 8 bits of the image.
    depth = rgb[..., 1].astype(np.uint16)
    depth <<= 8
    depth |= rgb[..., 2]
    depth[depth >= NYU_BACKGROUND] = 0
    return depth.astype(np.float32)


def list_frames(path: str | Path) -> list[Path]:
    """The depth frames that `--input` names: one file, a directory's but for hidden ones, or those
    of a directory that a pattern such as `test/depth_1_*.png` fits; in the order of their names
    and of the numbers therein: frame2 comes before frame10.

    Raises:
      InputError: the path does not exist, or there is no `.png` or `.npy` file; or there are those
        of several of NYU's cameras.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    folder, pattern = (path, "*") if path.is_dir() else (path.parent, path.name)
    if not (folder.is_dir() and has_magic(pattern)):
        raise InputError(
            f"{path}: no such file or directory"
            + (", a pattern can only be its last part" if has_magic(str(folder)) else "")
        )
    named = (p for p in folder.iterdir() if fnmatchcase(p.name, pattern))
    shown = (p for p in named if not p.name.startswith("."))
    # A broken link counts: left out, all frames after it would be taken for their neighbours.
    frames = [p for p in shown if p.suffix.lower() in SUFFIXES and (p.is_file() or p.is_symlink())]
    if not frames:
        raise InputError(f"{path}: expected depth frames (*.png or *.npy) there")
    kinds = sorted({found[1] for p in frames if (found := _NYU_FRAME.fullmatch(p.name))})
    if len(kinds) > 1:
        raise InputError(
            f"{path}: holds NYU's {', '.join(kinds)}, expected one camera's depth, such as "
            f"{folder / kinds[0]}_*.png"
        )
    return sorted(frames, key=_by_numbers)


def _by_numbers(path: Path) -> tuple[list[str | int], str]:
    """Text and numbers of a name in turn; the name itself tells 1 from 01."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _read_npy(path: Path) -> np.ndarray:
    try:
        depth = np.load(path, allow_pickle=False)
    except _BROKEN_NPY as error:
        raise InputError(f"{path}: unreadable .npy file ({_reason(error, path)})") from error
    if not isinstance(depth, np.ndarray):  # The suffix does not matter to NumPy.
        depth.close()
        raise InputError(f"{path}: expected one array as .npy, found an archive of them (.npz)")
    if depth.ndim != 2 or depth.dtype.kind not in "uif" or not depth.size:
        raise InputError(
            f"{path}: expected a 2-D array of numbers, one frame a file, found {depth.dtype} "
            f"{depth.shape}"
        )
    return depth.astype(np.float32)


def _read_png(path: Path, depth_unit: float) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except _BROKEN_PNG as error:
        raise InputError(f"{path}: truncated or unreadable PNG ({_reason(error, path)})") from error
    if mode in ("I;16", "I;16B", "I"):
        return pixels.astype(np.float32) * np.float32(depth_unit)
    if mode == "RGB":
        if pixels[..., 0].any():
            raise InputError(
                f"{path}: a colour image; expected depth, either a 16-bit single-channel PNG "
                "or NYU's packing (green * 256 + blue, red 0)"
            )
        if depth_unit != 1.0:
            raise InputError(
                f"{path}: NYU's packing is in millimetres, expected depth_unit 1, "
                f"not {depth_unit:g}"
            )
        return unpack_nyu(pixels)
    raise InputError(
        f"{path}: expected a 16-bit single-channel PNG or NYU's RGB packing, found mode {mode}"
    )


def _reason(error: Exception, path: Path) -> str:
    # The libraries' messages often repeat the path, which ours begin with already.
    text = (str(error) or type(error).__name__).splitlines()[0]
    return text.replace(f" '{path}'", "").replace(f" {str(path)!r}", "")
