"""V2V-PoseNet (Moon, Chang and Lee, CVPR 2018) on NYU, view 1, 14 joints.

    python -m hpe_jax.main --config=configs/v2v_nyu.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through NYU's camera, and
every result says "synthetic-nyu"; `--config.data.root=DIRECTORY` trains on NYU.

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     the paper: 88 voxels, arg-max decode, RMSProp   a GPU; ten epochs of 72,757 frames
`subvoxel` the same, decoded between the voxels            the same
`quick`    32 voxels, a narrower network, one-cycle Muon   minutes on two CPU cores
`long`     seven times the examples of `quick`             the better part of an hour
========== =============================================== ===================================

On synthetic-nyu `quick` reaches 14 mm and `long` 8.1 mm (best constant pose 50.7 mm, centres
`com`).

The paper reports 8.42 mm on NYU with an ensemble and refined centres; a single
model is worse. The arg-max rounds to voxels of 5.7 mm, by 2.7 mm on average; `subvoxel` does not.

Unlike the paper: centres are those found in the depth image (`data.centre=com`), with 10 mm of
noise in training (`data.centre_jitter_mm`), as the paper's refined ones need a network of their
own (`configs/centre_nyu.py`, `data.centre=refined`); NYU's second test subject has 5/6 of the
cube, as in most later work (`data.cube_by_subject`).
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.v2v import PAPER, QUICK

VARIANTS = ("", "quick", "long", "subvoxel")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/v2v_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}")
    config = experiment("nyu")
    config.method = ConfigDict(PAPER)
    if variant == "subvoxel":
        config.method.decode = "subvoxel"  # the arg-max quantises to 5.7 mm output voxels
    if variant in ("quick", "long"):
        quicken(config, steps=8000 if variant == "long" else 1100)
        config.method.update(QUICK)
    return config
