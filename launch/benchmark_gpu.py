"""Throughput on a GPU, side by side with PyTorch: examples/s by batch size.

    python -m launch.benchmark_gpu [--batches=8,16,32,64,128] [--repeats=7] [--device=gpu|cpu]
                                   [--config=configs/v2v_nyu.py] [--set method.input=88 ...]

Both sides do the same job on the same rendered depth patches, which wait in device memory: the
full training step of the config (augmented voxels, heatmaps, network, squared error, backward,
RMSProp) and inference from depth patch to joints; in float32 (TF32 products, the default of
XLA's convolutions and cuDNN's) and in bfloat16. PyTorch has bf16 autocast, channels-last 3-D
and `torch.compile`; its voxels and heatmaps are computed on the device too. Runs are
interleaved, figures are medians. A side that runs out of memory stops growing. Needs torch.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from launch.compare_pytorch import needs_torch

RUNS = 3  # executions in one timing, so that the host's share hides behind the device's


def main() -> None:
    """Parse flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--config", default="configs/v2v_nyu.py")
    parser.add_argument("--batches", default="8,16,32,64,128")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="in the config")
    parser.add_argument("--no_compile", action="store_true", help="PyTorch without torch.compile")
    args = parser.parse_args()
    needs_torch(parser)
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if args.device == "gpu" else "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch shares the device.
    import jax
    import torch

    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if args.device == "gpu" else "CPU"
    config = _config(args.config, args.set)
    if config.method.name != "v2v" or config.method.occupancy != "binary":
        parser.error("PyTorch's side is V2V on binary voxels: expected such a --config")
    print(
        f"{name}, jax {jax.__version__}, torch {torch.__version__}, input {config.method.input}, "
        f"patch {config.data.patch}, medians of {args.repeats} interleaved timings\n"
    )
    print("| what | batch | ours, examples/s | PyTorch, examples/s | ours / PyTorch |")
    print("|---|---|---|---|---|")
    batches = [int(batch) for batch in args.batches.split(",")]
    rendered = _hands(config, max(batches))
    for dtype in ("float32", "bfloat16"):
        with config.unlocked():
            config.method.dtype = dtype
        for what, ours, theirs in (
            ("training", _our_training, _torch_training),
            ("inference", _our_inference, _torch_inference),
        ):
            torch_side = partial(theirs, device=args.device, compiled=not args.no_compile)
            best = [0.0, 0.0]
            fits = [True, True]
            for batch in batches:
                hands = {name: rows[:batch] for name, rows in rendered.items()}
                sides = [partial(ours, config, hands), partial(torch_side, config, hands)]
                rates = _rates(sides, fits, batch, args.repeats)
                best = [max(old, new) for old, new in zip(best, rates, strict=True)]
                _row(f"{what}, {dtype}", str(batch), rates)
            _row(f"**{what}, {dtype}**", "best", best)


def _config(path: str, changes: list[str]) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("config", Path(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    values = dict(change.split("=", 1) for change in changes)
    config.update_from_flattened_dict({k: ast.literal_eval(v) for k, v in values.items()})
    return config


def _hands(config: Any, batch: int) -> dict[str, Any]:
    """A rendered batch (NumPy)."""
    import jax
    import numpy as np

    from hpe_jax.synthetic import make_source

    source = make_source(config.data, "train", 0)
    expand = jax.jit(source.expand)
    few = [expand(source.load(np.arange(start, start + 8))) for start in range(0, batch, 8)]
    return {k: np.concatenate([np.asarray(x[k]) for x in few])[:batch] for k in few[0]}


def _rates(sides: Sequence[Callable], fits: list[bool], batch: int, repeats: int) -> list[float]:
    """Examples/s of both; 0 for one that does not fit into memory."""
    import torch

    run: list[Any] = [None, None]
    times: list[list[float]] = [[], []]
    for repeat in range(-1, repeats):
        for side, make in enumerate(sides):
            if not fits[side]:
                continue
            try:
                if run[side] is None:
                    run[side] = make()  # Compiles and runs once.
                start = time.perf_counter()
                run[side]()
                if repeat >= 0:
                    times[side].append(time.perf_counter() - start)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                memory = ("out of memory", "RESOURCE_EXHAUSTED")
                if not any(words.lower() in str(error).lower() for words in memory):
                    raise
                fits[side], run[side] = False, None
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
    return [
        RUNS * batch / statistics.median(t) if ok else 0.0
        for t, ok in zip(times, fits, strict=True)
    ]


def _row(what: str, batch: str, rates: list[float]) -> None:
    ours, theirs = (f"{rate:.1f}" if rate else "out of memory" for rate in rates)
    ratio = f"{rates[0] / rates[1]:.2f}" if all(rates) else ""
    print(f"| {what} | {batch} | {ours} | {theirs} | {ratio} |", flush=True)


def _our_training(config: Any, hands: dict[str, Any]) -> Callable[[], Any]:
    import jax

    from hpe_jax.hand.skeletons import NYU
    from hpe_jax.methods import METHODS
    from hpe_jax.training import optimizers
    from hpe_jax.training import step as steps
    from hpe_jax.training.state import init_state

    method = METHODS["v2v"](config.method, NYU)
    schedule = optimizers.make_schedule(config.optimizer, 1000, config.batch, config.epoch_examples)
    optimizer = optimizers.make_optimizer(config.optimizer, schedule, None)
    mesh = steps.make_mesh()
    state = init_state(method.init(jax.random.key(0)), optimizer, ema=False)
    step = steps.jit_train_step(steps.make_train_step(method, dict, optimizer), mesh)
    carry = [jax.device_put(state, steps.replicated(mesh))]
    data, key = steps.to_devices(hands, mesh), jax.random.key(1)

    def run() -> None:
        for _ in range(RUNS):
            carry[0], _metrics = step(carry[0], data, key)
        jax.block_until_ready(carry[0])

    run()
    return run


def _our_inference(config: Any, hands: dict[str, Any]) -> Callable[[], Any]:
    import jax

    from hpe_jax.hand.skeletons import NYU
    from hpe_jax.methods import METHODS

    method = METHODS["v2v"](config.method, NYU)
    variables, data = jax.device_put((method.init(jax.random.key(0)), hands))
    predict = jax.jit(method.predict)

    def run() -> None:
        jax.block_until_ready([predict(variables, data) for _ in range(RUNS)])

    run()
    return run


def _compiled(function: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    # Each batch size for itself; by default the second one would get slower, general code.
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def _torch_training(
    config: Any, hands: dict[str, Any], *, device: str, compiled: bool
) -> Callable[[], Any]:
    import torch

    from launch.torch_v2v import TorchSystem

    side = TorchSystem(config, hands, device)
    side.net.train()
    optimizer = torch.optim.RMSprop(side.net.parameters(), config.optimizer.lr, alpha=0.99)
    loss = _compiled(side.loss) if compiled else side.loss

    def run() -> None:
        for _ in range(RUNS):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        side.finish()

    run()
    return run


def _torch_inference(
    config: Any, hands: dict[str, Any], *, device: str, compiled: bool
) -> Callable[[], Any]:
    import torch

    from launch.torch_v2v import TorchSystem

    side = TorchSystem(config, hands, device)
    side.net.eval()
    joints = _compiled(side.joints) if compiled else side.joints

    def run() -> None:
        with torch.inference_mode():
            for _ in range(RUNS):
                joints()
        side.finish()

    run()
    return run


if __name__ == "__main__":
    main()
