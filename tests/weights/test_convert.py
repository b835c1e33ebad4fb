"""Conversion of weights between a network and its torch counterpart."""

import re
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.weights import convert, from_torch, to_arrays, to_torch
from tests.helpers import assert_trees_equal
from tests.weights.bits import bits, random_bits


def small(name='resnet18', **options):
    return create_model(
        name, num_classes=5, stem='cifar', stage_sizes=(1, 1), **{'width': 8, **options}
    )


@pytest.fixture(scope='module')
def weights():
    """Weights of `small()` under the torchvision naming."""
    model = small()
    return to_arrays(random_bits(convert.variable_shapes(model)), model)


def changed(weights, **others):
    """Replaces arrays; None removes one."""
    merged = weights | {name.replace('__', '.'): value for name, value in others.items()}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ('others', 'message'),
    [
        ({'aux__weight': np.zeros(3)}, r'Unexpected: aux\.weight\. Missing: none\.'),
        ({'bn1__bias': None}, r'Unexpected: none\. Missing: bn1\.bias\.'),
        ({'bn1__running_var': None}, r'Missing: bn1\.running_var\.'),
        (
            {'bn1__bias': None, 'bn7__bias': np.zeros(8)},
            r'Unexpected: bn7\.bias\. Missing: bn1\.bias\.',
        ),
        ({'fc__bias': np.zeros(7)}, r'fc\.bias has shape \(7,\), but ResNet needs \(5,\)'),
        ({'conv1__weight': np.zeros((3, 8, 3, 3))}, r'conv1\.weight has shape \(3, 8, 3, 3\)'),
        ({'conv1__weight': np.zeros((8, 3, 5, 5))}, r'conv1\.weight has shape \(8, 3, 5, 5\)'),
        ({'bn1__bias': np.zeros((8, 8))}, r'bn1\.bias has shape \(8, 8\)'),
        ({'bn1__bias': np.zeros(())}, r'bn1\.bias has shape \(\)'),
    ],
)
def test_a_mismatch_is_named(weights, others, message):
    with pytest.raises(ValueError, match=message):
        from_torch(changed(weights, **others), small())


@pytest.mark.parametrize(
    ('name', 'missing'), [('resnet50', 'layer1.0.conv3'), ('ssa_resnet18', 'layer1.0.ssa')]
)
def test_weights_of_another_network_are_rejected(weights, name, missing):
    with pytest.raises(ValueError, match=rf'Missing: .*{re.escape(missing)}'):
        from_torch(weights, small(name))


def test_only_the_first_ten_names_are_listed(weights):
    others = {f'aux{n}__weight': np.zeros(3) for n in range(12)}
    with pytest.raises(ValueError, match=r'aux7\.weight, \.\.\. \(12 in all\)'):
        from_torch(changed(weights, **others), small())


def test_ignored_weights_may_be_present(weights):
    others = {'aux1__conv__weight': np.zeros(3), 'aux2__bias': np.zeros(3)}
    state_dict = changed(weights, **others)
    assert_trees_equal(
        bits(from_torch(state_dict, small(), ignore=['aux1.*', 'aux2.bias'])),
        bits(from_torch(weights, small())),
    )
    with pytest.raises(ValueError, match=r'Unexpected: aux2\.bias\.'):
        from_torch(state_dict, small(), ignore=['aux1.*'])


def test_ignored_weights_are_not_loaded(weights):
    with pytest.raises(ValueError, match=r'Missing: fc\.bias, fc\.weight\.'):
        from_torch(weights, small(), ignore=['fc.*'])


@pytest.mark.parametrize('naming', ['torchvision', 'ssanet_cifar'])
def test_a_network_of_other_classes_is_loaded_without_its_head(weights, naming):
    variables = from_torch(weights, small())
    state_dict = to_arrays(variables, small(), naming=naming)
    found = from_torch(state_dict, small().clone(num_classes=7), head=False)
    del variables['params']['fc']
    assert_trees_equal(bits(found), bits(variables))
    with pytest.raises(ValueError, match='same num_classes'):
        from_torch(state_dict, small().clone(num_classes=7))


def test_an_absent_head_may_be_skipped(weights):
    without = changed(weights, fc__weight=None, fc__bias=None)
    assert 'fc' not in from_torch(without, small(), head=False)['params']


