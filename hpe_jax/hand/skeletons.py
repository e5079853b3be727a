"""The joint sets of the data sets: names, bones and the order in which files store them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FINGERS = ("little", "ring", "middle", "index", "thumb")


@dataclass(frozen=True)
class Skeleton:
    """A data set's joints.

    Attributes:
      joints: names, in file order.
      bones: pairs of joint indices, parent first, that a picture should draw.
      finger: for each joint the index into `FINGERS`, or -1 for wrist and palm.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    finger: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, name: str) -> int:
        return self.joints.index(name)


def _skeleton(joints: list[str], chains: list[list[str]]) -> Skeleton:
    bones = tuple(
        (joints.index(a), joints.index(b))
        for chain in chains
        for a, b in zip(chain, chain[1:], strict=False)
    )
    finger = tuple(
        next((i for i, f in enumerate(FINGERS) if name.startswith(f)), -1) for name in joints
    )
    return Skeleton(tuple(joints), bones, finger)


# The 14 of NYU's 36 joints that everybody evaluates, and their columns in the 36.
NYU_COLUMNS = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
NYU = _skeleton(
    [
        *(f"{f}_{part}" for f in FINGERS[:4] for part in ("tip", "pip")),
        *("thumb_tip", "thumb_ip", "thumb_mcp", "wrist_ulnar", "wrist_radial", "palm"),
    ],
    [
        *(["palm", f"{f}_pip", f"{f}_tip"] for f in FINGERS[:4]),
        ["palm", "thumb_mcp", "thumb_ip", "thumb_tip"],
        ["palm", "wrist_ulnar"],
        ["palm", "wrist_radial"],
    ],
)
ICVL = _skeleton(
    [
        "palm",
        *(
            f"{f}_{part}"
            for f in ("thumb", "index", "middle", "ring", "little")
            for part in ("root", "mid", "tip")
        ),
    ],
    [
        ["palm", f"{f}_root", f"{f}_mid", f"{f}_tip"]
        for f in ("thumb", "index", "middle", "ring", "little")
    ],
)
MSRA = _skeleton(
    [
        "wrist",
        *(
            f"{f}_{part}"
            for f in ("index", "middle", "ring", "little")
            for part in ("mcp", "pip", "dip", "tip")
        ),
        *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    ],
    [
        *(
            ["wrist", *(f"{f}_{part}" for part in ("mcp", "pip", "dip", "tip"))]
            for f in ("index", "middle", "ring", "little")
        ),
        ["wrist", *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip"))],
    ],
)
# All of NYU's points, by the names of the 14 where they are among them. The others sit on bones
# like those do: "k3" the last phalanx, "k1" the first, a its far end and b its near one.
NYU36 = _skeleton(
    [
        *(
            f"{f}_{part}"
            for f in FINGERS[:4]
            for part in ("tip", "k3b", "k2a", "pip", "k1a", "k1b")
        ),
        *(f"thumb_{part}" for part in ("tip", "ip", "k2a", "mcp", "k1a", "k1b")),
        *("wrist_ulnar", "wrist_radial", "palm", "palm_ulnar", "palm_low", "wrist"),
    ],
    [
        *(
            ["palm", *(f"{f}_{part}" for part in ("k1b", "k1a", "pip", "k2a", "k3b", "tip"))]
            for f in FINGERS[:4]
        ),
        ["palm", *(f"thumb_{part}" for part in ("k1b", "k1a", "mcp", "k2a", "ip", "tip"))],
        *(["palm", name] for name in ("wrist_ulnar", "wrist_radial", "palm_ulnar", "palm_low")),
        ["palm", "wrist"],
    ],
)


def _pivots(finger: str) -> list[str]:
    parts = ("cmc", "mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
    return [f"{finger}_{part}" for part in parts]


_THUMB_FIRST = ("thumb", "index", "middle", "ring", "little")
_CHAINS = [["wrist", *_pivots(f)] for f in _THUMB_FIRST]
# BigHand2.2M, HANDS17 and FPHA: the bases, then the other joints finger by finger. Their thumb's
# "MCP, PIP, DIP" are its cmc, mcp and ip.
BIGHAND = _skeleton(
    [
        "wrist",
        *(_pivots(f)[0] for f in _THUMB_FIRST),
        *(joint for f in _THUMB_FIRST for joint in _pivots(f)[1:]),
    ],
    _CHAINS,
)
# The 16 joints of the MANO model in its order, then the five tips, which are vertices.
MANO = _skeleton(
    [
        "wrist",
        *(j for f in ("index", "middle", "little", "ring", "thumb") for j in _pivots(f)[:3]),
        *(f"{f}_tip" for f in _THUMB_FIRST),
    ],
    _CHAINS,
)
# FreiHAND and most RGB data sets: each finger from its base to its tip.
FREIHAND = _skeleton(["wrist", *(j for f in _THUMB_FIRST for j in _pivots(f))], _CHAINS)
# What centre networks estimate: the mean of a hand's joints.
CENTRE = _skeleton(["centre"], [])
SKELETONS = {
    "nyu": NYU,
    "nyu36": NYU36,
    "icvl": ICVL,
    "msra": MSRA,
    "bighand": BIGHAND,
    "mano": MANO,
    "freihand": FREIHAND,
    "centre": CENTRE,
}


def map_joints(
    joints: Float[np.ndarray, "*b J 3"], source: str, target: str
) -> Float[np.ndarray, "*b K 3"]:
    """Joints of one skeleton in the order of another, matched by name.

    Names say which part of the hand, not which millimetre: NYU's `little_pip` lies 6 mm beyond
    the pivot that MSRA15 calls so, and ICVL's tips are the middles of last bones.

    Args:
      joints: in the order of the skeleton `source`.
      source: key into `SKELETONS`.
      target: the same.
    Returns:
      NaN for joints that `source` does not have.

    Raises:
      ValueError: a skeleton that is not known, or another number of joints than `source` has.
    """
    for name in (source, target):
        if name not in SKELETONS:
            raise ValueError(f"skeleton {name!r}: expected one of {', '.join(SKELETONS)}")
    have, want = SKELETONS[source].joints, SKELETONS[target].joints
    joints = np.asarray(joints)
    joints = joints.astype(np.result_type(joints, np.float32))  # Integers have no NaN.
    if joints.ndim < 2 or joints.shape[-2:] != (len(have), 3):
        raise ValueError(f"joints of shape {joints.shape}, expected (..., {len(have)}, 3)")
    padded = np.concatenate([joints, np.full_like(joints[..., :1, :], np.nan)], -2)
    columns = [have.index(name) if name in have else len(have) for name in want]
    return padded[..., columns, :]
