import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.attention.gating import largest


@pytest.mark.parametrize('keepdims', [False, True])
@pytest.mark.parametrize('axis', [-1, 1, (1, 2)])
def test_maxima_are_numpys_and_the_first_of_equals_has_the_gradient(axis, keepdims):
    x = np.random.default_rng(0).integers(-4, 0, size=(2, 3, 4, 5)).astype(np.float32)
    y, pullback = jax.vjp(lambda x: largest(x, axis, keepdims=keepdims), jnp.asarray(x))
    np.testing.assert_array_equal(y, x.max(axis, keepdims=keepdims), strict=True)

    cotangent = np.arange(1, y.size + 1, dtype=np.float32).reshape(y.shape)
    expected = np.zeros_like(x)
    wide = cotangent if keepdims else np.expand_dims(cotangent, axis)
    best = np.full_like(x.max(axis, keepdims=True), -np.inf)
    place = {}
    for index in np.ndindex(x.shape):
        group = tuple(0 if size == 1 else i for i, size in zip(index, wide.shape, strict=True))
        if x[index] > best[group]:
            best[group], place[group] = x[index], index
    for group, index in place.items():
        expected[index] = wide[group]
    np.testing.assert_array_equal(*pullback(cotangent), expected)


def test_nans_propagate():
    x = jnp.array([[1.0, jnp.nan, 2.0], [jnp.inf, 1.0, -jnp.inf]])
    np.testing.assert_array_equal(largest(x, -1), [np.nan, np.inf])
