import jax
import numpy as np
import pytest

from ssanet_jax.attention import SpatialBlock
from tests.attention.oracle import batch_norm, random_norm, result_of, shapes_of, sigmoid


def drawn(channels):
    rng = np.random.default_rng(1)
    params, stats = random_norm(rng, 1)
    kernel = rng.normal(size=(channels, 1))
    return {'params': {'conv': {'kernel': kernel}, 'bn': params}, 'batch_stats': {'bn': stats}}


def projection(x, kernel):
    """Computes s [N, H, W, 1] one value at a time."""
    s = np.zeros((*x.shape[:3], 1))
    for n, h, w, c in np.ndindex(x.shape):
        s[n, h, w, 0] += kernel[c, 0] * x[n, h, w, c]
    return s


@pytest.mark.parametrize('train', [False, True])
def test_values_equal_a_loop_over_every_pixel(train):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    variables = drawn(6)
    params, stats = variables['params'], variables['batch_stats']
    s = projection(x, params['conv']['kernel'])
    expected = sigmoid(batch_norm(s, params['bn'], stats['bn'], train)) * x
    y = result_of(SpatialBlock(), variables, x, train)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_costs_two_parameters_more_than_channels():
    shapes = shapes_of(SpatialBlock(), (1, 4, 4, 64))
    assert sum(p.size for p in jax.tree.leaves(shapes['params'])) == 64 + 2


def test_float32_statistics_survive_a_mean_that_dwarfs_the_deviation():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 0.01, size=(4, 7, 7, 256)).astype(np.float32)
    variables = {
        'params': {
            'conv': {'kernel': np.ones((256, 1), np.float32)},
            'bn': {'scale': np.ones(1, np.float32), 'bias': np.zeros(1, np.float32)},
        },
        'batch_stats': {'bn': {'mean': np.zeros(1, np.float32), 'var': np.zeros(1, np.float32)}},
    }
    _, updated = SpatialBlock().apply(variables, x, train=True, mutable=['batch_stats'])
    exact = x.astype(np.float64).sum(axis=-1).var()
    np.testing.assert_allclose(updated['batch_stats']['bn']['var'] / 0.1, [exact], rtol=1e-2)
