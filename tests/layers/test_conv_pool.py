import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import layers
from tests.helpers import assert_same_function

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3])
def test_conv_is_a_padded_convolution(size, stride):
    layer = layers.conv(4, size, stride=stride, dtype=jnp.float64, name='conv')
    assert_same_function(
        lambda x, w: layer.apply({'params': {'kernel': w}}, x),
        lambda x, w: jax.lax.conv_general_dilated(
            x,
            w,
            window_strides=(stride, stride),
            padding=((size // 2, size // 2),) * 2,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        ),
        RNG.normal(size=(2, 5, 6, 3)),
        RNG.normal(size=(size, size, 3, 4)),
    )


def test_relu():
    assert_same_function(layers.relu, lambda x: jnp.maximum(x, 0), RNG.normal(size=(2, 3, 4, 5)))
    _, pullback = jax.vjp(layers.relu, jnp.zeros(3))
    assert not pullback(jnp.ones(3))[0].any()  # as torch has it at 0
    assert np.isnan(layers.relu(jnp.asarray([jnp.nan]))).all()  # a diverged network shows


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (2, 7, 9, 3), (1, 2, 5, 1), (1, 1, 1, 2)])
def test_max_pool_and_the_gradient_among_equal_maxima(shape):
    """Small integers, so that most windows have several maxima."""

    def expected(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    assert_same_function(layers.max_pool, expected, np.round(RNG.normal(size=shape)))
