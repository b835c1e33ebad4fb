from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import layers
from tests.helpers import float64, mesh_of, quick_jit

SETTINGS = {'momentum': 0.8, 'epsilon': 1e-3, 'scale_init': nn.initializers.normal()}


def variables():
    rng = np.random.default_rng(1)
    return {
        'params': {'scale': rng.normal(size=6), 'bias': rng.normal(size=6)},
        'batch_stats': {'mean': rng.normal(size=6), 'var': rng.uniform(1, 2, size=6)},
    }


def results(norm, variables, x, dy, **options):
    """Output, gradients and new statistics of a BatchNorm made by `norm`."""
    layer = norm(dtype=jnp.float64, **SETTINGS, **options)

    def apply(params, x):
        everything = {'params': params, 'batch_stats': variables['batch_stats']}
        return layer.apply(everything, x, mutable=['batch_stats'])

    y, pullback, updates = jax.vjp(apply, variables['params'], x, has_aux=True)
    return y, pullback(dy), updates['batch_stats']


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize('running', [True, False])
def test_batch_norm_is_flaxs(running, fast, rng):
    x, dy = rng.normal(2.0, 1.0, size=(2, 4, 3, 5, 6))
    state = variables()
    options = {'use_running_average': running, 'use_fast_variance': fast}
    with float64():
        mine, flaxs = (
            results(norm, state, x, dy, **options) for norm in (layers.BatchNorm, nn.BatchNorm)
        )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), mine, flaxs)


@pytest.mark.parametrize(
    ('groups', 'fast'), [(None, True), ([[0, 1], [2, 3]], True), ([[0, 1], [2, 3]], False)]
)
def test_batch_norm_over_devices_is_flaxs(groups, fast, rng):
    x, dy = rng.normal(2.0, 1.0, size=(2, 8, 3, 5, 6))
    state = variables()
    options = {'use_running_average': False, 'use_fast_variance': fast}
    options |= {'axis_name': 'data', 'axis_index_groups': groups}
    spec = jax.sharding.PartitionSpec('data')
    with float64():
        mine, flaxs = (
            quick_jit(
                jax.shard_map(
                    lambda x, dy, norm=norm: jax.tree.map(
                        lambda a: a[None], results(norm, state, x, dy, **options)
                    ),
                    mesh=mesh_of(4),
                    in_specs=spec,
                    out_specs=spec,
                    check_vma=False,
                )
            )(x, dy)
            for norm in (layers.BatchNorm, nn.BatchNorm)
        )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), mine, flaxs)


@pytest.mark.parametrize('x_dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
@pytest.mark.parametrize('dtype', [None, jnp.bfloat16], ids=['inferred', 'bfloat16'])
@pytest.mark.parametrize('param_dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
def test_dtypes_are_flaxs(x_dtype, dtype, param_dtype, rng):
    x = jnp.asarray(rng.normal(size=(4, 3, 6)), x_dtype)
    with jax.numpy_dtype_promotion('standard'):  # flax promotes implicitly
        mine, flaxs = (
            jax.eval_shape(
                norm(False, dtype=dtype, param_dtype=param_dtype).init_with_output,
                jax.random.key(0),
                x,
            )
            for norm in (layers.BatchNorm, nn.BatchNorm)
        )
    assert mine == flaxs


def test_use_running_average_can_be_an_attribute_or_an_argument_but_not_both(rng):
    x, state = rng.normal(size=(4, 6)).astype(np.float32), variables()
    state = jax.tree.map(np.float32, state)
    for running in (False, True):
        expected, argument, positional = (
            layer.apply(state, x, *args, **options, mutable=['batch_stats'])
            for layer, args, options in (
                (layers.BatchNorm(use_running_average=running), (), {}),
                (layers.BatchNorm(), (), {'use_running_average': running}),
                (layers.BatchNorm(), (running,), {}),
            )
        )
        jax.tree.map(np.testing.assert_array_equal, argument, expected)
        jax.tree.map(np.testing.assert_array_equal, positional, expected)
    with pytest.raises(ValueError, match='use_running_average'):
        layers.BatchNorm(use_running_average=True).apply(state, x, use_running_average=True)


def test_statistics_of_bfloat16_input_are_computed_in_float32(rng):
    """The mean exceeds the precision of bfloat16."""
    x = jnp.asarray(rng.normal(30.0, 1.0, size=(64, 8, 6)), jnp.bfloat16)
    layer = layers.BatchNorm(use_running_average=False)
    y, _ = layer.init_with_output(jax.random.key(0), x)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean((0, 1))) / np.sqrt(exact.var((0, 1)) + 1e-5)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, exact, atol=2e-3)


@pytest.mark.parametrize(
    ('fast', 'ratio', 'error'),
    [(True, 1, 4e-6), (True, 10, 3e-4), (False, 10, 6e-6), (False, 100, 8e-5), (False, 1e4, 1e-2)],
)
def test_two_passes_are_precise_where_means_exceed_deviations(fast, ratio, error):
    """The errors of the docstring, fourfold; the oracle is float64."""
    if jax.__version_info__ < (0, 10):
        error *= 3  # XLA's sums on CPUs were less precise
    x = np.random.default_rng(0).normal(ratio, size=(8, 8, 8, 16)).astype(np.float32)
    exact = np.float64(x) - np.mean(x, (0, 1, 2), np.float64)
    exact /= np.sqrt(np.mean(exact**2, (0, 1, 2)) + 1e-5)
    layer = layers.BatchNorm(use_running_average=False, use_fast_variance=fast)
    found, _ = layer.init_with_output(jax.random.key(0), x)
    assert np.abs(found - exact).max() < error


def test_statistics_keep_their_dtype(rng):
    with float64():
        x = jnp.asarray(rng.normal(size=(4, 6)))
        layer = layers.BatchNorm(use_running_average=False)
        variables = layer.init(jax.random.key(0), x)
        _, updated = layer.apply(variables, x, mutable=['batch_stats'])
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {np.dtype('float32')}
