"""V2V-PoseNet (Moon, Chang and Lee, CVPR 2018) on ICVL, 16 joints.

    python -m hpe_jax.main --config=configs/v2v_icvl.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through ICVL's camera, and every
result says "synthetic-icvl"; `--config.data.root=DIRECTORY` trains on ICVL.

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     the paper: 88 voxels, arg-max decode, RMSProp   a GPU; ten epochs of 331,006 frames
`subvoxel` the same, decoded between the voxels            the same
`quick`    32 voxels, a narrower network, one-cycle Muon   minutes on two CPU cores
`long`     seven times the examples of `quick`             the better part of an hour
========== =============================================== ===================================

On synthetic-icvl `quick` reaches 13 mm and `long` 7.3 mm (best constant pose 42.7 mm, centres
`com`).

The paper reports 6.28 mm on ICVL with an ensemble and refined centres. The arg-max rounds to voxels
of 4.5 mm, by 2.2 mm on average; `subvoxel` does not. As in its released code the rotated copies of
some 22,000 recorded frames are trained on, too; `data.rotated=False` leaves them out.

Unlike the paper: centres are those found in the depth image (`data.centre=com`), with 10 mm of
noise in training (`data.centre_jitter_mm`), as the paper's refined ones need a network of their
own, of which there is one for NYU only.
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.v2v import PAPER, QUICK

VARIANTS = ("", "quick", "long", "subvoxel")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/v2v_icvl.py has no variant {variant!r}, expected {VARIANTS[1:]}")
    config = experiment("icvl")
    config.method = ConfigDict(PAPER)
    config.data.rotated = True
    config.epoch_examples = 331_006
    if variant == "subvoxel":
        config.method.decode = "subvoxel"
    if variant in ("quick", "long"):
        quicken(config, steps=8000 if variant == "long" else 1100)
        config.method.update(QUICK)
    return config
