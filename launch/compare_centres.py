"""Where hand centres come from, and what each source does to a model's error.

    python -m launch.compare_centres --centre=runs/centre --detector=runs/detector \\
        --models=runs/quickstart,... --out=runs/compare_centres

On the whole synthetic test frames (a hand, an arm, a person behind them) it finds the centres of
all frames with the localiser (`com`) and with the detector; `gt` is the mean of the true joints.
The refinement network and the models then see patches about each of those centres, of the same
hands without anything behind them, as in their training. Leaves the
centre files and `table.md`: distance of the centres from the mean of the joints, and the mean error
of each model, mm.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.datasets import make_source
from hpe_jax.datasets.centres import write_centres
from hpe_jax.errors import InputError
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.metrics.errors import errors
from hpe_jax.process import use_cache
from hpe_jax.training.checkpoints import load_model
from hpe_jax.training.evaluation import Evaluator
from hpe_jax.training.sources import load_centre_model
from hpe_jax.training.step import make_mesh
from launch.write_centres import BATCH, find


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--centre", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    use_cache()
    return compare(args.centre, args.detector, args.models.split(","), Path(args.out))


def compare(centre: str, detect: str, models: list[str], out: Path) -> int:
    """Exit status; see the module's docstring."""
    detector = load_centre_model(detect)
    refiner = load_centre_model(centre, detector.data)
    for workdir, model, finds in ((centre, refiner, False), (detect, detector, True)):
        if model.whole != finds:
            kind = "a detector" if finds else "a refinement network"
            raise InputError(f"{workdir}: expected a run of {kind}")
    for workdir in models:
        trained = load_model(workdir)[0].data
        for name in ("dataset", "cube_mm"):
            if trained[name] != detector.data[name]:
                raise InputError(
                    f"{workdir}: trained with data.{name}={trained[name]}, "
                    f"expected {detector.data[name]}"
                )
    out.mkdir(parents=True, exist_ok=True)
    data = detector.data.copy_and_resolve_references()
    data.root, data.centre = "", "com"
    whole = make_source(data, "test", 0)
    com, true = truth(data)
    files = {"gt": true, "com": com, "detected": find(detector, whole)}
    for name in ("com", "detected"):
        write(out, name, files[name])
        crops = refiner.data.copy_and_resolve_references()
        crops.root, crops.centre = "", "file"
        crops.centre_file = str(out / f"center_test_{name}.txt")
        files[f"{name}, refined"] = find(refiner, make_source(crops, "test", 0))
    for name, centres in files.items():
        write(out, name, centres)
    lines = [
        "| centre | distance from the joints' mean: mean | median | 95 % | "
        + " | ".join(f"error of `{Path(m).name}`" for m in models) + " |",
        "|" + "---|" * (4 + len(models)),
    ]  # fmt: skip
    for name, centres in files.items():
        apart = np.linalg.norm(centres - true, axis=-1)
        row = [name, *(f"{v:.1f} mm" for v in (apart.mean(), *np.percentile(apart, [50, 95])))]
        row += [f"{model_error(m, out / file_name(name)):.2f} mm" for m in models]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    lines.append(f"\n{len(true):,} synthetic test frames through {data.dataset.upper()}'s camera.")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def file_name(name: str) -> str:
    """Of the centre file of a source."""
    return f"center_test_{name.replace(', ', '_')}.txt"


def write(out: Path, name: str, centres: Float[np.ndarray, "N 3"]) -> None:
    """A centre file, y down as everywhere in synthetic frames."""
    write_centres(out / file_name(name), centres)


def truth(data: ConfigDict) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """The localiser's centres in whole frames, and the means of the true joints."""
    source = make_source(data, "test", 0)
    step = jax.jit(lambda loaded: [source.expand(loaded)[k] for k in ("centre", "joints")])
    parts = []
    for start in range(0, source.size or 0, BATCH):
        centre, joints = jax.device_get(step(source.load(np.arange(start, start + BATCH))))
        parts.append((centre, joints.mean(1)))
    com, true = (np.concatenate(column) for column in zip(*parts, strict=True))
    return com, true


def model_error(workdir: str, path: Path) -> float:
    """Mean error of a model about the centres of a file, mm."""
    config, variables = load_model(workdir)
    config.data.root, config.data.centre, config.data.centre_file = "", "file", str(path)
    source = make_source(config.data, "test", config.seed)
    method = METHODS[config.method.name](config.method, SKELETONS[source.skeleton])
    found = Evaluator(method, source, make_mesh(), batch=32)(variables)
    return float(np.nanmean(errors(found.pred, found.true, found.valid)))


if __name__ == "__main__":
    sys.exit(main())
