"""Stochastic depth; tests/models/test_golden.py compares a training step with timm's."""

from functools import partial

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock
from ssanet_jax.analysis.interception import on_call
from ssanet_jax.models import BasicBlock, Bottleneck
from ssanet_jax.models.mobilenet import InvertedResidual
from ssanet_jax.models.preact_resnet import PreActBlock
from tests.helpers import assert_close, float64, quick_jit
from tests.models.test_network import SMALL, small

SSA = partial(SSABlock, name='ssa')
BLOCKS = {
    'basic': partial(BasicBlock, 8),
    'plain': partial(Bottleneck, 2, tail='plain', attention=SSA),
    'folded': partial(Bottleneck, 2, tail='folded', attention=SSA),
    'preact': partial(PreActBlock, 8, bottleneck=False),
    'inverted': partial(InvertedResidual, 8, 2),
}
# Far above 0, where no ReLU after a sum has an effect.
X = 100 + np.random.default_rng(0).normal(size=(32, 4, 4, 8))


def applied(block, state, **rngs):
    """The output of a block for X in training."""
    y, _ = block.apply(state, X, train=True, mutable=['batch_stats'], rngs=rngs)
    return y


def state_of(block):
    state = jax.jit(partial(block.init, train=False))(jax.random.key(0), X)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), state)


@pytest.mark.parametrize('kind', BLOCKS)
def test_a_block_drops_the_branch_of_examples_and_scales_that_of_others(kind):
    plain, dropping = BLOCKS[kind](), BLOCKS[kind](drop_rate=0.75)
    with float64():
        state, key = state_of(plain), jax.random.key(1)
        y = np.asarray(quick_jit(partial(applied, plain))(state))
        dropped = np.asarray(quick_jit(partial(applied, dropping, dropout=key))(state))
    kept = np.abs(dropped - X).max(axis=(1, 2, 3)) > 0
    assert 2 < kept.sum() < 14  # of 32; 8 are expected
    np.testing.assert_allclose((dropped - X)[kept], 4 * (y - X)[kept], atol=1e-10)


def test_folded_and_plain_tails_drop_the_same_examples_and_have_the_same_gradients():
    def gradients(kind):
        apply = partial(applied, BLOCKS[kind](drop_rate=0.5), dropout=jax.random.key(1))
        return quick_jit(jax.grad(lambda state: jnp.sum(jnp.sin(apply(state)))))(state)['params']

    with float64():
        state = state_of(BLOCKS['plain']())
        jax.tree.map(assert_close, gradients('folded'), gradients('plain'))


@pytest.mark.parametrize(
    'name', ['resnet50', 'preact_resnet50', 'mobilenet_v2', 'residual_attention56']
)
def test_rates_rise_linearly_from_the_first_block_to_the_last(name):
    model, rates = small(name, stochastic_depth=0.3), {}

    def record(call):
        if call.path.endswith('drop_path'):
            rates[call.path] = call.module.rate
        return call()

    with on_call(record):
        images = jnp.ones((1, 16, 16, 3))
        jax.eval_shape(partial(model.init, train=True), jax.random.key(0), images)
    names = [block.removesuffix('/project') for block in SMALL[name][1]]
    expected = dict(zip(names, np.linspace(0, 0.3, len(names)), strict=True))
    del expected[names[0]]
    assert rates == pytest.approx({f'{block}/drop_path': r for block, r in expected.items()})


def test_only_training_at_a_rate_above_0_needs_a_key():
    x = jnp.ones((1, 16, 16, 3))

    def trace(model, train):
        apply = partial(model.apply, train=train, mutable=['batch_stats'])
        state = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), x)
        return str(jax.make_jaxpr(apply)(state, x))

    off, on = small('resnet18'), small('resnet18', stochastic_depth=0.5)
    assert 'random' not in trace(off, True)
    assert trace(on, False) == trace(off, False)
    with pytest.raises(flax.errors.InvalidRngError, match='dropout'):
        trace(on, True)
