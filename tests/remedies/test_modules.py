"""The remedies in messages of networks, attention blocks, weights and targets."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import attention, create_model, weights
from ssanet_jax.analysis.feature_maps import _choose
from ssanet_jax.attention import gating
from ssanet_jax.layers import feature_map
from ssanet_jax.targets import find_topology
from ssanet_jax.weights.convert import variable_shapes
from tests.remedies.helpers import after, listed, refused

CHANNELS = 48


def shapes(module, x=(2, 4, 4, CHANNELS), dtype=jnp.float32):
    image = jax.ShapeDtypeStruct(x, dtype)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)


@pytest.mark.parametrize(
    ('block', 'options', 'phrase'),
    [
        (attention.SSABlock, {'squeeze': 'median'}, 'is not known; '),
        (attention.SSABlock, {'combine': 'product'}, 'is not known; '),
        (attention.SSABlock, {'num_groups': 5}, 'channels evenly; choose '),
    ],
)
def test_the_options_that_are_listed_work(block, options, phrase):
    (name,) = options
    for value in listed('choose one of ', refused(phrase, shapes, block(**options))):
        shapes(block(**{name: int(value) if value.isdigit() else value}))


@pytest.mark.parametrize(
    ('block', 'wrong', 'phrase', 'right'),
    [
        (attention.CBAMBlock, {'kernel_size': 4}, 'has no center; choose an odd one.', 5),
        (attention.ECABlock, {'kernel_size': 4}, 'has no center; choose an odd one, or 0 for a', 0),
        (attention.ECABlock, {'kernel_size': 4}, 'choose an odd one, or 0', 3),
        (attention.ECABlock, {'gamma': -1.0}, 'must be above 0; the paper has 2', 2.0),
    ],
)
def test_the_values_that_are_suggested_work(block, wrong, phrase, right):
    refused(phrase, shapes, block(**wrong))
    shapes(block(**dict.fromkeys(wrong, right)))


def test_the_ratios_that_are_named_leave_a_hidden_unit():
    message = refused('leaves no hidden unit', gating.hidden_width, 'SEBlock', CHANNELS, 99)
    low, high = re.search(r'a ratio from (\d+) to (\d+)', message).groups()
    assert gating.hidden_width('SEBlock', CHANNELS, int(low)) == CHANNELS
    assert gating.hidden_width('SEBlock', CHANNELS, int(high)) == 1


def test_a_size_of_groups_without_a_number_of_them_works():
    refused('expected num_groups, or ', gating.count_groups, CHANNELS, 2, 4)
    assert gating.count_groups(CHANNELS, 1, 4) == 12
    assert gating.count_groups(CHANNELS, 2, 0) == 2


def test_features_with_the_missing_axes_and_of_a_float_dtype_work():
    x = jnp.ones((4, 4, CHANNELS), jnp.uint8)
    require = partial(feature_map.require_feature_map, block='SSABlock')
    refused('Add the missing axes, or flatten', require, x)
    refused('Convert and normalize the image first', require, x[None])
    require(x[None].astype(jnp.float32))


@pytest.mark.slow
def test_larger_images_and_other_networks_work():
    vgg = create_model('vgg11_bn', num_classes=3, stem='imagenet')
    refused('use larger images', shapes, vgg, (1, 8, 8, 3))
    shapes(vgg, (1, 32, 32, 3))
    shapes(create_model('resnet8', num_classes=3), (1, 8, 8, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'options', 'phrase', 'right'),
    [
        ('resnet20', {'stem': 'big'}, 'stem=', ['imagenet', 'cifar']),
        ('resnet20', {'dropout': 1.0}, 'dropout=', [0.0, 0.5]),
        (
            'ssa_resnet20',
            {'attention_position': 'in'},
            'attention_position=',
            ['pre_residual', None],
        ),
        ('ssa_resnet20', {'attention_stages': 3}, 'must be a tuple of numbers', [(3, 2), None]),
        ('ssa_resnet20', {'stm': 'cifar'}, 'No ', []),
    ],
)
def test_the_options_of_networks_that_are_named_work(name, options, phrase, right):
    (option,) = options

    def build(model, **values):
        shapes(create_model(model, num_classes=3, **values), (1, 32, 32, 3))

    message = refused(phrase, build, name, **options)
    for value in right:
        assert value is None or not isinstance(value, str) or value in message
        build(name, **({option: value} if value is not None else {}))
    if not right:
        assert 'stem' in listed('Nearest: ', message)


@pytest.mark.parametrize(
    ('block', 'option', 'phrase', 'right'),
    [
        ({'variant': 'v2'}, 'variant', 'variant=', ['v1', 'v1.5']),
        ({'tail': 'fast'}, 'tail', 'tail=', ['auto', 'folded', 'plain']),
    ],
)
def test_the_forms_of_bottlenecks_that_are_named_work(block, option, phrase, right):
    def build(**options):
        model = create_model('resnet50', num_classes=3, stem='cifar', **options)
        shapes(model.clone(stage_sizes=(1,)), (1, 8, 8, 3))

    message = refused(phrase, build, **block)
    for value in right:
        assert repr(value) in message
        build(**{option: value})


def test_the_network_that_a_block_belongs_to_is_named():
    block = partial(attention.SSABlock, name='mine')
    make = partial(create_model, num_classes=3, attention=block)
    name = after('; use ', refused('contradicts the name', make, 'ssa_resnet20')).strip("'")
    assert make(name).attention is not None
    refused(
        'attention_options=', create_model, 'resnet20', num_classes=3, attention_options={'a': 1}
    )


def test_the_feature_maps_that_are_named_exist():
    known = ['layer1_0', 'layer1_1', 'layer1_0/conv1', 'fc']
    names = listed('Nearest: ', refused('No feature map is called', _choose, ['layr1_0'], known))
    assert _choose(names, known) == [name for name in known if name in names]


def test_the_namings_that_are_listed_exist():
    model = create_model('resnet8', num_classes=3)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), variable_shapes(model))
    write = partial(weights.to_arrays, params, model)
    for naming in listed('choose one of ', refused('has no naming', write, naming='keras')):
        assert write(naming=naming)


@pytest.mark.slow
def test_ssa_is_inserted_with_the_scale_that_is_named():
    model = create_model('ssa_vgg11_bn', num_classes=3, attention_options={'gate_scale': 1.0})
    plain = weights.without_attention(model)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape), variable_shapes(plain))
    message = refused('only the ', weights.insert_attention, variables, model)
    scale = float(after('choose gate_scale=', message))
    model = create_model('ssa_vgg11_bn', num_classes=3, attention_options={'gate_scale': scale})
    assert weights.insert_attention(variables, model)


@pytest.mark.parametrize('text', ['v5e:4x5', 'v6e', 'h100x3', 'h1000', 'tpu'])
def test_the_topologies_that_are_named_exist(text):
    message = refused('does not exist; nearest: ', find_topology, text)
    names = listed('nearest: ', message)
    assert len(names) == 3
    for name in names:
        assert find_topology(name)
