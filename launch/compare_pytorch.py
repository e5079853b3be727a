"""Speed on a CPU, side by side with PyTorch and with the public NumPy voxeliser.

    python -m launch.compare_pytorch [--reference=DIR] [--cores=2] [--repeats=9]

Rows of the table it prints, medians of interleaved runs (ours, theirs, ours, theirs, ...):
V2V-PoseNet's forward pass at 88^3, batch 1; a training step at 88^3, batch 1 (forward,
squared error, backward, RMSProp); and, with a checkout of the public PyTorch implementation
(github.com/dragonbook/V2V-PoseNet-pytorch) at `--reference`, voxelising a depth patch and
computing its heatmaps, per sample. Needs torch (`pip install torch`); nothing else here does.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

SIZE, JOINTS, SIGMA, CUBE = 88, 14, 1.7, 250.0


def main() -> None:
    """Parse flags, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", default="", help="checkout of the public implementation")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    _limit(args.cores)
    import jax
    import torch

    torch.set_num_threads(args.cores)
    print(
        f"{_cpu()}, {args.cores} cores, Python {platform.python_version()}, "
        f"jax {jax.__version__}, torch {torch.__version__}, {args.repeats} interleaved runs\n"
    )
    rows = [
        ("V2V forward, 88^3, batch 1", *_interleaved(*_forward(), args.repeats)),
        ("V2V training step, 88^3, batch 1", *_interleaved(*_training(), args.repeats)),
    ]
    if args.reference:
        ours, theirs = _samples(Path(args.reference), batch=4)
        ours_s, theirs_s = _interleaved(ours, theirs, args.repeats)
        rows.append(("voxels + heatmaps, 88^3 / 44^3, a sample", ours_s / 4, theirs_s / 4))
    print("| what | ours, ms | reference, ms | ours / reference |\n|---|---|---|---|")
    for name, ours_s, theirs_s in rows:
        print(f"| {name} | {1e3 * ours_s:.1f} | {1e3 * theirs_s:.1f} | {ours_s / theirs_s:.2f} |")
    if not args.reference:
        print("| voxels + heatmaps | skipped: no --reference | | |")


def _limit(cores: int) -> None:
    """Before the libraries start their threads."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < cores:
            sys.exit(f"error: --cores={cores}, but only {len(allowed)} are available")
        os.sched_setaffinity(0, allowed[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)
    os.environ["JAX_PLATFORMS"] = "cpu"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _interleaved(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> tuple[float, float]:
    """Median seconds of each, after two unmeasured runs."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(repeats + 2):
        for function, log in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            if run >= 2:
                log.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def _nets():
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from hpe_jax.methods.v2v import V2VNet
    from launch.torch_v2v import TorchV2V, to_variables

    theirs, ours = TorchV2V(JOINTS), V2VNet(JOINTS)
    variables = jax.tree.map(jnp.asarray, to_variables(theirs))
    volume = (np.random.default_rng(0).random((1, SIZE, SIZE, SIZE, 1)) < 0.02).astype(np.float32)
    return (
        ours,
        variables,
        jnp.asarray(volume),
        theirs,
        torch.from_numpy(np.moveaxis(volume, -1, 1)),
    )


def _forward():
    import jax
    import torch

    net, variables, volume, module, tensor = _nets()
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False))
    module.eval()

    def theirs():
        with torch.inference_mode():
            return module(tensor)

    return lambda: jax.block_until_ready(apply(variables, volume)), theirs


def _training():
    import jax
    import jax.numpy as jnp
    import optax
    import torch

    net, variables, volume, module, tensor = _nets()
    side = SIZE // 2
    wanted = torch.rand(1, JOINTS, side, side, side)
    target = jnp.asarray(wanted.permute(0, 2, 3, 4, 1).numpy())
    optimiser = optax.rmsprop(2.5e-4, decay=0.99)

    @jax.jit
    def step(variables, state):
        def loss(params):
            heatmaps, stats = net.apply(
                {**variables, "params": params}, volume, train=True, mutable=["batch_stats"]
            )
            return jnp.mean((heatmaps - target) ** 2), stats

        gradient, stats = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimiser.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **stats}, state

    carry = [(variables, optimiser.init(variables["params"]))]

    def ours():
        carry[0] = jax.block_until_ready(step(*carry[0]))

    module.train()
    torch_optimiser = torch.optim.RMSprop(module.parameters(), 2.5e-4, alpha=0.99)

    def theirs():
        torch_optimiser.zero_grad()
        torch.nn.functional.mse_loss(module(tensor), wanted).backward()
        torch_optimiser.step()

    return ours, theirs


def _samples(reference: Path, batch: int):
    """Augmented voxels and heatmaps of `batch` depth patches, as training does it."""
    path = reference / "src" / "v2v_util.py"
    if not path.exists():
        sys.exit(f"error: {path} not found; --reference must be a checkout of V2V-PoseNet-pytorch")
    spec = importlib.util.spec_from_file_location("reference_voxels", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    import jax
    import jax.numpy as jnp
    import numpy as np

    from hpe_jax.camera import depth_to_points
    from hpe_jax.kernels.augment import draw_affine
    from hpe_jax.kernels.heatmaps import gaussian_heatmaps
    from hpe_jax.kernels.voxels import coarsen, make_grid, to_voxels, voxelise

    rng = np.random.default_rng(0)
    depth = rng.uniform(640, 760, (batch, 96, 96)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.6] = 0  # a hand covers some 40 % of its patch
    corner = np.full((batch, 2), [112.0, 72.0], np.float32)
    camera = np.full((batch, 4), [294.0, 294.0, 160.0, 120.0], np.float32)
    centre = np.full((batch, 3), [0.0, 0.0, 700.0], np.float32)
    joints = (centre[:, None] + rng.uniform(-90, 90, (batch, JOINTS, 3))).astype(np.float32)

    def sample(depth, corner, camera, centre, joints, key):
        affine = draw_affine(key, scale=(0.8, 1.2), rotation_deg=40.0, margin=8)
        grid = make_grid(centre, CUBE, SIZE, **affine._asdict())
        maps = gaussian_heatmaps(to_voxels(joints, coarsen(grid, 2)), SIZE // 2, SIGMA)
        return voxelise(depth, corner, camera, grid, SIZE), maps

    run = jax.jit(jax.vmap(sample))
    inputs = [jnp.asarray(a) for a in (depth, corner, camera, centre, joints)]
    keys = jax.random.split(jax.random.key(0), batch)
    points = [p[p[..., 2] > 0] for p in depth_to_points(depth, corner, camera)]
    voxelisation = module.V2VVoxelization(CUBE, augmentation=True)

    def theirs():
        for n in range(batch):
            voxelisation({"points": points[n], "keypoints": joints[n], "refpoint": centre[n]})

    return lambda: jax.block_until_ready(run(*inputs, keys)), theirs


if __name__ == "__main__":
    main()
