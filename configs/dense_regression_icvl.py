"""Dense 3D Regression (Wan et al., CVPR 2018) on ICVL, 16 joints.

    python -m hpe_jax.main --config=configs/dense_regression_icvl.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through ICVL's camera, and every
result says "synthetic-icvl"; `--config.data.root=DIRECTORY` trains on ICVL.

=============== ========================================== ===================================
variant         what it is                                 hardware and time
=============== ========================================== ===================================
(none)          two stacks, weighted mean shift, the       a GPU; 80 epochs of 22,000 frames
                optimiser as released for MSRA15
`paper`         batches of 40, a constant rate, no         the same
                weight decay and no clipping
`baseline1`-`4` the baselines of section 4.1               the same
`stacks1`, ...  the rows of table 1 (`SWEEPS`)             the same; all but `stacks1` only read
                                                           the paper's model in another way
`quick`         64 pixels, 64 channels, one-cycle Muon     minutes on two CPU cores
`quick_...`     any of these at the size of `quick`        the same
=============== ========================================== ===================================

The paper reports 7.3 mm on ICVL. Its released code cuts the crop about the box of the true joints
there, in the test too: compare with `data.centre=gt`, not with what `com` gives.

Unlike the paper: centres are those found in the depth image (`data.centre=com`), with 10 mm of
noise in training (`data.centre_jitter_mm`), as its detector is a network of its own
(`detector_nyu.py`). Depth is scaled to -1 to 1 (`methods/dense_regression.py`).
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.dense_regression import BASELINES, PAPER, PLAIN, QUICK, RELEASED, SWEEPS

CHANGES = BASELINES | SWEEPS
VARIANTS = ("", "paper", "quick", *CHANGES, *(f"quick_{name}" for name in CHANGES))


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/dense_regression_icvl.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    config = experiment("icvl")
    config.method = ConfigDict(PAPER)
    config.epoch_examples = 22_000
    config.batch = 200  # released: 40 at a time, five times; the paper: 40
    config.epochs = 80
    config.optimizer.update(RELEASED)
    config.optimizer.step_epochs = 20.0
    if variant == "paper":
        config.batch = 40
        config.optimizer.update(PLAIN)
        return config
    if variant.startswith("quick"):
        config.optimizer.update(PLAIN)
        quicken(config, steps=4500)
        config.batch = 8
        config.method.update(QUICK)
    name = variant.removeprefix("quick").removeprefix("_")
    if name:
        config.method.update(CHANGES[name])
    return config
