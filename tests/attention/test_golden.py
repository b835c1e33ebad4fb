"""Blocks against reference outputs and gradients stored by tests/golden/make_torch_blocks.py."""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest

from ssanet_jax.attention import (
    CBAMBlock,
    CoordinateBlock,
    ECABlock,
    GEBlock,
    SCSEBlock,
    SEBlock,
    SpatialBlock,
    SSABlock,
)
from tests.attention.oracle import shapes_of
from tests.golden import rule
from tests.helpers import ROOT, float64, quick_jit

GOLDEN = json.loads((ROOT / 'tests' / 'golden' / 'blocks.json').read_text())
OURS = {
    'eca': ECABlock(),
    'eca 5': ECABlock(kernel_size=5),
    'cbam': CBAMBlock(mlp_bias=False),
    'cbam bias': CBAMBlock(),
    'se': SEBlock(ratio=8),
    **{f'ge {extent}': GEBlock(extent) for extent in (0, 2, 4, 8)},
    **{f'ge {extent} mlp': GEBlock(extent, excite='mlp') for extent in (0, 2, 4, 8)},
    **{f'ge {extent} conv': GEBlock(extent, gather='conv') for extent in (0, 2, 8)},
    'ge 4 conv mlp': GEBlock(4, gather='conv', excite='mlp'),
    'coordinate': CoordinateBlock(bias=False),
    'coordinate bias': CoordinateBlock(ratio=4),
    'scse': SCSEBlock(ratio=16),
    'released ssa': SSABlock(combine='mean'),
    'released grouped ssa': SSABlock(combine='mean', group_size=32),
    'released spatial': SpatialBlock(),
}
# Modules with different names in torch and here.
MODULES = {
    'spatial.conv.conv': 'spatial.conv',
    'spatial.conv.bn': 'spatial.bn',
    'cSE.1': 'se.fc1',
    'cSE.3': 'se.fc2',
    'sSE.0': 'sse.conv',
    'sa_ops.0': 'conv',
    'sa_ops.1': 'bn',
}
# Biases that a BatchNorm cancels. The stored training steps had them, inference had 0.
CANCELLED = {'coordinate bias': 'conv1.bias', 'released spatial': 'sa_ops.0.bias'}


def test_every_stored_block_has_one_here():
    assert GOLDEN['blocks'].keys() == OURS.keys()


def place(name, shape):
    """The path in a tree of variables of the array that torch calls `name`."""
    module, _, leaf = name.rpartition('.')
    module = MODULES.get(module, module.removeprefix('gather.').removeprefix('mlp.'))
    if leaf.startswith('running_'):
        return ('batch_stats', *module.split('.'), leaf.removeprefix('running_'))
    if leaf == 'weight':
        leaf = 'scale' if len(shape) == 1 else 'kernel'
    return ('params', *module.split('.'), leaf)


def in_our_layout(values):
    """Transposes [O, I, ...] to [..., I, O]; a 1x1 convolution becomes a matrix."""
    if values.ndim == 4 and values.shape[2:] == (1, 1):
        values = values[..., 0, 0]
    return np.moveaxis(values, (0, 1), (-1, -2)) if values.ndim > 1 else values


def assert_summary(values, beside, expected, name):
    actual = [*rule.digest(values), float(np.vdot(values, beside))]
    scale = max(map(abs, expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * scale, err_msg=name)


# Other extents of the same code.
SLOW = ('eca 5', 'ge 2', 'ge 8', 'ge 0 mlp', 'ge 2 mlp', 'ge 8 mlp', 'ge 8 conv')


@pytest.mark.parametrize(
    ('kind', 'mode'),
    [
        pytest.param(kind, mode, marks=pytest.mark.slow if kind in SLOW else ())
        for kind in OURS
        for mode in ('inference', 'training')
        if mode in GOLDEN['blocks'][kind]
    ],
)
def test_output_and_gradients_equal_the_stored_ones(kind, mode):
    block, golden = OURS[kind], GOLDEN['blocks'][kind]
    x, cotangent = (
        np.random.default_rng(GOLDEN['seeds'][which]).normal(size=GOLDEN['shape'])
        for which in ('input', 'cotangent')
    )
    stored = {n: shape for n, shape in golden['weights'].items() if n != CANCELLED.get(kind)}
    places = {name: place(name, shape) for name, shape in stored.items()}

    def by_the_rule(prefix=''):
        return {
            path: in_our_layout(rule.weight(prefix + name, stored[name]))
            for name, path in places.items()
        }

    variables = flax.traverse_util.unflatten_dict(by_the_rule())
    params = variables.pop('params', {})

    @quick_jit
    def output_and_gradients(x, params, rest, cotangent):
        def apply(x, params):
            everything = {**rest, 'params': params}
            return block.apply(everything, x, train=mode == 'training', mutable=['batch_stats'])

        y, pullback, _ = jax.vjp(apply, x, params, has_aux=True)
        return y, *pullback(cotangent)

    with float64():
        y, dx, dparams = output_and_gradients(x, params, variables, cotangent)

    expected = golden[mode]
    assert_summary(y, rule.weight('beside output', x.shape), expected['output'], 'output')
    gradients = dict(expected['gradients'])
    assert_summary(dx, rule.weight('beside input', x.shape), gradients.pop('input'), 'input')
    dparams, beside = flax.traverse_util.flatten_dict({'params': dparams}), by_the_rule('beside ')
    assert {places[name] for name in gradients} == dparams.keys()
    for name, summary in gradients.items():
        assert_summary(dparams[places[name]], beside[places[name]], summary, name)


@pytest.mark.parametrize(('channels', 'size'), GOLDEN['eca_kernel_sizes'].items())
def test_eca_kernels_are_as_long_as_timms(channels, size):
    shapes = shapes_of(ECABlock(), (1, 2, 2, int(channels)))
    assert shapes['params']['conv']['kernel'].shape == (size, 1, 1)
