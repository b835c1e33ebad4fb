"""Attention maps and Grad-CAM against loops, and in every family of networks."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.analysis.feature_maps import feature_maps
from ssanet_jax.analysis.interception import on_call
from ssanet_jax.analysis.saliency import grad_cam, rescale, saliency_maps
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.network import Network, apply_attention
from ssanet_jax.models.residual_block import BasicBlock
from tests.helpers import float64

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def trained(model):
    """Variables in which no scale, bias or statistic has its initial value."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(size=leaf.shape, scale=leaf.size**-0.4).astype(np.float32)

    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))
    return jax.tree.map(draw, shapes)


def small(name, **options):
    model = create_model(name, num_classes=5, stem='cifar', **options)
    return model, trained(model)


@pytest.mark.parametrize('groups', [1, 2])
def test_a_map_is_the_gate_that_pixels_are_multiplied_by(groups):
    model, variables = small(
        'ssa_resnet20', stage_sizes=(1,), width=4, attention_options={'num_groups': groups}
    )
    found = saliency_maps(model, variables, IMAGES).blocks['layer1_0/ssa']
    x = np.asarray(feature_maps(model, variables, IMAGES, ['layer1_0/bn2'])['layer1_0/bn2'])
    bn = {**variables['params']['layer1_0']['ssa']['bn']}
    bn |= variables['batch_stats']['layer1_0']['ssa']['bn']
    expected = np.zeros((2, 8, 8))
    for n, h, w, g in np.ndindex(2, 8, 8, groups):
        channels = range(g * 4 // groups, (g + 1) * 4 // groups)
        s = sum(x[n, :, :, c].mean() * x[n, h, w, c] for c in channels)
        logit = (s - bn['mean'][g]) / math.sqrt(bn['var'][g] + 1e-5) * bn['scale'][g]
        expected[n, h, w] += 1 / (1 + math.exp(-logit - bn['bias'][g])) / groups
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_stages_are_means_of_blocks_and_their_mean_has_the_images_size():
    model, variables = small('ssa_resnet20', stage_sizes=(2, 1), width=4)
    blocks, stages, mean = saliency_maps(model, variables, IMAGES)
    assert list(blocks) == ['layer1_0/ssa', 'layer1_1/ssa', 'layer2_0/ssa']
    first = (np.asarray(blocks['layer1_0/ssa']) + np.asarray(blocks['layer1_1/ssa'])) / 2
    np.testing.assert_allclose(stages['stage1'], first, rtol=1e-6)
    second = np.asarray(stages['stage2'])
    assert second.shape == (2, 4, 4)
    for n, h, w in np.ndindex(2, 8, 8):
        # Between the centers of pixels twice as large.
        y, x = (min(max((place + 0.5) / 2 - 0.5, 0), 3) for place in (h, w))
        top, left = min(int(y), 2), min(int(x), 2)
        value = 0.0
        for i, j in np.ndindex(2, 2):
            share = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            value += share * second[n, top + i, left + j]
        assert mean[n, h, w] == pytest.approx((first[n, h, w] + value) / 2, rel=1e-5)


WITHOUT_MAPS = ('eca', 'ge', 'se')


@pytest.mark.parametrize('kind', sorted(ATTENTION))
def test_which_attention_has_maps(kind):
    model = create_model(f'{kind}_resnet20', num_classes=5, stage_sizes=(1, 1))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), IMAGES, train=False))

    def shapes():
        found = jax.eval_shape(lambda v: saliency_maps(model, v, IMAGES).blocks, variables)
        return [value.shape for value in found.values()]

    if kind in WITHOUT_MAPS:
        with pytest.raises(
            ValueError, match=rf'layer1_0/{kind} has \[N, 1, 1, \d+\].*use grad_cam'
        ):
            shapes()
    else:
        assert shapes() == [(2, 8, 8), (2, 4, 4)]


def test_gather_excite_has_maps_unless_its_extent_is_the_whole_map():
    model, variables = small(
        'ge_resnet20', stage_sizes=(1,), width=4, attention_options={'extent': 2}
    )
    assert saliency_maps(model, variables, IMAGES).stages['stage1'].shape == (2, 8, 8)


def test_the_error_for_a_network_without_attention_names_alternatives():
    model, variables = small('resnet20', stage_sizes=(1,), width=4)
    with pytest.raises(ValueError, match=r'it has no attention\); choose ssa, .* grad_cam'):
        saliency_maps(model, variables, IMAGES)


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        ('ssa_vgg11', [1, 2, 3, 4, 5]),
        ('ssa_googlenet', [3, 4, 5]),
        ('ssa_mobilenet_v2', [1, 2, 3, 4, 5, 6, 7]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ('ssa_resnet32', [1, 2, 3]),
                ('ssa_preact_resnet18', [1, 2, 3, 4]),
                ('ssa_densenet121', [1, 2, 3, 4]),
                ('ssa_mobilenet_v1', [1, 2, 3, 4, 5]),
                ('ssa_residual_attention56', [1, 2, 3, 4]),
            ]
        ),
    ],
)
def test_every_network_has_stages_of_maps_of_one_size(name, stages):
    options = {'stage_sizes': (2, 2, 2, 2)} if 'densenet' in name else {}
    model = create_model(name, num_classes=5, stem='cifar', **options)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    found = jax.eval_shape(lambda v: saliency_maps(model, v, images), variables)
    assert list(found.stages) == [f'stage{number}' for number in stages]
    assert len(found.blocks) == sum(model.blocks)
    assert found.mean.shape == (1, 32, 32)


