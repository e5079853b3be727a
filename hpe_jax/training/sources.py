"""An experiment's examples: read ahead, about centres that a network refined where it asks so."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax import datasets
from hpe_jax.errors import InputError
from hpe_jax.frames import Batch, Source, centre_noise, content_hash, epoch_indices
from hpe_jax.hand.skeletons import SKELETONS
from hpe_jax.methods import METHODS
from hpe_jax.methods.base import Method, Variables
from hpe_jax.methods.detector import median_centre
from hpe_jax.training.checkpoints import load_model

READ_AHEAD = 2
"""Batches that the host prepares while the device works."""


def make_source(config: ConfigDict, split: str) -> Source:
    """`datasets.make_source`, and `data.centre="refined"`; of whole frames the centre is "none".

    A refined centre is that of `com`, moved by the network that the run `data.centre_model`
    trained, in training with `data.centre_jitter_mm` of noise. The network sees the experiment's
    own patches, whose pixels may be finer or coarser than those that it was trained on
    (`data.patch`).

    Raises:
      InputError: as `datasets.make_source`; no centre model, or one that cannot be used.
    """
    if config.data.whole:
        source = datasets.make_source(config.data, split, config.seed)
        return dataclasses.replace(source, centre="none")  # a detector is not told where hands are
    if config.data.centre != "refined":
        return datasets.make_source(config.data, split, config.seed)
    if not config.data.centre_model:
        raise InputError(
            "data.centre=refined: expected data.centre_model to name a run's --workdir"
        )
    try:
        model = load_centre_model(config.data.centre_model, config.data)
    except InputError as error:
        raise InputError(f"data.centre_model: {error}") from error
    if model.whole:
        raise InputError(
            f"data.centre_model={config.data.centre_model}: detects hands in whole frames; "
            "expected a run that refines centres (launch.write_centres makes a file of detected "
            "ones, for data.centre=file)"
        )
    rough = config.data.copy_and_resolve_references()
    # The network would take most of the noise away, if it saw it, and it does better on frames
    # that it was trained on than on a test's.
    rough.centre, rough.centre_jitter_mm = "com", 0.0
    source = refine(datasets.make_source(rough, split, config.seed), model)
    jitter = float(config.data.centre_jitter_mm)
    return jittered(source, jitter, config.seed) if split == "train" and jitter else source


@dataclasses.dataclass(frozen=True)
class CentreModel:
    """A network that says where hands are.

    Attributes:
      data: the `data` section that it was trained on.
      method: the network; its joints are the centre itself, or all of those that it detects.
      variables: its weights, on the host.
    """

    data: ConfigDict
    method: Method
    variables: Variables

    @property
    def whole(self) -> bool:
        """Whether it looks at whole frames ("detected"), not patches about centres ("refined")."""
        return bool(self.data.get("whole", False))

    def centres(self, batch: Batch) -> Float[Array, "B 3"]:
        """Hand centres of a batch, mm; pure."""
        variables = jax.tree.map(jnp.asarray, self.variables)
        return median_centre(self.method.predict(variables, batch))


def load_centre_model(workdir: str, data: ConfigDict | None = None) -> CentreModel:
    """The network that a run trained to find centres.

    Args:
      workdir: of the run.
      data: the experiment that its centres are for; None asks for nothing.

    Raises:
      InputError: not such a run, or one for another camera or cube than the experiment's.
    """
    model, variables = load_model(workdir)
    target, whole = (model.data.get(key, None) for key in ("target", "whole"))
    if target != "centre" and not whole:
        raise InputError(f"{workdir}: trained for joints, expected a run that finds hand centres")
    for name in ("dataset", "cube_mm"):
        if data is not None and model.data[name] != data[name]:
            raise InputError(
                f"{workdir}: finds centres for data.{name}={model.data[name]}, "
                f"expected {data[name]}"
            )
    skeleton = SKELETONS["centre" if target == "centre" else model.data.dataset]
    method = METHODS[model.method.name](model.method, skeleton)
    # On the host: the step that uses them decides on which devices.
    return CentreModel(model.data, method, jax.device_get(variables))


def refine(source: Source, model: CentreModel) -> Source:
    """The same examples about the centres that a network estimates from them."""

    def expand(loaded: dict[str, Any]) -> Batch:
        batch = source.expand(loaded)
        return batch | {"centre": model.centres(batch)}

    weights = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model.variables))
    files = {**source.files, "data.centre_model": content_hash(*weights)}
    return dataclasses.replace(source, expand=expand, centre="refined", files=files)


def jittered(source: Source, mm: float, seed: int) -> Source:
    """The same examples about centres that are off by normal noise of `mm` for each axis, a
    function of the seed and the example's number."""

    def load(indices: np.ndarray) -> dict[str, Any]:
        noise = np.stack([centre_noise(mm, seed, int(i)) for i in indices])
        return {"examples": source.load(indices), "noise": noise}

    def expand(loaded: dict[str, Any]) -> Batch:
        batch = source.expand(loaded["examples"])
        return batch | {"centre": batch["centre"] + loaded["noise"]}

    return dataclasses.replace(source, load=load, expand=expand)


def training_batches(
    source: Source, batch: int, seed: int, start: int, steps: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """`(step, what source.load gave)` for the steps from `start` on, read ahead."""

    def load(step: int) -> dict[str, np.ndarray]:
        return source.load(epoch_indices(source.size, batch, seed, step))

    return read_ahead(load, range(start, steps))


def read_ahead(
    load: Callable[[int], dict[str, np.ndarray]], numbers: Sequence[int]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """`(number, load(number))` in order, loaded by a thread a few ahead."""
    waiting: collections.deque[Future[dict[str, np.ndarray]]] = collections.deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="read_ahead")
    try:
        for i, number in enumerate(numbers):
            for later in numbers[i + len(waiting) : i + READ_AHEAD + 1]:
                waiting.append(pool.submit(load, later))
            yield number, waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
