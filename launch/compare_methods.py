"""The synthetic benchmark: methods and their ablations, trained and tested alike, as one table.

    python -m launch.compare_methods --out=runs/compare [--examples=7200] \\
        --configs=configs/v2v_nyu.py:quick,configs/hourglass3d_nyu.py:quick,... \\
        [--config.KEY=VALUE ...]

The protocol: every config trains on the same number of synthetic examples (the same frames, in
the same order, since they follow from the seed) and is tested on the same 2,048 frames of
subjects that are not in training, with hand centres found in the depth image. Configs whose
training hands differ are refused (`--config.data.synthetic.KEY=VALUE` sets a field for all), as are
those that train in stages. Configs that only read a model's output in another way
(`methods.base.READING`) share the training of the first such config.

A config trains in a process of its own, in `OUT/NAME`; started again, the command goes on where
it stopped. It leaves `OUT/table.md` and `OUT/success.png`. Columns: mean error; the same in x and
y only, which is all that b4 and b5 of the 3D hourglass estimate; frames whose worst joint is
within 20 and 40 mm; trained numbers; arithmetic of one frame's inference and frames a second
(batch of 8, depth patch to joints) on this machine; seconds of training. Those of a model that is
only read in another way are its first reading's.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from hpe_jax.atomic import write_atomic
from hpe_jax.command import make_parser, one_line_errors
from hpe_jax.errors import InputError
from hpe_jax.methods.base import READING
from hpe_jax.process import use_cache
from hpe_jax.settings import differences, read_json, to_json

BATCH = 8


@one_line_errors
def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--configs", required=True, help="FILE[:VARIANT],... in the table's order")
    parser.add_argument("--out", required=True)
    parser.add_argument("--examples", type=int, default=7200)
    args, overrides = parser.parse_known_args()
    bad = [word for word in overrides if not word.startswith("--config.")]
    if bad:
        parser.error(f"unexpected {bad[0]!r}")
    use_cache()
    compare(args.configs.split(","), Path(args.out), args.examples, overrides)
    return 0


def compare(names: list[str], out: Path, examples: int, overrides: list[str]) -> None:
    """Train what is not trained yet, and write the table; see the module's docstring."""
    configs = {name: load_config(name, examples, overrides) for name in names}
    check_alike(configs)
    trained: dict[str, str] = {}
    rows = []
    for name, config in configs.items():
        first = trained.setdefault(training_key(config), name)
        workdir = out / slug(name)
        if first == name:
            train(name, workdir, config, overrides)
        else:
            read_again(out / slug(first), workdir, config)
        rows.append(row(name, workdir, out / slug(first), flat(config)))
        write_table(out, rows, overrides)
        print(f"{name}: {rows[-1]['xy_mm']:.2f} mm in x and y", flush=True)
    plot(out / "success.png", [out / slug(r["name"]) for r in rows if not r["flat"]])
    print((out / "table.md").read_text())


def slug(name: str) -> str:
    """`configs/v2v_nyu.py:quick` to `v2v_nyu-quick`."""
    path, _, variant = name.partition(":")
    return Path(path).stem + (f"-{variant}" if variant else "")


def load_config(name: str, examples: int, overrides: list[str]) -> ConfigDict:
    """The config that `--config=NAME` and the overrides stand for, for so many examples.

    Raises:
      InputError: no such config file, variant or field, or fewer examples than a batch.
    """
    path, _, variant = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"{path}: expected a config file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(variant).lock()
    except ValueError as error:
        raise InputError(str(error)) from None
    except Exception as error:  # A config file is Python: it may raise anything.
        raise InputError(f"{path}: no config ({error})") from None
    for word in overrides:
        key, _, text = word.removeprefix("--config.").partition("=")
        try:
            value = ast.literal_eval(text)
        except (SyntaxError, ValueError):  # A word, such as com.
            value = text
        try:
            config.update_from_flattened_dict({key: value})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{word}: {name} has no such field, or of another type") from error
    if "data" not in config:
        raise InputError(f"{name}: trains in stages, expected a config of one training")
    if config.data.whole or config.data.target != "joints":
        raise InputError(f"{name}: finds hand centres, expected a config that estimates joints")
    if examples < config.batch:
        raise InputError(f"--examples={examples}: expected at least {name}'s batch, {config.batch}")
    config.steps = examples // config.batch
    return config


