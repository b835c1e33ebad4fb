from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ssanet_jax import SSABlock, create_model
from ssanet_jax.attention import ssa
from tests.attention.oracle import shapes_of
from tests.helpers import assert_same_function, float64, quick_jit

# All combinations of options, with one group, some, and one per channel.
OPTIONS = [
    {'squeeze': 'mean', 'combine': 'sum', 'num_groups': 1},
    {'squeeze': 'mean', 'combine': 'mean', 'num_groups': 2},
    {'squeeze': 'max', 'combine': 'sum', 'num_groups': 2},
    {'squeeze': 'max', 'combine': 'mean', 'num_groups': 6},
]
SCALE, BIAS, EPSILON, MOMENTUM = 1.3, -0.2, 1e-5, 0.9


def features(shape=(2, 3, 4, 6), dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def variables(groups, dtype=np.float64):
    return {
        'params': {
            'bn': {'scale': np.full(groups, SCALE, dtype), 'bias': np.full(groups, BIAS, dtype)}
        },
        'batch_stats': {
            'bn': {'mean': np.full(groups, 0.1, dtype), 'var': np.full(groups, 1.7, dtype)}
        },
    }


def saliency_by_loop(x, squeeze, combine, num_groups):
    """Computes s [N, H, W, G] one value at a time."""
    n_, h_, w_, c_ = x.shape
    width = c_ // num_groups
    s = np.zeros((n_, h_, w_, num_groups))
    for n, h, w, g in np.ndindex(n_, h_, w_, num_groups):
        for c in range(g * width, (g + 1) * width):
            pixels = [x[n, i, j, c] for i in range(h_) for j in range(w_)]
            z = sum(pixels) / len(pixels) if squeeze == 'mean' else max(pixels)
            s[n, h, w, g] += z * x[n, h, w, c] / (width if combine == 'mean' else 1)
    return s


def block_by_loop(x, squeeze, combine, num_groups, train):
    s = saliency_by_loop(x, squeeze, combine, num_groups)
    y = np.zeros_like(x)
    for n, h, w, c in np.ndindex(*x.shape):
        g = c * num_groups // x.shape[-1]
        mean, var = (s[..., g].mean(), s[..., g].var()) if train else (0.1, 1.7)
        normal = (s[n, h, w, g] - mean) / np.sqrt(var + EPSILON) * SCALE + BIAS
        y[n, h, w, c] = x[n, h, w, c] / (1 + np.exp(-normal))
    return y


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_values_equal_a_loop_over_every_pixel(options, train):
    x = features()
    with float64():
        y, _ = SSABlock(**options).apply(
            variables(options['num_groups']), x, train=train, mutable=['batch_stats']
        )
    np.testing.assert_allclose(y, block_by_loop(x, **options, train=train), rtol=1e-12)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_gradients_equal_finite_differences(options, train):
    x = features((2, 2, 3, 6))
    weights = np.random.default_rng(1).normal(size=x.shape)

    def objective(x, params):
        state = {**variables(options['num_groups']), 'params': params}
        y, _ = SSABlock(**options).apply(state, x, train=train, mutable=['batch_stats'])
        return jnp.sum(weights * y)

    with float64():
        params = variables(options['num_groups'])['params']
        flat, unravel = ravel_pytree((jnp.asarray(x), params))
        gradient = quick_jit(jax.grad(lambda v: objective(*unravel(v))))(flat)
        values = quick_jit(jax.vmap(lambda v: objective(*unravel(v))))
        steps = 1e-6 * np.eye(flat.size)
        expected = (values(flat + steps) - values(flat - steps)) / 2e-6
    assert np.abs(gradient).min() > 0  # every input and parameter gets one
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('form', ['by_reshape', 'by_product'])
def test_groups_are_the_same_on_every_platform(form):
    x, gate = features((2, 3, 4, 2, 3)), features((2, 3, 4, 2))
    scale, saliency = (getattr(ssa, f'_{name}_{form}') for name in ('scale', 'saliency'))
    assert_same_function(
        scale, lambda x, gate: jnp.repeat(gate, 3, axis=-1) * x.reshape(2, 3, 4, 6), x, gate
    )
    assert_same_function(
        partial(saliency, squeeze='mean', combine='mean'),
        lambda x: jnp.einsum('ngc,nhwgc->nhwg', x.mean((1, 2)), x) / 3,
        x,
    )


def test_training_updates_the_running_statistics():
    x = features()
    s = saliency_by_loop(x, 'mean', 'sum', 1)
    with float64():
        _, updated = SSABlock().apply(variables(1), x, train=True, mutable=['batch_stats'])
    stats = updated['batch_stats']['bn']
    np.testing.assert_allclose(stats['mean'], [0.9 * 0.1 + 0.1 * s.mean()], rtol=1e-12)
    np.testing.assert_allclose(stats['var'], [0.9 * 1.7 + 0.1 * s.var()], rtol=1e-12)


@pytest.mark.parametrize('groups', [1, 4])
def test_costs_two_parameters_per_group_for_any_number_of_channels(groups):
    for channels in (8, 64):
        shapes = jax.eval_shape(
            lambda x: SSABlock(num_groups=groups).init(jax.random.key(0), x, train=False),
            jnp.ones((1, 4, 4, channels)),
        )
        assert sum(p.size for p in jax.tree.leaves(shapes['params'])) == 2 * groups


def test_bfloat16_loses_only_the_rounding_of_its_input_and_output():
    """With 2048 channels, a sum in bfloat16 would have errors of several percent."""
    x = jnp.asarray(features((2, 7, 7, 2048), np.float32), jnp.bfloat16)
    state = variables(1, np.float32)
    y, _ = SSABlock().apply(state, x, train=True, mutable=['batch_stats'])
    exact, _ = SSABlock().apply(state, x.astype(jnp.float32), train=True, mutable=['batch_stats'])
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


def test_saliency_and_gate_are_sown_if_requested():
    x = features(dtype=np.float32)
    block, state = SSABlock(num_groups=2), variables(2, np.float32)
    _, extra = block.apply(state, x, train=False, mutable=['intermediates'])
    saliency, gate = (extra['intermediates'][name][0] for name in ('saliency', 'gate'))
    np.testing.assert_allclose(
        saliency, saliency_by_loop(x, 'mean', 'sum', 2), rtol=1e-4, atol=1e-6
    )
    assert gate.shape == (2, 3, 4, 2)
    assert 0 < gate.min() < gate.max() < 1


def test_sown_maps_cost_nothing_unless_requested():
    """The compiled network is the same as one whose block has no `sow` at all."""

    class Silent(SSABlock):
        def sow(self, *args, **kwargs):
            return False

    x = jnp.ones((1, 8, 8, 3))

    def program(block):
        model = create_model('resnet20', num_classes=10, attention=lambda: block(name='ssa'))
        state = shapes_of(model, x.shape)
        traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(state, x)
        return str(traced)

    assert program(SSABlock) == program(Silent)


@pytest.mark.parametrize('train', [False, True])
def test_gate_scale_multiplies_the_gate(train):
    x = features()
    with float64():
        y, extra = SSABlock(gate_scale=2.0).apply(
            variables(1), x, train=train, mutable=['batch_stats', 'intermediates']
        )
    np.testing.assert_allclose(y, 2 * block_by_loop(x, 'mean', 'sum', 1, train), rtol=1e-12)
    np.testing.assert_allclose(y, np.asarray(extra['intermediates']['gate'][0]) * x, rtol=1e-12)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16], ids=['float32', 'bfloat16'])
