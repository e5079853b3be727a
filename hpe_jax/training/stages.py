"""Papers that train in stages: ordinary experiments, one after the other.

A config of stages has `order`, their names, and `stages`, the experiments by name. Stage NAME runs
in the folder NAME of the run's; a later one begins from an earlier one's parameters by
`init_from="../NAME"` and holds some of them still by `frozen`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.settings import differences, read_json, to_json
from hpe_jax.training import loop
from hpe_jax.training.checkpoints import any_in

INDIFFERENT = (
    *("log_every", "checkpoint_every", "keep_checkpoints", "eval_every", "eval_batch"),
    "data.root",
)
"""Keys that may change between the stages of a run."""


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any] | None:
    """`loop.run` of an experiment, or of every stage that is not finished yet.

    Returns:
      The metrics of the last stage; None if told to stop.

    Raises:
      InputError, TrainingError: as `loop.run`.
    """
    if "stages" not in config:
        return loop.run(config, workdir)
    unknown = [name for name in config.order if name not in config.stages]
    if unknown or not config.order:
        raise InputError(f"order={tuple(config.order)}: expected some of {sorted(config.stages)}")
    if any_in(Path(workdir) / "checkpoints"):
        raise InputError(f"{workdir}: holds a run without stages, expected another --workdir")
    metrics: dict[str, Any] | None = None
    for number, name in enumerate(config.order):
        stage, folder = config.stages[name], Path(workdir) / name
        metrics = finished(stage, folder)
        for later in config.order[number + 1 :] if metrics is None else ():
            # It would go on, or count as finished, from parameters that are about to change.
            if any_in(Path(workdir) / later / "checkpoints"):
                raise InputError(
                    f"{folder}: not finished with this config, but {Path(workdir) / later} began "
                    "from it; expected the config that it was trained with, or another --workdir"
                )
        print(f"stage {name}: {'finished, in' if metrics else 'in'} {folder}", flush=True)
        metrics = metrics or loop.run(stage, folder)
        if metrics is None:
            break
    return metrics


def finished(config: ConfigDict, workdir: Path) -> dict[str, Any] | None:
    """The metrics of a stage that was trained and tested with this config, or one that differs in
    what decides no figure, such as where the same frames lie."""
    made = workdir / "config.json", workdir / "metrics.json"
    if not all(path.is_file() for path in made):
        return None
    there, here = read_json(made[0]), to_json(config)
    rendered = [tree["data"]["root"] == "" for tree in (there, here)]
    if rendered[0] != rendered[1] or differences(there, here, INDIFFERENT):
        return None
    return read_json(made[1])
