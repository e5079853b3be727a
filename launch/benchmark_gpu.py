"""Throughput on a GPU, side by side with PyTorch: examples/s by batch size.

    python -m launch.benchmark_gpu [--batches=8,16,32,64,128] [--repeats=7] [--device=gpu|cpu]
                                   [--config=configs/v2v_nyu.py] [--set method.input=88 ...]

Both sides do the same job on the same rendered depth patches, which wait in device memory: the
full training step of the config (augmented voxels, heatmaps, network, squared error, backward,
RMSProp) and inference from depth patch to joints; in float32 (TF32 products, the default of
XLA's convolutions and cuDNN's) and in bfloat16. PyTorch has bf16 autocast, channels-last 3-D,
cuDNN's own choice of algorithms and `torch.compile`; its voxels and heatmaps are computed on the
device too. Each job of a side runs in a process of its own, one after the other, and has one
device's memory to itself: sharing it, what one keeps for later the other would be told is not
there. What did not run leaves its cells empty, its reason printed: a side that runs out of memory
stops growing; if a job fails otherwise the command ends with status 1. Figures are medians; memory
is the most in use so far. Needs torch.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpe_jax.command import make_parser
from launch.compare_pytorch import needs_torch

RUNS = 3  # executions in one timing, so that the host's share hides behind the device's
WORDS = ("out of memory", "resource_exhausted", "alloc_failed", "out_of_memory", "no algorithm")
"""In the message of an error: the device's memory is too small."""


def main() -> int:
    """Exit status: 0, or 1 if a job failed."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--config", default="configs/v2v_nyu.py")
    parser.add_argument("--batches", default="8,16,32,64,128")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="in the config")
    parser.add_argument("--no_compile", action="store_true", help="PyTorch without torch.compile")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)  # of a process that this starts
    args = parser.parse_args()
    needs_torch(parser)
    if args.side:
        for found in _side(args, *args.side):
            print(json.dumps(found), flush=True)
        return 0
    # Before a config imports jax: this process leaves the device to the others.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    os.environ["JAX_PLATFORMS"] = "cpu"
    config = _config(args.config, args.set)
    if config.method.name != "v2v" or config.method.occupancy != "binary":
        parser.error("PyTorch's side is V2V on binary voxels: expected such a --config")
    batches = [int(batch) for batch in args.batches.split(",")]
    print("| what | batch | ours, examples/s (GB) | PyTorch, examples/s (GB) | ours / PyTorch |")
    print("|---|---|---|---|---|", flush=True)
    about: dict[str, str] = {}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        import numpy as np

        hands = Path(folder) / "hands.npz"
        np.savez(hands, **_hands(config, max(batches)))
        for dtype in ("float32", "bfloat16"):
            for what in ("training", "inference"):
                table = []
                for side in ("ours", "pytorch"):
                    rows, status = _process(side, what, dtype, hands)
                    failed |= status != 0
                    about |= rows.pop(0) if rows else {}
                    table.append({row["batch"]: row for row in rows})
                for batch in batches:
                    _row(f"{what}, {dtype}", str(batch), [t.get(batch) for t in table])
                best = [max(t.values(), key=lambda row: row["rate"], default=None) for t in table]
                _row(f"**{what}, {dtype}**", "best", best)
    machine = ", ".join(f"{k} {v}" for k, v in about.items())
    print(
        f"\n{machine}, input {config.method.input}, patch {config.data.patch}, "
        f"medians of {args.repeats} timings"
    )
    return int(failed)


def _process(side: str, what: str, dtype: str, hands: Path) -> tuple[list[dict[str, Any]], int]:
    """What a process of one side printed (about the machine, a row for each batch that fits), and
    its exit status."""
    command = [sys.executable, "-m", "launch.benchmark_gpu", *sys.argv[1:]]
    ran = subprocess.run(
        [*command, "--side", side, what, dtype, str(hands)], stdout=subprocess.PIPE, text=True
    )
    rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode:  # What it measured before stands.
        told = f"{side}, {what}, {dtype}: exit status {ran.returncode}, for the reason above"
        print(told, file=sys.stderr, flush=True)
    return rows, ran.returncode


def _side(
    args: argparse.Namespace, side: str, what: str, dtype: str, hands: str
) -> Iterator[dict[str, Any]]:
    """About the machine, then examples/s for each batch until one does not fit into memory."""
    gpu = args.device == "gpu"
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if gpu and side == "ours" else "cpu"
    os.environ["XLA_CLIENT_MEM_FRACTION"] = "0.95"
    for name in ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"):
        os.environ.pop(name, None)
    import jax
    import numpy as np

    config = _config(args.config, args.set)
    with config.unlocked():
        config.method.dtype = dtype
    if side == "ours":  # without torch, which would take memory of the device
        yield {"device": jax.local_devices()[0].device_kind, "jax": jax.__version__}
    else:
        import torch

        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True  # XLA, too, tries algorithms and takes the fastest
        yield {"torch": torch.__version__}
    rendered = dict(np.load(hands))
    for batch in map(int, args.batches.split(",")):
        some = {name: rows[:batch] for name, rows in rendered.items()}
        run = None  # gives the last batch's memory back
        try:
            if side == "ours":
                run = {"training": _our_training, "inference": _our_inference}[what](config, some)
            else:
                make = {"training": _torch_training, "inference": _torch_inference}[what]
                run = make(config, some, device=args.device, compiled=not args.no_compile)
            seconds = []
            for repeat in range(-1, args.repeats):
                start = time.perf_counter()
                run()
                if repeat >= 0:
                    seconds.append(time.perf_counter() - start)
        except RuntimeError as error:  # PyTorch's OutOfMemoryError and JAX's are such
            if not any(words in str(error).lower() for words in WORDS):
                raise
            told = f"{side}, {what}, {dtype}, batch {batch}: {str(error).splitlines()[0]}"
            print(told, file=sys.stderr, flush=True)
            return
        if side == "ours":
            used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        else:
            used = torch.cuda.max_memory_allocated() if gpu else None
        rate = RUNS * batch / statistics.median(seconds)
        yield {"batch": batch, "rate": rate, "gb": used and used / 1e9}


def _row(what: str, batch: str, sides: list[dict[str, Any] | None]) -> None:
    cells = ["", ""]
    for i, side in enumerate(sides):
        if side:
            cells[i] = f"{side['rate']:.1f}" + (f" ({side['gb']:.1f})" if side["gb"] else "")
    ours, theirs = sides
    ratio = f"{ours['rate'] / theirs['rate']:.2f}" if ours and theirs else ""
    print(f"| {what} | {batch} | {cells[0]} | {cells[1]} | {ratio} |", flush=True)


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
    sys.exit(main())