class Own(Network, kw_only=True):
    """A network whose block has no number in its name."""

    blocks = (1,)

    def features(self, x, *, train):
        x = nn.Conv(4, (3, 3), name='conv')(x)
        return apply_attention(self.attention_at(1, 0), x, train=train)


def test_a_block_without_a_number_is_a_separate_stage():
    model = Own(num_classes=5, attention=partial(SSABlock, name='attention'))
    maps = saliency_maps(model, trained(model), IMAGES)
    assert list(maps.blocks) == list(maps.stages) == ['attention']
    np.testing.assert_allclose(maps.mean, maps.blocks['attention'], rtol=1e-6)


def test_blocks_come_in_the_order_of_computation():
    model, variables = small('ssa_resnet20', stage_sizes=(11,), width=4)
    blocks = saliency_maps(model, variables, IMAGES).blocks
    assert list(blocks) == [f'layer1_{index}/ssa' for index in range(11)]


def test_folding_batch_norms_keeps_the_maps():
    model, variables = small('ssa_resnet50', stage_sizes=(1, 1), width=4)
    expected = saliency_maps(model, variables, IMAGES).mean
    found = saliency_maps(*for_inference(model, variables), IMAGES).mean
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_rescaling_gives_each_map_the_range_from_0_to_1():
    maps = np.random.default_rng(2).normal(size=(3, 4, 5))
    maps[1] = 7.0
    for before, after in zip(maps, rescale(maps), strict=True):
        low, high = before.min(), before.max()
        expected = [[(v - low) / (high - low) if high > low else 0 for v in row] for row in before]
        np.testing.assert_allclose(after, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('ssa_resnet50', {'stage_sizes': (1, 1), 'width': 4}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ('resnet20', {'stage_sizes': (1, 1), 'width': 4}),
                ('sa_densenet121', {'stage_sizes': (1, 1), 'width': 8, 'growth': 4}),
                ('ssa_mobilenet_v1', {'stage_sizes': (1, 1), 'width': 4}),
            ]
        ),
    ],
)
def test_where_a_mean_and_a_dense_layer_follow_grad_cam_is_cam(name, options):
    """relu(sum_c w[c, label] A_c) / (h w), Zhou et al. 2016, https://arxiv.org/abs/1512.04150."""
    model, variables = small(name, **options)
    inputs = {}

    def watch(call):
        inputs['features'] = np.asarray(call.args[0])
        return call()

    with on_call(watch, 'classify'):
        model.apply(variables, IMAGES, train=False)
    features, labels = inputs['features'], np.array([3, 1])
    kernel = variables['params']['fc']['kernel']
    n, height, width, channels = features.shape
    expected = np.zeros((n, height, width))
    for i, h, w in np.ndindex(n, height, width):
        total = sum(kernel[c, labels[i]] * features[i, h, w, c] for c in range(channels))
        expected[i, h, w] = max(total, 0) / (height * width)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(
        grad_cam(model, variables, IMAGES, labels), expected, rtol=1e-4, atol=1e-7
    )


def test_grad_cam_of_an_inner_layer_matches_finite_differences():
    model, variables = small('resnet20', stage_sizes=(1, 1), width=4, projection=True)
    labels = np.array([4, 0])
    found = grad_cam(model, variables, IMAGES, labels, 'layer1_0')
    features = feature_maps(model, variables, IMAGES, ['layer1_0'])['layer1_0']
    rest = BasicBlock(width=8, stride=2)
    with float64():
        inner = {
            kind: jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree['layer2_0'])
            for kind, tree in variables.items()
        }
        kernel = np.asarray(variables['params']['fc']['kernel'], np.float64)
        for n, label in enumerate(labels):
            a = np.asarray(features[n], np.float64)
            steps = 1e-6 * np.eye(a.size).reshape(-1, *a.shape)
            up, down = (rest.apply(inner, a + sign * steps, train=False) for sign in (1, -1))
            logits = np.asarray(up - down).mean(axis=(1, 2)) @ kernel[:, label]
            gradient = (logits / 2e-6).reshape(a.shape)
            weights = [gradient[:, :, c].mean() for c in range(a.shape[2])]
            expected = np.maximum(sum(w * a[:, :, c] for c, w in enumerate(weights)), 0)
            np.testing.assert_allclose(found[n], expected, rtol=1e-4, atol=1e-7)


def test_grad_cam_in_bfloat16_is_near_that_in_float32():
    model, variables = small('ssa_resnet50', stage_sizes=(1, 1), width=4)
    expected = grad_cam(model, variables, IMAGES, [1, 2])
    found = grad_cam(model.clone(dtype=jnp.bfloat16), variables, IMAGES, [1, 2])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.02 * expected.max())


@pytest.mark.parametrize('labels', [[0], [0, 5], [-1, 0], [0.0, 1.0]])
def test_invalid_labels_are_refused(labels):
    model, variables = small('resnet20', stage_sizes=(1,), width=4)
    with pytest.raises(ValueError, match='needs 2 labels from 0 to 4'):
        grad_cam(model, variables, IMAGES, labels)


@pytest.mark.parametrize(
    ('layer', 'nearest'), [('layer1', 'layer1_0'), ('fc', 'layer1_0'), ('layer1_0/cov2', 'conv2')]
)
def test_the_error_for_a_layer_without_a_map_names_the_nearest(layer, nearest):
    model, variables = small('resnet20', stage_sizes=(1,), width=4)
    with pytest.raises(ValueError, match=rf"called '{layer}' has a feature map. .*{nearest}"):
        grad_cam(model, variables, IMAGES, [0, 0], layer)
