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
`long`     `quick` with nine times the examples            the better part of an hour of those
========== =============================================== ===================================

On synthetic-nyu `quick` reaches 16.9 mm (best constant pose 52.6 mm, centres `com`).

The paper reports 8.42 mm on NYU with an ensemble of ten models and refined centres; a single
model is worse, and the arg-max costs 2.74 mm of that, which `subvoxel` wins back.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "quick", "long", "subvoxel")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; `variant` is what follows the colon in `--config=FILE:VARIANT`."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/v2v_nyu.py has no variant {variant!r}, expected {VARIANTS[1:]}")
    config = ConfigDict(
        {
            "seed": 0,
            "method": {
                "name": "v2v",
                "input": 88,  # voxels along the cube's edge that the network sees (section 3.3)
                "canvas": 96,  # voxels of the cube with room for random translation
                "widths": (16, 32, 64, 128),
                "sigma": 1.7,  # of the target heatmaps, output voxels (section 4.2)
                "decode": "argmax",  # argmax | topk | subvoxel
                "top_k": 5,  # for topk
                "scale": (0.8, 1.2),  # training augmentation (section 4.3)
                "rotation_deg": 40.0,
                "kernel_std": 0.001,
                "output_std": 0.001,  # of the last convolution
                "dtype": "float32",  # of the arithmetic; parameters are always float32
            },
            "data": {
                "dataset": "nyu",
                "root": "",  # empty: built-in synthetic hands
                "centre": "com",  # com | gt | file | refined
                "centre_file": "",
                "cube_mm": 250.0,
                "view": 1,  # NYU's camera: 1 is the frontal one that everybody evaluates
                "patch": 384,  # pixels of a depth patch: every pixel of a hand 0.7 m away
                "extent_mm": 340.0,  # what a patch covers: the cube turned and scaled
                # Refined test centres lie some 10 mm per axis from the joints' mean.
                "centre_jitter_mm": 10.0,
                "skip_unreadable": False,  # in training: the next frame replaces it
                "stand_in": False,  # in a test: the frame before it is looked at in its stead
                "synthetic": {"sensor": True, "forearm": True},
            },
            "optimizer": {
                "name": "rmsprop",  # rmsprop | adam | adamw | muon
                "lr": 2.5e-4,
                "decay": 0.99,
                "schedule": "constant",  # constant | onecycle | cosine | step
                "warmup": 0,  # updates
                "onecycle_peak": 0.3,  # share of the run
                "step_every": 0,  # updates
                "step_factor": 0.1,
                "weight_decay": 0.0,
                "adam_share": 0.1,  # of muon: Adam's rate for biases and norms over the kernels'
                "clip_norm": 0.0,  # 0 = off
                "accumulate": 1,  # parts in which a batch passes through the device
                "ema": 0.0,  # decay of a running mean of the parameters; 0 = off
            },
            "batch": 8,
            "steps": 0,  # 0 = as many as the epochs take
            "epochs": 10,
            "epoch_examples": 72_757,  # of the endless synthetic data: as many as NYU has
            "test_frames": 0,  # 0 = the whole test split
            "eval_every": 0,  # updates between looks at the test split; 0 = at the end only
            "eval_batch": 0,  # 0 = as in training
            "log_every": 100,
            "checkpoint_every": 2000,
            "keep_checkpoints": 3,
            "init_from": "",  # warm start: the --workdir of an earlier run
            "init_pattern": ".*",  # names of the parameters to take from it
            "frozen": "",  # names of the parameters that do not change
        }
    )
    if variant == "subvoxel":
        config.method.decode = "subvoxel"  # the arg-max quantises to 5.7 mm output voxels
    if variant in ("quick", "long"):
        with config.unlocked():
            config.update_from_flattened_dict(
                {
                    "method.input": 32,  # 88 voxels do not train in minutes on a CPU
                    # Endless synthetic hands differ by themselves: nothing to augment.
                    "method.canvas": 32,
                    "method.scale": (1.0, 1.0),
                    "method.rotation_deg": 0.0,
                    "method.widths": (8, 16, 32, 64),
                    "method.decode": "subvoxel",  # an output voxel is 15.6 mm here
                    "data.patch": 128,  # pixels every 5 mm are enough for 8 mm voxels
                    "method.kernel_std": 0.0,  # He; BatchNorm hides the scale, not its eps
                    "method.output_std": 0.0001,  # begins at heatmaps of zero, which most are
                    # RMSProp at the paper's rate takes days; Adam needs twice Muon's examples.
                    "optimizer.name": "muon",
                    "optimizer.schedule": "onecycle",
                    "optimizer.lr": 0.03,
                    "optimizer.onecycle_peak": 0.15,
                    "steps": 8000 if variant == "long" else 900,
                    "eval_batch": 32,
                    "checkpoint_every": 500,
                }
            )
    return config
