"""Bottlenecks with folded and plain tails, and one step of each."""

from functools import partial

import jax
import numpy as np

from ssanet_jax import SSABlock
from ssanet_jax.attention import ECABlock, SEBlock
from ssanet_jax.models.residual_block import Bottleneck
from tests.helpers import quick_jit

SSA = [{'combine': 'sum', 'num_groups': 1}, {'combine': 'mean', 'num_groups': 4}]
ATTENTION = {
    'none': None,
    **{f'ssa {o["combine"]} {o["num_groups"]}': partial(SSABlock, name='ssa', **o) for o in SSA},
    'se': partial(SEBlock, ratio=4, name='se'),
    'eca': partial(ECABlock, kernel_size=3, name='eca'),
}


def block(tail, attention=None, stride=2, width=4, **options):
    return Bottleneck(width=width, stride=stride, attention=attention, tail=tail, **options)


def init(module, x):
    return quick_jit(partial(module.init, train=False))(jax.random.key(0), x)


def random_variables(module, x):
    """Random variables with the shapes of `module`, equal for all forms of the tail."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    values = [
        np.random.default_rng(index).uniform(0.5, 1.5, leaf.shape) - ('var' not in str(path)) * 0.7
        for index, (path, leaf) in enumerate(leaves)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def step(module, variables, x, dy, train):
    """Output, gradients of every parameter and of x, and the new statistics."""

    def apply(params, x):
        everything = {'params': params, 'batch_stats': variables['batch_stats']}
        return module.apply(everything, x, train=train, mutable=['batch_stats'])

    y, pullback, updates = jax.vjp(apply, variables['params'], x, has_aux=True)
    return y, pullback(dy.astype(y.dtype)), updates['batch_stats']


def assert_close(actual, expected, rtol=1e-8):
    """Checks arrays up to a tolerance relative to the largest entry of each."""

    def close(a, b):
        scale = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(scale, 1e-3))

    jax.tree.map(close, actual, expected)
