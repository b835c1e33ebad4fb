import jax
import numpy as np
import pytest

from ssanet_jax.attention import ECABlock
from tests.attention.oracle import result_of, shapes_of, sigmoid


def kernel_length(channels, **options):
    """The kernel size that the block chooses for this many channels."""
    shapes = shapes_of(ECABlock(**options), (1, 2, 2, channels))
    assert jax.tree.leaves(shapes) == [shapes['params']['conv']['kernel']]  # and nothing else
    length, *rest = shapes['params']['conv']['kernel'].shape
    assert rest == [1, 1]
    return length


@pytest.mark.parametrize('size', [1, 3, 5])
def test_values_equal_a_loop_over_each_channels_neighbors(size):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 4, 8)), rng.normal(size=(size, 1, 1))
    expected = np.zeros_like(x)
    for n in range(2):
        z = [np.mean([x[n, h, w, c] for h in range(3) for w in range(4)]) for c in range(8)]
        for c in range(8):
            neighbors = [c + j - size // 2 for j in range(size)]
            logit = sum(kernel[j, 0, 0] * z[k] for j, k in enumerate(neighbors) if 0 <= k < 8)
            expected[n, :, :, c] = sigmoid(logit) * x[n, :, :, c]
    y = result_of(ECABlock(size), {'params': {'conv': {'kernel': kernel}}}, x, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ('channels', 'expected'),
    [(1, 1), (1024, 5)],  # test_golden.py has others
)
def test_the_kernel_grows_with_the_logarithm_of_the_channels(channels, expected):
    """(log2(C) + 1) / 2 of equation 12: 0.5 and 5.5."""
    assert kernel_length(channels) == expected


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'gamma': 1.0}, 7),  # (6 + 1) / 1
        ({'gamma': 4.0}, 1),  # 1.75
        ({'beta': 3.0}, 5),  # 4.5
        ({'beta': -5.0}, 1),  # 0.5
        ({'gamma': 1.0, 'beta': 2.5}, 9),  # 8.5
        ({'gamma': 1.0, 'kernel_size': 3}, 3),
    ],
    ids=str,
)
def test_gamma_beta_and_a_length_given_by_hand_rule_the_kernel(options, expected):
    assert kernel_length(64, **options) == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'kernel_size': 4}, r'ECABlock\(kernel_size=4\) has no center; choose an odd one'),
        ({'kernel_size': -1}, r'kernel_size=-1\) has no center'),
        ({'gamma': 0.0}, r'ECABlock\(gamma=0.0\) must be above 0'),
        ({'gamma': -2.0}, r'ECABlock\(gamma=-2.0\) must be above 0'),
    ],
)
def test_options_that_give_no_kernel_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kernel_length(64, **options)
