"""Residual networks under the transformations of flax and JAX, against the network itself."""

import operator
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.models import BasicBlock, Bottleneck
from tests.helpers import assert_close, float64, quick_jit

SMALL = {'num_classes': 3, 'stage_sizes': (2,), 'width': 4, 'stem': 'cifar'}


def images(*shape):
    return np.random.default_rng(0).normal(size=(*shape, 3))


def as_float64(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)


def gradients(model, state, x):
    """Logits, gradients and new statistics of a training step."""

    def loss(params):
        variables = {**state, 'params': params}
        rngs = {'dropout': jax.random.key(1)}
        logits, updates = model.apply(variables, x, train=True, mutable=['batch_stats'], rngs=rngs)
        return jnp.sum(jnp.sin(logits)), (logits, updates)

    return quick_jit(jax.grad(loss, has_aux=True))(state['params'])


@pytest.mark.parametrize(
    ('block', 'tail'),
    [pytest.param(BasicBlock, 'plain', marks=pytest.mark.slow), (Bottleneck, 'folded')],
)
def test_a_resnet_of_rematerialized_blocks_computes_the_same_step(block, tail):
    """With stochastic depth, whose draws must not change."""
    options = {'block': block, 'tail': tail, 'stochastic_depth': 0.5, **SMALL}
    plain = create_model('ssa_resnet18', dtype=jnp.float64, **options)
    remat = plain.clone(remat=(1,))
    x = images(2, 8, 8)
    with float64():
        state = as_float64(jax.jit(partial(plain.init, train=False))(jax.random.key(0), x))
        expected = gradients(plain, state, x)
        jax.tree.map(assert_close, gradients(remat, state, x), expected)


class Deep(nn.Module):
    """Three identical residual blocks, scanned over."""

    block: nn.Module

    @nn.compact
    def __call__(self, x, train):
        scan = partial(
            nn.scan,
            variable_axes={'params': 0, 'batch_stats': 0},
            split_rngs={'params': True},
            length=3,
        )
        return scan(lambda block, x, _: (block(x, train), None))(self.block, x, None)[0]


@pytest.mark.parametrize('tail', [pytest.param('plain', marks=pytest.mark.slow), 'folded'])
def test_a_scan_over_residual_blocks_applies_one_after_the_other(tail):
    block = Bottleneck(width=2, attention=partial(SSABlock, name='ssa'), tail=tail)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8))
    with float64():
        init = quick_jit(partial(Deep(block).init, train=False))
        state = as_float64(init(jax.random.key(0), x))
        for train in (False, True):
            step = partial(Deep(block).apply, train=train, mutable=['batch_stats'])
            found, updates = quick_jit(step)(state, x)
            expected, stats = x, []
            for index in range(3):
                own = {name: tree['block'] for name, tree in state.items()}
                own = jax.tree.map(operator.itemgetter(index), own)
                step = partial(block.apply, train=train, mutable=['batch_stats'])
                expected, update = quick_jit(step)(own, expected)
                stats.append(update['batch_stats'])
            assert_close(found, expected)
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *stats)
            jax.tree.map(assert_close, updates['batch_stats']['block'], stacked)


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        pytest.param(
            'resnet18',
            {'tail': 'plain', 'width': 4, 'stage_sizes': (1,)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            'ssa_resnet50',
            {'tail': 'folded', 'width': 4, 'stage_sizes': (1,)},
            marks=pytest.mark.slow,
        ),
        pytest.param('preact_resnet18', {'width': 4}, marks=pytest.mark.slow),
        pytest.param('mobilenet_v1', {'width': 4}, marks=pytest.mark.slow),
        pytest.param(
            'ssa_vgg11_bn', {'widths': (4, 8), 'hidden': 8, 'dropout': 0.0}, marks=pytest.mark.slow
        ),
    ],
)
def test_forward_mode_equals_reverse_mode(name, options):
    """First and second derivatives of a loss along a direction in the space of images."""
    options = {'stage_sizes': (1, 1), **options}
    model = create_model(name, num_classes=3, dtype=jnp.float64, **options)
    x, direction = images(2, 2, 16, 16)

    def loss(t):
        logits, _ = model.apply(state, x + t * direction, train=True, mutable=['batch_stats'])
        return jnp.sum(jnp.sin(logits))

    with float64():
        state = as_float64(jax.jit(partial(model.init, train=False))(jax.random.key(0), x))
        derivative = quick_jit(jax.jacfwd(loss))(0.0)
        assert_close(derivative, quick_jit(jax.grad(loss))(0.0))
        hessian = quick_jit(jax.hessian(loss))(0.0)  # forward over reverse
        assert_close(hessian, quick_jit(jax.grad(jax.grad(loss)))(0.0))


@pytest.mark.parametrize(
    'name',
    ['ssa_resnet20', pytest.param('se_densenet121', marks=pytest.mark.slow), 'cbam_mobilenet_v2'],
)
def test_train_can_be_an_attribute_or_a_positional_argument_of_a_network(name):
    model = create_model(name, num_classes=3, stem='cifar')
    x = images(1, 16, 16).astype(np.float32)
    key = jax.random.key(0)
    keyword, positional, attribute = (
        jax.make_jaxpr(call)(key, x)
        for call in (
            partial(model.init_with_output, train=False),
            lambda key, x: model.init_with_output(key, x, False),
            model.clone(train=False).init_with_output,
        )
    )
    assert str(positional) == str(keyword) == str(attribute)
    with pytest.raises(ValueError, match='train'):
        model.init(key, x)
