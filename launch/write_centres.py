"""Write the field's hand-centre files: what a trained centre network finds in a data set.

    python -m launch.write_centres --workdir=runs/centre --root=DIR [--splits=test,train] \\
        [--out=DIR]

`--workdir` is a run of `configs/centre_nyu.py` (centres "refined") or `configs/detector_nyu.py`
("detected"). Leaves `OUT/center_SPLIT_refined.txt` or `..._detected.txt`: one `x y z` (mm) a
frame, y as the data set's published files count it (up for NYU and MSRA15), `invalid` where a
frame is missing, shows no hand or cannot be read, which is told. `--config.data.centre=file` with
`--config.data.centre_file='OUT/center_{split}_refined.txt'` reads them (ask for both splits then).
Without `--root` the frames are the 2,048 synthetic test frames, y down, and the file is
`OUT/center_synthetic_test_refined.txt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets import make_source
from hpe_jax.datasets.centres import write_centres
from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.process import use_cache
from hpe_jax.progress import Rate, Status
from hpe_jax.training.sources import CentreModel, load_centre_model

BATCH = 64


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--root", default="")
    parser.add_argument("--splits", default="test")
    parser.add_argument("--out")
    args = parser.parse_args()
    use_cache()
    splits = args.splits.split(",")
    if not set(splits) <= {"train", "test"}:
        raise InputError(f"--splits={args.splits}: expected train, test or train,test")
    model = load_centre_model(args.workdir)
    for split in splits:
        data = model.data.copy_and_resolve_references()
        data.root, data.centre_jitter_mm = args.root, 0.0
        # The detector needs no centre; frames for which another stands in are found out below.
        data.centre = "gt" if model.whole else "com"
        data.skip_unreadable = data.stand_in = True
        source = make_source(data, split, 0)
        if source.size is None:
            raise InputError(f"{source.name}: the {split} split is endless, no file fits")
        kind = "detected" if model.whole else "refined"
        which = f"synthetic_{split}" if source.synthetic else split
        path = Path(args.out or args.workdir) / f"center_{which}_{kind}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)  # refused before the work, not after it
        centres = find(model, source)
        invalid = int(np.isnan(centres[:, 0]).sum())
        write_centres(path, centres, y_up=source.centres_y_up)
        print(f"{path}: {invalid} of {len(centres):,} frames invalid")
    return 0


def find(model: CentreModel, source: Source) -> Float[np.ndarray, "N 3"]:
    """Centres (mm) in all frames of a split; NaN where a frame shows no hand or is unusable."""
    step = jax.jit(lambda loaded: model.centres(source.expand(loaded)))
    centres = np.full((source.size or 0, 3), np.nan, np.float32)
    status, rate = Status(), Rate(len(centres))
    for start in range(0, len(centres), BATCH):
        rows = np.arange(start, min(start + BATCH, len(centres)))
        loaded = source.load(np.resize(rows, BATCH))
        centres[rows] = jax.device_get(step(loaded))[: len(rows)]
        rate.done += len(rows)
        status.show(rate.text())
    status.line(rate.text())
    centres[sorted(source.skipped)] = np.nan
    return centres


if __name__ == "__main__":
    sys.exit(main())
