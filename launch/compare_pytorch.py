"""Speed on a CPU, side by side with PyTorch and with the public NumPy voxeliser.

    python -m launch.compare_pytorch [--reference=DIR] [--cores=2] [--repeats=9]

Rows of the table it prints, medians of interleaved runs (ours, theirs, ours, theirs, ...):
V2V-PoseNet's forward pass at 88^3, batch 1; a training step at 88^3, batch 1 (forward,
squared error, backward, RMSProp); and, with a checkout of the public PyTorch implementation
(github.com/dragonbook/V2V-PoseNet-pytorch) at `--reference`, what both do with a depth patch
of a rendered hand, as large as `configs/v2v_nyu.py` has it: its points, augmented voxels and
heatmaps, per sample. Needs torch (`pip install torch`); nothing else here does.
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

from hpe_jax.command import make_parser

SIZE, JOINTS = 88, 14
HANDS = 4
"""Rendered hands that are made voxels of in a run, one after the other."""

Sides = tuple[Callable[[], object], Callable[[], object]]
"""Ours and PyTorch's, to be timed in turn."""


def needs_torch(parser: argparse.ArgumentParser) -> None:
    """End the command in one line where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        parser.error("needs torch: pip install torch")


def main() -> None:
    """Parse flags, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--reference", default="", help="checkout of the public implementation")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    if min(args.cores, args.repeats) < 1:
        parser.error("--cores and --repeats: expected at least 1")
    needs_torch(parser)
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
        ours, theirs = _samples(Path(args.reference))
        ours_s, theirs_s = (s / HANDS for s in _interleaved(ours, theirs, args.repeats))
        rows.append(("depth patch to voxels + heatmaps, 88^3 / 44^3, batch 1", ours_s, theirs_s))
    print("| what | ours, ms | reference, ms | ours / reference |\n|---|---|---|---|")
    for name, ours_s, theirs_s in rows:
        print(f"| {name} | {1e3 * ours_s:.1f} | {1e3 * theirs_s:.1f} | {ours_s / theirs_s:.2f} |")
    if not args.reference:
        print("| depth patch to voxels + heatmaps | skipped: no --reference | | |")


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


def _forward() -> Sides:
    import jax
    import torch

    net, variables, volume, module, tensor = _nets()
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False))
    module.eval()

    def theirs():
        with torch.inference_mode():
            return module(tensor)

    return lambda: jax.block_until_ready(apply(variables, volume)), theirs


def _training() -> Sides:
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


def _samples(reference: Path) -> Sides:
    """Augmented voxels and heatmaps of `HANDS` rendered depth patches, each by itself."""
    util = _module(reference / "src" / "v2v_util.py")
    dataset = _module(reference / "datasets" / "msra_hand.py")

    import jax
    import numpy as np

    from hpe_jax.camera import xyz_to_uvd
    from hpe_jax.kernels.augment import draw_affine
    from hpe_jax.kernels.heatmaps import gaussian_heatmaps
    from hpe_jax.kernels.voxels import coarsen, make_grid, to_voxels, voxelise
    from hpe_jax.synthetic import make_source

    config = _config()
    source = make_source(config.data, "train", 0)
    hands = jax.jit(source.expand)(jax.device_put(source.load(np.arange(HANDS))))
    size, (low, high) = config.method.input, config.method.scale
    margin = config.method.canvas - size

    def sample(hand, key):
        affine = draw_affine(
            key, scale=(low, high), rotation_deg=config.method.rotation_deg, margin=margin
        )
        grid = make_grid(hand["centre"], hand["cube"], size, **affine._asdict())
        where = to_voxels(hand["joints"], coarsen(grid, 2))
        maps = gaussian_heatmaps(where, size // 2, config.method.sigma)
        return voxelise(hand["depth"], hand["corner"], hand["camera"], grid, size), maps

    run = jax.jit(sample)
    keys = jax.random.split(jax.random.key(0), HANDS)
    each = [jax.tree.map(lambda x, n=n: x[n], (hands, keys)) for n in range(HANDS)]

    def ours():
        for hand, key in each:
            jax.block_until_ready(run(hand, key))

    # The reference looks along the middle of its image, y up, and counts pixels from one.
    depth, camera = np.asarray(hands["depth"]), np.asarray(hands["camera"])
    height, width = depth.shape[1:]

    def to_reference(name):
        points = np.asarray(hands[name]).reshape(HANDS, -1, 3)
        uvd = xyz_to_uvd(points, camera[:, None])
        uv = uvd[..., :2] - np.asarray(hands["corner"])[:, None] + 1
        focal = camera[:, None, 0], camera[:, None, 1]
        world = dataset.pixel2world(uv[..., 0], uv[..., 1], uvd[..., 2], width, height, *focal)
        return np.stack(world, -1)

    centres, joints = to_reference("centre")[:, 0], to_reference("joints")
    voxelisation = util.V2VVoxelization(config.data.cube_mm, augmentation=True)

    def cloud(n):
        # Its own loader keeps the pixels without a reading, as points far behind the hand.
        points = dataset.depthmap2points(depth[n], *camera[n, :2]).reshape(-1, 3)
        return points[points[:, 2] > 0]

    def theirs():
        for n in range(HANDS):
            voxelisation({"points": cloud(n), "keypoints": joints[n], "refpoint": centres[n]})

    # The same job: without augmentation both must fill the same number of voxels, nearly.
    plain = jax.jit(jax.vmap(voxelise, (0, 0, 0, 0, None)), static_argnums=4)
    grids = make_grid(hands["centre"], hands["cube"], size)
    filled = float(plain(depth, hands["corner"], hands["camera"], grids, size).sum())
    still = util.V2VVoxelization(config.data.cube_mm, augmentation=False)
    there = sum(still.voxelize(cloud(n), centres[n]).sum() for n in range(HANDS))
    if abs(filled - there) > 0.02 * there:
        sys.exit(f"error: {filled:.0f} voxels filled here, {there:.0f} by the reference")
    return ours, theirs


def _module(path: Path):
    if not path.exists():
        sys.exit(f"error: {path} not found; --reference must be a checkout of V2V-PoseNet-pytorch")
    spec = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _config():
    """The paper's."""
    return _module(Path(__file__).resolve().parents[1] / "configs" / "v2v_nyu.py").get_config()


if __name__ == "__main__":
    main()
