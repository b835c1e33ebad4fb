import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import ops
from tests.helpers import float64

RNG = np.random.default_rng(0)


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape))


def assert_same_function(actual, expected, *arguments):
    """The same values and, for random cotangents, the same gradients, in float64."""
    with float64():
        arguments = [jnp.asarray(np.asarray(a, np.float64)) for a in arguments]
        y, pullback = jax.vjp(actual, *arguments)
        y_expected, pullback_expected = jax.vjp(expected, *arguments)
        cotangent = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), y_expected)
        jax.tree.map(assert_close, y, y_expected)
        jax.tree.map(assert_close, pullback(cotangent), pullback_expected(cotangent))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [1, 3])
def test_convolve_is_a_convolution(size, stride):
    options = {
        'window_strides': (stride, stride),
        'padding': ((size // 2, size // 2),) * 2,
        'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'),
    }
    assert_same_function(
        lambda x, w: ops.convolve(x, w, **options),
        lambda x, w: jax.lax.conv_general_dilated(x, w, **options),
        random(2, 5, 6, 3),
        random(size, size, 3, 4),
    )


def test_relu():
    assert_same_function(ops.relu, lambda x: jnp.maximum(x, 0), random(2, 3, 4, 5))
    _, pullback = jax.vjp(ops.relu, jnp.zeros(3))
    assert not pullback(jnp.ones(3))[0].any()  # as torch has it at 0


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (2, 7, 9, 3), (1, 2, 5, 1), (1, 1, 1, 2)])
def test_max_pool_and_the_gradient_among_equal_maxima(shape):
    """Small whole numbers, so that most windows have several maxima."""

    def expected(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    assert_same_function(ops.max_pool, expected, np.round(RNG.normal(size=shape)))


def test_moments_are_those_of_the_shifted_input():
    h = np.asarray(RNG.normal(3.0, 1.0, size=(2, 3, 4, 5)))
    h[h < 2.5] = 0  # exact zeros, as after a ReLU
    with float64():
        moments = ops.moments(jnp.asarray(h))
    centred = h - h.mean((0, 1, 2))
    assert_close(moments.shift, h.mean((0, 1, 2)))
    assert_close(moments.centred, centred)
    assert_close(moments.mean, centred.mean((1, 2)))
    rows = centred.reshape(-1, 5)
    assert_close(moments.second, sum(np.outer(row, row) for row in rows) / len(rows))


def test_gradient_of_moments():
    """The shift is a constant by its contract, so autodiff gets it as one."""
    shift = RNG.normal(size=5)

    def expected(h):
        centred = h - shift
        rows = centred.reshape(-1, 5)
        return centred, jnp.mean(centred, (1, 2)), rows.T @ rows / rows.shape[0]

    with float64():
        h = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)))
        shift = jnp.mean(h, (0, 1, 2))
        _, pullback = jax.vjp(ops.moments, h)
        y, pullback_expected = jax.vjp(expected, h)
        d = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape)), y)
        (dh,) = pullback(ops.Moments(d[0], jnp.zeros(5), d[1], d[2]))
        assert_close(dh, pullback_expected(d)[0])


def test_affine():
    assert_same_function(
        ops.affine, lambda h, w, b: h @ w + b, random(2, 3, 4, 5), random(5, 6), random(6)
    )


def test_gated_affine():
    assert_same_function(
        ops.gated_affine,
        lambda h, logit, w, b: (h @ w + b) / (1 + jnp.exp(-logit)),
        random(2, 3, 4, 5),
        random(2, 3, 4, 1),
        random(5, 6),
        random(6),
    )


def test_a_closed_gate_has_finite_gradients():
    h, w, b = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 4)), jnp.ones(4)
    for logit in (-200.0, 200.0):
        y, pullback = jax.vjp(ops.gated_affine, h, jnp.full((1, 2, 2, 1), logit), w, b)
        assert all(np.isfinite(g).all() for g in pullback(jnp.ones_like(y)))


def test_agreement():
    assert_same_function(
        ops.agreement,
        lambda h, v: jnp.stack([h[n] @ v[n] for n in range(2)]),
        random(2, 3, 4, 5),
        random(2, 5),
    )


def test_an_affine_map_splits_into_its_channels():
    whole = ops.AffineMap(random(2, 3, 4, 5), random(2, 5), random(5, 6), random(6))
    parts = [part.value() for part in whole.split(3)]
    np.testing.assert_allclose(jnp.concatenate(parts, -1), whole.value(), rtol=1e-5, atol=1e-6)
