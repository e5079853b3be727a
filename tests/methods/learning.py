"""What the methods' tests share: three joints on squares of depth, and training on one batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hpe_jax import camera as cam
from hpe_jax.hand.skeletons import Skeleton

SKELETON = Skeleton(("a", "b", "c"), ((0, 1), (1, 2)), (0, 0, 0))


def squares(size=2, seed=0, *, reach_mm, half):
    """Joints up to `reach_mm` from the centre, each on a square of 2 `half` + 1 pixels."""
    rng = np.random.default_rng(seed)
    camera = np.tile(np.array([150.0, 150.0, 32.0, 32.0], np.float32), (size, 1))
    centre = np.tile(np.array([0.0, 0.0, 600.0], np.float32), (size, 1))
    offsets = rng.uniform(-reach_mm, reach_mm, (size, 3, 3))
    joints = (centre[:, None] + offsets).astype(np.float32)
    uv = np.round(cam.xyz_to_uvd(joints, camera[:, None])[..., :2]).astype(int)
    depth = np.zeros((size, 64, 64), np.float32)
    for b in range(size):
        for j in np.argsort(-joints[b, :, 2]):
            u, v = uv[b, j]
            depth[b, v - half : v + half + 1, u - half : u + half + 1] = joints[b, j, 2]
    return jax.tree.map(
        jnp.asarray,
        {
            "depth": depth, "corner": np.zeros((size, 2), np.float32), "camera": camera,
            "centre": centre, "joints": joints, "joint_valid": np.ones((size, 3), bool),
            "cube": np.full(size, 200.0, np.float32),
        },
    )  # fmt: skip


def fit(method, variables, batch, *, rate, steps):
    """The variables after some steps of Adam on one batch, and (loss, error_mm) of every step."""
    rule = optax.adam(rate)

    @jax.jit
    def step(variables, state, key):
        def value(params):
            return method.loss(variables | {"params": params}, batch, key)

        (_, (metrics, rest)), grads = jax.value_and_grad(value, has_aux=True)(variables["params"])
        updates, state = rule.update(grads, state)
        return rest | {"params": optax.apply_updates(variables["params"], updates)}, state, metrics

    state, history = rule.init(variables["params"]), []
    for i in range(steps):
        variables, state, metrics = step(variables, state, jax.random.key(i))
        history.append((float(metrics["loss"]), float(metrics.get("error_mm", 0.0))))
    return variables, history
