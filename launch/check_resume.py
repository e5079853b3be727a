"""Does a run that is killed five times end as an uninterrupted one?

    python -m launch.check_resume [--config=configs/v2v_nyu.py:quick] [--steps=60] [--every=10]
                                  [--kills=5] [--seed=0] [--workdir=DIR] [--config.KEY=VALUE ...]

Trains once without a break and once killed (signal 9) at random moments, spread over the run,
and resumed by the same command; both on one CPU device. Then compares what they left: every
array of the last checkpoint bit for bit, the figures of `metrics.json` (all but the time it
took), `history.jsonl` and `predictions.txt`. Exit status 0 if all are equal, else 1.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpe_jax.command import make_parser

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--config", default="configs/v2v_nyu.py:quick")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--test_frames", type=int, default=64)
    parser.add_argument("--workdir", help="kept; without it a temporary directory")
    args, overrides = parser.parse_known_args()
    # Killed in the k-th of equal parts, it cannot be done before the last kill.
    if args.kills < 1 or args.steps < 2 * args.kills:
        parser.error("expected at least one kill and two steps for each")
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(args.workdir or temporary).absolute()
        command = [
            *(sys.executable, "-m", "hpe_jax.main", f"--config={args.config}"),
            *(f"--config.steps={args.steps}", f"--config.checkpoint_every={args.every}"),
            *("--config.log_every=1", f"--config.test_frames={args.test_frames}", *overrides),
        ]
        whole, killed = workdir / "uninterrupted", workdir / "killed"
        for run in (whole, killed):
            if run.exists():
                parser.error(f"{run} exists, expected a new directory")
        print(" ".join(command[1:]), flush=True)
        _wait(_start(command, whole, workdir))
        _kill_and_resume(command, killed, workdir, args.steps, args.kills, args.seed)
        return _compare(whole, killed)


def _start(command: list[str], run: Path, workdir: Path) -> subprocess.Popen:
    """The command, as a process of its own on one CPU device, compiling only once for all."""
    run.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "HPE_JAX_CACHE": str(workdir / "compiled")}
    env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=1"
    with (workdir / f"{run.name}.txt").open("a") as out:
        return subprocess.Popen(
            [*command, f"--workdir={run}"], cwd=ROOT, env=env, stdout=out, stderr=out
        )


def _wait(process: subprocess.Popen) -> None:
    if process.wait():
        sys.exit(f"error: the training command ended with status {process.returncode}")


def _steps(run: Path) -> int:
    """The last step that the run has logged."""
    rows = (run / "history.jsonl").read_text() if (run / "history.jsonl").exists() else ""
    complete = rows[: rows.rfind("\n") + 1].splitlines()
    return json.loads(complete[-1])["step"] if complete else 0


def _kill_and_resume(
    command: list[str], run: Path, workdir: Path, steps: int, kills: int, seed: int
) -> None:
    moments = random.Random(seed)
    for kill in range(kills):
        part = (steps - 1) / kills
        step = int(kill * part + moments.uniform(0.1, 0.9) * part) + 1
        process = _start(command, run, workdir)
        while _steps(run) < step:
            if process.poll() is not None:
                sys.exit(f"error: it ended by itself, with status {process.returncode}")
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.2))  # Anywhere in the step, or in its checkpoint.
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            sys.exit("error: it was quicker than the signal; give it more --steps")
        print(f"kill {kill + 1}: after step {_steps(run)} of {steps}", flush=True)
    _wait(_start(command, run, workdir))


def _arrays(run: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint by name."""
    import jax
    from orbax.checkpoint import v1 as ocp

    with ocp.training.Checkpointer(run / "checkpoints") as checkpoints:
        leaves = jax.tree_util.tree_leaves_with_path(checkpoints.load())
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def _compare(whole: Path, killed: Path) -> int:
    a, b = _arrays(whole), _arrays(killed)
    different = [
        name
        for name in sorted(a.keys() | b.keys())
        if name not in a or name not in b or a[name].tobytes() != b[name].tobytes()
    ]
    numbers = sum(leaf.size for leaf in a.values())
    print(f"{len(a)} arrays, {numbers:,} numbers, of the checkpoint: {len(different)} differ")
    for name in different[:5]:
        print(f"  {name}")
    wrong = bool(different)

    figures, others = (json.loads((run / "metrics.json").read_text()) for run in (whole, killed))
    for run in (figures, others):
        del run["train_seconds"]
    differing = [k for k in sorted(figures | others) if figures.get(k) != others.get(k)]
    print(f"{len(figures)} entries of metrics.json: {len(differing)} differ {differing or ''}")
    print(f"  mean_error_mm {figures['mean_error_mm']!r}, {others['mean_error_mm']!r}")
    wrong |= bool(differing)
    for name in ("history.jsonl", "predictions.txt"):
        same = (whole / name).read_bytes() == (killed / name).read_bytes()
        print(f"{name}: {'the same' if same else 'differs'}")
        wrong |= not same
    print("DIFFERENT" if wrong else "equal, bit for bit")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
