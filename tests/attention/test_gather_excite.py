import itertools

import numpy as np
import pytest

from ssanet_jax.attention import GEBlock
from tests.attention.oracle import batch_norm, random_norm, result_of, shapes_of, sigmoid

SHAPE = (2, 9, 6, 4)  # no extent divides both sides


def drawn(block, height, width):
    """Random variables for 4 channels and maps of this size."""
    rng = np.random.default_rng(1)
    params, stats = {}, {}
    if block.gather == 'conv':
        size = (3, 3) if block.extent else (height, width)
        for number in range(1, {0: 1, 2: 1, 4: 2, 8: 3}[block.extent] + 1):
            params[f'conv{number}'] = {'kernel': rng.normal(size=(*size, 1, 4))}
            params[f'norm{number}'], stats[f'norm{number}'] = random_norm(rng, 4)
    if block.excite == 'mlp':
        hidden = 4 // block.ratio
        params['fc1'] = {'kernel': rng.normal(size=(4, hidden)), 'bias': rng.normal(size=hidden)}
        params['fc2'] = {'kernel': rng.normal(size=(hidden, 4)), 'bias': rng.normal(size=4)}
    return {'params': params, 'batch_stats': stats}


def means_by_loop(x, extent):
    """Means of the pixels closer than `extent` to every extent-th pixel, or of all if 0."""
    if extent == 0:
        return x.mean(axis=(1, 2), keepdims=True)
    rows, columns = range(0, x.shape[1], extent), range(0, x.shape[2], extent)
    z = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        window = x[
            :,
            max(0, row - extent + 1) : row + extent,
            max(0, column - extent + 1) : column + extent,
        ]
        z[:, i, j] = window.mean(axis=(1, 2))
    return z


def depthwise_by_loop(x, kernel, stride, pad):
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = range(0, x.shape[1] - len(kernel) + 1, stride)
    columns = range(0, x.shape[2] - len(kernel[0]) + 1, stride)
    z = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        for di, dj in np.ndindex(kernel.shape[:2]):
            z[:, i, j] += x[:, row + di, column + dj] * kernel[di, dj, 0]
    return z


def convolutions_by_loop(x, extent, variables, train):
    params, stats = variables['params'], variables['batch_stats']
    stride, pad = (2, 1) if extent else (1, 0)
    for number in range(1, len(stats) + 1):
        x = depthwise_by_loop(x, params[f'conv{number}']['kernel'], stride, pad)
        x = batch_norm(x, params[f'norm{number}'], stats[f'norm{number}'], train)
        x = np.maximum(0, x) if number < len(stats) else x
    return x


def block_by_loop(block, variables, x, train):
    if block.gather == 'mean':
        z = means_by_loop(x, block.extent)
    else:
        z = convolutions_by_loop(x, block.extent, variables, train)
    if block.excite == 'mlp':
        fc1, fc2 = variables['params']['fc1'], variables['params']['fc2']
        z = np.maximum(0, z @ fc1['kernel'] + fc1['bias']) @ fc2['kernel'] + fc2['bias']
    y = np.zeros_like(x)
    _, h, w, _ = z.shape
    for row, column in np.ndindex(x.shape[1:3]):
        nearest = z[:, row * h // x.shape[1], column * w // x.shape[2]]
        y[:, row, column] = sigmoid(nearest) * x[:, row, column]
    return y


@pytest.mark.parametrize('excite', ['none', 'mlp'])
@pytest.mark.parametrize('extent', [0, 2, 4, 8])
def test_means_equal_a_loop_over_windows(extent, excite):
    x = np.random.default_rng(0).normal(size=SHAPE)
    block = GEBlock(extent, excite=excite, ratio=2)
    variables = drawn(block, *SHAPE[1:3])
    expected = block_by_loop(block, variables, x, train=True)
    np.testing.assert_allclose(result_of(block, variables, x, train=True), expected, rtol=1e-12)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('extent', 'excite'), [(0, 'none'), (2, 'none'), (4, 'none'), (8, 'none'), (4, 'mlp')]
)
def test_convolutions_equal_a_loop_over_windows(extent, excite, train):
    x = np.random.default_rng(0).normal(size=SHAPE)
    block = GEBlock(extent, gather='conv', excite=excite, ratio=4)
    variables = drawn(block, *SHAPE[1:3])
    expected = block_by_loop(block, variables, x, train)
    np.testing.assert_allclose(result_of(block, variables, x, train), expected, rtol=1e-11)


def test_the_default_is_the_papers_without_parameters():
    assert shapes_of(GEBlock(), (1, 4, 4, 8)) == {}


@pytest.mark.parametrize('extent', [0, 2, 8])
def test_a_single_pixel_has_only_itself_for_a_neighborhood(extent):
    x = np.random.default_rng(0).normal(size=(3, 1, 1, 4))
    y = result_of(GEBlock(extent), {}, x, train=True)
    np.testing.assert_allclose(y, sigmoid(x) * x, rtol=1e-12)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'extent': 3}, r'GEBlock\(extent=3\) is not known; choose one of 0, 2, 4, 8'),
        ({'gather': 'max'}, r"GEBlock\(gather='max'\) is not known.*'mean', 'conv'"),
        ({'excite': 'se'}, r"GEBlock\(excite='se'\) is not known.*'none', 'mlp'"),
        ({'excite': 'mlp'}, r'GEBlock\(ratio=16\).*choose a ratio from 1 to 8'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(GEBlock(**options), (1, 4, 4, 8))
