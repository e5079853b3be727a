"""What training changes: one plain dict of arrays.

========== ==================================================================================
`step`      () int32, updates done so far
`params`    the method's trained parameters
`rest`      the method's other collections, for example {"batch_stats": ...}
`opt_state` of optax
`ema`       running mean of `params`, or {} without one
========== ==================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hpe_jax.errors import InputError
from hpe_jax.methods.base import Variables

State = dict[str, Any]


def init_state(variables: Variables, optimizer: optax.GradientTransformation, ema: bool) -> State:
    """The state before the first update; `ema` asks for a running mean of the parameters."""
    params = variables["params"]
    return {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "rest": rest_of(variables),
        # Jitted: once, instead of once for the shape of each leaf.
        "opt_state": jax.jit(optimizer.init)(params),
        # A copy: the step donates the state, and one buffer cannot be donated twice.
        "ema": jax.tree.map(jnp.copy, params) if ema else {},
    }


def rest_of(variables: Variables) -> Variables:
    """Every collection but the trained parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}


def train_variables(state: State) -> Variables:
    """The variables which the next update will differentiate."""
    return {"params": state["params"], **state["rest"]}


def eval_variables(state: State) -> Variables:
    """The variables to predict with: the running mean of the parameters if there is one."""
    return {"params": state["ema"] or state["params"], **state["rest"]}


def leaf_name(path: tuple[Any, ...]) -> str:
    """`layer/kernel` for a path inside a collection."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def matcher(pattern: str, key: str) -> Callable[[str], bool]:
    """A test of parameter names; `pattern` must match the whole name.

    Raises:
      InputError: `pattern`, the value of config key `key`, is not a regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{key}={pattern!r} is not a regular expression: {error}") from None
    return lambda name: compiled.fullmatch(name) is not None


def name_mask(collections: dict[str, Any], pattern: str, key: str) -> dict[str, Any]:
    """Trees of bools like the collections: does the name inside its collection match?"""
    matches = matcher(pattern, key)
    return {
        name: jax.tree_util.tree_map_with_path(lambda path, _: matches(leaf_name(path)), tree)
        for name, tree in collections.items()
    }


def matching(params: Any, pattern: str, key: str) -> Any:
    """A tree of bools like `params`: does the parameter's name match `pattern`?

    Raises:
      InputError: no name matches, which is nearly always a slip of the pen.
    """
    mask = name_mask({"params": params}, pattern, key)["params"]
    if not any(jax.tree.leaves(mask)):
        names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise InputError(
            f"{key}={pattern!r} matches none of the {len(names)} parameters, such as {names[0]}"
        )
    return mask


def warm_start(variables: Variables, earlier: Variables, pattern: str) -> Variables:
    """`variables` with every leaf whose name matches `pattern` taken from `earlier`.

    Raises:
      InputError: a matching leaf is absent in `earlier` or has another shape there.
    """
    taken = {
        (name, leaf_name(path)): leaf
        for name, tree in earlier.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    matches = matcher(pattern, "init_pattern")
    matching(variables["params"], pattern, "init_pattern")

    wrong: list[tuple[str, str]] = []

    def pick(collection: str, path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = leaf_name(path)
        if not matches(name):
            return leaf
        found = taken.get((collection, name))
        if found is None or found.shape != leaf.shape:
            there = "absent" if found is None else f"of shape {found.shape}"
            wrong.append((name, f"({collection}) is {there}, expected shape {leaf.shape}"))
            return leaf
        return found

    mixed = {
        name: jax.tree_util.tree_map_with_path(lambda p, x, name=name: pick(name, p, x), tree)
        for name, tree in variables.items()
    }
    if wrong:
        layers = "|".join(dict.fromkeys(name.split("/")[0] for name, _ in wrong))
        raise InputError(
            f"init_from: in the earlier model {wrong[0][0]} {wrong[0][1]} ({len(wrong)} such), or "
            f"an init_pattern that leaves out what differs, such as (?!({layers})/).*"
        )
    return mixed
