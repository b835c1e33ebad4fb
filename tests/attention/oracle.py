"""Helpers of the float64 NumPy reference implementations of the blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import float64, quick_jit

EPSILON = 1e-5  # of every BatchNorm


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def random_norm(rng, width):
    """Random parameters and running statistics of a BatchNorm over `width` channels."""
    params = {'scale': rng.normal(size=width), 'bias': rng.normal(size=width)}
    return params, {'mean': rng.normal(size=width), 'var': rng.uniform(0.5, 1.5, size=width)}


def batch_norm(a, params, stats, train):
    """BatchNorm of a [..., C], by batch statistics in training, otherwise by running statistics."""
    mean, var = stats['mean'], stats['var']
    if train:
        rows = a.reshape(-1, a.shape[-1])
        mean, var = rows.mean(axis=0), rows.var(axis=0)
    return (a - mean) / np.sqrt(var + EPSILON) * params['scale'] + params['bias']


def result_of(block, variables, x, train):
    """The output of `block` for x in float64."""
    apply = quick_jit(partial(block.apply, train=train, mutable=['batch_stats']))
    with float64():
        return np.asarray(apply(variables, x)[0])


def shapes_of(block, shape):
    """Shapes of the variables of the block for a feature map of this shape."""
    return jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), jnp.ones(shape))
