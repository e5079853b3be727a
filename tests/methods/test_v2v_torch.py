"""V2V with weights from an equivalent PyTorch module gives the same heatmaps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpe_jax.layers.init import init_variables
from hpe_jax.methods.v2v import V2VNet

torch = pytest.importorskip("torch", reason="torch is not installed; needed only to compare")


def torch_net(widths):
    from launch.torch_v2v import TorchV2V

    torch.manual_seed(0)
    net = TorchV2V(5, widths)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return net


@pytest.mark.parametrize("widths", [(16, 32, 64, 128), (4, 8, 12, 16)])
def test_same_heatmaps_and_running_statistics(widths):
    from launch.torch_v2v import to_variables

    theirs, ours = torch_net(widths), V2VNet(5, widths)
    variables = to_variables(theirs)
    volume = np.random.default_rng(0).random((2, 16, 16, 16, 1)).astype(np.float32)
    wanted = init_variables(ours, jax.random.key(0), volume, kernel_std=0.1, train=False)
    assert jax.tree.map(jnp.shape, wanted) == jax.tree.map(jnp.shape, variables)

    channels_first = torch.from_numpy(np.moveaxis(volume, -1, 1).copy())
    with torch.no_grad():
        expected = theirs.eval()(channels_first).numpy()
    heatmaps = jax.jit(lambda v, x: ours.apply(v, x, train=False))(variables, volume)
    np.testing.assert_allclose(heatmaps, np.moveaxis(expected, 1, -1), atol=1e-4)
    assert np.abs(expected).max() > 0.1

    with torch.no_grad():
        expected = theirs.train()(channels_first).numpy()
    heatmaps, state = jax.jit(lambda v, x: ours.apply(v, x, train=True, mutable=["batch_stats"]))(
        variables, volume
    )
    np.testing.assert_allclose(heatmaps, np.moveaxis(expected, 1, -1), atol=1e-3)
    for name, new in jax.tree_util.tree_leaves_with_path(state["batch_stats"]):
        after = to_variables(theirs)["batch_stats"]
        for part in name:
            after = after[part.key]
        # PyTorch's running variance is the unbiased one.
        np.testing.assert_allclose(new, after, rtol=0.02, atol=1e-3)
