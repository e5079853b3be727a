"""V2V-PoseNet (Moon, Chang and Lee, CVPR 2018) on MSRA15, 21 joints.

    python -m hpe_jax.main --config=configs/v2v_msra.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through MSRA15's camera, and
every result says "synthetic-msra"; `--config.data.root=DIRECTORY` trains on MSRA15 without the
subject `data.subject`, which is the test (all nine folds: `configs/hourglass3d_msra.py`).

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     the paper: 88 voxels, arg-max decode, RMSProp   a GPU; ten epochs of 67,900 frames
`subvoxel` the same, decoded between the voxels            the same
`quick`    32 voxels, a narrower network, one-cycle Muon   minutes on two CPU cores
`long`     seven times the examples of `quick`             the better part of an hour
========== =============================================== ===================================

On synthetic-msra `quick` reaches 14 mm and `long` 8.9 mm (best constant pose 46.1 mm, centres
`com`).

The paper reports 7.59 mm on MSRA15 with an ensemble and refined centres. The arg-max rounds to
voxels of 4.5 mm, by 2.2 mm on average; `subvoxel` does not.

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
        raise ValueError(f"configs/v2v_msra.py has no variant {variant!r}, expected {VARIANTS[1:]}")
    config = experiment("msra")
    config.method = ConfigDict(PAPER)
    config.data.cube_by_subject = False  # the paper's cube is 200 mm for everybody
    config.data.stand_in = True  # the protocol counts frames without a hand
    config.data.skip_unreadable = True  # training meets them too
    config.epoch_examples = 67_900  # about what eight subjects have
    if variant == "subvoxel":
        config.method.decode = "subvoxel"
    if variant in ("quick", "long"):
        quicken(config, steps=8000 if variant == "long" else 1100)
        config.method.update(QUICK)
    return config
