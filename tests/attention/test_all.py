"""Properties that hold for every block of ATTENTION."""

import dataclasses
import functools
import math
import os
import subprocess
import sys
from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import attention, layers
from ssanet_jax.attention import ATTENTION
from tests.attention.oracle import shapes_of
from tests.helpers import ROOT, quick_jit

SHAPE = (2, 5, 4, 64)
CLASSES = {kind: layers.unwrap_partial(ATTENTION[kind]) for kind in sorted(ATTENTION)}
EACH = pytest.mark.parametrize('kind', CLASSES)

# For each option of each class another value, with the options that it needs to matter.
NORM = {
    'norm': {'norm': partial(layers.BatchNorm, epsilon=1.0)},
    'epsilon': {'epsilon': 1.0},
    'momentum': {'momentum': 0.5},
    'axis_name': {'axis_name': 'batch'},
}
OTHER = {
    attention.CBAMBlock: {
        'ratio': {'ratio': 8},
        'kernel_size': {'kernel_size': 3},
        'mlp_bias': {'mlp_bias': False},
        **NORM,
    },
    attention.CoordinateBlock: {
        'ratio': {'ratio': 4},
        'bias': {'bias': False},
        **NORM,
    },
    attention.ECABlock: {
        'kernel_size': {'kernel_size': 5},
        'gamma': {'gamma': 1.0},
        'beta': {'beta': 5.0},
    },
    attention.GEBlock: {
        'extent': {'extent': 2},
        'gather': {'gather': 'conv'},
        'excite': {'excite': 'mlp'},
        'ratio': {'ratio': 8, 'excite': 'mlp'},
        **{name: {**options, 'gather': 'conv'} for name, options in NORM.items()},
    },
    attention.SCSEBlock: {'ratio': {'ratio': 4}, 'combine': {'combine': 'max'}},
    attention.SEBlock: {'ratio': {'ratio': 4}},
    attention.SSABlock: {
        'squeeze': {'squeeze': 'max'},
        'combine': {'combine': 'mean'},
        'num_groups': {'num_groups': 2},
        'group_size': {'group_size': 16},
        'gate_scale': {'gate_scale': 2.0},
        'zero_init': {'zero_init': True},
        **NORM,
    },
    attention.SSEBlock: {},
    attention.SimAMBlock: {'regularizer': {'regularizer': 0.5}},
    attention.SpatialBlock: NORM,
}


def features(dtype=np.float32):
    return np.random.default_rng(0).normal(size=SHAPE).astype(dtype)


@functools.cache
def variables_of(block):
    """Random variables with the shapes of the block."""
    shapes = shapes_of(block, SHAPE)
    rng = np.random.default_rng(1)
    flat = {
        path: rng.uniform(0.2, 1.0, leaf.shape).astype(leaf.dtype)
        * (1 if path[-1] == 'var' else rng.choice([-1, 1], leaf.shape).astype(leaf.dtype))
        for path, leaf in flax.traverse_util.flatten_dict(shapes).items()
    }
    return flax.traverse_util.unflatten_dict(flat)


@EACH
@pytest.mark.parametrize(('dtype', 'train'), [(jnp.float32, False), (jnp.bfloat16, True)], ids=str)
def test_the_result_has_the_shape_and_dtype_of_the_input(kind, dtype, train):
    block = ATTENTION[kind]()
    x = jnp.asarray(features(), dtype)
    y, _ = jax.eval_shape(
        partial(block.apply, train=train, mutable=['batch_stats']), variables_of(block), x
    )
    assert (y.shape, y.dtype) == (x.shape, dtype)


@EACH
def test_bfloat16_loses_only_the_rounding_of_its_input_and_output(kind):
    block = ATTENTION[kind]()
    variables, x = variables_of(block), jnp.asarray(features(), jnp.bfloat16)
    apply = quick_jit(partial(block.apply, train=True, mutable=['batch_stats']))
    y, exact = (apply(variables, x)[0] for x in (x, x.astype(jnp.float32)))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@EACH
def test_the_input_and_every_parameter_get_a_gradient_in_training(kind):
    block = ATTENTION[kind]()
    x = features()
    variables = quick_jit(partial(block.init, train=False))(jax.random.key(0), x)
    cotangent = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)

    def loss(x, params):
        everything = {**variables, 'params': params}
        y, _ = block.apply(everything, x, train=True, mutable=['batch_stats'])
        return jnp.vdot(cotangent, y)

    gradients = quick_jit(jax.grad(loss, (0, 1)))(x, variables.get('params', {}))
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


