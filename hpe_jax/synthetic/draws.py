"""Random numbers of a frame, drawn for many keys at once.

Each call of `jax.random` is a loop of its own in the compiled step: with one for every number that
a hand needs they would be nearly half of what rendering compiles. Here the keys of a function draw
together, and their bits become numbers as `jax.random` makes them: the same but for rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, UInt32

Bound = ArrayLike | tuple[float, ...]


def bits(keys: Key[Array, " K"], width: int) -> UInt32[Array, "K {width}"]:
    """So many random words of each key. A row's first n are `jax.random.bits(key, (n,))`."""
    return jax.vmap(lambda key: jax.random.bits(key, (width,), jnp.uint32))(keys)


def uniform(words: UInt32[Array, "*N"], low: Bound = 0.0, high: Bound = 1.0) -> Float[Array, "*N"]:
    """As `jax.random.uniform`: in [low, high), which broadcast."""
    low, high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    unit = (words >> 9).astype(jnp.float32) * jnp.float32(2.0**-23)
    return jnp.maximum(low, unit * (high - low) + low)


def normal(words: UInt32[Array, "*N"]) -> Float[Array, "*N"]:
    """As `jax.random.normal`: of mean 0 and deviation 1."""
    least = np.nextafter(np.float32(-1.0), np.float32(0.0))
    return jnp.float32(np.sqrt(2.0)) * jax.lax.erf_inv(uniform(words, least, 1.0))


def choose(words: UInt32[Array, "*N"], shares: tuple[float, ...]) -> Int[Array, "*N"]:
    """As `jax.random.choice`: numbers from 0, each as often as its share of all says."""
    ends = np.cumsum(np.array(shares, np.float32))
    return (ends < ends[-1] * (1.0 - uniform(words)[..., None])).sum(-1)
