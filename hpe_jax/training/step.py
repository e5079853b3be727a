"""One update: a pure function, jitted once, its batch spread over all local devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from hpe_jax.errors import InputError
from hpe_jax.frames import Source
from hpe_jax.methods.base import Method, Metrics, Variables
from hpe_jax.training.optimizers import update_ema
from hpe_jax.training.state import State, train_variables

Data = dict[str, Any]


def make_mesh() -> Mesh:
    """All devices in one row; explicit axes would break gradients of sharded convolutions.

    Raises:
      InputError: there are other hosts' devices among them, which this library cannot use yet.
    """
    if jax.process_count() > 1:
        raise InputError(f"{jax.process_count()} processes: expected one, on one host")
    devices = jax.devices()
    return jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def spread(mesh: Mesh) -> NamedSharding:
    """The leading axis divided among the devices."""
    return NamedSharding(mesh, PartitionSpec("batch"))


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
    """Raises InputError unless the batch divides into equal shares of micro-batches."""
    if batch < 1 or accumulate < 1 or batch % (accumulate * mesh.size):
        raise InputError(
            f"batch={batch} must be a multiple of optimizer.accumulate={accumulate} times "
            f"the number of devices, {mesh.size}"
        )


def make_train_step(
    method: Method,
    expand: Callable[[Data], dict[str, Array]],
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema: float = 0.0,
    frozen: Any = None,
    keep_rest: Any = None,
) -> Callable[[State, Data, Array], tuple[State, Metrics]]:
    """The pure function `(state, data, key) -> (state, metrics)`.

    `data` is what `Source.load` returned; `key` is the key of the whole run, into which the
    step is folded, so that a resumed run draws what an uninterrupted one would have drawn.

    With `accumulate` > 1 the batch passes in that many equal parts, and the mean of their
    gradients equals the whole batch's gradient of a loss that averages over examples (batch
    normalisation sees the parts). `frozen` and `keep_rest` are trees of bools like
    `state["params"]` and `state["rest"]`, True for parameters that have no gradient, so that no
    step spends time on it, and for statistics that stay as they are.
    """

    def part(state: State, data: Data, key: Array) -> tuple[Variables, Variables, Metrics]:
        batch = expand(data)
        # What stands where there is no label may be anything, such as NaN; a joint at the hand's
        # centre keeps every loss finite until it is left out.
        known, centre = batch["joint_valid"][..., None], batch["centre"][:, None]
        batch = {**batch, "joints": jnp.where(known, batch["joints"], centre)}

        def loss_of(params: Any) -> tuple[Array, tuple[Metrics, Variables]]:
            if frozen is not None:
                still = jax.lax.stop_gradient
                params = jax.tree.map(lambda p, held: still(p) if held else p, params, frozen)
            return method.loss({**train_variables(state), "params": params}, batch, key)

        (loss, (metrics, rest)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state["params"]
        )
        return gradient, dict(rest), {**metrics, "loss": loss}

    def train_step(state: State, data: Data, key: Array) -> tuple[State, Metrics]:
        key = jax.random.fold_in(key, state["step"])
        if accumulate == 1:
            gradient, rest, metrics = part(state, data, key)
        else:
            # Every accumulate-th example, so that each device keeps its own share.
            parts = jax.tree.map(
                lambda x: jnp.swapaxes(x.reshape(-1, accumulate, *x.shape[1:]), 0, 1), data
            )

            def body(carry: tuple[Any, Any], xs: tuple[Data, Array]) -> tuple[Any, Metrics]:
                total, rest = carry
                gradient, rest, metrics = part({**state, "rest": rest}, *xs)
                return (jax.tree.map(jnp.add, total, gradient), rest), metrics

            zeros = jax.tree.map(jnp.zeros_like, state["params"])
            keys = jax.random.split(key, accumulate)
            # XLA's CPU backend runs convolutions inside a loop several times slower.
            unroll = accumulate if jax.default_backend() == "cpu" else 1
            (total, rest), stacked = jax.lax.scan(
                body, (zeros, state["rest"]), (parts, keys), unroll=unroll
            )
            gradient = jax.tree.map(lambda g: g / accumulate, total)
            metrics = jax.tree.map(lambda m: m.mean(0), stacked)
        updates, opt_state = optimizer.update(gradient, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        if keep_rest is not None:
            rest = jax.tree.map(
                lambda keep, old, new: old if keep else new, keep_rest, state["rest"], rest
            )
        new_state = {
            "step": state["step"] + 1,
            "params": params,
            "rest": rest,
            "opt_state": opt_state,
            "ema": update_ema(state["ema"], params, ema, state["step"]) if ema else {},
        }
        return new_state, {**metrics, "gradient_norm": optax.global_norm(gradient)}

    return train_step


def jit_train_step(
    train_step: Callable[[State, Data, Array], tuple[State, Metrics]], mesh: Mesh
) -> jax.stages.Wrapped:
    """Compiled on first use; the old state's memory is given to the new one."""
    same = replicated(mesh)
    return jax.jit(
        train_step,
        in_shardings=(same, spread(mesh), same),
        out_shardings=(same, same),
        donate_argnums=0,
    )


def make_predict_step(
    method: Method, source: Source, mesh: Mesh
) -> Callable[[Variables, Data], tuple[Array, dict[str, Array]]]:
    """The compiled `(variables, data) -> (joints, batch)`."""

    def predict_step(variables: Variables, data: Data) -> tuple[Array, dict[str, Array]]:
        batch = source.expand(data)
        return method.predict(variables, batch), batch

    return jax.jit(
        predict_step,
        in_shardings=(replicated(mesh), spread(mesh)),
        out_shardings=spread(mesh),
    )


def to_devices(data: dict[str, np.ndarray], mesh: Mesh) -> Data:
    """What `Source.load` returned, each example on its device."""
    return jax.device_put(data, spread(mesh))
