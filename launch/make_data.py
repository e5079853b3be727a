"""Render a data set to disk: depth frames of synthetic hands, in ArrayRecord, for TFDS.

    python -m launch.make_data --config=FILE[:VARIANT] --frames=N --out=DIR [--seed=S] \\
        [--shards=K] [--beam] [--config.data.KEY=VALUE ...] [-- --runner=... BEAM_OPTION ...]

The frames are the training frames of the config's `data` section: its camera, patch, cube, hand
centres (without jitter, which training adds) and `data.synthetic`. From joints of a data set, or
from predictions, to frames of hands in those poses:

    python -m launch.joints_to_angles --dataset=nyu --joints=FILE --out=DIR/motion \\
        --axes=template                                                         # IK and BVH
    python -m launch.make_data --config=configs/v2v_nyu.py:quick --frames=100000 --out=DIR/frames \\
        --config.data.synthetic.poses=DIR/motion/angles.npz
    python -m hpe_jax.main --config=configs/v2v_nyu.py:quick --workdir=runs/made \\
        --config.data.root=DIR/frames

DIR is read by `--config.data.root=DIR` of any config with the same data set, patch, cube and
centres (tests stay those of the built-in test frames), and by `tfds.builder_from_directory(DIR)`
and `.as_data_source("train")`, which need no TensorFlow; `hpe_jax/datasets/made.py` says what is
in it. Depth is rounded to 0.1 mm; everything else is stored as it was.

Stopped at any moment (kill -9 included) and started again, the command makes what is missing; it
loses the shards that were in progress. The same config, seed, frames and shards give the same
bytes of every file but log.txt, however often it was stopped. A DIR of anything else is refused.

`--beam` gives shards to Apache Beam (`pip install -e '.[beam]'`), by default to its direct
runner on this machine; what follows `--` are Beam's own options. Workers need this package, the
files that the config names, and DIR on a disk that all share.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging
from ml_collections import config_flags

from hpe_jax.command import config_problem, fail, interrupted
from hpe_jax.process import huge_pages

if TYPE_CHECKING:
    from hpe_jax.datasets.made import Recipe
    from hpe_jax.progress import Rate
    from hpe_jax.training.console import Log

_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment, FILE[:VARIANT]")
_FRAMES = flags.DEFINE_integer("frames", None, "how many frames")
_OUT = flags.DEFINE_string("out", None, "folder of the data set, made if absent")
_SEED = flags.DEFINE_integer("seed", None, "of the frames; by default the config's")
_SHARDS = flags.DEFINE_integer("shards", 0, "files; 0 = one for every 1,024 frames, at most 512")
_BEAM = flags.DEFINE_boolean("beam", False, "whether Apache Beam makes the shards")

LOOK_EVERY_S = 5.0
"""How often the files that Beam's workers have finished are counted."""


def main(argv: list[str]) -> int:
    """Exit status of the command `argv`."""
    if {"-h", "--help", "-help"} & set(argv):
        print(f"{__doc__}\nflags:\n{flags.FLAGS.module_help(sys.modules[__name__])}")
        return 0
    end = argv.index("--") if "--" in argv else len(argv)
    own, options = argv[:end], argv[end + 1 :]
    problem = config_problem(own, ("config", "frames", "out"))
    if problem:
        return fail(problem)
    if options and not _BEAM.value:
        return fail(f"{options[0]}: unexpected, options after -- are for --beam")

    # After the flags, so that --help and slips of the pen answer at once.
    logging.set_verbosity(logging.FATAL)
    from hpe_jax.errors import InputError, one_line
    from hpe_jax.process import use_cache

    use_cache()
    try:
        make(options)
    except (InputError, OSError) as error:
        return fail(one_line(error))
    except KeyboardInterrupt:
        return interrupted(f"{_OUT.value}: interrupted, the same command continues")
    return 0


def make(options: list[str]) -> None:
    """What the flags ask for; `options` are Beam's."""
    from hpe_jax.datasets import making
    from hpe_jax.errors import InputError
    from hpe_jax.progress import Rate
    from hpe_jax.training.console import Log

    assert _OUT.value is not None and _FRAMES.value is not None  # `config_problem` has looked.
    config, out = _CONFIG.value, Path(_OUT.value)
    if "data" not in config:
        raise InputError("--config: has no data section; of stages, expected one: FILE:STAGE")
    if _BEAM.value:
        _import_beam()
    seed = config.seed if _SEED.value is None else _SEED.value
    recipe = making.make_recipe(config.data, seed, _FRAMES.value, _SHARDS.value)
    todo = making.prepare(out, recipe)
    with Log(out / "log.txt") as log:  # It keeps other processes out.
        making.clear(out)
        lengths = [len(recipe.range(shard)) for shard in range(recipe.shards)]
        rate = Rate(recipe.frames, recipe.frames - sum(lengths[shard] for shard in todo))
        log.line(
            f"{recipe.name} in {out}: {recipe.frames:,} frames of seed {seed}, "
            f"{recipe.shards - len(todo):,} of {recipe.shards:,} shards are there"
        )
        if _BEAM.value:
            with _watch(out, recipe, rate, log):
                make_by_beam(out, recipe, todo, options)
        else:
            for shard in todo:

                def progress(frames: int, shard: int = shard) -> None:
                    log.status(f"shard {shard + 1:,}/{recipe.shards:,}, {rate.text(frames)}")

                making.make_shard(out, recipe, shard, progress)
                rate.done += lengths[shard]
                log.line(f"shard {shard + 1:,}/{recipe.shards:,}, {rate.text()}")
        making.finish(out, recipe)
        size = sum(path.stat().st_size for path in recipe.paths(out))
        log.line(
            f"whole: {recipe.frames:,} frames, {size / 1e6:,.1f} MB, "
            f"{size / recipe.frames:,.0f} bytes a frame"
        )


def make_by_beam(out: Path, recipe: Recipe, todo: list[int], options: list[str]) -> None:
    """Make shards as the elements of a Beam pipeline.

    Raises:
      InputError: Beam is not installed, or the pipeline failed: with the last line it said.
    """
    from hpe_jax.datasets.making import make_shard
    from hpe_jax.errors import InputError

    beam, pipeline_options = _import_beam()
    shard = functools.partial(make_shard, out.absolute(), recipe)
    try:
        with beam.Pipeline(options=pipeline_options(options)) as pipeline:
            shards = pipeline | "shards" >> beam.Create(todo, reshuffle=True)
            _ = shards | "make" >> beam.Map(shard)
    except Exception as error:  # A runner raises what it likes, with workers' tracebacks in it.
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise InputError(f"{out}: the Beam pipeline failed: {lines[-1]}") from error


def _import_beam() -> tuple:
    from hpe_jax.errors import InputError

    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(
            f"--beam: {error}; expected Apache Beam, pip install -e '.[beam]'"
        ) from error
    return apache_beam, PipelineOptions


@contextlib.contextmanager
def _watch(out: Path, recipe: Recipe, rate: Rate, log: Log) -> Iterator[None]:
    """Log how many frames are in finished shards, whichever machine made them."""
    ended = threading.Event()

    def look() -> None:
        last = -1
        while not ended.wait(LOOK_EVERY_S):
            there = [k for k, path in enumerate(recipe.paths(out)) if path.is_file()]
            rate.done = sum(len(recipe.range(k)) for k in there)
            if len(there) != last:
                log.line(f"{len(there):,}/{recipe.shards:,} shards, {rate.text()}")
            last = len(there)

    thread = threading.Thread(target=look, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    huge_pages()
    sys.exit(main(sys.argv))