def check_alike(configs: dict[str, ConfigDict]) -> None:
    """InputError unless all train on the same synthetic hands, seen by the same camera."""
    for name, config in configs.items():
        if config.data.root:
            raise InputError(
                f"{name}: data.root={config.data.root}, expected none: all train on synthetic hands"
            )

    def hands(config: ConfigDict) -> dict[str, Any]:
        data = config.data.to_dict()
        return {"data": {name: data[name] for name in ("dataset", "synthetic")}}

    (first, expected), *others = configs.items()
    for name, config in others:
        if odd := differences(hands(expected), hands(config)):
            raise InputError(
                f"{name}: trains on other hands than {first}: {', '.join(odd)}; "
                "--config.data.synthetic.FIELD=VALUE sets a field for all"
            )


def training_key(config: ConfigDict) -> str:
    """Equal for configs that train the same model."""
    tree = config.to_dict()
    tree["method"] = {k: v for k, v in tree["method"].items() if k not in READING}
    return json.dumps(tree, sort_keys=True)


def train(name: str, workdir: Path, config: ConfigDict, overrides: list[str]) -> None:
    """Train and test a config, unless that was done before."""
    if (workdir / "metrics.json").is_file():
        if read_json(workdir / "config.json") != to_json(config):
            raise InputError(f"{workdir}: was made with other settings; expected another --out")
        return
    command = [
        *(sys.executable, "-m", "hpe_jax.main", f"--config={name}", f"--workdir={workdir}"),
        *(f"--config.steps={config.steps}", *overrides),
    ]
    if subprocess.run(command).returncode:
        raise InputError(f"{name}: did not train, for the reason above")


def read_again(trained: Path, workdir: Path, config: ConfigDict) -> None:
    """Test a trained model as another config reads it, unless that was done since it trained."""
    done = workdir / "metrics.json"
    trained_at = (trained / "metrics.json").stat().st_mtime
    if done.is_file() and done.stat().st_mtime >= trained_at:
        return
    from hpe_jax.hand.skeletons import SKELETONS
    from hpe_jax.methods import METHODS
    from hpe_jax.training.checkpoints import load_model
    from hpe_jax.training.evaluation import Evaluator
    from hpe_jax.training.results import write_results
    from hpe_jax.training.sources import make_source
    from hpe_jax.training.step import make_mesh

    used, variables = load_model(trained)
    for field in READING:
        if field in config.method:
            used.method[field] = config.method[field]
    source = make_source(used, "test")
    method = METHODS[used.method.name](used.method, SKELETONS[source.skeleton])
    evaluator = Evaluator(
        method, source, make_mesh(), batch=used.eval_batch or used.batch, frames=used.test_frames
    )
    workdir.mkdir(parents=True, exist_ok=True)
    extra = {"trained_in": str(trained)}
    write_results(workdir, evaluator(variables), source, [], extra)


def flat(config: ConfigDict) -> bool:
    """Whether a method estimates no depth: its errors count in x and y only."""
    from hpe_jax.hand.skeletons import SKELETONS
    from hpe_jax.methods import METHODS

    return METHODS[config.method.name](config.method, SKELETONS[config.data.dataset]).flat


def row(name: str, workdir: Path, trained: Path, flat: bool) -> dict[str, Any]:
    """One line of the table."""
    metrics, pred, true = read_result(workdir)
    base = read_json(trained / "metrics.json")
    figures = {
        key: metrics[key]
        for key in ("mean_error_mm", "baseline_mean_error_mm", "success_20mm", "success_40mm")
    }
    return {
        "name": name,
        "flat": flat,
        **figures,
        "xy_mm": xy_error(pred, true),
        "frames": metrics["frames"],
        "centre": metrics["centre"],
        "examples": base["examples_seen"],
        "train_seconds": base["train_seconds"],
        "device": base["device"],
        **inference(trained),
    }


