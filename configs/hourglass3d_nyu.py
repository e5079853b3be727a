"""Structure-aware 3D hourglass (Huang et al., BMVC 2018) on NYU, view 1, 14 joints.

    python -m hpe_jax.main --config=configs/hourglass3d_nyu.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through NYU's camera, and
every result says "synthetic-nyu"; `--config.data.root=DIRECTORY` trains on NYU.

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     the paper: 64 voxels, two stacks, bones         a GPU; 20 epochs of 72,757 frames
`b1`-`b5`  the baselines of the paper's table 1            the same
`k1`, ...  other K of equation 3 (`SWEEPS`), read only     the same
`quick`    32 voxels, 16 channels, one-cycle Muon          minutes on two CPU cores
`quick_b1` any of these at the size of `quick`             the same
========== =============================================== ===================================

b1: coordinates instead of heatmaps; b2: no bones; b3: b1 on an image; b4: heatmaps of an image,
no bones; b5: the same with bones. b4 and b5 estimate no depth: read `mean_error_xy_mm` in
`metrics.json`.

The paper reports 8.9 mm on NYU with cubes about the true centre of mass (`data.centre=gt`).

Unlike the paper: centres are those found in the depth image (`data.centre=com`), with 10 mm of
noise in training (`data.centre_jitter_mm`), because true ones are not to be had outside a data
set; NYU's second test subject has 5/6 of the cube, as in most later work (`data.cube_by_subject`).
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.hourglass3d import BASELINES, PAPER, QUICK, SWEEPS

CHANGES = BASELINES | SWEEPS
VARIANTS = ("", "quick", *CHANGES, *(f"quick_{name}" for name in CHANGES))


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/hourglass3d_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    config = experiment("nyu")
    config.method = ConfigDict(PAPER)
    config.method.box = "cube"  # about the hand's centre of mass (section 4.1)
    config.batch = 16
    config.epochs = 20
    config.optimizer.lr = 1e-5
    config.optimizer.schedule = "step"
    config.optimizer.step_epochs = 5.0
    config.optimizer.step_factor = 0.3
    if variant.startswith("quick"):
        quicken(config, steps=900)
        config.batch = 8
        config.method.update(QUICK)
    name = variant.removeprefix("quick").removeprefix("_")
    if name:
        config.method.update(CHANGES[name])
    return config
