"""MACs of traced programs of all kinds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock
from ssanet_jax.analysis.jaxpr_macs import least_macs, nonzero_macs_of
from ssanet_jax.analysis.macs import Cost, layer_costs, model_cost


class Convolutions(nn.Module):
    """Convolutions of all kinds; pooling and elementwise multiplication cost nothing here."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(8, (3, 5), padding='VALID', name='plain')(x)
        x = nn.Conv(12, (3, 3), feature_group_count=4, padding=1, name='grouped')(x)
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.Conv(12, (3, 3), feature_group_count=12, padding=1, strides=2, name='depthwise')(x)
        x = nn.Conv(24, (2, 2), feature_group_count=12, padding=0, name='doubled')(x)
        return nn.Dense(7, name='dense')(2 * x)


def test_convolutions_by_hand():
    """Output pixels times output channels times kernel times input channels of one group."""
    layers = {layer.path: layer for layer in layer_costs(Convolutions(), 12)}
    assert layers['plain'].outputs == ((1, 10, 8, 8),)
    assert layers['depthwise'].outputs == ((1, 3, 2, 12),)
    assert {path: layer.matmul_macs for path, layer in layers.items()} == {
        '': 0,
        'plain': 10 * 8 * 8 * 3 * 5 * 3,
        'grouped': 10 * 8 * 12 * 3 * 3 * 2,
        'depthwise': 3 * 2 * 12 * 3 * 3,
        'doubled': 2 * 1 * 24 * 2 * 2,
        'dense': 2 * 1 * 24 * 7,
    }


def gram(y):
    return y @ y.reshape(-1, 5).T


def gram_with_custom_gradient():
    gradient = jax.custom_vjp(gram)
    gradient.defvjp(lambda y: (gram(y), y), lambda y, d: (d @ y.reshape(-1, 5),))
    return gradient


@pytest.mark.parametrize(
    'product', [jax.jit(gram), jax.checkpoint(gram), gram_with_custom_gradient()],
    ids=['jit', 'checkpoint', 'custom_vjp'],
)  # fmt: skip
def test_nested_programs_are_counted_and_a_block_without_a_name(product):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(5, (3, 3), padding=1, use_bias=False)(x)
            return product(3 * SSABlock()(x, train=train))

    products = 16 * 3 * 3 * 3 * 5 + 16 * 5 * 16
    elementwise = 5 + 16 * 5 + 16 + 16 + 16 * 5
    assert model_cost(Net(), 4) == Cost(3 * 3 * 3 * 5 + 2, products, 0, elementwise)


def test_work_independent_of_the_image_or_unused_costs_nothing():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            kernel = self.param('kernel', nn.initializers.orthogonal(), (3, 3))
            self.sow('intermediates', 'unused', x @ kernel)
            return x @ jax.jit(lambda k: k @ k)(kernel)

    assert model_cost(Net(), 4) == Cost(9, 16 * 3 * 3, 0, 0)


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize(('stride', 'padding'), [(1, 1), (2, 0), (2, 3)])
def test_nonzero_macs_are_the_sum_of_a_convolution_of_ones(stride, padding, dilation, groups):
    def conv(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            [(padding, padding)] * 2,
            lhs_dilation=(dilation, 1),
            rhs_dilation=(1, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=groups,
        )

    x, w = jnp.ones((2, 7, 9, 4)), jnp.ones((3, 3, 4 // groups, 6))
    (eqn,) = jax.make_jaxpr(conv)(x, w).eqns
    assert nonzero_macs_of(eqn) == int(np.sum(conv(x, w)))


def test_of_alternatives_for_platforms_the_cheapest_counts():
    def f(x, w):
        return jax.lax.platform_dependent(x, w, cpu=lambda x, w: x @ w @ w, default=jnp.matmul)

    x, w = jnp.ones((2, 3)), jnp.ones((3, 3))
    assert least_macs(jax.make_jaxpr(f)(x, w).jaxpr) == 2 * 3 * 3
    assert least_macs(jax.make_jaxpr(jax.jit(jax.grad(lambda w: f(x, w).sum())))(w).jaxpr) >= 18


def test_a_scan_counts_each_iteration():
    def f(xs, w):
        return jax.lax.scan(lambda total, x: (total + x @ w, None), jnp.zeros((2, 4)), xs)[0]

    jaxpr = jax.make_jaxpr(f)(jnp.ones((5, 2, 3)), jnp.ones((3, 4))).jaxpr
    assert least_macs(jaxpr) == 5 * 2 * 3 * 4
