"""Data sets that `launch.make_data` rendered: what is in their folder, and reading them.

    config.json       what the set was made from and with; written first, marks the folder
    synthetic_nyu-train.array_record-00000-of-00020 ...   tf.train.Example, one a frame
    features.json, metadata.json, dataset_info.json       TFDS's; written last

It is a TFDS data set without TensorFlow: `tfds.builder_from_directory(DIR).as_data_source()`
gives frames of the batch contract (`frames`) whose fields `IN_TENTHS` are uint16 tenths of a
millimetre: 0.05 mm of each reading are lost, nothing of any other field. Centres are stored
without jitter; training adds its own, another one every epoch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from jaxtyping import Float, UInt16
from ml_collections import ConfigDict

from hpe_jax import camera as cameras
from hpe_jax.datasets.recorded import stacked
from hpe_jax.errors import InputError, one_line
from hpe_jax.frames import Batch, Source, centre_noise
from hpe_jax.settings import from_json

CONFIG = "config.json"
MAKER = "hpe_jax launch.make_data"
SPLIT = "train"
IN_TENTHS = ("depth", "clean")
FITS = ("dataset", "patch", "extent_mm", "cube_mm", "centre", "whole")
"""What an experiment's `data` section must have in common with a set that it trains on."""

_LARGEST = np.iinfo(np.uint16).max
_THREADS = 4  # decoding holds Python's lock most of the time


@dataclass(frozen=True)
class Recipe:
    """All that decides a data set's frames and their order.

    Attributes:
      data: the experiment's `data` section as JSON, so that a recipe can be hashed and sent.
      seed: of `synthetic.make_source`.
      frames: their number; frame i is the source's example i.
      shards: files, of as equal lengths as can be.
    """

    data: str
    seed: int
    frames: int
    shards: int

    @property
    def section(self) -> ConfigDict:
        """The `data` section."""
        return from_json(json.loads(self.data))

    @property
    def name(self) -> str:
        """The data set's, as TFDS spells names."""
        return f"synthetic_{self.section.dataset}"

    @property
    def template(self) -> str:
        """Of the files' names, as TFDS writes it."""
        return "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"

    def range(self, shard: int) -> range:
        """The frames of a shard."""
        ends = [k * self.frames // self.shards for k in (shard, shard + 1)]
        return range(*ends)

    def path(self, root: str | Path, shard: int) -> Path:
        """The file of a shard."""
        end = f"{shard:05d}-of-{self.shards:05d}"
        return Path(root) / f"{self.name}-{SPLIT}.array_record-{end}"

    def paths(self, root: str | Path) -> list[Path]:
        """The files of all shards."""
        return [self.path(root, shard) for shard in range(self.shards)]


def to_tenths(depth: Float[np.ndarray, "*B H W"]) -> UInt16[np.ndarray, "*B H W"]:
    """Millimetres as they are stored: rounded to 0.1 mm, 0 = no reading.

    Raises:
      InputError: a reading beyond the 6,553.5 mm that 16 bits hold.
    """
    tenths = np.rint(np.asarray(depth, np.float64) * 10.0)
    if not (tenths >= 0).all() or tenths.max(initial=0) > _LARGEST:
        raise InputError(f"depth of {depth.max():.1f} mm, expected 0 to {_LARGEST / 10} mm")
    return tenths.astype(np.uint16)


def read_config(root: str | Path) -> dict[str, Any] | None:
    """`config.json` of a made data set; None where there is no such thing.

    Raises:
      InputError: it is one, but lacks what it must hold.
    """
    path = Path(root) / CONFIG
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text())
    except ValueError:
        return None  # Something else's: nothing of it is touched.
    if not isinstance(config, dict) or config.get("made_by") != MAKER:
        return None
    missing = [key for key in ("data", "seed", "frames", "shards") if key not in config]
    if missing:
        raise InputError(f"{path}: lacks {missing[0]!r}, expected what {MAKER} wrote")
    return config


def read_recipe(config: dict[str, Any]) -> Recipe:
    """The recipe in a `config.json`."""
    data = json.dumps(config["data"], sort_keys=True)
    return Recipe(data, *(int(config[key]) for key in ("seed", "frames", "shards")))


def is_made(root: str | Path) -> bool:
    """Whether a folder is, or is going to be, a made data set."""
    return read_config(root) is not None


