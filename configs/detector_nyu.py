"""The whole-frame hand detector (Wan et al., CVPR 2018, section 4.3) on NYU, view 1.

    python -m hpe_jax.main --config=configs/detector_nyu.py[:VARIANT] --workdir=runs/detector
    python -m hpe_jax.predict --workdir=runs/quickstart --centre_model=runs/detector ...

Without `data.root` it trains on the built-in synthetic hands, arms and people behind them seen
through NYU's camera, and every result says "synthetic-nyu"; `--config.data.root=DIRECTORY` trains
on NYU. Its figures are those of the joints that it detects; it is told no centre, and neither
is the constant pose that it is compared with.

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     one stack of 128 features                       a GPU; 20 epochs of 72,757 frames
`quick`    32 features, one-cycle Muon                     minutes on two CPU cores
========== =============================================== ===================================

`python -m launch.write_centres --workdir=runs/detector` writes the field's centre files.
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.detector import PAPER, QUICK

VARIANTS = ("", "quick")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/detector_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    config = experiment("nyu")
    config.data.whole = True
    config.method = ConfigDict(PAPER)
    config.batch = 32
    config.epochs = 20
    config.optimizer.name = "adam"
    config.optimizer.lr = 1e-3
    config.optimizer.schedule = "cosine"
    if variant == "quick":
        quicken(config, steps=2400)
        config.batch = 8
        config.method.update(QUICK)
    return config
