"""What every experiment is made of: the fields that sources, optimisers and the loop read.

A file in `configs/` starts from `experiment`, adds its `method` part and changes what differs;
its `quick` variant trains within minutes on synthetic hands and two CPU cores (`quicken`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

NYU_FRAMES = 72_757

# What only one data set has. A patch (pixels) as wide as the image has every reading of a hand.
_OWN = {
    # Camera 1 is the frontal one that everybody evaluates. Cubes by subject, as in most later work:
    # NYU's second test subject has 5/6 of the cube, MSRA15's have factors of their own.
    "nyu": {"cube_mm": 250.0, "patch": 640, "view": 1, "cube_by_subject": True},
    # `rotated`: whether to train on rotated copies, too.
    "icvl": {"cube_mm": 200.0, "patch": 320, "rotated": False},
    # `subject` is left out and tested.
    "msra": {"cube_mm": 200.0, "patch": 320, "subject": 0, "cube_by_subject": True},
}


def experiment(dataset: str) -> ConfigDict:
    """The fields of an experiment on `dataset` ("nyu", "icvl" or "msra") but for its method.

    Cubes are those that the field uses; patches hold every native pixel.
    """
    if dataset not in _OWN:
        raise ValueError(f"data set {dataset!r} has no fields in defaults.py, only {sorted(_OWN)}")
    own = _OWN[dataset]
    return ConfigDict(
        {
            "seed": 0,
            "method": {},
            "data": {
                "dataset": dataset,
                "root": "",  # empty: built-in synthetic hands
                "centre": "com",  # com | gt | file | refined
                "centre_file": "",
                "centre_model": "",  # of refined: the --workdir of a centre network
                "target": "joints",  # joints | centre, their mean
                "whole": False,  # whole frames, a few pixels of them, instead of patches
                **own,
                # What a patch covers that is smaller than the image: the cube turned and scaled.
                "extent_mm": round(1.36 * own["cube_mm"], 1),
                # Of training centres, per axis: refined test centres lie so far from the joints'
                # mean; on `com`, which scatters by itself, it stands for other depth.
                "centre_jitter_mm": 10.0,
                "skip_unreadable": False,  # in training: the next frame replaces it
                "stand_in": False,  # in a test: the frame before it is looked at in its stead
                "synthetic": {
                    "sensor": True,
                    "forearm": True,
                    "clean": False,  # whether batches also hold the depth before the sensor
                    "subjects": 0,  # hands of the training frames; 0 = another one every frame
                    "proportions": "usual",  # usual | wide, of those hands
                    "thumbs": "usual",  # usual | wide, how those hands hold them
                    # Training poses: "" = procedural, or angles.npz files of
                    # `launch.joints_to_angles --axes=template`, commas between them.
                    "poses": "",
                    "hand": "spheres",  # spheres, analytic | skinned, one of five base meshes
                },
            },
            "optimizer": {
                "name": "rmsprop",  # rmsprop | adam | adamw | muon
                "lr": 2.5e-4,
                "decay": 0.99,
                "schedule": "constant",  # constant | onecycle | cosine | step
                "warmup": 0,  # updates
                "onecycle_peak": 0.3,  # share of the run
                "step_epochs": 0.0,  # of the step schedule: epochs between its steps
                "step_factor": 0.1,
                "b1": 0.9,  # momentum of adam and adamw
                "weight_decay": 0.0,  # of adam and adamw
                "adam_share": 0.1,  # of muon: Adam's rate for biases and norms over the kernels'
                "clip_norm": 0.0,  # of the whole gradient; 0 = off
                "clip_value": 0.0,  # of each of its numbers; 0 = off
                "accumulate": 1,  # parts in which a batch passes through the device
                "ema": 0.0,  # decay of a running mean of the parameters; 0 = off
            },
            "batch": 8,
            "steps": 0,  # 0 = as many as the epochs take
            "epochs": 10,
            "epoch_examples": NYU_FRAMES,  # of the endless synthetic data
            "test_frames": 0,  # 0 = the whole test split
            "eval_every": 0,  # updates between looks at the test split; 0 = at the end only
            "eval_batch": 0,  # 0 = as in training
            "log_every": 100,
            "checkpoint_every": 2000,
            "keep_checkpoints": 3,
            "init_from": "",  # warm start: the --workdir of an earlier run, or "../NAME" beside it
            "init_pattern": ".*",  # names of the parameters to take from it
            "frozen": "",  # names of the parameters that do not change
        }
    )


def in_stages(stages: dict[str, ConfigDict]) -> ConfigDict:
    """A config of stages that run in the order given (`training.stages`)."""
    return ConfigDict({"order": tuple(stages), "stages": stages})


def quicken(config: ConfigDict, steps: int) -> None:
    """Change an experiment so that it trains in `steps` small updates of synthetic hands.

    Wide ones: real proportions differ more than those of our test subjects, real thumbs bend
    otherwise.
    """
    config.data.patch = 128  # pixels every 5 mm are enough for voxels of 8 mm
    config.data.synthetic.proportions = config.data.synthetic.thumbs = "wide"
    # The papers' rates take days; Adam needs twice Muon's examples.
    config.optimizer.name = "muon"
    config.optimizer.schedule = "onecycle"
    config.optimizer.lr = 0.03
    config.optimizer.onecycle_peak = 0.15
    config.steps = steps
    config.eval_batch = 32
    config.checkpoint_every = 500
