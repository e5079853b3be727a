"""The training loop: restore or begin, update until done, evaluate, write everything.

A run is a function of its config: step s takes the examples `epoch_indices(..., s)` and the
key `fold_in(seed, s)`, and a checkpoint holds all that an update changes. A run that was
killed at any moment therefore ends, resumed, with the numbers of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PRNGKeyArray
from ml_collections import ConfigDict

from hpe_jax.atomic import write_atomic
from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.methods.base import Method, Variables
from hpe_jax.settings import differences, to_json
from hpe_jax.training import optimizers
from hpe_jax.training import step as steps_
from hpe_jax.training.checkpoints import (
    Checkpoints,
    any_in,
    count_parameters,
    load_model,
    progress_of,
)
from hpe_jax.training.checks import check_config, check_resumed
from hpe_jax.training.console import Board, History, Log, Stop, warnings_heard
from hpe_jax.training.evaluation import Evaluator, Measurer
from hpe_jax.training.progress import Clock, Window
from hpe_jax.training.results import (
    clear_results,
    device_name,
    score,
    skeleton_grid,
    write_figures,
    write_results,
)
from hpe_jax.training.sources import make_source, training_batches
from hpe_jax.training.state import (
    eval_variables,
    init_state,
    matching,
    name_mask,
    rest_of,
    warm_start,
)


def run(config: ConfigDict, workdir: str | Path) -> dict[str, Any] | None:
    """Train or resume in `workdir`, evaluate; returns `metrics.json`, None if told to stop.

    Ctrl-C also saves first, and then raises KeyboardInterrupt.

    Raises:
      InputError: the config, the data or the checkpoints in `workdir` cannot be used.
      TrainingError: the loss is not finite, or a checkpoint cannot be written.
    """
    if (name := config.method.get("name")) not in METHODS:
        raise InputError(f"method.name={name!r} is unknown, expected one of {sorted(METHODS)}")
    if config.data.whole != (name == "detector"):
        raise InputError(
            f"data.whole={config.data.whole} with method.name={name!r}: whole frames "
            "are for the detector, and it for them"
        )
    with warnings_heard() as heard:
        train_source, test_source = (make_source(config, split) for split in ("train", "test"))
    method = METHODS[name](config.method, SKELETONS[train_source.skeleton])
    return train(config, Path(workdir), method, train_source, test_source, heard)


def train(
    config: ConfigDict,
    workdir: Path,
    method: Method,
    train_source: Source,
    test_source: Source,
    warnings: Sequence[str] = (),
) -> dict[str, Any] | None:
    """`run` for a given method and given sources, which may have warned of something."""
    check_config(config)
    steps, epoch = number_of_steps(config, train_source), epoch_size(config, train_source)
    mesh = steps_.make_mesh()
    steps_.check_batch(config.batch, config.optimizer.accumulate, mesh)

    # Nothing is written before all of this has been found usable.
    init_key, key = jax.random.split(jax.random.key(config.seed))
    variables, origin = initial_variables(config, workdir, method, init_key)
    frozen = keep_rest = None
    if config.frozen:
        frozen = matching(variables["params"], config.frozen, "frozen")
        keep_rest = name_mask(rest_of(variables), config.frozen, "frozen")
    schedule = optimizers.make_schedule(config.optimizer, steps, config.batch, epoch)
    optimizer = optimizers.make_optimizer(config.optimizer, schedule, frozen)
    state = jax.device_put(
        init_state(variables, optimizer, config.optimizer.ema > 0), steps_.replicated(mesh)
    )

    with (
        Stop() as stop,
        Log(workdir / "log.txt") as log,  # First: it keeps other processes out.
        Checkpoints(workdir / "checkpoints", config.keep_checkpoints) as checkpoints,
        Board(workdir / "tensorboard") as board,
    ):
        for text in warnings:
            log.line(f"warning: {text}")
        # Resume what the directory holds.
        restored = checkpoints.restore(state, config, train_source.name)
        start, before, window = 0, 0.0, Window()
        if restored is not None:
            state, info = restored
            start = board.start = info["step"]
            before = info.get("train_seconds", 0.0)
            window = Window(**info.get("window", {}))
            train_source.skipped.update(info.get("frames_skipped", ()))
            check_resumed(workdir, info, config, train_source, steps, epoch)
        written = json.dumps(to_json(config), indent=2) + "\n"
        recorded = workdir / "config.json"

        def take_over() -> None:
            """Figures of a shorter run, or of another test, are not this one's."""
            if start < steps or not recorded.is_file() or recorded.read_text() != written:
                clear_results(workdir)
            write_atomic(recorded, written)

        if start < steps:
            take_over()
        history = History(workdir / "history.jsonl", start)
        count = f", {train_source.size:,} frames" if train_source.size else ""
        log.line(
            f"{config.method.name}, {count_parameters(variables):,} parameters, on "
            f"{train_source.name}{count} ({device_name()}): "
            + (f"resuming at step {start:,} of {steps:,}" if start else f"{steps:,} steps")
        )
        if restored is not None and start == steps:
            there, here = (
                {"data": tree.get("data", {})} for tree in (info["config"], to_json(config))
            )
            for text in differences(there, here):
                log.line(f"the test is told otherwise than training was: {text}")
        if restored is not None and config.init_from != info["config"].get("init_from", ""):
            log.line(
                f"init_from={config.init_from} is not read: the run goes on from its own weights"
            )
        if origin:
            log.line(origin)
        size = {"batch": config.eval_batch or config.batch, "frames": config.test_frames}
        tester = (Measurer if method.measure else Evaluator)(method, test_source, mesh, **size)

        train_step = steps_.jit_train_step(
            steps_.make_train_step(
                method,
                train_source.expand,
                optimizer,
                accumulate=config.optimizer.accumulate,
                ema=config.optimizer.ema,
                frozen=frozen,
                keep_rest=keep_rest,
            ),
            mesh,
        )
        key = jax.device_put(key, steps_.replicated(mesh))
        clock = Clock(config.batch, steps, start)

        def save(done: int) -> None:
            checkpoints.save(
                state,
                {
                    "step": done,
                    "steps": steps,
                    "seed": config.seed,
                    "position": done * config.batch,
                    "source": train_source.name,
                    "train_seconds": before + clock.seconds(),
                    "window": window.to_json(),
                    "frames_skipped": sorted(train_source.skipped),
                    "epoch_size": epoch,
                    "files": dict(train_source.files),
                    "config": to_json(config),
                },
            )

        def due(done: int) -> bool:
            return bool(config.eval_every) and done % config.eval_every == 0 and done < steps

        def look(done: int) -> None:
            """Test what has been saved: signals need not wait for it."""
            stop.saved()
            with clock.paused():
                test(done)
            stop.resumed()

        def test(done: int) -> None:
            if isinstance(tester, Measurer):
                board.scalars(done, tester(eval_variables(state), log.status), "test")
                return
            evaluation = tester(eval_variables(state), log.status)
            figures = score(evaluation, test_source)
            # Of what training batches are measured by.
            error = figures.get("mean_error_xy_mm", figures["mean_error_mm"])
            history.add({"step": done, "test_error_mm": error})
            log.line(f"step {done:,}: test error {error:.2f} mm")
            board.scalars(done, figures, "test")
            board.picture(done, skeleton_grid(evaluation, test_source), "test/skeletons")

        if start and due(start) and not history.has(start, "test_error_mm"):
            look(start)

        # One pass of this loop is one update. Metrics are fetched a step late, so that the
        # device never waits for the host, except where a step is logged or saved.
        compiled: Callable[..., Any] | None = None
        pending: dict[str, Any] | None = None
        batches = training_batches(train_source, config.batch, config.seed, start, steps)
        for step, data in batches:
            with jax.transfer_guard("disallow"):
                data = steps_.to_devices(data, mesh)
            if compiled is None:
                log.line("compiling the training step")
                compiled = train_step.lower(state, data, key).compile()
                clock.begin()
            with jax.transfer_guard("disallow"):
                state, metrics = compiled(state, data, key)
            if pending is not None:
                window.add(step - 1, pending, checkpoints.latest)
            pending, done = metrics, step + 1

            logs = done % config.log_every == 0 or done == steps
            stopping = stop.requested  # Read once: the signal may come between two lines.
            evaluates = due(done) and not stopping  # A resumed run makes up for it.
            saves = evaluates or stopping or done == steps or done % config.checkpoint_every == 0
            if logs or saves:
                # Nothing is saved before its loss, and every loss before it, is known.
                window.add(step, pending, checkpoints.latest)
                pending = None
            log.status(clock.text(done, window.recent))
            if logs:
                row = {"step": done, "examples": done * config.batch, **window.mean()}
                row["lr"] = float(schedule(step))
                history.add(row)
                log.line(clock.text(done, row))
                board.scalars(done, row, "train")
                window.clear()
            if saves:
                save(done)
            if evaluates:
                look(done)
            if stopping:
                log.line(f"told to stop: saved step {done:,}, the same command resumes there")
                stop.leave()
                return None

        # The test split, with everything that commands promise.
        stop.saved()
        seconds = before + clock.seconds()
        log.line(f"evaluating on {test_source.name}, {test_source.split} split")
        tested = tester(eval_variables(state), log.status)
        if start == steps:  # Only now: a test that fails leaves the figures of the last one.
            take_over()
        extra = {
            "train_seconds": round(seconds, 3),
            "examples_seen": steps * config.batch,
            **({"train_frames": train_source.size} if train_source.size else {}),
            "frames_skipped": len(train_source.skipped),
            "frames_stood_in": len(test_source.skipped),
            "device": device_name(),
        }
        if isinstance(tested, dict):
            board.scalars(steps, tested, "test")
            text = ", ".join(f"{name} {value:.3f}" for name, value in tested.items())
            log.line(f"{test_source.name} {test_source.split}: {text}")
            about = {"frames": tester.frames, **extra}
            return write_figures(workdir, tested, test_source, about)
        metrics = write_results(workdir, tested, test_source, history.rows, extra)
        board.scalars(steps, metrics, "test")
        board.picture(steps, skeleton_grid(tested, test_source), "test/skeletons")
        for line in in_words(metrics, (workdir / "groundtruth.txt").is_file()):
            log.line(line)
        return metrics


