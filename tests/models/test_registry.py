from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ssanet_jax import SSABlock, create_model, layers, model_names
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.registry import NETWORKS, split_name
from ssanet_jax.models.residual_block import Bottleneck


def shapes(model):
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    )


def test_every_name_makes_a_network_with_the_attention_that_it_says():
    assert len(model_names()) == len(NETWORKS) * (1 + len(ATTENTION))
    for name in model_names():
        model = create_model(name, num_classes=7)
        kind, network = split_name(name)
        assert model.num_classes == 7
        assert name == (f'{kind}_{network}' if kind else network)
        assert (model.attention is None) == (kind is None)


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'stem': 'cifar', 'dropout': 0.1},
        {'norm_options': {'axis_name': 'data', 'axis_index_groups': [[0, 1], [2, 3]]}},
        {'norm_options': {'epsilon': 1e-3}, 'attention_stages': [1]},
        {'norm': partial(nn.BatchNorm, momentum=0.5)},
        {'attention': partial(SSABlock, norm=partial(nn.BatchNorm, epsilon=1.0), name='mine')},
    ],
    ids=str,
)
def test_models_made_twice_are_equal_and_compile_once(options):
    names = ['resnet50'] if 'attention' in options else ['ssa_resnet50', 'gssa_googlenet']
    for name in names if options else model_names():
        one, other = (create_model(name, num_classes=3, **options) for _ in range(2))
        assert one == other, name
        assert hash(one) == hash(other), name
        assert one != create_model(name, num_classes=4, **options), name


def test_models_with_other_options_differ():
    models = [
        create_model('ssa_resnet50', num_classes=3, **options)
        for options in (
            {},
            {'variant': 'v1'},
            {'attention_options': {'num_groups': 2}},
            {'norm_options': {'momentum': 0.5}},
            {'norm': partial(layers.BatchNorm, epsilon=1e-3)},
        )
    ]
    assert len(set(models)) == len(models)


def test_vgg_has_batch_norm_whether_its_name_says_so_or_not():
    assert create_model('ssa_vgg16', num_classes=7).stage_sizes == (2, 2, 3, 3, 3)
    assert split_name('ssa_vgg16') == ('ssa', 'vgg16_bn')
    assert split_name('vgg19') == (None, 'vgg19_bn')


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('ssa_resnet5', {}, "No model is called 'ssa_resnet5'. Nearest: .*ssa_resnet50"),
        ('alexnet', {}, "No model is called 'alexnet'. (Nearest|Known): "),
        ('resnet50', {'stm': 'cifar'}, "No option of resnet50 is called 'stm'. Nearest: stem"),
        ('vgg16_bn', {'tail': 'plain'}, "No option of vgg16_bn is called 'tail'"),
        ('ssa_vgg16_bn', {'attention_position': 'post_residual'}, 'No option of ssa_vgg16_bn'),
        ('densenet121', {'stochastic_depth': 0.1}, 'No option of densenet121'),
        ('resnet18', {'variant': 'v1'}, 'no bottlenecks of that kind; leave it unset'),
        ('densenet121', {'variant': 'v1'}, 'no bottlenecks of that kind; leave it unset'),
        ('None_resnet50', {}, "No model is called 'None_resnet50'"),
        ('resnet50', {'variant': 'v1', 'block': Bottleneck}, 'has no effect with block='),
        ('resnet50', {'variant': 'v2'}, "choose 'v1' or 'v1.5'"),
        ('ssa_resnet50', {'attention_options': {'group': 2}}, 'Nearest: .*num_groups'),
        ('resnet50', {'attention_options': {'num_groups': 2}}, 'has no effect on resnet50'),
        ('ssa_resnet50', {'attention': None}, "contradicts the name ssa_resnet50; use 'resnet50'"),
        ('resnet50', {'attention_stages': (1,)}, 'has no effect on resnet50, which has no attent'),
    ],
)
def test_an_unknown_name_or_option_is_refused_with_the_nearest(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, num_classes=10, **options)


def test_attention_options_reach_the_block():
    params = shapes(
        create_model('ssa_resnet20', num_classes=10, attention_options={'num_groups': 4})
    )['params']
    assert params['layer1_0']['ssa']['bn']['scale'].shape == (4,)
    params = shapes(create_model('se_resnet20', num_classes=10, attention_options={'ratio': 4}))[
        'params'
    ]
    assert params['layer1_0']['se']['fc1']['kernel'].shape == (16, 4)


def test_grouped_ssa_has_a_map_for_every_32_channels():
    params = shapes(create_model('gssa_resnet50', num_classes=10))['params']
    assert params['layer1_0']['gssa']['bn']['scale'].shape == (256 // 32,)
    assert params['layer4_2']['gssa']['bn']['scale'].shape == (2048 // 32,)
    params = shapes(create_model('gssa_resnet20', num_classes=10))['params']
    assert params['layer1_0']['gssa']['bn']['scale'].shape == (1,)


def test_every_batch_norm_is_made_by_norm_the_attentions_too():
    made = []

    def norm(**kwargs):
        made.append(kwargs['name'])
        return nn.BatchNorm(**kwargs)

    shapes(create_model('ssa_resnet20', num_classes=10, norm=norm))
    assert made.count('bn') == 9  # one an SSA block
    assert len(made) == 1 + 9 * 3


def test_norm_options_keep_what_a_network_has_of_its_own():
    """GoogLeNet's epsilon is not 1e-5, but that of its attention is."""
    model = create_model('ssa_googlenet', num_classes=10, norm_options={'momentum': 0.5})
    norm = model.norm(use_running_average=True)
    block = model.attention(parent=None)
    inner = block.norm(use_running_average=True)
    assert (norm.momentum, norm.epsilon) == (0.5, 1e-3)
    assert (inner.momentum, inner.epsilon) == (0.5, 1e-5)


def test_norm_options_reach_a_custom_attention():
    model = create_model(
        'resnet20',
        num_classes=10,
        attention=partial(SSABlock, name='mine'),
        norm_options={'axis_name': 'data'},
    )
    assert model.attention(parent=None).norm(use_running_average=True).axis_name == 'data'


def test_a_custom_attention_takes_the_slot():
    model = create_model(
        'resnet20', num_classes=10, attention=partial(SSABlock, num_groups=2, name='mine')
    )
    assert shapes(model)['params']['layer3_2']['mine']['bn']['bias'].shape == (2,)


def test_an_imagenet_stem_can_be_had_on_a_thin_network():
    params = shapes(create_model('resnet20', num_classes=10, stem='imagenet'))['params']
    assert params['conv1']['kernel'].shape == (7, 7, 3, 16)
    with pytest.raises(ValueError, match="choose 'imagenet' or 'cifar' or 'deep'"):
        shapes(create_model('resnet20', num_classes=10, stem='cifr'))
    with pytest.raises(ValueError, match=r"choose 'imagenet' or 'cifar'\."):
        shapes(create_model('vgg11_bn', num_classes=10, stem='deep'))
