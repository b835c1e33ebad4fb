import jax
import numpy as np
import pytest

from ssanet_jax.attention import CBAMBlock
from tests.attention.oracle import batch_norm, random_norm, result_of, shapes_of, sigmoid

SHAPE = (2, 5, 4, 8)


def drawn(hidden, size, *, bias):
    """Random variables for 8 channels."""
    rng = np.random.default_rng(1)
    params, stats = random_norm(rng, 1)
    channel = {
        'fc1': {'kernel': rng.normal(size=(8, hidden))},
        'fc2': {'kernel': rng.normal(size=(hidden, 8))},
    }
    if bias:
        channel['fc1']['bias'], channel['fc2']['bias'] = rng.normal(size=hidden), rng.normal(size=8)
    spatial = {'conv': {'kernel': rng.normal(size=(size, size, 2, 1))}, 'bn': params}
    return {
        'params': {'channel': channel, 'spatial': spatial},
        'batch_stats': {'spatial': {'bn': stats}},
    }


def channel_half(x, params):
    def mlp(z):
        hidden = np.maximum(0, z @ params['fc1']['kernel'] + params['fc1'].get('bias', 0))
        return hidden @ params['fc2']['kernel'] + params['fc2'].get('bias', 0)

    u = np.zeros_like(x)
    for n in range(len(x)):
        pixels = x[n].reshape(-1, x.shape[-1])
        u[n] = sigmoid(mlp(pixels.mean(axis=0)) + mlp(pixels.max(axis=0))) * x[n]
    return u


def spatial_half(u, params, stats, train):
    n_, h_, w_, _ = u.shape
    kernel = params['conv']['kernel']
    middle = len(kernel) // 2
    s = np.zeros((n_, h_, w_, 1))
    for n, h, w in np.ndindex(n_, h_, w_):
        for i, j in np.ndindex(kernel.shape[:2]):
            row, column = h + i - middle, w + j - middle
            if 0 <= row < h_ and 0 <= column < w_:
                pixel = u[n, row, column]
                s[n, h, w] += kernel[i, j, 0] * pixel.mean() + kernel[i, j, 1] * pixel.max()
    return sigmoid(batch_norm(s, params['bn'], stats['bn'], train)) * u


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('options', 'hidden', 'size'),
    [
        ({'ratio': 4}, 2, 7),
        ({'ratio': 4, 'mlp_bias': False}, 2, 7),
        ({'ratio': 2, 'kernel_size': 3}, 4, 3),
        ({'ratio': 3, 'kernel_size': 1}, 2, 1),
    ],
    ids=str,
)
def test_values_equal_loops_over_channels_and_windows(options, hidden, size, train):
    x = np.random.default_rng(0).normal(size=SHAPE)
    variables = drawn(hidden, size, bias=options.get('mlp_bias', True))
    params, stats = variables['params'], variables['batch_stats']
    u = channel_half(x, params['channel'])
    expected = spatial_half(u, params['spatial'], stats['spatial'], train)
    y = result_of(CBAMBlock(**options), variables, x, train)
    np.testing.assert_allclose(y, expected, rtol=1e-11)


@pytest.mark.parametrize('bias', [False, True])
def test_parameters_are_as_many_as_the_docstring_says(bias):
    shapes = shapes_of(CBAMBlock(mlp_bias=bias), (1, 4, 4, 64))
    count = sum(p.size for p in jax.tree.leaves(shapes['params']))
    assert count == 2 * 64 * 4 + bias * (64 + 4) + 2 * 49 + 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'ratio': 9}, r'CBAMBlock\(ratio=9\).*choose a ratio from 1 to 8'),
        ({'ratio': 0}, r'CBAMBlock\(ratio=0\).*choose a ratio from 1 to 8'),
        ({'ratio': 2, 'kernel_size': 6}, r'CBAMBlock\(kernel_size=6\).*choose an odd one'),
        ({'ratio': 2, 'kernel_size': -3}, r'CBAMBlock\(kernel_size=-3\).*choose an odd one'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(CBAMBlock(**options), SHAPE)
