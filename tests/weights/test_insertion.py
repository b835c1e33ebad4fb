"""Insertion of SSA into networks made without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.weights import insert_attention, without_attention
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import quick_jit
from tests.models.test_network import SMALL


def images(size=16):
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, size, size, 3)), jnp.float32)


def random_variables(model):
    """Variables with kernels of both signs, positive variances, no scale of 1 and no mean of 0."""
    rng = np.random.default_rng(1)

    def draw(shape):
        sign = rng.choice([-1, 1], shape) * np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 1
        return (sign * rng.uniform(0.5, 1.5, shape)).astype(np.float32)

    return jax.tree.map(lambda leaf: draw(leaf.shape), variable_shapes(model, 16))


def networks(name, **options):
    model = create_model(f'ssa_{name}', num_classes=5, stem='cifar', **SMALL[name][0], **options)
    plain = without_attention(model)
    return plain, random_variables(plain), model


IDENTITY = {'gate_scale': 2.0, 'zero_init': True}


def apply(model, variables, train, compiled=True):
    def logits(variables, x):
        y = model.apply(
            variables, x, train=train, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}
        )
        return y[0]

    return np.asarray((quick_jit(logits) if compiled else logits)(variables, images()))


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('name', ['resnet18', pytest.param('vgg16_bn', marks=pytest.mark.slow)])
def test_gates_of_one_change_no_bit_of_the_logits(name, train):
    """Without jit, which fuses, and so rounds, the two programs differently."""
    plain, variables, model = networks(name, attention_options=IDENTITY)
    inserted = insert_attention(variables, model, image_size=16)
    np.testing.assert_array_equal(
        apply(model, inserted, train, compiled=False),
        apply(plain, variables, train, compiled=False),
        strict=True,
    )


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('name', 'gate_scale', 'options'),
    [
        ('densenet121', 2.0, {}),
        ('mobilenet_v2', 2.0, {'attention_position': 'post_residual'}),
        ('resnet50', 2.0, {'tail': 'folded'}),
        ('resnet50', 1.0, {'tail': 'plain'}),
        ('resnet50', 0.5, {'tail': 'folded'}),
    ],
)
def test_an_inserted_block_changes_no_logits(name, gate_scale, options, train):
    plain, variables, model = networks(
        name, attention_options={'gate_scale': gate_scale}, **options
    )
    inserted = insert_attention(variables, model, image_size=16)
    expected = apply(plain, variables, train)
    np.testing.assert_allclose(
        apply(model, inserted, train), expected, rtol=1e-4, atol=1e-5 * abs(expected).max()
    )


def test_every_new_parameter_is_zero_and_gets_a_gradient():
    _, variables, model = networks('resnet18', attention_options=IDENTITY)
    inserted = insert_attention(variables, model, image_size=16)

    @quick_jit
    def gradients(params):
        def loss(params):
            logits, _ = model.apply(
                {**inserted, 'params': params}, images(), train=True, mutable=['batch_stats']
            )
            return jnp.sum(logits[:, 0])

        return jax.grad(loss)(params)

    found = gradients(inserted['params'])
    for block in ('layer1_0', 'layer2_0'):
        for leaf in ('scale', 'bias'):
            assert inserted['params'][block]['ssa']['bn'][leaf] == 0
            assert found[block]['ssa']['bn'][leaf] != 0


@pytest.mark.parametrize('name', ['vgg16_bn', 'densenet121'])
def test_the_papers_gate_is_rejected_where_it_cannot_be_compensated(name):
    _, variables, model = networks(name)
    with pytest.raises(ValueError, match='choose gate_scale=2'):
        insert_attention(variables, model, image_size=16)


def test_the_papers_gate_after_the_sum_is_rejected():
    _, variables, model = networks('resnet18', attention_position='post_residual')
    with pytest.raises(ValueError, match="attention_position='pre_residual'"):
        insert_attention(variables, model, image_size=16)


def test_other_attention_is_rejected():
    _, variables, _ = networks('resnet18')
    model = create_model('se_resnet18', num_classes=5, stem='cifar', **SMALL['resnet18'][0])
    with pytest.raises(ValueError, match='missing from the weights and is not part of SSA'):
        insert_attention(variables, model, image_size=16)


def test_another_network_is_rejected():
    _, variables, model = networks('resnet18', attention_options=IDENTITY)
    options = {'num_classes': 5, 'stem': 'cifar', 'attention_options': IDENTITY}
    deeper = {name: {**tree, 'layer1_1': tree['layer1_0']} for name, tree in variables.items()}
    with pytest.raises(ValueError, match=r'has no place for .*/layer1_1/'):
        insert_attention(deeper, model, image_size=16)
    wider = create_model('ssa_resnet18', stage_sizes=(1, 1), width=64, **options)
    with pytest.raises(ValueError, match='may differ only in attention'):
        insert_attention(variables, wider, image_size=16)
    without = create_model('resnet18', num_classes=5, stem='cifar', **SMALL['resnet18'][0])
    with pytest.raises(ValueError, match='has no SSA block'):
        insert_attention(variables, without, image_size=16)
