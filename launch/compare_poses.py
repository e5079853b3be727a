"""How models do on synthetic hands in poses that real hands took.

    python -m launch.compare_poses --models=runs/quickstart,runs/banked --poses=FILE[,FILE ...] \\
        --out=DIR

FILE is `angles.npz` of `launch.joints_to_angles --axes=template`, of poses that no model has seen
in training. The 2,048 synthetic test frames (their subjects and viewpoints, each model's own
centres and cube) are shown in their usual procedural poses and in those of the files. Leaves
`OUT/table.md`: mean error, that of the best constant pose, and the share of frames whose worst
joint is within 40 mm.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hpe_jax.atomic import write_atomic
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.process import use_cache
from hpe_jax.synthetic import make_source
from hpe_jax.synthetic.bank import read_bank
from hpe_jax.training.checkpoints import load_model
from hpe_jax.training.evaluation import Evaluator
from hpe_jax.training.results import score
from hpe_jax.training.step import make_mesh


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", required=True, help="RUN,...")
    parser.add_argument("--poses", required=True, help="FILE,...")
    parser.add_argument("--out", required=True)
    parser.add_argument("--frames", type=int, default=0, help="by default all")
    args = parser.parse_args()
    use_cache()
    if args.frames < 0:
        raise InputError(f"--frames={args.frames}: expected at least 0")
    read_bank(args.poses)  # what is wrong with it is said before the procedural poses' minutes
    lines = table(args.models.split(","), args.poses, args.frames)
    write_atomic(Path(args.out) / "table.md", "\n".join(lines) + "\n")
    return 0


def table(models: list[str], files: str, frames: int = 0) -> list[str]:
    """Rows, a model and a kind of poses each; see the module's docstring.

    Raises:
      InputError: a run without a model that estimates joints of synthetic hands, or bad files.
    """
    lines = [
        "| model | poses | mean error | constant pose | worst joint ≤ 40 mm |",
        "|---" * 5 + "|",
    ]
    for workdir in models:
        config, variables = load_model(workdir)
        if config.data.root or config.data.whole or config.data.target != "joints":
            raise InputError(f"{workdir}: expected a run on patches of synthetic hands")
        method = METHODS[config.method.name](config.method, SKELETONS[config.data.dataset])
        for kind, poses in (("procedural", ""), (files, files)):
            source = make_source(config.data, "test", 0, test_poses=poses)
            e = Evaluator(method, source, make_mesh(), batch=32, frames=frames)(variables)
            figures = score(e, source)
            cells = [Path(workdir).name, kind, f"{figures['mean_error_mm']:.2f} mm"]
            cells += [f"{figures['baseline_mean_error_mm']:.2f} mm"]
            cells += [f"{100 * figures['success_40mm']:.1f} %"]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    lines += ["", f"Synthetic hands, {len(e.true):,} test frames, centres `{config.data.centre}`."]
    return lines


if __name__ == "__main__":
    sys.exit(main())
