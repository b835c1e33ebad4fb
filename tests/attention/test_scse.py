import numpy as np
import pytest

from ssanet_jax.attention import SCSEBlock, SSEBlock
from tests.attention.oracle import result_of, shapes_of, sigmoid

SHAPE = (2, 3, 4, 8)


def drawn(hidden):
    """A feature map, and random parameters of both halves for its 8 channels."""
    rng = np.random.default_rng(0)
    se = {
        'fc1': {'kernel': rng.normal(size=(8, hidden)), 'bias': rng.normal(size=hidden)},
        'fc2': {'kernel': rng.normal(size=(hidden, 8)), 'bias': rng.normal(size=8)},
    }
    sse = {'conv': {'kernel': rng.normal(size=(8, 1)), 'bias': rng.normal(size=1)}}
    return rng.normal(size=SHAPE), {'se': se, 'sse': sse}


def sse_by_loop(x, params):
    y = np.zeros_like(x)
    for n, h, w in np.ndindex(x.shape[:3]):
        logit = params['conv']['bias'][0]
        logit += sum(x[n, h, w, c] * params['conv']['kernel'][c, 0] for c in range(x.shape[-1]))
        y[n, h, w] = sigmoid(logit) * x[n, h, w]
    return y


def se_by_loop(x, params):
    y = np.zeros_like(x)
    for n in range(len(x)):
        z = x[n].reshape(-1, x.shape[-1]).mean(axis=0)
        hidden = np.maximum(0, z @ params['fc1']['kernel'] + params['fc1']['bias'])
        y[n] = sigmoid(hidden @ params['fc2']['kernel'] + params['fc2']['bias']) * x[n]
    return y


def test_sse_scales_each_pixel_by_a_gate_of_its_own_channels():
    x, params = drawn(4)
    y = result_of(SSEBlock(), {'params': params['sse']}, x, train=True)
    np.testing.assert_allclose(y, sse_by_loop(x, params['sse']), rtol=1e-12)


@pytest.mark.parametrize(('combine', 'together'), [('sum', np.add), ('max', np.maximum)])
@pytest.mark.parametrize(('ratio', 'hidden'), [(2, 4), (8, 1)])
def test_scse_is_the_sum_or_the_larger_of_its_halves(combine, together, ratio, hidden):
    x, params = drawn(hidden)
    expected = together(sse_by_loop(x, params['sse']), se_by_loop(x, params['se']))
    y = result_of(SCSEBlock(ratio, combine), {'params': params}, x, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_scse_is_the_papers_by_default():
    x, params = drawn(4)
    explicit, default = (
        result_of(block, {'params': params}, x, train=False)
        for block in (SCSEBlock(ratio=2, combine='sum'), SCSEBlock())
    )
    np.testing.assert_array_equal(default, explicit)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'ratio': 16}, 'choose a ratio from 1 to 8'),
        ({'ratio': 0}, 'choose a ratio from 1 to 8'),
        ({'combine': 'mean'}, r"SCSEBlock\(combine='mean'\) is not known.*one of 'sum', 'max'"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(SCSEBlock(**options), SHAPE)
