import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax.config import base
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.training.optimizer import OPTIMIZERS, make_optimizer
from tests.golden import rule
from tests.helpers import ROOT, float64, quick_jit

TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())
PARAMS = {'conv1': {'kernel': 1.5}, 'bn1': {'scale': 1.2, 'bias': -0.4}}
GRADIENT = {'conv1': {'kernel': 0.3}, 'bn1': {'scale': -0.2, 'bias': 0.1}}


def run(steps=3, **settings):
    config = base()
    config.optimizer.update(settings)
    tx = make_optimizer(config.optimizer, optax.constant_schedule(0.1))
    params, gradient = (jax.tree.map(jnp.float32, tree) for tree in (PARAMS, GRADIENT))
    state = tx.init(params)
    for step in range(steps):
        with jax.numpy_dtype_promotion('standard'):
            updates, state = tx.update(gradient, state, params, step=jnp.int32(step))
        params = optax.apply_updates(params, updates)
    return params


def sgd_by_hand(value, gradient, decay, nesterov, steps=3, momentum=0.9, rate=0.1):
    """torch.optim.SGD, from the formulas in its documentation."""
    buffer = 0.0
    for _ in range(steps):
        g = gradient + decay * value
        buffer = momentum * buffer + g
        value -= rate * (g + momentum * buffer if nesterov else buffer)
    return value


def adamw_by_hand(value, gradient, decay, steps=3, b1=0.9, b2=0.999, rate=0.1):
    m = v = 0.0
    for t in range(1, steps + 1):
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        value -= rate * (direction + decay * value)
    return value


@pytest.mark.parametrize('decayed', ['all', 'kernels'])
@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_equals_that_of_torch(nesterov, decayed):
    found = run(nesterov=nesterov, decay_parameters=decayed, weight_decay=0.01)

    def expected(path, value, gradient):
        decay = 0.01 if decayed == 'all' or path[-1].key == 'kernel' else 0.0
        return sgd_by_hand(value, gradient, decay, nesterov)

    assert found == by_path(expected)


@pytest.mark.parametrize('decayed', ['all', 'kernels'])
def test_adamw_decouples_weight_decay(decayed):
    found = run(name='adamw', decay_parameters=decayed, weight_decay=0.01)

    def expected(path, value, gradient):
        decay = 0.01 if decayed == 'all' or path[-1].key == 'kernel' else 0.0
        return adamw_by_hand(value, gradient, decay)

    assert found == by_path(expected)


def by_path(function):
    tree = jax.tree_util.tree_map_with_path(function, PARAMS, GRADIENT)
    return {module: pytest.approx(values, rel=1e-5) for module, values in tree.items()}


def test_only_parameters_that_match_a_pattern_are_trained():
    found = run(train_only=('*/kernel',), weight_decay=0.01)

    def expected(path, value, gradient):
        return sgd_by_hand(value, gradient, 0.01, False) if path[-1].key == 'kernel' else value

    assert found == by_path(expected)


def test_every_choice_has_an_optimizer():
    assert FIELDS['optimizer.name'].choices == tuple(OPTIMIZERS)


SHAPES = {'conv1/kernel': (2, 2, 3, 4), 'bn1/scale': (4,), 'fc/bias': (5,)}
TORCH = {'conv1/kernel': 'conv1.weight', 'bn1/scale': 'bn1.weight', 'fc/bias': 'fc.bias'}


def tree_of(prefix=''):
    """Values of rule.py by path, in this package's layout."""
    tree = {}
    for path, shape in SHAPES.items():
        name = TORCH[path]
        in_torch = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
        array = rule.weight(prefix + name, in_torch)
        module, leaf = path.split('/')
        tree[module] = {leaf: array.transpose(2, 3, 1, 0) if len(shape) == 4 else array}
    return tree


def train(tx, steps=5):
    """Parameters after some steps with fixed gradients, in float64; `tx` may be an alias."""
    with float64():
        params = jax.tree.map(jnp.asarray, tree_of())
        state, update = tx.init(params), quick_jit(optax.with_extra_args_support(tx).update)
        for step in range(steps):
            gradient = jax.tree.map(jnp.asarray, tree_of(f'gradient {step} '))
            updates, state = update(gradient, state, params, step=jnp.int32(step))
            params = optax.apply_updates(params, updates)
        return jax.device_get(params)


def configured(rate=0.02, **settings):
    config = base()
    config.optimizer.update({'weight_decay': 0.1, 'decay_parameters': 'kernels', **settings})
    return make_optimizer(config.optimizer, optax.constant_schedule(rate))


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('lamb clipped', {'name': 'lamb', 'clip_norm': 1.0}),
        ('lion', {'name': 'lion', 'b2': 0.99}),
    ],
)
def test_lamb_and_lion_equal_those_of_timm(name, settings):
    """With weight decay, and LAMB's adaptation, of kernels only."""
    found, expected = train(configured(**settings)), TIMM['optimizers'][name]
    for path, theirs in TORCH.items():
        module, leaf = path.split('/')
        ours = found[module][leaf]
        ours = ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours
        np.testing.assert_allclose(ours.ravel(), expected[theirs], rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ('settings', 'alias'),
    [
        ({'name': 'lamb'}, lambda rate: optax.lamb(rate, weight_decay=0.1)),
        ({'name': 'lars'}, lambda rate: optax.lars(rate, weight_decay=0.1)),
    ],
    ids=lambda value: value.get('name') if isinstance(value, dict) else '',
)
def test_with_decay_of_all_parameters_optimizers_are_those_of_optax(settings, alias):
    """At a learning rate that falls, which momentum of updates with rates remembers."""
    schedule = optax.linear_schedule(0.02, 0.0, 10)
    config = base()
    config.optimizer.update({'weight_decay': 0.1, **settings})
    found = train(make_optimizer(config.optimizer, schedule))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, train(alias(schedule))
    )


def muon_by_hand(steps=5, rate=0.02, decay=0.1, beta=0.95):
    """Jordan's Newton-Schulz iteration of the momentum, as a [12, 4] matrix; no Nesterov."""
    weight, momentum = tree_of()['conv1']['kernel'].reshape(12, 4), 0.0
    for step in range(steps):
        gradient = tree_of(f'gradient {step} ')['conv1']['kernel'].reshape(12, 4)
        momentum = beta * momentum + (1 - beta) * gradient
        x = momentum.T / np.linalg.norm(momentum)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        weight = weight - rate * (0.2 * np.sqrt(12) * x.T + decay * weight)
    return weight


def test_muon_orthogonalizes_kernels_and_leaves_the_rest_to_adamw():
    settings = {'momentum': 0.95, 'decay_parameters': 'kernels'}
    found = train(configured(name='muon', **settings))
    np.testing.assert_allclose(found['conv1']['kernel'].reshape(12, 4), muon_by_hand(), rtol=1e-5)
    adamw = train(configured(name='adamw'))
    for module in ('bn1', 'fc'):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[module], adamw[module]
        )


def test_gradients_are_clipped_to_a_norm_of_all_of_those_trained_together():
    def norm(**settings):
        before, after = tree_of(), train(configured(weight_decay=0.0, **settings), steps=1)
        moved = jax.tree.map(lambda a, b: np.asarray(a - b) / 0.02, before, after)
        return float(np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(moved))))

    whole = norm()
    assert whole > 2
    assert norm(clip_norm=1.5) == pytest.approx(1.5, rel=1e-6)
    assert norm(clip_norm=2 * whole) == pytest.approx(whole, rel=1e-6)
    assert norm(clip_norm=0.5, train_only=('*/scale',)) == pytest.approx(0.5, rel=1e-6)
