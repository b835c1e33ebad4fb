import numpy as np
import pytest

from ssanet_jax.attention import CoordinateBlock
from tests.attention.oracle import batch_norm, random_norm, result_of, shapes_of, sigmoid

SHAPE = (2, 5, 4, 20)


def drawn(hidden, *, bias):
    """Random variables for 20 channels."""
    rng = np.random.default_rng(1)
    norm, stats = random_norm(rng, hidden)
    params = {
        'conv1': {'kernel': rng.normal(size=(20, hidden))},
        'bn1': norm,
        'conv_h': {'kernel': rng.normal(size=(hidden, 20))},
        'conv_w': {'kernel': rng.normal(size=(hidden, 20))},
    }
    if bias:
        params['conv_h']['bias'], params['conv_w']['bias'] = rng.normal(size=(2, 20))
    return {'params': params, 'batch_stats': {'bn1': stats}}


def block_by_loop(x, params, stats, train):
    n_, h_, w_, c_ = x.shape
    rows = [[x[n, h].mean(axis=0) for h in range(h_)] for n in range(n_)]
    columns = [[x[n, :, w].mean(axis=0) for w in range(w_)] for n in range(n_)]
    z = np.concatenate([rows, columns], axis=1)  # [N, H + W, C]
    f = batch_norm(z @ params['conv1']['kernel'], params['bn1'], stats['bn1'], train)
    f = f * np.minimum(np.maximum(f + 3, 0), 6) / 6
    y = np.zeros_like(x)
    for n, h, w, c in np.ndindex(x.shape):
        a = f[n, h] @ params['conv_h']['kernel'][:, c] + params['conv_h'].get('bias', [0] * c_)[c]
        b = f[n, h_ + w] @ params['conv_w']['kernel'][:, c]
        b += params['conv_w'].get('bias', [0] * c_)[c]
        y[n, h, w, c] = sigmoid(a) * sigmoid(b) * x[n, h, w, c]
    return y


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('options', 'hidden'),
    [({}, 8), ({'ratio': 2}, 10), ({'ratio': 2, 'bias': False}, 10)],
    ids=str,
)
def test_values_equal_a_loop_over_rows_columns_and_channels(options, hidden, train):
    x = np.random.default_rng(0).normal(size=SHAPE)
    variables = drawn(hidden, bias=options.get('bias', True))
    expected = block_by_loop(x, variables['params'], variables['batch_stats'], train)
    y = result_of(CoordinateBlock(**options), variables, x, train)
    np.testing.assert_allclose(y, expected, rtol=1e-11)


@pytest.mark.parametrize(
    ('channels', 'ratio', 'expected'),
    [(4, 32, 8), (64, 32, 8), (288, 32, 9), (512, 32, 16), (64, 4, 16)],
)
def test_the_hidden_layer_is_never_narrower_than_8(channels, ratio, expected):
    shapes = shapes_of(CoordinateBlock(ratio), (1, 2, 2, channels))
    assert shapes['params']['conv1']['kernel'].shape == (channels, expected)


@pytest.mark.parametrize('ratio', [0, -1])
def test_a_ratio_that_is_not_above_0_is_refused(ratio):
    with pytest.raises(ValueError, match=rf'CoordinateBlock\(ratio={ratio}\).*from 1 to 20'):
        shapes_of(CoordinateBlock(ratio), SHAPE)
