"""Hand poses that Intel's hand tracker recorded (IntelRealSense/hand_tracking_samples), as joints.

A `.pose` file holds a frame a line: for each of 17 bones its position (metres) and its rotation as
a quaternion x, y, z, w, in a camera with x right, y down, z forward. Bone 0 is the forearm, 1 the
palm, then three bones each of thumb, index, middle, ring and little finger of a right hand: the
fingers bend about their own x to where the palm looks, and z leads along the bone.

`model_hand.json` beside it says where the bones meet (`joints`: bone `rbi1` begins at `p0` of bone
`rbi0`) and what surrounds them (`controlcages`), both with a bone's pivot as its origin. The
positions of the `.pose` file are not these pivots but the bones' centres of mass, which no file
holds; here they are found from the poses themselves, as the points for which the bones meet.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hpe_jax.errors import InputError

BONES = 17
COLUMNS = 7 * BONES
MODEL = "model_hand.json"
# The bone that each one hangs on; the palm's hangs on the forearm.
PARENTS = (-1, 0, 1, 2, 3, *(p for first in (5, 8, 11, 14) for p in (1, first, first + 1)))
TIPS = (4, 7, 10, 13, 16)
_WORDS = f"{BONES} bones x (position, quaternion)"
# How far a centre of mass is from the middle of the cage's corners (standard deviation, mm), and
# how well the tracker keeps bones together: this decides where few poses leave it open.
_AWAY_MM, _LOOSE_MM = 3.0, 0.1
_APART_MM = 3.0  # The tracker's own poses have some 0.1 mm, at most 1.3.
_FAR_END_MM = 5.0  # corners of a cage this near to its end make up the end


def read_tracked(path: str | Path) -> Float[np.ndarray, "N 21 3"]:
    """The joints of a `.pose` file with `model_hand.json` beside it.

    Wrist and joints are the bones' pivots, tips the middle of the far end of the last bones' cages
    (some 1 mm outside the skin). The model's thumb begins near the wrist: its `thumb_cmc` lies some
    20 mm deeper in the palm than the joint of that name.

    Args:
      path: of the `.pose` file.
    Returns:
      (N, 21, 3) in the camera, mm, a right hand in the order of the skeleton "freihand".
    Raises:
      InputError: a file that cannot be read, a line of the poses that is wrong, or a model that is
        not that of the poses.
    """
    path = Path(path)
    frames = _read_frames(path)
    starts, cages = _read_model(path.parent / MODEL)
    centres = 1e3 * frames[..., :3]
    turns = _rotations(frames[..., 3:])
    middles = np.stack([cage.mean(0) for cage in cages])
    masses = _centres_of_mass(centres, turns, starts, middles)
    pivots = centres - np.einsum("nbij,bj->nbi", turns, masses)
    parents, children = np.array(PARENTS[1:]), np.arange(1, BONES)
    ends = pivots[:, parents] + np.einsum("nbij,bj->nbi", turns[:, parents], starts[1:])
    apart = np.linalg.norm(ends - pivots[:, children], axis=-1)
    worst = int(apart.max(1).argmax())
    if apart.max() > _APART_MM:
        raise InputError(
            f"{path}, line {worst + 1}: bones are {apart.max():.1f} mm apart at a joint, expected "
            f"poses (metres) of the hand in {MODEL} beside them"
        )
    far = [cage[cage[:, 2] > cage[:, 2].max() - _FAR_END_MM].mean(0) for cage in cages]
    joints = [pivots[:, 1]]
    for tip in TIPS:
        joints += [pivots[:, tip - 2], pivots[:, tip - 1], pivots[:, tip]]
        joints.append(pivots[:, tip] + turns[:, tip] @ far[tip])
    return np.stack(joints, 1).astype(np.float32)


def _read_frames(path: Path) -> Float[np.ndarray, "N 17 7"]:
    """Positions (m) and unit quaternions."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text file of tracked poses") from error
    if not lines:
        raise InputError(f"{path}: empty, expected a line of {COLUMNS} numbers a frame")
    rows = np.empty((len(lines), COLUMNS))
    for i, line in enumerate(lines):
        words = line.split()
        if len(words) != COLUMNS:
            raise InputError(
                f"{path}, line {i + 1}: {len(words)} numbers, expected {COLUMNS} ({_WORDS})"
            )
        try:
            rows[i] = [float(word) for word in words]
        except ValueError:
            rows[i] = np.nan
        if not np.isfinite(rows[i]).all():
            raise InputError(f"{path}, line {i + 1}: expected {COLUMNS} finite numbers ({_WORDS})")
    frames = rows.reshape(-1, BONES, 7)
    length = np.linalg.norm(frames[..., 3:], axis=-1)
    bad = np.argwhere(np.abs(length - 1.0) > 0.01)
    if len(bad):
        frame, bone = bad[0]
        raise InputError(
            f"{path}, line {frame + 1}: bone {bone} has a quaternion of length "
            f"{length[frame, bone]:.3f}, expected 1 ({_WORDS})"
        )
    frames[..., 3:] /= length[..., None]
    return frames


