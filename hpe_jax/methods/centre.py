"""The hand's centre from a crop about a rough one, in the field's usual form.

As in M. Oberweger and V. Lepetit, "DeepPrior++", ICCVW 2017, section 3: three crops of one image,
the whole, its middle half and its middle quarter, each through three convolutions; two fully
connected layers estimate how far the crop's centre is from the hand's, the mean of its joints.
Configs: `configs/centre_nyu.py`, `:quick`. Its one joint is the centre (`data.target="centre"`).

Half of the training crops lie about the rough centre that a localiser found, with the noise of
all training centres (`data.centre_jitter_mm`), half about the true one with noise of `jitter_mm`,
so that the network neither learns one localiser's habits alone nor never sees a good centre.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from hpe_jax.errors import InputError
from hpe_jax.frames import Batch
from hpe_jax.hand.skeletons import Skeleton
from hpe_jax.kernels.conv3d import max_pool2
from hpe_jax.kernels.crops import make_crop, sample
from hpe_jax.layers.blocks import Conv, ConvBlock, DenseFloat32
from hpe_jax.layers.init import init_variables
from hpe_jax.methods import checks
from hpe_jax.methods.base import Method, Metrics, Variables, mean_error

PAPER = {
    "name": "centre",
    "input": 128,  # pixels of the widest crop
    "features": 8,
    "batch_norm": False,
    "hidden": 1024,
    "dropout": 0.3,
    "jitter_mm": 20.0,  # of training crops about the true centre, per axis
    "passes": 1,  # 2 looks again at a crop about what the first look found
    "kernel_std": 0.0,  # He
    "output_std": 0.001,
    "dtype": "float32",
}
# The method at the size of the `quick` variants. After so few examples batch norm and more channels
# make the difference between 14 and 10 mm.
QUICK = {
    "input": 64,
    "features": 32,
    "batch_norm": True,
    "hidden": 256,
    "dropout": 0.0,
    "jitter_mm": 10.0,  # about as far off as the first pass leaves a centre
    "passes": 2,
}

CROPS = 3  # each half as wide as the one before


class CentreNet(nn.Module):
    """Three crops to an offset.

    Attributes:
      features: channels of the convolutions.
      batch_norm: whether it follows every convolution.
      hidden: width of the fully connected layers.
      dropout: share of those that is dropped in training.
      dtype: of the arithmetic; what comes out is float32.
    """

    features: int = 8
    batch_norm: bool = False
    hidden: int = 1024
    dropout: float = 0.3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B S S 1"], train: bool) -> Float[Array, "B 3"]:
        """Offset from the crop's centre in halves of the cube; S must be divisible by 16."""

        def conv(x: Array, size: int, name: str) -> Array:
            if self.batch_norm:
                return ConvBlock(self.features, size, 1, self.dtype, name=name)(x, train)
            return nn.relu(Conv(self.features, size, 1, self.dtype, name=name)(x))

        size, parts = image.shape[1], []
        for i in range(CROPS):
            rim = (size - (size >> i)) // 2
            x = image[:, rim : size - rim, rim : size - rim]
            x = max_pool2(conv(x, 5, f"crop{i}_conv1"))
            x = max_pool2(conv(x, 5, f"crop{i}_conv2"))
            x = conv(x, 3, f"crop{i}_conv3")
            parts.append(x.reshape(len(x), -1))
        x = jnp.concatenate(parts, -1)
        for i in range(2):
            x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, name=f"fc{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return DenseFloat32(3, name="output")(x.astype(jnp.float32))


def make(config: ConfigDict, skeleton: Skeleton) -> Method:
    """The refinement network; its skeleton is the centre alone.

    Args:
      config: the `method` part: `input` (pixels of the widest crop), `features`, `batch_norm`,
        `hidden`, `dropout`, `jitter_mm`, `passes`, `kernel_std`, `output_std`, `dtype`.
      skeleton: `SKELETONS["centre"]`.

    Raises:
      InputError: another skeleton, or a value out of range.
    """
    size = int(config.input)
    if len(skeleton) != 1:
        raise InputError('method.name=centre estimates one point, expected data.target="centre"')
    checks.multiple(config, "input", 16, 16)
    checks.at_least(config, 1, "features", "hidden", "passes")
    checks.one_of(config, "dtype", checks.DTYPES)
    checks.share(config, "dropout")
    checks.at_least(config, 0, "jitter_mm", "kernel_std", "output_std")
    net = CentreNet(
        int(config.features),
        bool(config.batch_norm),
        int(config.hidden),
        float(config.dropout),
        jnp.dtype(config.dtype),
    )

    def see(batch: Batch, centre: Array) -> Array:
        """Normalised depth of crops about `centre`: -1 to 1 through the cube, 1 where empty."""

        def one(depth: Array, corner: Array, camera: Array, centre: Array, cube: Array) -> Array:
            crop = make_crop(centre, camera, cube, size)
            z = sample(depth, corner, crop, size, cube / 2)[..., 2]
            return jnp.where(z > 0, (z - centre[2]) / (cube / 2), 1.0)[..., None]

        fields = batch["depth"], batch["corner"], batch["camera"], centre, batch["cube"]
        return jax.vmap(one)(*fields)

    def estimate(offset: Array, batch: Batch, centre: Array) -> Array:
        return (centre + offset * (batch["cube"] / 2)[:, None])[:, None]

    def init(key: Array) -> Variables:
        image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
        std = {"output": float(config.output_std)}
        return init_variables(
            net, key, image, kernel_std=float(config.kernel_std), std=std, train=False
        )

    def loss(
        variables: Variables, batch: Batch, key: Array
    ) -> tuple[Array, tuple[Metrics, Variables]]:
        key_kind, key_noise, key_dropout = jax.random.split(key, 3)
        true = batch["joints"][:, 0]
        about_true = jax.random.bernoulli(key_kind, 0.5, (len(true), 1))
        noise = float(config.jitter_mm) * jax.random.normal(key_noise, true.shape)
        centre = jnp.where(about_true, true + noise, batch["centre"])
        offset, state = net.apply(
            variables,
            see(batch, centre),
            train=True,
            rngs={"dropout": key_dropout},
            mutable=["batch_stats"],
        )
        wanted = (true - centre) / (batch["cube"] / 2)[:, None]
        # The distance, not its square: hands whose rough centre is far off must not rule.
        valid = batch["joint_valid"].astype(jnp.float32)
        distance = jnp.sqrt(jnp.sum((offset - wanted) ** 2, -1) + 1e-6)
        value = jnp.sum(valid[:, 0] * distance) / jnp.maximum(valid.sum(), 1.0)
        found = estimate(jax.lax.stop_gradient(offset), batch, centre)
        error_mm = mean_error(found, batch["joints"], valid)
        return value, ({"loss": value, "error_mm": error_mm}, dict(state))

    def predict(variables: Variables, batch: Batch) -> Float[Array, "B 1 3"]:
        centre = batch["centre"]
        for _ in range(int(config.passes)):
            offset: Any = net.apply(variables, see(batch, centre), train=False)
            centre = estimate(offset, batch, centre)[:, 0]
        return centre[:, None]

    return Method(init, loss, predict)
