"""The hand-centre network (DeepPrior++'s, ICCVW 2017) on NYU, view 1.

    python -m hpe_jax.main --config=configs/centre_nyu.py[:VARIANT] --workdir=runs/centre
    python -m hpe_jax.main --config=configs/v2v_nyu.py:quick --workdir=runs/v2v_refined \\
        --config.data.centre=refined --config.data.centre_model=runs/centre

Without `data.root` it trains on the built-in synthetic hands seen through NYU's camera, and
every result says "synthetic-nyu"; `--config.data.root=DIRECTORY` trains on NYU.

========== =============================================== ===================================
variant    what it is                                      hardware and time
========== =============================================== ===================================
(none)     crops of 128, 64 and 32 pixels                  a GPU; 20 epochs of 72,757 frames
`quick`    crops of 64, 32 and 16 pixels, batch norm,      eight minutes on one CPU core
           looks twice, one-cycle Muon
========== =============================================== ===================================

`python -m launch.write_centres --workdir=runs/centre --root=DIRECTORY --splits=train,test` writes
the field's centre files.
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, quicken
from hpe_jax.methods.centre import PAPER, QUICK

VARIANTS = ("", "quick")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/centre_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    config = experiment("nyu")
    config.data.target = "centre"
    config.method = ConfigDict(PAPER)
    config.batch = 128
    config.epochs = 20
    config.optimizer.name = "adam"
    config.optimizer.lr = 1e-3
    config.optimizer.schedule = "cosine"
    if variant == "quick":
        quicken(config, steps=5000)
        config.batch = 16
        config.method.update(QUICK)
    return config
