import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock
from ssanet_jax.layers.affine_map import AffineMap
from ssanet_jax.models.folded_attention import FoldedSSA
from tests.helpers import float64, quick_jit
from tests.models.tails import assert_close, random_variables


@pytest.mark.parametrize('options', [{'gate_scale': 2.0}, {'group_size': 2}], ids=str)
def test_folded_ssa_computes_ssa_of_the_affine_map(options, images):
    h, dy = images(2, 3, 4, 3), images(2, 3, 4, 6)
    weight, bias = images(3, 6), images(6)
    variables = random_variables(SSABlock(**options), np.ones((2, 3, 4, 6), np.float32))

    def result_and_gradients(block, feature_map):
        def apply(h, weight, bias, params):
            state = {'params': params, 'batch_stats': variables['batch_stats']}
            x = feature_map(h, weight, bias)
            return block.apply(state, x, train=True, mutable=['batch_stats'])

        @quick_jit
        def run(*arguments):
            y, pullback, updates = jax.vjp(apply, *arguments, has_aux=True)
            return y, pullback(dy), updates

        with float64():
            return run(h, weight, bias, variables['params'])

    plain = result_and_gradients(SSABlock(**options), lambda h, weight, bias: h @ weight + bias)
    assert_close(result_and_gradients(FoldedSSA(**options), affine_map), plain)


def affine_map(h, weight, bias):
    return AffineMap(h, jnp.mean(h.astype(weight.dtype), axis=(1, 2)), weight, bias)


def test_folded_ssa_starts_as_the_identity_up_to_rounding(images):
    block = FoldedSSA(gate_scale=2.0, zero_init=True, num_groups=2)

    @quick_jit
    def output_and_input(h, weight):
        folded = affine_map(h, weight, np.ones(4, np.float32))
        y, _ = block.init_with_output(jax.random.key(0), folded, train=False)
        return y, folded.value()

    y, x = output_and_input(images(2, 3, 4, 6, dtype=np.float32), images(6, 4, dtype=np.float32))
    # Some processors round the two products over K differently.
    np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-6)
