"""Test a trained model on a data set's test split, whatever it was trained on.

    python -m launch.score_model --workdir=runs/quickstart --root=DIR --out=runs/on_nyu \\
        [--centre=com|gt|file|refined] [--centre_file=FILE] [--centre_model=DIR] [--stand_in] \\
        [--frames=N]

DIR is the root of the data set that the model's config names, of which only the test split need be
there; without `--root` the frames are the 2,048 synthetic test frames. Centres are those of the
run's config unless `--centre` says otherwise; a subject's own cube is the config's
(`data.cube_by_subject`). OUT gets what a run leaves after its test: `metrics.json` (with the model,
what it was trained on, and figures by subject where the whole published split was read),
`predictions.txt`, `groundtruth.txt` and `report/`. The run itself is left as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.process import use_cache
from hpe_jax.progress import Status
from hpe_jax.training.checkpoints import load_model, progress_of, trained_on
from hpe_jax.training.evaluation import Evaluator
from hpe_jax.training.loop import in_words
from hpe_jax.training.results import clear_results, device_name, write_results
from hpe_jax.training.sources import make_source
from hpe_jax.training.step import make_mesh


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--workdir", required=True, help="of the run; its latest checkpoint is used"
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--root", default="", help="of the data set")
    parser.add_argument("--centre", help="by default the run's")
    parser.add_argument("--centre_file", help="for --centre=file")
    parser.add_argument("--centre_model", help="for --centre=refined: a run that refines centres")
    parser.add_argument(
        "--stand_in", action="store_true", help="look at others for unusable frames"
    )
    parser.add_argument("--frames", type=int, default=0, help="the first so many; by default all")
    args = parser.parse_args()
    out = Path(args.out)
    if (out / "checkpoints").exists():
        raise InputError(f"--out={out}: the folder of a training run, expected another one")
    if args.frames < 0:
        raise InputError(f"--frames={args.frames}: expected a number of frames, 0 for all")
    use_cache()
    config, variables = load_model(args.workdir)
    config.data.root = args.root
    for name in ("centre", "centre_file", "centre_model"):
        if (value := getattr(args, name)) is not None:
            config.data[name] = value
    for name, kind in (("centre_file", "file"), ("centre_model", "refined")):
        if getattr(args, name) and config.data.centre != kind:
            raise InputError(
                f"--{name}: centres are {config.data.centre!r}, expected --centre={kind} with it"
            )
    if args.stand_in:
        config.data.stand_in = True
    source = make_source(config, "test")
    method = METHODS[config.method.name](config.method, SKELETONS[source.skeleton])
    if method.measure is not None:
        raise InputError(
            f"--workdir={args.workdir}: estimates no joints, expected a model that does"
        )
    out.mkdir(parents=True, exist_ok=True)  # Refused before the work, not after it.
    batch = config.eval_batch or config.batch
    status = Status()
    evaluator = Evaluator(method, source, make_mesh(), batch=batch, frames=args.frames)
    evaluation = evaluator(variables, status.show)
    status.clear()
    clear_results(out)
    about = {
        "model": str(args.workdir),
        "model_step": progress_of(args.workdir)[0],
        "trained_on": trained_on(args.workdir),
        "frames_stood_in": len(source.skipped),
        "device": device_name(),
    }
    metrics = write_results(out, evaluation, source, [], about)
    print("\n".join(in_words(metrics, (out / "groundtruth.txt").is_file())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
