"""Messages about weights that do not fit name what does."""

import math

import jax
import numpy as np
import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.weights import convert
from ssanet_jax.weights.matching import flatten, variable_shapes
from ssanet_jax.weights.remedies import networks_of_same_size
from ssanet_jax.weights.sizes import SIZES

QUICK = {'resnet8', 'vgg11_bn'}


def test_every_network_has_its_size():
    assert list(SIZES) == list(NETWORKS)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NETWORKS]
)
def test_sizes_are_those_of_the_networks(name):
    leaves = flatten(variable_shapes(create_model(name, num_classes=7)))
    trunk = [math.prod(leaf.shape) for path, leaf in leaves.items() if path[1] != 'fc']
    assert SIZES[name] == (len(trunk), sum(trunk))


def zeros(name, naming=None, **options):
    """Weights of a network under a naming."""
    model = create_model(name, num_classes=10, **options)
    shapes = convert.variable_shapes(model)
    variables = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), shapes)
    return weights.to_arrays(variables, model, naming=naming)


@pytest.mark.parametrize(
    ('name', 'naming', 'expected'),
    [
        ('resnet20', None, 'resnet20'),
        ('resnet20', 'ssanet_cifar', 'resnet20'),
        ('ssa_resnet20', 'ssanet_cifar', 'ssa_resnet20'),
        pytest.param('se_resnet18', 'timm', 'se_resnet18', marks=pytest.mark.slow),
        pytest.param('eca_resnet18', 'timm', 'eca_resnet18', marks=pytest.mark.slow),
        pytest.param('cbam_resnet18', 'timm', 'cbam_resnet18', marks=pytest.mark.slow),
        pytest.param('ca_resnet18', 'torchvision', 'ca_resnet18', marks=pytest.mark.slow),
        pytest.param('vgg11_bn', None, 'vgg11_bn', marks=pytest.mark.slow),
        ('vgg11_bn', 'timm', 'vgg11_bn'),
        pytest.param('preact_resnet18', 'timm', 'preact_resnet18', marks=pytest.mark.slow),
        pytest.param('mobilenet_v1', 'timm', 'mobilenet_v1', marks=pytest.mark.slow),
    ],
)
def test_the_network_of_weights_is_recognized(name, naming, expected):
    arrays = zeros(name, naming)
    assert networks_of_same_size(arrays) == [expected]
    wrapped = {f'module.{key}': value for key, value in arrays.items()}
    assert networks_of_same_size(wrapped) == [expected]


def test_other_weights_are_not_taken_for_a_network():
    arrays = {'patch_embed.proj.weight': np.zeros((8, 3, 4, 4)), 'head.bias': np.zeros(3)}
    assert networks_of_same_size(arrays) == []
    model = create_model('resnet8', num_classes=10)
    with pytest.raises(ValueError, match=r'have the size of no network here; .*summary --list'):
        weights.from_torch({'blocks.0.attn.qkv.weight': np.zeros((8, 8))}, model)


def test_another_depth_names_the_network():
    with pytest.raises(ValueError, match='these weights have the size of resnet20;'):
        weights.from_torch(zeros('resnet20'), create_model('resnet8', num_classes=10))


@pytest.mark.slow
def test_another_width_names_the_network():
    arrays = zeros('wide_resnet16_8', 'timm')
    model = create_model('wide_resnet16_8', num_classes=10, width=64)
    with pytest.raises(ValueError, match=r'has shape .* have the size of wide_resnet16_8;'):
        weights.from_torch(arrays, model)


@pytest.mark.parametrize('name', ['resnet18', pytest.param('densenet121', marks=pytest.mark.slow)])
def test_the_other_stem_is_named_and_fits(name):
    options = {'stage_sizes': (1,), 'width': 8}
    arrays = zeros(name, **options)
    model = create_model(name, num_classes=10, stem='cifar', **options)
    with pytest.raises(ValueError, match=r'other stem: --config\.model\.stem=imagenet \(--stem=im'):
        weights.from_torch(arrays, model)
    weights.from_torch(arrays, model.clone(stem='imagenet'))  # as the message says


def test_other_classes_name_a_new_head():
    arrays, model = zeros('resnet8'), create_model('resnet8', num_classes=2)
    message = r'the weights have 10 classes, the network has 2\. .*--config\.init\.head=new'
    with pytest.raises(ValueError, match=message):
        weights.from_torch(arrays, model)
    assert 'fc' not in weights.from_torch(arrays, model, head=False)['params']


def test_weights_without_a_head_name_a_new_one():
    arrays = {name: a for name, a in zeros('resnet8').items() if not name.startswith('fc.')}
    with pytest.raises(ValueError, match=r'Only the classifier differs: --config\.init\.head=new'):
        weights.from_torch(arrays, create_model('resnet8', num_classes=10))


def test_quantized_weights_are_refused():
    arrays = zeros('resnet8')
    arrays['conv1.weight'] = np.zeros(arrays['conv1.weight'].shape, np.int8)
    with pytest.raises(ValueError, match=r'conv1\.weight is not floating-point; .* quantization'):
        weights.from_torch(arrays, create_model('resnet8', num_classes=10))
