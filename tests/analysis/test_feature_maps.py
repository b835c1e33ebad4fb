from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.analysis.feature_maps import feature_maps, feature_shapes
from tests.helpers import quick_jit


@pytest.fixture(scope='module')
def network():
    model = create_model('ssa_resnet50', num_classes=5, stem='cifar', stage_sizes=(2, 1), width=8)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    return model, quick_jit(partial(model.init, train=False))(jax.random.key(0), images), images


def test_the_last_map_gives_the_logits(network):
    model, variables, images = network
    last = feature_maps(model, variables, images, ['layer2_0'])['layer2_0']
    fc = variables['params']['fc']
    expected = np.asarray(last).mean(axis=(1, 2)) @ fc['kernel'] + fc['bias']
    logits = quick_jit(partial(model.apply, train=False))(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_block_composes_its_layers(network):
    """From the map of bn3: the gate, the sum and the ReLU by hand."""
    model, variables, images = network
    maps = feature_maps(model, variables, images, ['layer1_*', 'layer1_1/bn3', '*/ssa/gate'])
    ssa = jax.tree.map(np.asarray, {k: v['layer1_1']['ssa'] for k, v in variables.items()})
    gated = SSABlock().apply(ssa, maps['layer1_1/bn3'], train=False)
    np.testing.assert_allclose(
        maps['layer1_1'], np.maximum(gated + maps['layer1_0'], 0), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        gated, maps['layer1_1/ssa/gate'] * maps['layer1_1/bn3'], rtol=1e-5, atol=1e-6
    )


def test_patterns_match_part_by_part_and_names_sort_naturally():
    model = create_model('ssa_resnet20', num_classes=5, stage_sizes=[11], width=4)
    images = jnp.ones((1, 8, 8, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    names = []
    jax.eval_shape(lambda v: names.extend(feature_maps(model, v, images, ['layer*'])), variables)
    assert names == [f'layer1_{index}' for index in range(11)]


def test_the_default_is_all_top_level_modules(network):
    model, variables, images = network
    assert list(feature_maps(model, variables, images)) == [
        'bn1',
        'conv1',
        'layer1_0',
        'layer1_1',
        'layer2_0',
    ]


def test_the_error_for_an_unknown_name_lists_the_nearest(network):
    model, variables, images = network
    with pytest.raises(ValueError, match=r"No feature map is called 'layr1_0'. Nearest: layer1_0"):
        feature_maps(model, variables, images, ['layr1_0'])


@pytest.mark.parametrize(
    'name', [pytest.param('densenet121', marks=pytest.mark.slow), 'mobilenet_v2', 'vgg16_bn']
)
def test_every_convolution_of_any_network_has_a_map(name):
    model = create_model(name, num_classes=5)
    image = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))['params']
    convs = {
        '/'.join(path[:-1]): kernel.shape[-1]
        for path, kernel in flax.traverse_util.flatten_dict(params).items()
        if path[-1] == 'kernel' and not path[0].startswith('fc')
    }
    shapes = feature_shapes(model, 64)
    assert {conv: shapes[conv][-1] for conv in convs} == convs