@pytest.mark.parametrize('name', ['se_resnet18', 'ssa_resnet18', 'ca_resnet18'])
def test_namings_are_detected(name):
    model = small(name, width=32)
    variables = random_bits(convert.variable_shapes(model))
    names = set()
    for naming in convert.namings(model):
        state_dict = to_arrays(variables, model, naming=naming)
        names.add(frozenset(state_dict))
        assert_trees_equal(bits(from_torch(state_dict, model)), bits(variables))
    assert len(names) > 2


def test_an_explicit_naming_is_used(weights):
    with pytest.raises(ValueError, match='under the naming ssanet_cifar'):
        from_torch(weights, small(), naming='ssanet_cifar')
    for call in (from_torch, to_arrays):
        with pytest.raises(ValueError, match="no naming 'tensorflow'; choose one of 'torchvis"):
            call(weights, small(), naming='tensorflow')


@pytest.mark.parametrize('name', ['se_resnet18', 'ca_resnet18'])
@pytest.mark.parametrize('as_conv', [False, True])
def test_dense_layers_of_attention_may_be_linear_or_convolutions(name, as_conv):
    model = small(name, width=32)
    variables = random_bits(convert.variable_shapes(model))
    state_dict = {
        key: value.reshape(*value.shape[:2], *([1, 1] if as_conv else []))
        if f'.{name[:2]}' in key and value.ndim > 1
        else value
        for key, value in to_arrays(variables, model, naming='torchvision').items()
    }
    assert sum(a.ndim == (4 if as_conv else 2) for a in state_dict.values()) > 4
    assert_trees_equal(bits(from_torch(state_dict, model)), bits(variables))


@pytest.mark.parametrize('flat', [False, True])
def test_the_first_dense_layer_of_vgg_may_be_flat_or_a_convolution(flat):
    """Flat, [out, C * H * W] as torch flattens feature maps, or as windows."""
    model = create_model('vgg11_bn', num_classes=5, widths=(8,) * 5, hidden=3)
    variables = random_bits(convert.variable_shapes(model))
    state_dict = to_arrays(variables, model, naming='torchvision')
    kernel = variables['params']['fc1']['kernel']  # [7, 7, 8, 3]
    weight = np.stack([kernel[..., unit].transpose(2, 0, 1) for unit in range(3)])
    np.testing.assert_array_equal(
        bits(state_dict['classifier.0.weight']), bits(weight.reshape(3, -1))
    )
    state_dict['classifier.0.weight'] = weight.reshape(3, -1) if flat else weight
    assert_trees_equal(bits(from_torch(state_dict, model)), bits(variables))


def test_kernels_are_transposed_and_vectors_are_not(weights):
    flat = flax.traverse_util.flatten_dict(from_torch(weights, small()), sep='/')
    for name, path in (
        ('layer2.0.conv1.weight', 'params/layer2_0/conv1/kernel'),
        ('layer2.0.downsample.0.weight', 'params/layer2_0/downsample/conv/kernel'),
    ):
        assert flat[path].shape == weights[name].shape[2:] + weights[name].shape[1::-1]
        for o, i, h, w in np.ndindex(weights[name].shape):
            assert bits(flat[path][h, w, i, o]) == bits(weights[name][o, i, h, w])
    np.testing.assert_array_equal(bits(flat['params/fc/kernel']), bits(weights['fc.weight'].T))
    np.testing.assert_array_equal(
        bits(flat['batch_stats/bn1/var']), bits(weights['bn1.running_var'])
    )


def test_vectors_may_have_axes_of_length_1(weights):
    wide = {name: a[:, None, None] if a.ndim == 1 else a for name, a in weights.items()}
    assert_trees_equal(from_torch(wide, small()), from_torch(weights, small()))


def test_half_precision_is_widened(weights):
    halves = {name: np.ones(value.shape, np.float16) for name, value in weights.items()}
    leaves = jax.tree.leaves(from_torch(halves, small()))
    assert {leaf.dtype for leaf in leaves} == {np.dtype('float32')}


def test_classes_are_counted_under_any_naming():
    for name, naming in (('resnet18', 'ssanet_cifar'), ('resnet18', 'timm')):
        model = small(name)
        variables = random_bits(convert.variable_shapes(model))
        state_dict = to_arrays(variables, model, naming=naming)
        state_dict = {f'module.{key}': value for key, value in state_dict.items()}
        assert convert.num_classes(state_dict, model.clone(num_classes=1)) == 5
    with pytest.raises(ValueError, match=r'no classifier of ResNet: .*linear\.bias'):
        convert.num_classes({'head.weight': np.zeros((5, 8))}, model)


def test_to_torch_needs_torch(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ImportError):
        to_torch(from_torch(weights, small()), small())
