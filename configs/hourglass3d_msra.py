"""Structure-aware 3D hourglass (Huang et al., BMVC 2018) on MSRA15, 21 joints.

    python -m hpe_jax.main --config=configs/hourglass3d_msra.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through MSRA15's camera,
and every result says "synthetic-msra"; `--config.data.root=DIRECTORY` trains on MSRA15 without the
subject `data.subject`, which is the test. All nine folds, and their pooled result:

    for s in 0 1 2 3 4 5 6 7 8; do
        python -m hpe_jax.main --config=configs/hourglass3d_msra.py --workdir=runs/msra/P$s \
            --config.data.root=DIRECTORY --config.data.subject=$s
    done
    cat runs/msra/P?/predictions.txt > predictions.txt
    cat runs/msra/P?/groundtruth.txt > groundtruth.txt
    python -m hpe_jax.evaluate --dataset=msra --groundtruth=groundtruth.txt \
        --predictions=predictions.txt --out=runs/msra/pooled

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     the paper: 64 voxels, two stacks, bones         a GPU; 20 epochs of 67,900 frames
`b1`-`b5`  the baselines of the paper's table 1            the same
`k1`, ...  other K of equation 3 (`SWEEPS`), read only     the same
`quick`    32 voxels, 16 channels, one-cycle Muon          minutes on two CPU cores
`quick_b1` any of these at the size of `quick`             the same
========== =============================================== ===================================

b1: coordinates instead of heatmaps; b2: no bones; b3: b1 on an image; b4: heatmaps of an image,
no bones; b5: the same with bones. b4 and b5 estimate no depth: read `mean_error_xy_mm` in
`metrics.json`.

The paper reports 7.4 mm on MSRA15, and for b1 to b5 11.6, 7.9, 13.1, 8.1 (xy) and 7.6 (xy) mm.

Unlike the paper: centres are those found in the depth image (`data.centre=com`), with 10 mm of
noise in training (`data.centre_jitter_mm`), because true ones are not to be had outside a data
set. Synthetic hands have no forearm at the paper's size: the data set's frames show little of it.
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
            f"configs/hourglass3d_msra.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    config = experiment("msra")
    config.method = ConfigDict(PAPER)
    config.data.stand_in = True  # the protocol counts frames without a hand
    config.data.skip_unreadable = True  # training meets them too
    config.batch = 16
    config.epochs = 20
    config.optimizer.lr = 1e-5
    config.optimizer.schedule = "step"
    config.epoch_examples = 67_900  # about what eight subjects have
    config.optimizer.step_epochs = 5.0
    config.optimizer.step_factor = 0.3
    if variant.startswith("quick"):
        quicken(config, steps=1600)
        config.batch = 8
        config.method.update(QUICK)
    else:  # The box is that of all points (section 3.1): the frames show little else than the hand.
        config.data.cube_mm, config.data.extent_mm = 300.0, 408.0
        config.data.cube_by_subject = False
        config.data.synthetic.forearm = False
    name = variant.removeprefix("quick").removeprefix("_")
    if name:
        config.method.update(CHANGES[name])
    return config
