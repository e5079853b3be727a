"""Mean shift over a handful of weighted candidates (Wan et al., CVPR 2018, Algorithm 1)."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def mean_shift(
    candidates: Float[Array, "K 3"],
    weights: Float[Array, " K"],
    width_mm: float,
    iterations: int,
) -> Float[Array, "3"]:
    """The mode that the candidates' weighted mean climbs to.

    Args:
      candidates: mm.
      weights: at least 0. All zero counts as all equal, so the result is always finite.
      width_mm: sigma of the Gaussian kernel.
      iterations: steps.

    Returns:
      mm; `vmap` over joints and frames.
    """
    weights = jnp.maximum(weights, 0.0)
    weights = jnp.where(weights.sum() > 0, weights, jnp.ones_like(weights))

    def mean(w: Array) -> Array:
        # Of largest weight 1, so that no far candidate's tiny kernel is lost to rounding.
        w = w / jnp.maximum(w.max(), 1e-30)
        return jnp.sum(w[:, None] * candidates, 0) / jnp.sum(w)

    def step(_: Array | int, at: Array) -> Array:
        squared = jnp.sum((candidates - at) ** 2, -1) / (2 * width_mm**2)
        # Relative to the nearest weighted one: its kernel is 1 however far away it is.
        least = jnp.min(jnp.where(weights > 0, squared, jnp.inf))
        return mean(weights * jnp.exp(least - squared))

    return lax.fori_loop(0, iterations, step, mean(weights))
