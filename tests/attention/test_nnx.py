"""The NNX block against the linen block, whose values test_ssa.py compares with loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax import SSABlock
from ssanet_jax.nnx import SSABlock as NNXBlock
from tests.helpers import float64

OPTIONS = [
    {},
    {'squeeze': 'max', 'combine': 'mean', 'num_groups': 3},
    {'num_groups': 2, 'gate_scale': 2.0, 'momentum': 0.5, 'epsilon': 0.1},
]
CLOSE = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)


def features(shape=(2, 3, 4, 6), dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def pair(dtype=np.float64, **options):
    """A linen block, variables for it, and an NNX block with the same values."""
    block, rng, variables = NNXBlock(**options, rngs=nnx.Rngs(0)), np.random.default_rng(1), {}
    for collection, kind in (('params', nnx.Param), ('batch_stats', nnx.BatchStat)):
        shapes = nnx.to_pure_dict(nnx.state(block, kind))
        variables[collection] = jax.tree.map(
            lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape), dtype), shapes
        )
        nnx.update(block, variables[collection])
    return SSABlock(**options), variables, block


def state_of(block, kind):
    return nnx.to_pure_dict(nnx.state(block, kind))


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_outputs_gradients_and_statistics_are_those_of_the_linen_block(options, train):
    with float64():
        linen, variables, block = pair(**options)
        x = jnp.asarray(features())

        def expected(params, x):
            state = {**variables, 'params': params}
            y, updates = linen.apply(state, x, train=train, mutable=['batch_stats'])
            return jnp.sum(jnp.sin(y)), (y, updates['batch_stats'])

        gradients, (y, stats) = jax.grad(expected, (0, 1), has_aux=True)(variables['params'], x)

        def loss(block, x):
            y = block(x)
            return jnp.sum(jnp.sin(y)), y

        block.train() if train else block.eval()
        step = nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))
        (of_params, of_x), found = step(block, x)
    CLOSE(found, y)
    jax.tree.map(CLOSE, (nnx.to_pure_dict(of_params), of_x), gradients)
    jax.tree.map(CLOSE, state_of(block, nnx.BatchStat), stats)


def test_has_the_initial_variables_of_the_linen_block():
    for options in ({'num_groups': 2}, {'zero_init': True}):
        x = features(dtype=np.float32)
        linen = SSABlock(**options).init(jax.random.key(0), x, train=False)
        block = NNXBlock(**options, rngs=nnx.Rngs(0))
        found = {
            'params': state_of(block, nnx.Param),
            'batch_stats': state_of(block, nnx.BatchStat),
        }
        jax.tree.map(np.testing.assert_array_equal, found, linen)


def test_axis_name_shares_statistics_between_devices():
    _, variables, block = pair(np.float32, axis_name='data')
    x = features((2, 2, 3, 4, 6), np.float32)
    axes = nnx.StateAxes({...: None})
    found = nnx.vmap(lambda block, x: block(x), in_axes=(axes, 0), axis_name='data')(block, x)
    apply = partial(SSABlock().apply, train=True, mutable=['batch_stats'])
    y, updates = apply(variables, x.reshape(4, 3, 4, 6))
    np.testing.assert_allclose(found.reshape(y.shape), y, rtol=1e-5)
    close = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, state_of(block, nnx.BatchStat), updates['batch_stats'])


def test_vmap_applies_each_of_an_ensemble():
    make = nnx.vmap(lambda key: NNXBlock(rngs=nnx.Rngs(key)))
    blocks = make(jax.random.split(jax.random.key(0), 3))
    scales = jnp.arange(3.0)[:, None]
    nnx.update(blocks, {'bn': {'scale': scales}})
    x = features(dtype=np.float32)
    found = nnx.vmap(lambda block, x: block(x), in_axes=(0, None))(blocks, x)
    for y, scale in zip(found, scales, strict=True):
        block = NNXBlock(rngs=nnx.Rngs(0))
        nnx.update(block, {'bn': {'scale': scale}})
        np.testing.assert_allclose(y, block(x), rtol=1e-6)
    assert not np.allclose(found[0], found[1])


def test_bfloat16_is_computed_in_float32():
    block = NNXBlock(rngs=nnx.Rngs(0))
    x = jnp.asarray(features((2, 7, 7, 2048)), jnp.bfloat16)
    y = block(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, block(x.astype(jnp.float32)).astype(jnp.bfloat16))


def test_refuses_what_the_linen_block_refuses():
    with pytest.raises(ValueError, match='squeeze'):
        NNXBlock(squeeze='median', rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match='4 channels'):
        NNXBlock(num_groups=3, rngs=nnx.Rngs(0))(jnp.ones((1, 2, 2, 4)))
    with pytest.raises(ValueError, match=r'\[N, H, W, C\]'):
        NNXBlock(rngs=nnx.Rngs(0))(jnp.ones((2, 2, 4)))
