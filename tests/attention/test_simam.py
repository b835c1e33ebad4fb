import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.attention import SimAMBlock
from tests.attention.oracle import result_of, shapes_of, sigmoid
from tests.helpers import quick_jit


def least_energy(t, mean, variance, regularizer):
    """Equation 5 of the paper, for neuron t of a channel."""
    above = 4 * (variance + regularizer)
    return above / ((t - mean) ** 2 + 2 * variance + 2 * regularizer)


@pytest.mark.parametrize('options', [{}, {'regularizer': 0.5}], ids=str)
def test_the_gate_is_the_sigmoid_of_one_over_the_least_energy(options):
    x = np.random.default_rng(0).normal(0.3, 2.0, size=(2, 3, 4, 5))
    expected = np.zeros_like(x)
    for n, c in np.ndindex(2, 5):
        pixels = x[n, :, :, c].ravel()
        mean = sum(pixels) / 12
        variance = sum((p - mean) ** 2 for p in pixels) / 11
        for h, w in np.ndindex(3, 4):
            t = x[n, h, w, c]
            energy = least_energy(t, mean, variance, options.get('regularizer', 1e-4))
            expected[n, h, w, c] = sigmoid(1 / energy) * t
    y = result_of(SimAMBlock(**options), {}, x, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_it_has_no_parameters():
    assert shapes_of(SimAMBlock(), (1, 4, 4, 8)) == {}


@pytest.mark.parametrize('shape', [(2, 1, 1, 3), (2, 4, 4, 3)])
def test_constant_maps_and_single_pixels_get_the_gate_of_a_half(shape):
    """The gradients are finite; the paper's listing divides by 0 for one pixel."""
    x = jnp.full(shape, 3.0)

    @quick_jit
    def value_and_gradient(x):
        y, pullback = jax.vjp(lambda x: SimAMBlock().apply({}, x, train=True), x)
        return y, *pullback(jnp.ones(shape))

    y, gradient = value_and_gradient(x)
    np.testing.assert_allclose(y, x * sigmoid(0.5), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.full(shape, sigmoid(0.5)), rtol=1e-6)
