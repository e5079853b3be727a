"""Checkpoints for an exact resume, and models for prediction.

A checkpoint is a nested plain dict of arrays (no optimiser classes, so that it outlives
them) and, as JSON beside it, everything else: config, seed, source, position in the data.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from hpe_jax.errors import InputError, TrainingError, naming
from hpe_jax.methods.base import READING, Variables
from hpe_jax.settings import differences, flatten, from_json, read_json, to_json
from hpe_jax.training.state import State, eval_variables, leaf_name

# What may differ between the run that wrote a checkpoint and the run that resumes it; the kind of
# centre only where nothing is left but its test (`checks.check_resumed`).
FREE_KEYS = (
    *("steps", "epochs", "epoch_examples", "log_every", "checkpoint_every", "keep_checkpoints"),
    *("test_frames", "eval_every", "eval_batch", "init_from", "init_pattern"),
    *(f"method.{name}" for name in READING),
    *(
        "data.root",
        "data.centre",
        "data.centre_file",
        "data.centre_model",
        "data.skip_unreadable",
        "data.stand_in",
    ),
)


class Checkpoints:
    """The directory of a run's checkpoints; use as a context manager.

    Attributes:
      latest: the greatest step of which a whole checkpoint exists, or None.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory.absolute()
        with naming(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        self._orbax = ocp.training.Checkpointer(
            self._directory,
            # The default policy skips a save in silence while another one runs.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After a failed save, closing fails once more with the same error.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
            self._orbax.close()

    @property
    def latest(self) -> int | None:
        """The greatest step of which a whole checkpoint exists."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, state: State, info: dict[str, Any]) -> None:
        """Write `state` and the JSON-like `info` as the checkpoint of `info["step"]`.

        Blocks until the checkpoint is whole. Saving a step twice does nothing.

        Raises:
          TrainingError: it could not be written, or the last update left numbers that are not
            finite (its loss was computed before them); earlier checkpoints are untouched.
        """
        step = info["step"]
        if step == self.latest:
            return
        kept = self.latest
        left = f"the checkpoint of step {kept} is intact" if kept else "none was there before"
        learnt = {name: state[name] for name in ("params", "rest", "ema")}
        if not _finite(learnt):
            raise TrainingError(
                f"{self._directory}: the parameters of step {step} are not finite; {left}"
            )
        try:
            saved = self._orbax.save(step, _nest(_named(state)), custom_metadata=info)
        except (OSError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"{self._directory}: cannot write the checkpoint of step {step} "
                f"({_reason(error)}); {left}"
            ) from error
        if not saved:
            raise TrainingError(f"{self._directory}: the checkpoint of step {step} was skipped")

    def restore(
        self, state: State, config: ConfigDict, source: str
    ) -> tuple[State, dict[str, Any]] | None:
        """The latest checkpoint, in the structure and placement of `state`; None without one.

        Raises:
          InputError: it belongs to another experiment than `config` on data `source`, was not
            written by this library, or is damaged.
        """
        if self.latest is None:
            return None
        shapes, info = _metadata(self._orbax, self._directory, self.latest)
        where = f"{self._directory}: holds step {self.latest} of another experiment: "
        hint = "; expected the same config, or another --workdir"
        if differing := differences(info["config"], to_json(config), FREE_KEYS):
            raise InputError(where + ", ".join(differing) + hint)
        if info["source"] != source:
            raise InputError(f"{where}trained on {info['source']}, not {source}{hint}")
        wanted = _named(state)
        there = {name: leaf.shape for name, leaf in shapes.items()}
        for name in wanted | there:
            shape = wanted[name].shape if name in wanted else None
            if there.get(name) != shape:
                raise InputError(f"{where}{name} is {there.get(name)} there, {shape} here{hint}")
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _nest(wanted)
        )
        with _damage(self._directory, self.latest):
            loaded = flatten(self._orbax.load(self.latest, abstract))
        leaves = [loaded[name] for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(state), leaves), info


@jax.jit
def _finite(tree: State) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def load_model(workdir: str | Path) -> tuple[ConfigDict, Variables]:
    """Config and variables to predict with, from the latest checkpoint of a run.

    The config is that of the run's `config.json` where there is one: how maps are read may have
    changed since the checkpoint, in a test after training. The kind of centre is training's.

    Raises:
      InputError: `workdir` holds no checkpoint, one that this library did not write, a damaged one,
        or the `config.json` of another experiment.
    """
    with _opened(workdir) as (orbax, directory):
        step = orbax.latest.step
        shapes, info = _metadata(orbax, directory, step)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
            for name, leaf in shapes.items()
        }
        with _damage(directory, step):
            tree = orbax.load(step, _nest(abstract))
    state = {"rest": {}, "ema": {}, **tree}
    if "params" not in state:
        raise InputError(f"{directory}: step {step} holds no parameters, expected a run of hpe_jax")
    config, recorded = info["config"], directory.parent / "config.json"
    if recorded.is_file():
        config = read_json(recorded)
        if differing := differences(config, info["config"], FREE_KEYS):
            raise InputError(
                f"{recorded}: of another experiment than {directory} beside it: "
                + ", ".join(differing)
            )
        trained, tested = info["config"].get("data", {}), config.get("data", {})
        if trained.get("centre") != tested.get("centre"):
            centre = ("centre", "centre_file", "centre_model")
            tested.update({key: trained[key] for key in centre if key in trained})
    return from_json(config), eval_variables(state)


def trained_on(workdir: str | Path) -> str:
    """Name of the source of a run's latest checkpoint; raises as `load_model`."""
    with _opened(workdir) as (orbax, directory):
        return str(_metadata(orbax, directory, orbax.latest.step)[1]["source"])


def progress_of(workdir: str | Path) -> tuple[int, int]:
    """Step of a run's latest checkpoint, and how many the run was to have.

    Raises:
      InputError: as `load_model`.
    """
    with _opened(workdir) as (orbax, directory):
        _, info = _metadata(orbax, directory, orbax.latest.step)
    return info["step"], info.get("steps", info["step"])


@contextlib.contextmanager
def _opened(workdir: str | Path) -> Iterator[tuple[Any, Path]]:
    """The reader of a run that has a checkpoint, and its folder."""
    directory = Path(workdir).absolute() / "checkpoints"
    if not directory.is_dir():
        stages = sorted(path.parent.name for path in Path(workdir).glob("*/checkpoints"))
        expected = f"one of {', '.join(stages)} in it" if stages else "the --workdir of a run"
        raise InputError(f"{workdir}: no checkpoints/ in it, expected {expected}")
    with _without_interrupts(), ocp.training.Checkpointer(directory) as orbax:
        if orbax.latest is None:
            raise InputError(f"{directory}: holds no whole checkpoint")
        yield orbax, directory


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hear Ctrl-C afterwards: the reader would end with an error as of a damaged file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[Any, ...]] = []
    before = signal.signal(signal.SIGINT, lambda *given: heard.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and callable(before):
        before(*heard[0])


def any_in(directory: Path) -> bool:
    """Whether a run's checkpoint directory holds a whole checkpoint; opens nothing."""
    # Unfinished ones have other names until they are whole.
    return directory.is_dir() and any(p.name.isdigit() for p in directory.iterdir())


@contextlib.contextmanager
def _damage(directory: Path, step: int) -> Iterator[None]:
    """Turn whatever a missing or torn file leads the reader to into one clear line."""
    try:
        yield
    except Exception as error:  # Many libraries read here, each with exceptions of its own.
        raise InputError(
            f"{directory}: the checkpoint of step {step} is damaged or not one of hpe_jax "
            f"({_reason(error)}); expected a whole one, as a run leaves them. Removing {step}/ "
            "lets an earlier one be used"
        ) from error


def _metadata(orbax: Any, directory: Path, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes of a checkpoint's arrays by name, and what `Checkpoints.save` wrote beside them."""
    with _damage(directory, step):
        metadata = orbax.metadata(step)
        shapes = flatten(metadata.metadata)
    info = metadata.custom_metadata
    known = isinstance(info, dict) and {"step", "config", "source"} <= set(info)
    if not known or not isinstance(info["config"], dict):
        raise InputError(
            f"{directory}: step {step} says nothing of a config, expected a checkpoint that "
            "hpe_jax wrote"
        )
    if not all(hasattr(leaf, "shape") for leaf in shapes.values()):
        raise InputError(f"{directory}: step {step} holds more than arrays, expected hpe_jax's")
    return shapes, info


def _named(state: State) -> dict[str, jax.Array]:
    """Leaves by name, in the order of the tree."""
    return {leaf_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}


def _nest(named: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def _reason(error: BaseException) -> str:
    """The end of TensorStore's "CODE: what: path: what: No space left on device [...]"."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].split(" [")[0].split(": ")[-1]


def count_parameters(variables: Variables) -> int:
    """Number of trained numbers."""
    return int(sum(np.prod(x.shape) for x in jax.tree.leaves(variables["params"])))
