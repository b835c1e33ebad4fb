from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model, layers
from ssanet_jax.attention import SpatialBlock
from ssanet_jax.config import base
from ssanet_jax.models.batch_norm_folding import fold_batch_norm, for_inference
from ssanet_jax.models.mobilenet import Stage
from ssanet_jax.models.residual_block import BasicBlock, Bottleneck, ResidualBlock
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from tests.helpers import quick_jit


def trained(model, size=32):
    """Variables with random scales, biases and statistics, as after training."""
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, size, size, 3)), train=False)
    )
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: (rng.uniform(0.5, 1.5, s.shape) * (s.size**-0.5 if s.ndim > 1 else 1)).astype(
            np.float32
        ),
        shapes,
    )


@pytest.mark.parametrize(
    ('name', 'block'),
    [('se_resnet18', BasicBlock), ('ssa_resnet18', BasicBlock), ('ssa_resnet18', Bottleneck)],
)
def test_logits_are_kept(name, block):
    model = create_model(name, num_classes=10, block=block, width=16, stage_sizes=(1, 1))
    assert_kept(model, 32)


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
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, size, size, 3)), jnp.float32)
    expected = quick_jit(partial(model.apply, train=False))(variables, images)
    folded, folded_variables = for_inference(model, variables)
    assert folded != model
    logits = quick_jit(partial(folded.apply, train=False))(folded_variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return folded_variables


SMALL = (4, 4, 4, 4, 4, 4)  # channels of an Inception module


@pytest.mark.parametrize(
    ('name', 'size', 'options'),
    [
        ('cbam_vgg11_bn', 8, {'stage_sizes': (1, 2), 'widths': (16, 16), 'stem': 'cifar'}),
        ('googlenet', 32, {'stages': ((SMALL,), (SMALL,), (SMALL,))}),
        ('resnet50d', 36, {'stage_sizes': (1, 1), 'width': 16}),
        ('ssa_mobilenet_v1', 16, {'stage_sizes': (1, 1), 'width': 8}),
        ('ssa_mobilenet_v2', 16, {'stages': (Stage(1, 8, 1, 1), Stage(6, 8, 2, 2))}),
    ],
)
def test_other_families_keep_their_logits_and_no_batch_norm_but_those_of_attention(
    name, size, options
):
    folded = assert_kept(create_model(name, num_classes=10, **options), size)
    left = {path[-3].key for path, _ in jax.tree_util.tree_leaves_with_path(folded['batch_stats'])}
    assert left == {'cbam': {'spatial'}, 'ssa': {'ssa'}}.get(name.split('_')[0], set())


@pytest.mark.parametrize(
    'name', ['preact_resnet18', 'wide_resnet16_8', 'densenet121', 'residual_attention56']
)
def test_networks_with_batch_norms_in_front_of_convolutions_stay_as_they_are(name):
    model = create_model(name, num_classes=10)
    assert for_inference(model, {}) == (model, {})
    with pytest.raises(TypeError, match=r'supports only GoogLeNet, .*, got'):
        fold_batch_norm(model, {})


def test_in_bfloat16_nothing_is_folded():
    model = create_model('vgg11_bn', num_classes=10, dtype=jnp.bfloat16)
    assert for_inference(model, {}) == (model, {})


def test_a_subclass_of_a_network_is_not_folded():
    """It may have BatchNorms that no convolution feeds."""

    class Own(ResNet):
        def features(self, x, *, train):
            return self.norm(not train, name='first')(super().features(x, train=train))

    model = Own(num_classes=10, block=BasicBlock, stage_sizes=(1,))
    assert for_inference(model, {}) == (model, {})


class OtherNames(ResidualBlock):
    """A 3x3 convolution and a BatchNorm that is not called bn."""

    expansion: ClassVar[int] = 1
    num_convs: ClassVar[int] = 2
    last_kernel: ClassVar[int] = 3

    def inner(self, x, *, train):
        x = layers.conv(self.width, 3, stride=self.stride, dtype=x.dtype, name='conv1')(x)
        return nn.relu(layers.batch_norm(x, train=train, name='norm1', norm=self.norm))


class OtherOrder(OtherNames):
    """A BatchNorm named as if it followed the convolution, which it precedes."""

    def inner(self, x, *, train):
        x = nn.relu(layers.batch_norm(x, train=train, name='bn1', norm=self.norm))
        return layers.conv(self.width, 3, stride=self.stride, dtype=x.dtype, name='conv1')(x)


class OtherNorm(layers.BatchNorm):
    def __call__(self, x):
        return jnp.tanh(super().__call__(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'block': OtherNames}, r'got block=.*OtherNames.*; call the model as it is'),
        ({'block': partial(OtherOrder, stride=1)}, 'got block=.*OtherOrder'),
        ({'norm': OtherNorm}, "this package's BatchNorm, got norm=.*OtherNorm"),
        ({'norm': nn.BatchNorm}, "this package's BatchNorm, got norm=.*flax"),
        ({'attention': partial(SpatialBlock, name='downsample')}, 'rename it'),
    ],
    ids=str,
)
def test_networks_with_custom_parts_are_not_folded_and_keep_their_logits(options, message, rng):
    model = create_model('resnet18', num_classes=10, stage_sizes=(1,), width=8, **options)
    variables = trained(model)
    images = jnp.asarray(rng.normal(size=(3, 32, 32, 3)), jnp.float32)
    expected = quick_jit(partial(model.apply, train=False))(variables, images)
    other, other_variables = for_inference(model, variables)
    logits = quick_jit(partial(other.apply, train=False))(other_variables, images)
    np.testing.assert_array_equal(logits, expected)
    with pytest.raises(TypeError, match=message):
        fold_batch_norm(model, variables)


def test_predictor_is_correct_with_a_custom_block(rng):
    config = base()
    config.dataset.image_size = 32
    model = create_model('resnet18', num_classes=3, stage_sizes=(1,), width=8, block=OtherNames)
    trained_model = TrainedModel(config, model, trained(model), step=1, classes=('a', 'b', 'c'))
    images = rng.integers(0, 256, size=(2, 32, 32, 3)).astype(np.uint8)
    preprocessed = trained_model.preprocess(jnp.asarray(images))
    expected = quick_jit(partial(model.apply, train=False))(trained_model.variables, preprocessed)
    logits = Predictor(trained_model, batch_size=8).logits(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


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


def test_custom_attention_is_not_folded():
    """Its `conv` and `bn` are not the network's."""

    class Own(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            gate = nn.BatchNorm(not train, name='bn')(nn.Conv(1, (1, 1), name='conv')(x))
            return nn.sigmoid(gate) * x

    own = partial(Own, name='own')
    model = create_model('resnet20', num_classes=10, attention=own, stage_sizes=(1, 1))
    assert_kept(model, 8)
