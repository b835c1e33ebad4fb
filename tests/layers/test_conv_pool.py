import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model, layers
from ssanet_jax.layers import conv_pool
from tests.helpers import assert_close, assert_same_function, float64


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3])
def test_conv_is_a_padded_convolution(size, stride, rng):
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
        rng.normal(size=(2, 5, 6, 3)),
        rng.normal(size=(size, size, 3, 4)),
    )


def test_relu(rng):
    assert_same_function(layers.relu, lambda x: jnp.maximum(x, 0), rng.normal(size=(2, 3, 4, 5)))
    _, pullback = jax.vjp(layers.relu, jnp.zeros(3))
    assert not pullback(jnp.ones(3))[0].any()  # as torch has it at 0
    assert np.isnan(layers.relu(jnp.asarray([jnp.nan]))).all()  # a diverged network shows


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (2, 7, 9, 3), (1, 2, 5, 1), (1, 1, 1, 2)])
def test_max_pool_and_the_gradient_among_equal_maxima(shape, rng):
    """Small integers, so that most windows have several maxima."""

    def expected(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    assert_same_function(layers.max_pool, expected, np.round(rng.normal(size=shape)))


@pytest.mark.parametrize('shape', [(2, 4, 6, 3), (2, 7, 4, 3), (1, 1, 5, 2)])
def test_mean_pool_ceil_averages_the_pixels_that_exist(shape, rng):
    """NumPy's means of slices, which end at the edge, as torch's with ceil_mode."""
    x = rng.normal(size=shape)
    rows, columns = (range(0, length, 2) for length in shape[1:3])
    expected = [[x[:, i : i + 2, j : j + 2].mean(axis=(1, 2)) for j in columns] for i in rows]
    with float64():
        found = layers.mean_pool_ceil(jnp.asarray(x), 2)
    np.testing.assert_allclose(found, np.transpose(expected, (2, 0, 1, 3)), rtol=1e-12)


@pytest.mark.parametrize('branch', ['_as_matrices', '_as_convolution'])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_1x1_convolution_is_the_same_for_every_platform(branch, stride, rng):
    assert_same_function(
        lambda x, w: getattr(conv_pool, branch)(x, w, stride),
        lambda x, w: jnp.einsum('nhwk,kc->nhwc', x[:, ::stride, ::stride], w),
        rng.normal(size=(2, 5, 6, 3)),
        rng.normal(size=(3, 4)),
    )


def test_max_pool_has_the_same_tangent_on_every_platform(rng):
    x, dx = np.round(rng.normal(size=(2, 7, 9, 3))), rng.normal(size=(2, 7, 9, 3))
    with float64():
        first = conv_pool._max_pool_tangent(x, dx)
        second = conv_pool._max_pool_tangent_by_position(x, dx)
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize('function', [layers.relu, layers.max_pool])
def test_forward_mode_is_the_slope_of_the_function(function, rng):
    """Both are piecewise linear and far from a corner, so differences are exact."""
    x, dx = (
        rng.permutation(2 * 6 * 6 * 3).reshape(2, 6, 6, 3) - 100.5,
        rng.normal(size=(2, 6, 6, 3)),
    )
    with float64():
        _, tangent = jax.jvp(function, (jnp.asarray(x),), (jnp.asarray(dx),))
        assert_close(tangent, (function(x + 1e-3 * dx) - function(x - 1e-3 * dx)) / 2e-3)


@pytest.mark.slow
def test_forward_over_reverse_mode_of_a_network_with_plain_tails(rng):
    model = create_model('ssa_resnet50', num_classes=3, tail='plain', stage_sizes=(1, 1), width=4)
    x, dx = (rng.normal(size=(2, 16, 16, 3)).astype(np.float32) for _ in range(2))
    variables = model.init(jax.random.key(0), x, train=False)

    def loss(x):
        return jnp.sum(model.apply(variables, x, train=True, mutable=['batch_stats'])[0] ** 2)

    with float64():
        x, dx = jnp.asarray(x, jnp.float32), jnp.asarray(dx, jnp.float32)
        _, slope = jax.jvp(loss, (x,), (dx,))
        np.testing.assert_allclose(slope, jnp.vdot(jax.grad(loss)(x), dx), rtol=1e-3)
        forward = jax.jvp(jax.grad(loss), (x,), (dx,))[1]
        reverse = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), dx))(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-2, atol=1e-3 * np.abs(reverse).max())
