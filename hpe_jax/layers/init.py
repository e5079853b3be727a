"""Initial variables without compiling a network's `init`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

# What a leaf starts as, by its name; kernels are drawn.
CONSTANTS = {"bias": 0.0, "count": 0.0, "mean": 0.0, "scale": 1.0, "var": 1.0}


def init_variables(
    module: nn.Module,
    key: Array,
    *args: Any,
    kernel_std: float,
    std: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Variables of `module`, called with `args` (arrays or shapes).

    Jitting Linen's `init` compiles for longer than the training step; here only shapes are
    traced and all kernels come from one draw.

    Args:
      module: its leaves must be named "kernel" or as in `CONSTANTS`.
      key: random key; equal keys give equal variables.
      args: what the module is called with.
      kernel_std: kernels are N(0, kernel_std); 0 stands for He's sqrt(2 / fan in).
      std: the same for the modules of given names, for example {"output": 0.001}.
      kwargs: further arguments of the call.

    Returns:
      Nested plain dicts of float32 arrays.
    """
    shapes = jax.eval_shape(lambda k, *a: module.init(k, *a, **kwargs), key, *args)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [[str(entry.key) for entry in path] for path, _ in leaves]
    sizes = [
        math.prod(leaf.shape) if name[-1] == "kernel" else 0
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]

    @jax.jit  # once, instead of a few operations for the shape of each leaf
    def fill(flat: Array) -> dict[str, Any]:
        values, used = [], 0
        for name, (_, leaf), size in zip(names, leaves, sizes, strict=True):
            if not size:
                values.append(jnp.full(leaf.shape, CONSTANTS[name[-1]], jnp.float32))
                continue
            spread = next((s for part, s in (std or {}).items() if part in name), kernel_std)
            if spread == 0:
                # A stride-2 up-sampling reads one voxel for each output, so its 2^3 are no fan in.
                taps = 1 if leaf.shape[:-2] == (2, 2, 2) else math.prod(leaf.shape[:-2])
                spread = math.sqrt(2 / (taps * leaf.shape[-2]))
            values.append(spread * flat[used : used + size].reshape(leaf.shape))
            used += size
        return jax.tree_util.tree_unflatten(tree, values)

    return fill(jax.random.normal(key, (sum(sizes),), jnp.float32))
