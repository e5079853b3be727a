"""3-D hand pose estimation in JAX.

Where to look:

* `camera`: conventions (millimetres; x right, y down, z forward), projection, crops.
* `frames`: the batch contract between data and methods.
* `methods`: one file a paper; each gives a `Method` of pure functions.
* `kernels`: the jitted arithmetic they share: voxels, heatmaps, decoding, 3-D convolution.
* `hand`, `synthetic`: skeletons, kinematics, and rendered hands to train on without a download.
* `datasets`: readers of published on-disk layouts, and the source a config asks for.
* `training`, `metrics`: the loop, checkpoints; errors, protocols, pictures.

Commands: `python -m hpe_jax.main`, `.evaluate` and `.predict`; each has `--help`.
"""

__version__ = "0.1.0"
