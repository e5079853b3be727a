"""Speed of the two hourglass methods on a CPU, side by side with PyTorch.

    python -m launch.compare_hourglasses [--cores=2] [--repeats=5] [--batch=1]

For the 3D hourglass (`configs/hourglass3d_nyu.py`) and Dense 3D Regression
(`configs/dense_regression_nyu.py`), at the size of their papers and of `:quick`: the network's
forward pass; a training step of the network (its loss on given maps, backward, Adam); and the whole
of it, from a depth patch to joints in mm, beside which stands PyTorch's network alone, without
voxels, crops or mean shift. Medians of interleaved runs, equal weights. Needs torch.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from hpe_jax.command import make_parser
from launch.compare_pytorch import _cpu, _interleaved, _limit, _module, needs_torch

JOINTS, RATE = 14, 1e-4


def main() -> None:
    """Parse flags, measure, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    _limit(args.cores)
    needs_torch(parser)
    import jax
    import torch

    torch.set_num_threads(args.cores)
    print(
        f"{_cpu()}, {args.cores} cores, Python {platform.python_version()}, "
        f"jax {jax.__version__}, torch {torch.__version__}, batch {args.batch}, "
        f"{args.repeats} interleaved runs\n"
    )
    print("| what | ours, ms | PyTorch, ms | ours / PyTorch | ours, frames/s |")
    print("|---|---|---|---|---|")
    for name in ("hourglass3d", "dense_regression"):
        for variant in ("quick", ""):
            for what, ours, theirs in pairs(name, variant, args.batch):
                ours_s, theirs_s = _interleaved(ours, theirs, args.repeats)
                print(
                    f"| {name}{f':{variant}' if variant else ''}, {what} | {1e3 * ours_s:.1f} "
                    f"| {1e3 * theirs_s:.1f} | {ours_s / theirs_s:.2f} "
                    f"| {args.batch / ours_s:.1f} |",
                    flush=True,
                )


def pairs(
    name: str, variant: str, batch: int
) -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    """What is measured of a config: ours and PyTorch's function of no arguments."""
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import torch

    from hpe_jax.datasets import make_source
    from hpe_jax.hand.skeletons import NYU
    from hpe_jax.methods import METHODS
    from launch.torch_v2v import to_variables

    root = Path(__file__).resolve().parents[1]
    config = _module(root / "configs" / f"{name}_nyu.py").get_config(variant)
    m = config.method
    method = METHODS[name](m, NYU)
    net, module, shapes = networks(name, m)
    variables = jax.tree.map(jnp.asarray, to_variables(module))
    template = method.init(jax.random.key(0))
    variables = fill_counts(template, variables)
    rng = np.random.default_rng(0)
    inputs = [rng.uniform(-1, 1, (batch, *shape, 1)).astype(np.float32) for shape in shapes]
    given = [jnp.asarray(x) for x in inputs]
    tensors = [torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in inputs]
    outputs = jax.eval_shape(lambda v: net.apply(v, *given, train=False), variables)
    targets = jax.tree.map(lambda o: jnp.full(o.shape, 0.01), outputs)
    rule = optax.adam(RATE)
    carry: list[Any] = [(variables, rule.init(variables["params"]))]
    module_rule = torch.optim.Adam(module.parameters(), RATE)

    forward = jax.jit(lambda v: net.apply(v, *given, train=False))
    predict = jax.jit(method.predict)
    source = make_source(config.data, "test", 0)
    hands = jax.jit(source.expand)(source.load(np.arange(batch)))

    @jax.jit
    def step(variables: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            whole = {**variables, "params": params}
            found, stats = net.apply(whole, *given, train=True, mutable=["batch_stats"])
            errors = jax.tree.map(lambda f, t: jnp.sum((f - t) ** 2), found, targets)
            return sum(jax.tree.leaves(errors)), stats

        gradient, stats = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = rule.update(gradient, state)
        return {"params": optax.apply_updates(variables["params"], updates), **stats}, state

    def ours_train() -> None:
        carry[0] = jax.block_until_ready(step(*carry[0]))

    def theirs_forward() -> object:
        module.eval()
        with torch.inference_mode():
            return module(*tensors)

    def theirs_train() -> None:
        module.train()
        module_rule.zero_grad()
        maps = [
            x for stack in module(*tensors) for x in (stack if name != "hourglass3d" else [stack])
        ]
        torch.stack([((x - 0.01) ** 2).sum() for x in maps]).sum().backward()
        module_rule.step()

    return [
        ("forward", lambda: jax.block_until_ready(forward(variables)), theirs_forward),
        ("training step", ours_train, theirs_train),
        (
            "depth patch to joints (PyTorch: network alone)",
            lambda: jax.block_until_ready(predict(variables, hands)),
            theirs_forward,
        ),
    ]


def networks(name: str, m: Any) -> tuple[Any, Any, list[tuple[int, ...]]]:
    """Our network, PyTorch's, and the extents of their inputs."""
    from hpe_jax.hand.skeletons import NYU
    from hpe_jax.methods.dense_regression import STEM, DenseNet
    from hpe_jax.methods.hourglass3d import HourglassNet
    from launch.torch_hourglass import TorchDense, TorchHourglass3D

    if name == "hourglass3d":
        sizes = (JOINTS, len(NYU.bones), m.stacks, m.features, m.depth)
        return HourglassNet(*sizes), TorchHourglass3D(*sizes), [(m.input,) * 3]
    ours = DenseNet(JOINTS, "dense", m.stacks, m.depth, m.features)
    theirs = TorchDense(JOINTS, m.stacks, m.depth, m.features)
    return ours, theirs, [(m.input,) * 2, (m.input // STEM,) * 2]


def fill_counts(template: Any, variables: Any) -> Any:
    """The variables with the entries that PyTorch's norms lack (batch renormalisation's count)."""
    return {
        k: fill_counts(v, variables[k]) if isinstance(v, dict) else variables.get(k, v)
        for k, v in template.items()
    }


if __name__ == "__main__":
    main()
