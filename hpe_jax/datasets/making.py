"""Rendering a data set into shards, so that it can be stopped anywhere and continued.

The unit is a shard: `make_shard` depends on the recipe and the shard's number alone, writes
under a temporary name and renames what is whole. A plain loop, several machines or a killed
and repeated command therefore leave the same bytes. (The same versions on the same kind of
machine, that is: XLA rounds by the processor and by the size of a batch, which is fixed here.
`prepare` renders some frames again and refuses to continue a set with others.)

TFDS's own builders write a split as a whole and begin anew after an interruption; only the
metadata are written by TFDS here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import hpe_jax
from hpe_jax import datasets
from hpe_jax.atomic import write_atomic
from hpe_jax.datasets.made import (
    CONFIG,
    IN_TENTHS,
    MAKER,
    SPLIT,
    Recipe,
    read_config,
    to_tenths,
)
from hpe_jax.errors import InputError, naming, one_line
from hpe_jax.frames import Source
from hpe_jax.settings import differences, flatten

BATCH = 32
"""Frames rendered at once: with another number their last bits differ."""

FRAMES_PER_SHARD = 1024
MOST_SHARDS = 512
VERSION = "1.0.0"

_TEMPORARY = ".part"
_READER = "readahead_buffer_size:0,max_parallelism:0"


def make_recipe(data: ConfigDict, seed: int, frames: int, shards: int = 0) -> Recipe:
    """What to make.

    Args:
      data: an experiment's `data` section; its jitter is left to training.
      seed: of the frames.
      frames: how many.
      shards: files; 0 = one for every `FRAMES_PER_SHARD`, at most `MOST_SHARDS`.

    Raises:
      InputError: a number out of range, or a section that cannot be rendered.
    """
    if not 0 < frames < 2**31:
        raise InputError(f"--frames={frames}: expected at least 1 and fewer than 2^31")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed={seed}: expected at least 0 and below 2^32")
    shards = shards or min(MOST_SHARDS, -(-frames // FRAMES_PER_SHARD))
    if not 0 < shards <= min(frames, 99_999):
        raise InputError(f"--shards={shards}: expected 1 to {min(frames, 99_999)}")
    if data.root:
        raise InputError(f"data.root={data.root}: frames are rendered, expected no root")
    plain = data.copy_and_resolve_references()
    plain.target, plain.centre_jitter_mm = "joints", 0.0
    recipe = Recipe(json.dumps(plain.to_dict(), sort_keys=True), seed, frames, shards)
    datasets.make_source(recipe.section, SPLIT, seed)
    return recipe


def prepare(out: str | Path, recipe: Recipe) -> list[int]:
    """Look at what is in `out`, begin if nothing is; the shards that are still to be made.

    Raises:
      InputError: `out` holds something else, or a shard that is damaged.
      OSError: it cannot be written.
    """
    out, made_with = Path(out), _made_with(recipe)
    here = {
        "made_by": MAKER,
        "data": json.loads(recipe.data),
        "seed": recipe.seed,
        "frames": recipe.frames,
        "shards": recipe.shards,
        "made_with": made_with,
    }
    there = read_config(out)
    if there is None:
        other = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        other = [name for name in other if not name.endswith(_TEMPORARY)]
        if other:
            raise InputError(
                f"{out}: holds {other[0]!r}, expected no folder, an empty one, or a data set that "
                f"{MAKER} began"
            )
        write_atomic(out / CONFIG, json.dumps(here, indent=2, sort_keys=True) + "\n")
        return list(range(recipe.shards))
    if differing := differences(there, here):
        raise InputError(
            f"{out / CONFIG}: another data set, {', '.join(differing)}; expected the same, or "
            "another --out"
        )
    todo, compared = [], False
    for shard, path in enumerate(recipe.paths(out)):
        if not path.is_file():
            todo.append(shard)
            continue
        read_shard(path, len(recipe.range(shard)))
        if not compared:
            _compare(path, recipe, shard)
            compared = True
    return todo


def clear(out: str | Path) -> None:
    """Remove what a killed process left half done; only for who knows that no other is at work."""
    for path in Path(out).glob(f".*{_TEMPORARY}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def make_shard(
    out: str | Path,
    recipe: Recipe,
    shard: int,
    progress: Callable[[int], None] = lambda frames: None,
) -> None:
    """Render a shard's frames into its file, which is there afterwards or not at all.

    Args:
      out: the data set's folder.
      recipe: of the data set.
      shard: its number.
      progress: is told how many frames of the shard are done.

    Raises:
      OSError: it cannot be written (a full disk); nothing is left of it.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    path, numbers = recipe.path(out, shard), recipe.range(shard)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with naming(path):
            try:
                # Compressed by ArrayRecord itself; a group of one record is what TFDS reads.
                writer = ArrayRecordWriter(str(temporary), "group_size:1")
                done = 0
                for records in render(recipe, numbers):
                    for record in records:
                        writer.write(record)
                    done += len(records)
                    progress(done)
                writer.close()
            except RuntimeError as error:  # "write() failed: No space left on device; ..."
                raise OSError(one_line(error).split("; ")[0]) from error
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def finish(out: str | Path, recipe: Recipe) -> None:
    """Write TFDS's metadata when all shards are there; `dataset_info.json` last.

    Raises:
      InputError: a shard is missing.
      OSError: they cannot be written.
    """
    import tensorflow_datasets as tfds

    out, paths = Path(out), recipe.paths(out)
    missing = next((path for path in paths if not path.is_file()), None)
    if missing:
        raise InputError(f"{missing}: missing, expected {recipe.shards} shards")
    sizes = [path.stat().st_size for path in paths]
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=recipe.name, version=tfds.core.Version(VERSION), data_dir=str(out), module_name=""
        ),
        description=f"Synthetic hands, rendered by hpe_jax {hpe_jax.__version__}; {CONFIG} says "
        f"how. {', '.join(IN_TENTHS)}: tenths of a millimetre, 0 = no reading; all else mm.",
        features=_features(recipe),
        metadata=tfds.core.MetadataDict({"bytes": sizes}),
    )
    info.set_file_format("array_record")
    split = tfds.core.SplitInfo(
        name=SPLIT,
        shard_lengths=[len(recipe.range(shard)) for shard in range(recipe.shards)],
        num_bytes=sum(sizes),
        filename_template=tfds.core.ShardedFileTemplate(
            dataset_name=recipe.name,
            data_dir=out,
            split=SPLIT,
            filetype_suffix="array_record",
            template=recipe.template,
        ),
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    folder = out / f".metadata.{os.getpid()}{_TEMPORARY}"
    try:
        with naming(out / "dataset_info.json"):
            folder.mkdir(exist_ok=True)
            info.write_to_directory(folder)
        for name in ("features.json", "metadata.json", "dataset_info.json"):
            write_atomic(out / name, (folder / name).read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def render(recipe: Recipe, numbers: range) -> Iterator[list[bytes]]:
    """The records of these frames, a batch at a time; the next one is rendered meanwhile."""
    source, step = _renderer(recipe)
    features = _features(recipe)
    waiting: list[tuple[range, Any]] = []
    for start in range(numbers.start, numbers.stop, BATCH):
        wanted = range(start, min(start + BATCH, numbers.stop))
        # Every batch has the same size; the last one is filled up with its last frame.
        loaded = source.load(np.minimum(np.arange(start, start + BATCH), wanted.stop - 1))
        waiting.append((wanted, step(loaded)))
        if len(waiting) == 2:
            yield _records(*waiting.pop(0), features)
    for last in waiting:
        yield _records(*last, features)


def read_shard(path: Path, frames: int) -> None:
    """Read a whole shard.

    Raises:
      InputError: its number of frames is not `frames`, or its check sums are wrong.
    """
    read = 0
    for records in _read_records(path):
        read += len(records)
    if read != frames:
        raise InputError(f"{path}: {read} frames can be read, expected {frames}; {_REMOVE}")


_REMOVE = "removing the file lets the same command make it again"


def _read_records(path: Path) -> Iterator[list[bytes]]:
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(str(path), _READER)
        count = reader.num_records() if reader.ok() else 0
        for start in range(0, count, BATCH):
            yield reader.read(start, min(start + BATCH, count))
        reader.close()
    except RuntimeError as error:
        raise InputError(f"{path}: {one_line(error)}; {_REMOVE}") from error


def _compare(path: Path, recipe: Recipe, shard: int) -> None:
    """Refuse to continue with frames that come out otherwise than those that are there."""
    there, here = next(_read_records(path)), next(render(recipe, recipe.range(shard)))
    for offset, (a, b) in enumerate(zip(there, here, strict=True)):
        if a != b:
            raise InputError(
                f"{path}: its frame {recipe.range(shard)[offset]} is not what this machine and "
                "this version render; expected the ones that began the data set, or another --out"
            )


@functools.lru_cache(maxsize=2)
def _renderer(recipe: Recipe) -> tuple[Source, Callable[[Any], Any]]:
    source = datasets.make_source(recipe.section, SPLIT, recipe.seed)
    return source, jax.jit(source.expand)


@functools.lru_cache(maxsize=2)
def _features(recipe: Recipe) -> Any:
    """TFDS's description of a frame."""
    import tensorflow_datasets as tfds

    source, step = _renderer(recipe)
    fields = {}
    for name, of in jax.eval_shape(step, source.load(np.arange(BATCH))).items():
        dtype = np.dtype(np.uint16) if name in IN_TENTHS else np.dtype(of.dtype)
        coding = "bytes" if name in IN_TENTHS else "none"
        fields[name] = tfds.features.Tensor(shape=of.shape[1:], dtype=dtype, encoding=coding)
    return tfds.features.FeaturesDict(fields)


def _records(numbers: range, batch: Any, features: Any) -> list[bytes]:
    from tensorflow_datasets.proto import tf_example_pb2

    fields = {name: np.asarray(values) for name, values in jax.device_get(batch).items()}
    for name in set(IN_TENTHS) & set(fields):
        fields[name] = to_tenths(fields[name])
    out = []
    for row in range(len(numbers)):
        record = features.serialize_example({name: v[row] for name, v in fields.items()})
        # A map's order in protocol buffers is another one in every process, unless asked for.
        example = tf_example_pb2.Example.FromString(record)
        out.append(example.SerializeToString(deterministic=True))
    return out


def _made_with(recipe: Recipe) -> dict[str, Any]:
    """What else decides the bytes: versions, the platform, and the files that are named."""
    from importlib.metadata import version

    # Several files stand in one value with commas between them.
    values = flatten(recipe.section.synthetic.to_dict()).values()
    names = [name for value in values if isinstance(value, str) for name in value.split(",")]
    files = {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in names
        if name and Path(name).is_file()
    }
    packages = {name: version(name) for name in ("jax", "jaxlib", "array_record")}
    return {
        "hpe_jax": hpe_jax.__version__,
        **packages,
        "platform": jax.default_backend(),
        "batch": BATCH,
        "sha256": files,
    }
