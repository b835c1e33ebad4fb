"""Modules made twice from the same options are equal and compile once."""

import copy
import pickle
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.attention import ATTENTION
from ssanet_jax.layers import BatchNorm
from ssanet_jax.models import Bottleneck, ConvNorm, ResNet


def norm():
    return partial(nn.BatchNorm, epsilon=1e-3)


TWICE = {
    **ATTENTION,
    'block with a partial': lambda: SSABlock(norm=norm()),
    'BatchNorm with lists': lambda: BatchNorm(axis_index_groups=[[0, 1], [2, 3]]),
    'ConvNorm': lambda: ConvNorm(3, 3, norm=norm()),
    'Bottleneck': lambda: Bottleneck(16, norm=norm(), attention=partial(SSABlock, name='a')),
    'network of its class': lambda: ResNet(
        num_classes=3, stage_sizes=[1, 1], block=partial(Bottleneck, variant='v1')
    ),
    'clone with a partial': lambda: network().clone(norm=norm()),
    'clone with a list': lambda: network().clone(attention_stages=[1, 2]),
    'clone with attention': lambda: network('resnet20').clone(
        attention=partial(SSABlock, norm=norm(), name='a')
    ),
    'tail': lambda: network('ssa_resnet50', tail='folded', attention_options={'num_groups': 2}),
}


def network(name='ssa_resnet20', **options):
    return create_model(name, num_classes=3, **options)


@pytest.mark.parametrize('kind', TWICE)
def test_modules_made_twice_are_equal_and_hash_equally(kind):
    one, other = TWICE[kind](), TWICE[kind]()
    assert one == other
    assert hash(one) == hash(other)


def test_a_clone_with_another_option_differs():
    assert network().clone(norm=norm()) != network().clone(norm=partial(nn.BatchNorm, epsilon=1))


@pytest.mark.parametrize('name', ['float32', 'bfloat16'])
def test_dtypes_compare_whatever_they_are_given_as(name):
    models = {network(dtype=dtype) for dtype in (name, getattr(jnp, name), jnp.dtype(name))}
    assert len(models) == 1


def test_copies_are_equal():
    model = network('ssa_resnet50', norm_options={'momentum': 0.5})
    assert copy.deepcopy(model) == pickle.loads(pickle.dumps(model)) == model


def test_a_block_made_twice_compiles_once():
    traced = []

    @partial(jax.jit, static_argnums=0)
    def apply(block, x):
        traced.append(block)
        return block.init_with_output(jax.random.key(0), x)[0]

    for _ in range(2):
        apply(SSABlock(norm=partial(BatchNorm, epsilon=1e-3), train=False), jnp.ones((1, 2, 2, 4)))
    assert len(traced) == 1
