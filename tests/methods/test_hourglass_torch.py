"""The two hourglass networks with weights from equivalent PyTorch modules: the same maps."""

import jax
import numpy as np
import pytest

from hpe_jax.methods.dense_regression import DenseNet
from hpe_jax.methods.hourglass3d import HourglassNet

torch = pytest.importorskip("torch", reason="torch is not installed; needed only to compare")


def lively(module):
    """Weights and statistics that no norm or ReLU hides."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.3)
    return module.eval()


def last(image):
    return np.moveaxis(image.detach().numpy(), 1, -1)


@pytest.mark.parametrize("dims", [2, 3])
def test_hourglass(dims):
    from launch.torch_hourglass import TorchHourglass3D
    from launch.torch_v2v import to_variables

    theirs = lively(TorchHourglass3D(5, 4, features=8, depth=2, dims=dims))
    ours = HourglassNet(5, 4, features=8, depth=2)
    grid = np.random.default_rng(0).random((2, *(16,) * dims, 1)).astype(np.float32)
    expected = [last(m) for m in theirs(torch.from_numpy(np.moveaxis(grid, -1, 1).copy()))]
    found = jax.jit(lambda v, x: ours.apply(v, x, train=False))(to_variables(theirs), grid)
    assert [m.shape[-1] for m in found] == [9, 5]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
        assert np.abs(other).max() > 0.1


def test_dense_regression():
    from launch.torch_hourglass import TorchDense
    from launch.torch_v2v import to_variables

    theirs, ours = lively(TorchDense(5, depth=2, features=8)), DenseNet(5, depth=2, features=8)
    rng = np.random.default_rng(0)
    crop, small = (rng.uniform(-1.2, 1, (2, n, n, 1)).clip(-1).astype("f") for n in (32, 8))
    expected = theirs(*(torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in (crop, small)))
    variables = to_variables(theirs)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (crop, small)]
    wanted = jax.eval_shape(lambda *x: ours.init(jax.random.key(0), *x, train=False), *shapes)
    counts = [p for p, _ in jax.tree_util.tree_leaves_with_path(wanted) if p[-1].key == "count"]
    for path in counts:  # of updates, which only training reads
        tree = variables
        for part in path[:-1]:
            tree = tree[part.key]
        tree["count"] = np.zeros((), np.float32)
    found = jax.jit(lambda v, *x: ours.apply(v, *x, train=False))(variables, crop, small)
    for one, (heat, near, unit) in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["R"], last(heat), atol=1e-4)
        np.testing.assert_allclose(one["S"], last(near), atol=1e-4)
        vectors = last(unit).reshape(one["V"].shape)
        np.testing.assert_allclose(one["V"], vectors, atol=1e-4)
        assert np.abs(vectors).max() > 0.1
