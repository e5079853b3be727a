"""Hand3D (Deng et al., 2017) on NYU, view 1, 14 joints.

    python -m hpe_jax.main --config=configs/hand3d_nyu.py[:VARIANT] --workdir=DIR

Without `data.root` it trains on the built-in synthetic hands seen through NYU's camera, and every
result says "synthetic-nyu". Refinement learns from depth without the sensor's faults, here that of
synthetic hands; the pose network can be trained on NYU's frames:
`--config.stages.pose.data.root=DIRECTORY`, the same for `end_to_end`.

============ ========================================= =========================================
variant      what it is                                hardware and time
============ ========================================= =========================================
(none)       three stages: the refinement network, the a GPU; 30 epochs of 72,757 frames each
             pose network behind it, both together
`refine`     a stage alone; later ones expect earlier  the same
`pose`       ones beside their `--workdir`
`end_to_end`
`base`       the pose network, no refinement, hands of the same
             a single subject
`augmented`  the same, hands of every shape            the same
`refined`    three stages, hands of a single subject   the same
`quick`, …   each of these with 32 voxels, narrower    half an hour on two CPU cores
             networks, one-cycle Muon
============ ========================================= =========================================

The paper augments NYU's frames, all of one subject, by synthetic hands of many; here all hands are
synthetic, of one subject or of many. Recorded and synthetic frames are not mixed: with a data root
`augmented` trains as `base` does.

Unlike the paper: the middle of the volume is the hand's centre as `data.centre=com` finds it,
without the arm, which NYU's frames show, with 10 mm of noise in training
(`data.centre_jitter_mm`).
"""

from ml_collections import ConfigDict

from hpe_jax.defaults import experiment, in_stages, quicken
from hpe_jax.methods.hand3d import PAPER, QUICK, STAGES

VARIANTS = ("", *STAGES, "base", "augmented", "refined")
VARIANTS += ("quick", *(f"quick_{name}" for name in VARIANTS if name))
STEPS = {"refine": 800, "pose": 1800, "end_to_end": 400}  # of `quick`


def get_config(variant: str = "") -> ConfigDict:
    """The experiment or stages; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(
            f"configs/hand3d_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}"
        )
    quick, name = variant.startswith("quick"), variant.removeprefix("quick").removeprefix("_")
    subjects = 1 if name in ("base", "refined") else 0
    if name in STAGES:
        return stage(name, quick, subjects)
    if name in ("base", "augmented"):
        config = stage("pose", quick, subjects)
        config.method.refine, config.init_from, config.frozen = False, "", ""
        if quick:  # as many examples with joints as the stages see
            config.steps += STEPS["end_to_end"]
        return config
    return in_stages({name: stage(name, quick, subjects) for name in STAGES})


def stage(name: str, quick: bool, subjects: int) -> ConfigDict:
    """One of `STAGES`."""
    config = experiment("nyu")
    config.method = ConfigDict(PAPER)
    config.data.cube_mm = 300.0  # 60 voxels of 5 mm
    config.data.cube_by_subject = False  # they are 5 mm whoever it is (section 3.1)
    config.data.extent_mm = 408.0
    config.data.synthetic.subjects = subjects
    config.batch = 6
    config.epochs = 30
    config.optimizer.name = "adam"
    config.optimizer.lr = 1e-4
    if quick:
        quicken(config, STEPS[name])
        config.batch = 8
        if name != "pose":
            config.optimizer.lr = 0.01  # at 0.03 the tanh of refined distances saturates
        config.method.update(QUICK)
    config.update(STAGES[name])
    return config
