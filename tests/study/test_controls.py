from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.analysis.gates import find_gates
from studies.controls import ConstantGate, FixedGate, ShuffledSSA
from tests.attention.oracle import random_norm, result_of
from tests.helpers import float64

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4, 5))


def sown(block, variables):
    """The saliency and the gate of X in training mode, [N, H, W]."""
    with float64():
        _, state = block.apply(variables, X, train=True, mutable=['intermediates', 'batch_stats'])
    return [np.asarray(state['intermediates'][k][0][..., 0]) for k in ('saliency', 'gate')]


def norm_variables(width=1):
    params, stats = random_norm(np.random.default_rng(1), width)
    return {'params': {'bn': params}, 'batch_stats': {'bn': stats}}


def test_the_constant_gate_multiplies_every_value_by_one_learned_number():
    for b in (0.0, -1.3):
        y = result_of(ConstantGate(), {'params': {'b': np.float64(b)}}, X, train=True)
        np.testing.assert_allclose(y, X / (1 + np.exp(-b)), rtol=1e-12)


def test_the_constant_gate_starts_at_a_half_and_learns():
    x = jnp.asarray(X, jnp.bfloat16)
    y, variables = ConstantGate().init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x / 2)
    assert y.dtype == jnp.bfloat16
    with float64():
        gradient = jax.grad(lambda v: jnp.sum(ConstantGate().apply(v, X)))(variables)
    np.testing.assert_allclose(gradient['params']['b'], X.sum() / 4, rtol=1e-6)


def test_gates_of_one_leave_x_alone_at_the_start_and_the_fixed_one_has_no_parameters():
    doubled = ConstantGate(gate_scale=2.0)
    zero = {'params': {'b': np.float64(0)}}
    np.testing.assert_array_equal(result_of(doubled, zero, X, train=True), X)
    learned = result_of(doubled, {'params': {'b': np.float64(0.7)}}, X, train=True)
    np.testing.assert_allclose(learned, 2 * X / (1 + np.exp(-0.7)), rtol=1e-12)

    y, variables = FixedGate(factor=0.5).init_with_output(jax.random.key(0), X.astype(np.float32))
    np.testing.assert_array_equal(y, X.astype(np.float32) / 2)
    assert not jax.tree.leaves(variables.get('params', {}))


def test_the_shuffled_gate_has_ssas_values_each_at_another_pixel_the_same_in_all_images():
    variables = norm_variables()
    originals, shuffled = sown(SSABlock(), variables), sown(ShuffledSSA(), variables)
    places = set()
    for original, moved in zip(originals, shuffled, strict=True):
        for n in range(2):
            before, after = original[n].ravel(), moved[n].ravel()
            found = tuple(int(np.argmin(np.abs(before - value))) for value in after)
            np.testing.assert_allclose(after, before[list(found)], rtol=1e-12)
            places.add(found)
    (found,) = places
    assert sorted(found) == list(range(12))
    assert all(source != pixel for pixel, source in enumerate(found))

    y = result_of(ShuffledSSA(), variables, X, train=True)
    for n, i, j, c in np.ndindex(*X.shape):
        np.testing.assert_allclose(y[n, i, j, c], shuffled[1][n, i, j] * X[n, i, j, c])


def test_the_permutation_depends_on_the_seed_and_on_nothing_else():
    def gate(seed, shape=X.shape):
        x = jnp.asarray(X.reshape(shape), jnp.float32)
        block = ShuffledSSA(seed=seed)
        variables = block.init(jax.random.key(seed), x, train=False)
        _, state = block.apply(variables, x, train=False, mutable=['intermediates'])
        return np.asarray(state['intermediates']['gate'][0]).reshape(2, 12)

    np.testing.assert_array_equal(gate(0), gate(0))
    np.testing.assert_allclose(gate(0), gate(0, (2, 4, 3, 5)), rtol=1e-6)
    assert not np.allclose(gate(0), gate(1))


def test_a_map_of_one_pixel_is_left_alone():
    variables = norm_variables()
    x = X[:, :1, :1]
    np.testing.assert_array_equal(
        result_of(ShuffledSSA(), variables, x, False), result_of(SSABlock(), variables, x, False)
    )


@pytest.mark.parametrize(
    ('block', 'maps', 'parameters'),
    [(ConstantGate, (1, 1, 1), 1), (ShuffledSSA, (8, 8, 1), 2)],
)
def test_the_controls_work_in_networks(block, maps, parameters):
    model = create_model('resnet20', num_classes=10, attention=partial(block, name='control'))
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    control = jax.tree.leaves(shapes['params']['layer1_0']['control'])
    assert sum(leaf.size for leaf in control) == parameters
    gates = find_gates(model, 8)
    assert len(gates) == 9
    assert gates['layer1_0/control'] == (*maps, 1.0)
