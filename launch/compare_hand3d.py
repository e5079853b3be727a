"""The ablation of Hand3D (section 4.4 of the paper) on synthetic hands, and its speed, as tables.

    python -m launch.compare_hand3d --out=runs/hand3d [--size=quick|paper] [--config.KEY=VALUE ...]

(KEY of an experiment, such as seed, which is set in every stage.)

Trains four networks, in `OUT/base`, `OUT/augmented`, `OUT/refined` and `OUT/both`: the pose network
alone on hands of one subject; on hands of another subject in every frame; behind the refinement
network on hands of one subject; both. At the size of `quick` every pose network sees equally many
examples. All are tested on the same 2,048 frames of subjects that are not in training, with the
paper's metrics: the mean error, and the share of frames whose worst joint is within 20, 40 and
50 mm. Started again, the command goes on where it stopped. It leaves `OUT/table.md` and
`OUT/success.png`. Speed is that of `both`, and of the same network at the paper's size with
random weights: depth patch to joints, median of 7 runs; the paper reports 30 frames a second.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float

from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.errors import InputError
from hpe_jax.process import use_cache
from launch.compare_methods import median_seconds, read_result

CONFIG = "configs/hand3d_nyu.py"
# The rows, the variants that train them, and the folder below the row's that holds the result.
ROWS = {
    "base": ("base", "."),
    "augmented": ("augmented", "."),
    "refined": ("refined", "end_to_end"),
    "both": ("", "end_to_end"),
}
THRESHOLDS = (20.0, 40.0, 50.0)


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--size", choices=("quick", "paper"), default="quick")
    args, overrides = parser.parse_known_args()
    bad = [word for word in overrides if not word.startswith("--config.")]
    if bad:
        parser.error(f"unexpected {bad[0]!r}")
    use_cache()
    compare(Path(args.out), args.size, overrides)
    return 0


def compare(out: Path, size: str, overrides: list[str]) -> None:
    """Train what is not trained yet, and write the tables; see the module's docstring."""
    from hpe_jax.metrics.errors import errors
    from hpe_jax.metrics.plots import success_curve

    curves, lines = {}, []
    for name, (variant, stage) in ROWS.items():
        if size == "quick":
            variant = f"quick_{variant}".removesuffix("_")
        train(name, variant, out / name, in_stages(overrides) if stage != "." else overrides)
        metrics, pred, true = read_result(out / name / stage)
        curves[name] = errors(pred, true)
        lines.append(row(name, curves[name]))
    lines.append("| paper, NYU, both | 17.6 mm | 18 % | 61 % | 74 % |")
    head = ["network", "mean error", *(f"worst joint ≤ {t:g} mm" for t in THRESHOLDS)]
    note = (
        f"Synthetic hands: {metrics['frames']:,} test frames, centres `{metrics['centre']}`, "
        f"{metrics['device']}; the best constant pose has {metrics['baseline_mean_error_mm']:.1f} "
        f"mm. One run each.{' ' if overrides else ''}{' '.join(overrides)}"
    )
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines, "", note, ""]
    text = "\n".join(table + speed(out / "both" / "end_to_end")) + "\n"
    (out / "table.md").write_text(text)
    success_curve(out / "success.png", curves, "Hand3D's ablation, synthetic hands")
    print(text)


def in_stages(overrides: list[str]) -> list[str]:
    """The same settings for every stage of a run."""
    from hpe_jax.methods.hand3d import STAGES

    return [
        word.replace("--config.", f"--config.stages.{stage}.", 1)
        for word in overrides
        for stage in STAGES
    ]


def train(name: str, variant: str, workdir: Path, overrides: list[str]) -> None:
    """Train and test one row; `main` skips stages that are finished.

    Raises:
      InputError: it did not train.
    """
    config = CONFIG + (f":{variant}" if variant else "")
    command = [sys.executable, "-m", "hpe_jax.main", f"--config={config}", f"--workdir={workdir}"]
    if subprocess.run([*command, *overrides]).returncode:
        raise InputError(f"{name}: did not train, for the reason above")


def row(name: str, error: Float[np.ndarray, "N J"]) -> str:
    """One line of the table from errors in mm."""
    shares = [f"{100 * (error.max(1) <= t).mean():.1f} %" for t in THRESHOLDS]
    return f"| {' | '.join([name, f'{error.mean():.2f} mm', *shares])} |"


def speed(workdir: Path) -> list[str]:
    """Rows of the second table: frames a second of the run's model and of the paper's."""
    import jax

    from configs.hand3d_nyu import stage
    from hpe_jax.hand.skeletons import SKELETONS
    from hpe_jax.methods import METHODS
    from hpe_jax.training.checkpoints import count_parameters, load_model
    from hpe_jax.training.sources import make_source

    lines = ["| depth patch to joints | parameters | batch | ms a frame | frames/s |"]
    lines.append("|" + "---|" * 5)
    used, variables = load_model(str(workdir))
    paper = stage("end_to_end", False, 0)
    method = METHODS[paper.method.name](paper.method, SKELETONS["nyu"])
    models = {
        "as trained here": (used, variables),
        "the paper's size, random weights": (paper, jax.jit(method.init)(jax.random.key(0))),
    }
    for name, (config, weights) in models.items():
        source = make_source(config, "test")
        predict = jax.jit(METHODS[config.method.name](config.method, SKELETONS["nyu"]).predict)
        for size in (1, 8):
            batch = jax.jit(source.expand)(source.load(np.arange(size)))
            ms = 1e3 * median_seconds(predict, weights, batch) / size
            count = f"{count_parameters(weights):,}"
            lines.append(f"| {name} | {count} | {size} | {ms:.1f} ms | {1e3 / ms:.1f} |")
    lines.append(f"\n{jax.devices()[0].device_kind}; the paper reports 30 frames/s on a GPU.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