def _read_model(path: Path) -> tuple[Float[np.ndarray, "17 3"], list[Float[np.ndarray, "V 3"]]]:
    """Where each bone begins in the frame of the one it hangs on (mm; the forearm's is 0), and the
    corners of each bone's cage in its own frame (mm)."""
    expected = f"expected the hand model that the poses were tracked with, {BONES} bones"
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        joints = sorted(model["joints"], key=lambda joint: joint["rbi1"])
        tree = [(joint["rbi0"], joint["rbi1"]) for joint in joints]
        starts = 1e3 * np.array([[0.0] * 3, *(joint["p0"] for joint in joints)], float)
        ends = np.array([joint["p1"] for joint in joints], float)
        cages = [1e3 * np.array(cage["verts"], float) for cage in model["controlcages"]]
    except OSError as error:
        raise InputError(f"{path}: {expected}, beside them") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {expected}, with joints and controlcages") from error
    if tree != list(zip(PARENTS[1:], range(1, BONES), strict=True)) or len(cages) != BONES:
        raise InputError(f"{path}: {expected} that hang on one another as in the tracker's hand")
    shapes = {cage.shape[1:] for cage in cages} | {starts.shape[1:], ends.shape[1:]}
    finite = all(len(a) and np.isfinite(a).all() for a in (starts, ends, *cages))
    if shapes != {(3,)} or not finite or np.abs(ends).max() > 0:
        raise InputError(f"{path}: {expected} whose pivots are their origins, of finite numbers")
    return starts, cages


def _rotations(quaternions: Float[np.ndarray, "N B 4"]) -> Float[np.ndarray, "N B 3 3"]:
    """Of unit quaternions x, y, z, w."""
    v, w = quaternions[..., :3], quaternions[..., 3, None, None]
    cross = np.cross(np.eye(3), v[..., None, :])  # rows e x v, which is the matrix of v x
    return np.eye(3) + 2.0 * (w * cross + cross @ cross)


def _centres_of_mass(
    centres: Float[np.ndarray, "N 17 3"],
    turns: Float[np.ndarray, "N 17 3 3"],
    starts: Float[np.ndarray, "17 3"],
    middles: Float[np.ndarray, "17 3"],
) -> Float[np.ndarray, "17 3"]:
    """In the bones' frames (mm): those for which the bones meet in all frames, by least squares
    that begin at the middles of the cages."""
    matrix = np.eye(3 * BONES) / _AWAY_MM**2
    right = np.zeros(3 * BONES)
    away = centres - np.einsum("nbij,bj->nbi", turns, middles)
    for child, parent in enumerate(PARENTS):
        if parent < 0:
            continue
        ends = away[:, parent] + turns[:, parent] @ starts[child]
        gap = (ends - away[:, child]).reshape(-1)
        # The gap changes by -R of the parent's centre and by R of the child's.
        slope = np.concatenate([turns[:, parent], -turns[:, child]], -1).reshape(-1, 6)
        at = np.r_[3 * parent : 3 * parent + 3, 3 * child : 3 * child + 3]
        matrix[np.ix_(at, at)] += slope.T @ slope / _LOOSE_MM**2
        right[at] += slope.T @ gap / _LOOSE_MM**2
    return middles + np.linalg.solve(matrix, right).reshape(BONES, 3)