@pytest.mark.parametrize('train', [False, True])
def test_a_new_block_with_gate_scale_2_and_zero_init_is_the_identity_bit_for_bit(train, dtype):
    block = SSABlock(gate_scale=2.0, zero_init=True, num_groups=2)
    x = jnp.asarray(features(), dtype)
    state = block.init(jax.random.key(0), x, train=False)
    y, _ = block.apply(state, x, train=train, mutable=['batch_stats'])
    np.testing.assert_array_equal(y, x)


def test_a_block_that_starts_as_the_identity_can_leave_it():
    block, x = SSABlock(gate_scale=2.0, zero_init=True), features(dtype=np.float32)
    state = block.init(jax.random.key(0), x, train=False)

    def objective(params):
        y, _ = block.apply({**state, 'params': params}, x, train=True, mutable=['batch_stats'])
        return jnp.sum(y**2)

    gradient = quick_jit(jax.grad(objective))(state['params'])['bn']
    assert abs(gradient['scale'][0]) > 0
    assert abs(gradient['bias'][0]) > 0


@pytest.mark.parametrize(
    ('channels', 'size', 'groups'), [(12, 4, 3), (12, 5, 3), (12, 12, 1), (12, 32, 1), (7, 5, 7)]
)
def test_group_size_makes_groups_of_the_largest_divisor_up_to_it(channels, size, groups):
    x = features((2, 3, 2, channels))
    with float64():
        y = SSABlock(group_size=size).apply(variables(groups), x, train=False)
    expected = block_by_loop(x, 'mean', 'sum', groups, train=False)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_groups': 3}, 'choose one of 1, 2, 4, 8'),
        ({'num_groups': 0}, 'choose one of 1, 2, 4, 8'),
        ({'squeeze': 'median'}, "one of 'mean', 'max'"),
        ({'combine': 'max'}, "one of 'sum', 'mean'"),
        (
            {'num_groups': 2, 'group_size': 4},
            r'SSABlock\(num_groups=2, group_size=4\): expected num_groups, or a group_size',
        ),
        ({'group_size': -4}, 'group_size=-4'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SSABlock(**options).init(jax.random.key(0), np.ones((1, 4, 4, 8), np.float32), train=False)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_constant_input_gives_finite_values_and_gradients(value):
    x = jnp.full((2, 4, 4, 8), value)
    state = SSABlock().init(jax.random.key(0), x, train=False)

    def objective(x):
        y, _ = SSABlock().apply(state, x, train=True, mutable=['batch_stats'])
        return jnp.sum(y)

    assert jnp.isfinite(quick_jit(jax.grad(objective))(x)).all()


def test_float32_statistics_survive_a_mean_that_dwarfs_the_deviation():
    x = np.random.default_rng(0).normal(3.0, 0.05, size=(4, 7, 7, 1024)).astype(np.float32)
    _, updated = SSABlock().apply(variables(1, np.float32), x, train=True, mutable=['batch_stats'])
    z = x.astype(np.float64).mean(axis=(1, 2), keepdims=True)
    exact = (z * x).sum(axis=-1).var()
    found = (updated['batch_stats']['bn']['var'] - 0.9 * 1.7) / 0.1
    np.testing.assert_allclose(found, exact, rtol=1e-3)
