import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SEBlock
from tests.helpers import float64


def random_state(channels, hidden):
    rng = np.random.default_rng(1)
    shapes = {
        'fc1': {'kernel': (channels, hidden), 'bias': (hidden,)},
        'fc2': {'kernel': (hidden, channels), 'bias': (channels,)},
    }
    return {
        'params': jax.tree.map(
            lambda shape: rng.normal(size=shape),
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


@pytest.mark.parametrize('ratio', [0, 16])
def test_a_ratio_that_leaves_no_hidden_unit_is_refused(ratio):
    with pytest.raises(ValueError, match='choose a ratio from 1 to 8'):
        SEBlock(ratio=ratio).init(jax.random.key(0), jnp.ones((1, 4, 4, 8)), train=False)
