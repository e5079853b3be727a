"""The joint sets of the data sets: names, bones and the order in which files store them."""

from __future__ import annotations

from dataclasses import dataclass

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
# What centre networks estimate: the mean of a hand's joints.
CENTRE = _skeleton(["centre"], [])
SKELETONS = {"nyu": NYU, "icvl": ICVL, "msra": MSRA, "centre": CENTRE}