def read_result(
    workdir: Path,
) -> tuple[dict[str, Any], Float[np.ndarray, "N J 3"], Float[np.ndarray, "N J 3"]]:
    """What a finished run left: its metrics, predictions and truth (mm, camera space).

    Raises:
      InputError: the run has not ended, or its files cannot be read.
    """
    from hpe_jax.hand.skeletons import SKELETONS
    from hpe_jax.metrics.files import read_joints
    from hpe_jax.metrics.protocols import to_xyz

    path = workdir / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path}: missing, expected a run that has ended")
    metrics = read_json(path)
    joints = len(SKELETONS[metrics["skeleton"]])
    pred, true = (
        to_xyz(read_joints(workdir / f"{kind}.txt", joints).values, tuple(metrics["camera"]), "uvd")
        for kind in ("predictions", "groundtruth")
    )
    return metrics, pred, true


def xy_error(pred: Float[np.ndarray, "N J 3"], true: Float[np.ndarray, "N J 3"]) -> float:
    """Mean distance in x and y, mm."""
    return float(np.linalg.norm((pred - true)[..., :2], axis=-1).mean())


def inference(trained: Path) -> dict[str, Any]:
    """Size and speed of a model, as it was trained; measured once and kept beside it."""
    kept = trained / "inference.json"
    if kept.is_file():
        return read_json(kept)
    import jax

    from hpe_jax.hand.skeletons import SKELETONS
    from hpe_jax.methods import METHODS
    from hpe_jax.training.checkpoints import count_parameters, load_model
    from hpe_jax.training.sources import make_source

    config, variables = load_model(trained)
    source = make_source(config, "test")
    method = METHODS[config.method.name](config.method, SKELETONS[source.skeleton])
    batch = jax.jit(source.expand)(source.load(np.arange(BATCH)))
    one = {k: v[:1] for k, v in batch.items()}
    predict = jax.jit(method.predict)
    cost: Any = predict.lower(variables, one).compile().cost_analysis()
    figures = {
        "parameters": count_parameters(variables),
        "gflops": float(cost["flops"]) / 1e9,
        "frames_per_second": BATCH / median_seconds(predict, variables, batch),
    }
    write_atomic(kept, json.dumps(figures))
    return figures


def median_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Of seven calls after the one that compiles."""
    import jax

    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def write_table(out: Path, rows: list[dict[str, Any]], more: list[str]) -> None:
    """`table.md`, complete after every row."""
    lines = [
        "| config | mean error | xy only | worst joint ≤ 20 mm | ≤ 40 mm | parameters "
        "| GFLOP a frame | frames/s | training |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        spatial = [f"{r['mean_error_mm']:.2f} mm", f"{r['success_20mm']:.1%}"]
        spatial = ["–"] * 3 if r["flat"] else [*spatial, f"{r['success_40mm']:.1%}"]
        lines.append(
            f"| `{slug(r['name'])}` | {spatial[0]} | {r['xy_mm']:.2f} mm "
            f"| {spatial[1]} | {spatial[2]} | {r['parameters']:,} "
            f"| {r['gflops']:.2f} | {r['frames_per_second']:.0f} | {r['train_seconds']:.0f} s |"
        )
    first = rows[0]
    lines.append(
        f"\nSynthetic hands: {first['frames']:,} test frames, {first['examples']:,} training "
        f"examples, centres `{first['centre']}`, {first['device']} ({os.cpu_count()} cores); "
        f"the best constant pose has {first['baseline_mean_error_mm']:.1f} mm."
        + (f" {' '.join(more)}" if more else "")
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(lines) + "\n")


def plot(path: Path, workdirs: list[Path]) -> None:
    """Success curves of finished runs, by the names of their folders, in one picture."""
    from hpe_jax.metrics.errors import errors
    from hpe_jax.metrics.plots import success_curve

    curves = {workdir.name: errors(*read_result(workdir)[1:]) for workdir in workdirs}
    success_curve(path, curves, "synthetic benchmark")


if __name__ == "__main__":
    sys.exit(main())