def make_source(data: Any, split: str, seed: int) -> Source:
    """A made data set as a `Source`.

    Args:
      data: the config's `data` section. Used here: `root`, `FITS`, `centre_jitter_mm` (of
        training centres), `synthetic.clean`; the rest of `synthetic` is the data set's own.
      split: "train"; "test" gives the built-in synthetic test frames, which are the same
        whatever a model was trained on.
      seed: with an example's number, decides the jitter of its centre.

    Raises:
      InputError: the data set is unfinished, damaged, or does not fit the config. A damaged
        frame raises it from `load`.
    """
    if split == "test":
        from hpe_jax import synthetic

        return synthetic.make_source(data, split, seed)
    config = read_config(data.root)
    if config is None:
        raise InputError(f"data.root={data.root}: expected a {CONFIG} that {MAKER} wrote")
    recipe = read_recipe(config)
    for name in FITS:
        there, here = recipe.section.get(name, False), data.get(name, False)
        if there != here:
            raise InputError(
                f"{Path(data.root) / CONFIG}: made with data.{name}={there}, the experiment has "
                f"data.{name}={here}; expected the same"
            )
    poses = data.synthetic.get("poses", "")
    there = recipe.section.synthetic.get("poses", "")
    if poses and poses != there:
        raise InputError(
            f"{Path(data.root) / CONFIG}: made with data.synthetic.poses={there!r}, the experiment "
            f"has {poses!r}; expected the same, or none: the frames are made already"
        )
    frames = _open(data.root, recipe)
    fields = set(_read(frames, recipe, data.root, 0))
    wanted = fields if data.synthetic.get("clean", False) else fields - {"clean"}
    if data.synthetic.get("clean", False) and "clean" not in fields:
        raise InputError(
            f"{data.root}: holds no depth before the sensor; expected one made with "
            "--config.data.synthetic.clean=True"
        )
    jitter_mm = float(data.centre_jitter_mm)

    def read(number: int) -> dict[str, np.ndarray]:
        example = _read(frames, recipe, data.root, number % recipe.frames)
        if jitter_mm:
            example["centre"] = example["centre"] + centre_noise(jitter_mm, seed, number)
        return {name: example[name] for name in wanted}

    def load(indices: np.ndarray) -> dict[str, np.ndarray]:
        numbers = [int(i) for i in indices]
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=len(numbers))
        examples = grain.MapDataset.source(numbers).map(read).to_iter_dataset(options)
        return next(iter(examples.batch(len(numbers), batch_fn=stacked)))

    def expand(loaded: dict[str, Any]) -> Batch:
        # Tenths travel to the device at half the size.
        tenths = [name for name in IN_TENTHS if name in loaded]
        return loaded | {name: loaded[name].astype(np.float32) / 10.0 for name in tenths}

    # Two sets of one length and seed may show other hands; a run must not resume on the other.
    made = hashlib.sha256(recipe.data.encode()).hexdigest()[:6]
    about = f"{recipe.frames:,} frames of seed {recipe.seed}, recipe {made}"
    return Source(
        name=f"synthetic-{data.dataset} ({about})",
        split=split,
        size=recipe.frames,
        centre=data.centre,
        skeleton=data.dataset,
        camera=cameras.CAMERAS[data.dataset].intrinsics,
        load=load,
        expand=expand,
    )


def _open(root: str, recipe: Recipe) -> Any:
    """TFDS's random access to the frames; InputError naming the file that is not as made."""
    import tensorflow_datasets as tfds

    info = Path(root) / "dataset_info.json"
    if not info.is_file():
        whole = sum(path.is_file() for path in recipe.paths(root))
        raise InputError(
            f"{root}: unfinished, {whole} of {recipe.shards} shards; expected the command that "
            "makes it (launch.make_data) to have ended"
        )
    try:
        builder = tfds.builder_from_directory(root)
        frames = builder.as_data_source(split=SPLIT)
        sizes = builder.info.metadata["bytes"]
    except Exception as error:  # What a torn or foreign file leads TFDS to.
        raise InputError(f"{info}: {one_line(error)}; expected what {MAKER} wrote") from error
    if len(frames) != recipe.frames or len(sizes) != recipe.shards:
        raise InputError(
            f"{info}: {len(frames)} frames in {len(sizes)} shards, expected {recipe.frames} in "
            f"{recipe.shards} as in {CONFIG}"
        )
    for path, size in zip(recipe.paths(root), sizes, strict=True):
        if not path.is_file() or path.stat().st_size != size:
            found = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
            raise InputError(f"{path}: {found}, expected {size} bytes; it was changed after making")
    return frames


def _read(frames: Any, recipe: Recipe, root: str, index: int) -> dict[str, np.ndarray]:
    """A stored frame; InputError naming its file if it cannot be read."""
    try:
        # TFDS gives a field without axes as a Python number.
        of = frames.dataset_info.features
        return {k: np.asarray(value, of[k].np_dtype) for k, value in frames[index].items()}
    except (RuntimeError, ValueError, IndexError) as error:
        shard = next(k for k in range(recipe.shards) if index in recipe.range(k))
        raise InputError(
            f"{recipe.path(root, shard)}: frame {index} cannot be read ({one_line(error)}); "
            "expected the file as it was made"
        ) from error
