import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.layers import affine_map
from tests.helpers import assert_close, assert_same_function, float64


@pytest.fixture
def random(rng):
    """Draws an array of a shape."""
    return lambda *shape: rng.normal(size=shape)


def test_moments_are_those_of_the_shifted_input(random):
    h = 3.0 + random(2, 3, 4, 5)
    h[h < 2.5] = 0  # exact zeros, as after a ReLU
    with float64():
        moments = affine_map.moments(jnp.asarray(h))
    centered = h - h.mean((0, 1, 2))
    assert_close(moments.shift, h.mean((0, 1, 2)))
    assert_close(moments.centered, centered)
    assert_close(moments.mean, centered.mean((1, 2)))
    rows = centered.reshape(-1, 5)
    assert_close(moments.second, sum(np.outer(row, row) for row in rows) / len(rows))


def test_gradient_of_moments(random):
    """The shift is constant under differentiation, in the oracle too."""

    def expected(h):
        centered = h - shift
        rows = centered.reshape(-1, 5)
        return centered, jnp.mean(centered, (1, 2)), rows.T @ rows / rows.shape[0]

    with float64():
        h = jnp.asarray(random(2, 3, 4, 5))
        shift = jnp.mean(h, (0, 1, 2))
        _, pullback = jax.vjp(affine_map.moments, h)
        y, pullback_expected = jax.vjp(expected, h)
        d = jax.tree.map(lambda a: jnp.asarray(random(*a.shape)), y)
        (dh,) = pullback(affine_map.Moments(d[0], jnp.zeros(5), d[1], d[2]))
        assert_close(dh, pullback_expected(d)[0])


def test_affine(random):
    assert_same_function(
        affine_map.affine, lambda h, w, b: h @ w + b, random(2, 3, 4, 5), random(5, 6), random(6)
    )


@pytest.mark.parametrize('train', [True, False])
def test_gated_affine(train, random):
    assert_same_function(
        partial(affine_map.gated_affine, train=train),
        lambda h, logit, w, b: (h @ w + b) / (1 + jnp.exp(-logit)),
        random(2, 3, 4, 5),
        random(2, 3, 4, 1),
        random(5, 6),
        random(6),
    )


@pytest.mark.parametrize('branch', ['_bias_apart', '_bias_as_channel', '_gated_product'])
def test_a_gated_product_is_the_same_for_every_platform(branch, random):
    assert_same_function(
        getattr(affine_map, branch),
        lambda h, gate, w, b: gate * (h @ w + b),
        random(2, 3, 4, 5),
        random(2, 3, 4, 1),
        random(5, 6),
        random(6),
    )


def test_forward_mode_with_two_dtypes_is_refused_with_its_remedies():
    h, w, b = jnp.ones((1, 2, 2, 3), jnp.bfloat16), jnp.ones((3, 4)), jnp.ones(4)
    for function in (
        lambda h: affine_map.affine(h, w, b),
        lambda h: affine_map.gated_affine(h, jnp.ones((1, 2, 2, 1)), w, b, train=True),
    ):
        with pytest.raises(TypeError, match=r'bfloat16 and float32\. Compute in float32'):
            jax.jvp(function, (h,), (h,))


def test_a_closed_gate_has_finite_gradients():
    h, w, b = jnp.ones((1, 2, 2, 3)), jnp.ones((3, 4)), jnp.ones(4)
    for logit, train in itertools.product((-200.0, 200.0), (True, False)):
        function = partial(affine_map.gated_affine, train=train)
        y, pullback = jax.vjp(function, h, jnp.full((1, 2, 2, 1), logit), w, b)
        assert all(np.isfinite(g).all() for g in pullback(jnp.ones_like(y)))


def test_pixelwise_dot(random):
    assert_same_function(
        affine_map.pixelwise_dot,
        lambda h, v: jnp.stack([h[n] @ v[n] for n in range(2)]),
        random(2, 3, 4, 5),
        random(2, 5),
    )


def test_pixelwise_dot_of_bfloat16_is_summed_in_float32(random):
    h, v = jnp.asarray(random(2, 3, 4, 5), jnp.bfloat16), jnp.asarray(random(2, 5), jnp.float32)
    expected = np.einsum('nhwk,nk->nhw', np.asarray(h, np.float64), np.asarray(v, np.float64))
    np.testing.assert_allclose(affine_map.pixelwise_dot(h, v), expected, rtol=1e-5, atol=1e-6)


def test_an_affine_map_splits_into_its_channels(random):
    whole = affine_map.AffineMap(
        *(jnp.asarray(random(*s), jnp.float32) for s in ((2, 3, 4, 5), (2, 5), (5, 6), (6,)))
    )
    parts = [part.value() for part in whole.split(3)]
    np.testing.assert_allclose(jnp.concatenate(parts, -1), whole.value(), rtol=1e-5, atol=1e-6)
