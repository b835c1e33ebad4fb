import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SEBlock
from tests.helpers import float64


def random_state(channels, hidden, dtype=np.float64):
    rng = np.random.default_rng(1)
    shapes = {
        'fc1': {'kernel': (channels, hidden), 'bias': (hidden,)},
        'fc2': {'kernel': (hidden, channels), 'bias': (channels,)},
    }
    return {
        'params': jax.tree.map(
            lambda shape: rng.normal(size=shape).astype(dtype),
            shapes,
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )
    }


def test_values_equal_a_loop_over_every_unit():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 8))
    state = random_state(8, 4)
    fc1, fc2 = state['params']['fc1'], state['params']['fc2']
    expected = np.zeros_like(x)
    for n in range(2):
        z = [np.mean([x[n, h, w, c] for h in range(3) for w in range(4)]) for c in range(8)]
        hidden = [
            max(0.0, fc1['bias'][j] + sum(z[c] * fc1['kernel'][c, j] for c in range(8)))
            for j in range(4)
        ]
        for c in range(8):
            logit = fc2['bias'][c] + sum(hidden[j] * fc2['kernel'][j, c] for j in range(4))
            expected[n, :, :, c] = x[n, :, :, c] / (1 + np.exp(-logit))
    with float64():
        y = SEBlock(ratio=2).apply(state, x, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_bfloat16_loses_only_the_rounding_of_its_input_and_output():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 7, 512)), jnp.bfloat16)
    state = random_state(512, 32, np.float32)
    y = SEBlock().apply(state, x, train=False)
    exact = SEBlock().apply(state, x.astype(jnp.float32), train=False)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_the_gate_is_sown_if_requested():
    x = jnp.ones((2, 3, 4, 8))
    _, extra = SEBlock(ratio=2).apply(
        random_state(8, 4, np.float32), x, train=False, mutable=['intermediates']
    )
    assert extra['intermediates']['gate'][0].shape == (2, 1, 1, 8)


@pytest.mark.parametrize('ratio', [0, 16])
def test_a_ratio_that_leaves_no_hidden_unit_is_refused(ratio):
    with pytest.raises(ValueError, match='choose a ratio from 1 to 8'):
        SEBlock(ratio=ratio).init(jax.random.key(0), jnp.ones((1, 4, 4, 8)), train=False)


def test_an_image_without_its_batch_axis_is_refused():
    with pytest.raises(ValueError, match='SEBlock expects a feature map'):
        SEBlock().init(jax.random.key(0), jnp.ones((4, 4, 8)), train=False)