def initial_variables(
    config: ConfigDict, workdir: Path, method: Method, key: PRNGKeyArray
) -> tuple[Variables, str]:
    """Drawn from the key, or warm-started from an earlier run if `workdir` holds none yet.

    "../NAME" in `config.init_from` is the run beside this one, an earlier stage. The text says from
    what it was warm-started, if so.

    Raises:
      InputError: an earlier stage is not finished, or as `load_model` and `warm_start`.
    """
    variables = method.init(key)
    if not config.init_from or any_in(workdir / "checkpoints"):
        return variables, ""
    stage = config.init_from.startswith("../")
    path = workdir.absolute().parent / config.init_from[3:] if stage else Path(config.init_from)
    step, steps = progress_of(path)
    if stage and step < steps:
        raise InputError(f"{path}: stopped at step {step} of {steps}, expected a finished stage")
    variables = warm_start(variables, load_model(path)[1], config.init_pattern)
    return variables, f"began from {path}, step {step:,} of {steps:,}"


def in_words(metrics: dict[str, Any], labelled: bool) -> Iterator[str]:
    """What the log says of `metrics.json`; `labelled`: whether all joints of the test are."""
    if not labelled:
        yield "no groundtruth.txt: some joints of the test split are not labelled"
    yield (
        f"{metrics['dataset']} {metrics['split']}, {metrics['frames']:,} frames, centres "
        f"'{metrics['centre']}': mean error {metrics['mean_error_mm']:.2f} mm (best constant "
        f"pose {metrics['baseline_mean_error_mm']:.2f} mm), worst joint within 20 mm in "
        f"{metrics['success_20mm']:.1%}, within 40 mm in {metrics['success_40mm']:.1%}"
    )
    if metrics.get("parts") == {}:
        yield "note: not the whole published test split, not comparable with published tables"


def epoch_size(config: ConfigDict, source: Source) -> int:
    """Examples of an epoch: all frames of a data set, `config.epoch_examples` of endless ones."""
    return source.size or int(config.epoch_examples)


def number_of_steps(config: ConfigDict, source: Source) -> int:
    """`config.steps`, or as many as `config.epochs` take."""
    steps = config.steps or math.ceil(config.epochs * epoch_size(config, source) / config.batch)
    if steps < 1:
        raise InputError(f"steps={config.steps} and epochs={config.epochs}, expected training")
    return steps
