from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.training.losses import cross_entropy
from tests.helpers import quick_jit


def shapes_of(model, size=32):
    image = jnp.ones((1, size, size, 3))
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def count(tree):
    return sum(p.size for p in jax.tree.leaves(tree))


def test_cifar_stem_keeps_the_image_size():
    """A 3x3 kernel instead of 7x7, and no other difference in parameters."""
    imagenet = count(shapes_of(create_model('resnet50', num_classes=10))['params'])
    cifar = count(shapes_of(create_model('resnet50', num_classes=10, stem='cifar'))['params'])
    assert imagenet - cifar == 64 * 3 * (7 * 7 - 3 * 3)
    model = create_model('resnet50', num_classes=10, stem='cifar')
    _, captured = jax.eval_shape(
        lambda v: model.apply(v, jnp.ones((1, 32, 32, 3)), train=False, capture_intermediates=True),
        shapes_of(model),
    )
    final = captured['intermediates']['layer4_2']['__call__'][-1]
    assert final.shape == (1, 4, 4, 2048)


def test_zero_init_residual_starts_every_block_as_the_identity():
    model = create_model('resnet20', num_classes=10, zero_init_residual=True)
    init = quick_jit(partial(model.init, train=False))
    variables = init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    scales = flax.traverse_util.flatten_dict(variables['params'])
    last = {path[0]: v for path, v in scales.items() if path[1:] == ('bn2', 'scale')}
    assert len(last) == 9
    assert all((v == 0).all() for v in last.values())
    assert all((v == 1).all() for path, v in scales.items() if path[1:] == ('bn1', 'scale'))


@pytest.mark.parametrize(
    'name',
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ('resnet18', 'se_resnet18')),
        'ssa_resnet20',
        'ssa_resnet50',
    ],
)
def test_every_parameter_gets_a_gradient(name):
    model = create_model(name, num_classes=10, stem='cifar', stage_sizes=(1, 1), width=16)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    variables = quick_jit(partial(model.init, train=False))(jax.random.key(0), x)

    @quick_jit
    def gradients(params):
        def loss(params):
            logits, _ = model.apply(
                {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
            )
            return cross_entropy(logits, jnp.arange(4)).sum()

        return jax.grad(loss)(params)

    for path, gradient in flax.traverse_util.flatten_dict(gradients(variables['params'])).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_bfloat16_computes_in_bfloat16_and_returns_float32_logits():
    model = create_model('ssa_resnet20', num_classes=10, dtype=jnp.bfloat16)
    variables = shapes_of(model, 16)
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    apply = partial(model.apply, train=False, capture_intermediates=True)
    logits, extra = jax.eval_shape(apply, variables, jnp.ones((2, 16, 16, 3)))
    assert logits.dtype == jnp.float32
    block = extra['intermediates']['layer2_0']['__call__'][0]
    assert block.dtype == jnp.bfloat16


def test_attention_sits_after_the_last_batch_norm_and_before_the_sum():
    seen = []

    def spy(name=None):
        def block(x, *, train):
            seen.append(x)
            return jnp.zeros_like(x)

        return block

    model = create_model('resnet20', num_classes=10, attention=spy)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    seen.clear()
    _, extra = model.apply(variables, x, train=False, capture_intermediates=True)
    maps = extra['intermediates']
    np.testing.assert_array_equal(seen[0], maps['layer1_0']['bn2']['__call__'][0])
    stem = jax.nn.relu(maps['bn1']['__call__'][0])
    np.testing.assert_array_equal(maps['layer1_0']['__call__'][0], stem)


def test_option_a_shortcut_drops_pixels_and_pads_channels():
    model = create_model('resnet20', num_classes=10, attention=lambda: lambda y, train: y * 0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    _, extra = model.apply(variables, x, train=False, capture_intermediates=True)
    maps = {
        name: value['__call__'][0]
        for name, value in extra['intermediates'].items()
        if name[:5] == 'layer'
    }
    before, after = maps['layer1_2'], maps['layer2_0']
    np.testing.assert_array_equal(after[..., :16], before[:, ::2, ::2])
    assert (after[..., 16:] == 0).all()
    assert after.shape == (1, 4, 4, 32)


def test_an_image_without_its_batch_axis_is_refused():
    model = create_model('resnet20', num_classes=10)
    with pytest.raises(ValueError, match='ResNet expects a feature map'):
        model.init(jax.random.key(0), jnp.ones((8, 8, 3)), train=False)
