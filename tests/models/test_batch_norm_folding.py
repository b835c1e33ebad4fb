from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.models.batch_norm_folding import fold_batch_norm, for_inference
from ssanet_jax.models.mobilenet import Stage
from ssanet_jax.models.resnet import BasicBlock, Bottleneck, ResNet

RNG = np.random.default_rng(0)


def trained(model, size=32):
    """Variables as training leaves them: scales, biases and statistics all their own."""
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, size, size, 3)), train=False)
    )
    return jax.tree.map(
        lambda s: (RNG.uniform(0.5, 1.5, s.shape) * (s.size**-0.5 if s.ndim > 1 else 1)).astype(
            np.float32
        ),
        shapes,
    )


@pytest.mark.parametrize('kind', ['', 'ssa_', 'se_'])
@pytest.mark.parametrize('block', [BasicBlock, Bottleneck])
def test_logits_are_kept(kind, block):
    model = create_model(
        f'{kind}resnet18', num_classes=10, block=block, width=16, stage_sizes=(2, 1)
    )
    variables = trained(model)
    images = jnp.asarray(RNG.normal(size=(3, 32, 32, 3)), jnp.float32)
    expected = model.apply(variables, images, train=False)
    folded, folded_variables = fold_batch_norm(model, variables)
    logits = folded.apply(folded_variables, images, train=False)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('resnext50_32x4d', {}),
        ('cbam_resnet50', {}),
        ('gssa_resnet50', {}),
        ('ssa_resnet50', {'attention_position': 'post_residual'}),
        ('ge_resnet50', {'attention_options': {'gather': 'conv', 'extent': 2}}),
    ],
)
def test_logits_are_kept_with_other_blocks_and_places(name, options):
    assert_kept(create_model(name, num_classes=10, stage_sizes=(1, 1), stem='cifar', **options), 8)


def assert_kept(model, size):
    """Folds `model`, compares logits, and returns the folded variables."""
    variables = trained(model, size)
    images = jnp.asarray(RNG.normal(size=(2, size, size, 3)), jnp.float32)
    expected = jax.jit(partial(model.apply, train=False))(variables, images)
    folded, folded_variables = fold_batch_norm(model, variables)
    logits = jax.jit(partial(folded.apply, train=False))(folded_variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return folded_variables


SMALL = (4, 4, 4, 4, 4, 4)  # channels of an Inception module


@pytest.mark.parametrize(
    ('name', 'size', 'options'),
    [
        ('cbam_vgg11_bn', 8, {'stage_sizes': (1, 2), 'widths': (16, 16), 'stem': 'cifar'}),
        ('googlenet', 32, {'stages': ((SMALL,), (SMALL,), (SMALL,))}),
        ('ssa_mobilenet_v1', 16, {'stage_sizes': (1, 1), 'width': 8}),
        ('ssa_mobilenet_v2', 16, {'stages': (Stage(1, 8, 1, 1), Stage(6, 8, 2, 2))}),
    ],
)
def test_other_families_keep_their_logits_and_no_batch_norm_but_those_of_attention(
    name, size, options
):
    folded = assert_kept(create_model(name, num_classes=10, **options), size)
    left = {path[-3].key for path, _ in jax.tree_util.tree_leaves_with_path(folded['batch_stats'])}
    assert left == {'cbam': {'spatial'}, 'googlenet': set(), 'ssa': {'ssa'}}[name.split('_')[0]]


@pytest.mark.parametrize(
    'name', ['preact_resnet18', 'wide_resnet16_8', 'densenet121', 'residual_attention56']
)
def test_networks_with_batch_norms_in_front_of_convolutions_stay_as_they_are(name):
    model = create_model(name, num_classes=10)
    assert for_inference(model, {}) == (model, {})
    with pytest.raises(TypeError, match=r'knows GoogLeNet, .*, got'):
        fold_batch_norm(model, {})


def test_in_bfloat16_nothing_is_folded():
    model = create_model('vgg11_bn', num_classes=10, dtype=jnp.bfloat16)
    assert for_inference(model, {}) == (model, {})


def test_a_network_of_ones_own_that_builds_on_another_stays_as_it_is():
    """It may have BatchNorms that no convolution feeds."""

    class Own(ResNet):
        def features(self, x, *, train):
            return self.norm(not train, name='first')(super().features(x, train=train))

    model = Own(num_classes=10, block=BasicBlock, stage_sizes=(1,))
    assert for_inference(model, {}) == (model, {})


def test_only_the_batch_norms_of_ssa_are_left():
    model = create_model('ssa_resnet20', num_classes=10)
    _, folded = fold_batch_norm(model, trained(model))
    left = {path[-3].key for path, _ in jax.tree_util.tree_leaves_with_path(folded['batch_stats'])}
    assert left == {'ssa'}
    assert not any(
        path[-1].key == 'scale' and path[-3].key != 'ssa'
        for path, _ in jax.tree_util.tree_leaves_with_path(folded['params'])
    )


def test_a_folded_network_refuses_to_train():
    model = create_model('resnet20', num_classes=10)
    folded, variables = fold_batch_norm(model, trained(model))
    with pytest.raises(ValueError, match='no statistics to train'):
        folded.apply(variables, jnp.ones((1, 32, 32, 3)), train=True)


def test_other_networks_and_norms_are_refused():
    with pytest.raises(TypeError, match='got Dense'):
        fold_batch_norm(nn.Dense(3), {})
    model = create_model('resnet20', num_classes=10, norm=nn.BatchNorm)
    with pytest.raises(TypeError, match='got BatchNorm'):
        fold_batch_norm(model, {})


def test_attention_of_ones_own_is_left_alone():
    """Its `conv` and `bn` are not the network's."""

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            gate = nn.BatchNorm(not train, name='bn')(nn.Conv(1, (1, 1), name='conv')(x))
            return nn.sigmoid(gate) * x

    model = create_model('resnet20', num_classes=10, attention=partial(Own, name='own'))
    variables = trained(model)
    images = jnp.asarray(RNG.normal(size=(2, 32, 32, 3)), jnp.float32)
    expected = model.apply(variables, images, train=False)
    folded, folded_variables = fold_batch_norm(model, variables)
    logits = folded.apply(folded_variables, images, train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