@EACH
def test_the_result_is_the_input_times_the_sown_gates(kind):
    block = ATTENTION[kind]()
    variables, x = variables_of(block), features()
    apply = partial(block.apply, train=False)
    y, extra = quick_jit(partial(apply, mutable=['intermediates']))(variables, x)
    flat = flax.traverse_util.flatten_dict(extra['intermediates'])
    gates = [sown for path, (sown,) in flat.items() if path[-1] == 'gate']
    assert len(gates) == {'cbam': 2, 'scse': 2}.get(kind, 1)
    assert all(0 < gate.min() <= gate.max() < 1 for gate in gates)
    for_channels = [np.repeat(gate, SHAPE[-1] // gate.shape[-1], axis=-1) for gate in gates]
    together = sum(for_channels) if kind == 'scse' else math.prod(for_channels)
    np.testing.assert_allclose(y, together * x, rtol=1e-6)
    np.testing.assert_array_equal(quick_jit(apply)(variables, x), y)


@EACH
@pytest.mark.parametrize('shape', [(4, 4, 64), (1, 1, 4, 4, 64)], ids=str)
def test_an_array_that_is_not_4d_is_refused(kind, shape):
    name = CLASSES[kind].__name__
    with pytest.raises(ValueError, match=rf'{name} expects a feature map \[N, H, W, C\], got'):
        ATTENTION[kind]().init(jax.random.key(0), np.ones(shape, np.float32), train=False)


@EACH
def test_integers_are_refused(kind):
    name = CLASSES[kind].__name__
    with pytest.raises(TypeError, match=f'{name} expects floating-point features, got uint8'):
        ATTENTION[kind]().init(jax.random.key(0), np.ones(SHAPE, np.uint8), train=False)


@EACH
def test_every_option_has_another_value_above(kind):
    block = CLASSES[kind]
    options = {field.name for field in dataclasses.fields(block)} - {'parent', 'name', 'train'}
    assert OTHER.get(block, {}).keys() == options, f'complete OTHER above for {block.__name__}'


def programs_differ(*blocks):
    before, after = (training_step(block).lower(INPUT).as_text() for block in blocks)
    return before != after


def values_differ(*blocks):
    before, after = (training_step(block)(INPUT) for block in blocks)
    same = jax.tree.map(np.shape, before) == jax.tree.map(np.shape, after)
    return not same or not jax.tree.all(
        jax.tree.map(partial(np.allclose, rtol=1e-3), before, after)
    )


INPUT = np.random.default_rng(0).normal(size=(2, 2, 4, 3, 64)).astype(np.float32)


def training_step(block):
    """New variables, and the output and statistics of a training step on two devices of 'batch'."""

    @quick_jit
    def run(x):
        variables = block.init(jax.random.key(0), x[0], train=False)
        step = partial(block.apply, train=True, mutable=['batch_stats'])
        return variables, jax.vmap(step, (None, 0), axis_name='batch')(variables, x)

    return run


@pytest.mark.parametrize(
    'differ', [programs_differ, pytest.param(values_differ, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ('block', 'option'),
    [
        pytest.param(block, option, id=f'{block.__name__} {option}')
        for block, others in OTHER.items()
        for option in others
    ],
)
def test_every_option_does_something(block, option, differ):
    """Another value changes the initial variables, the output or the new statistics."""
    options = OTHER[block][option]
    assert differ(block(**{k: v for k, v in options.items() if k != option}), block(**options))


@pytest.mark.slow
def test_tests_are_collected_with_one_more_block_and_network():
    """As docs/extending.md adds them: a new line must not break what lists all."""
    program = """
from functools import partial
from ssanet_jax.attention import ATTENTION, SSABlock
from ssanet_jax.models.registry import NETWORKS
ATTENTION['magnitude'] = SSABlock
NETWORKS['plain6'] = NETWORKS['resnet8']
import tests.attention.test_all
import tests.attention.test_transforms
import tests.layers.test_by_value
import tests.models.test_edges
import tests.models.test_network
import tests.models.test_registry
import tests.weights.test_names
import tests.weights.test_remedies
"""
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, env=environment, check=True)
