import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax.config import base, make_plan
from ssanet_jax.training.optimizer import make_optimizer, make_schedule


def schedule_of(**settings):
    config = base()
    config.batch_size, config.num_epochs = 10, 10.0
    config.optimizer.reference_batch_size = 10
    config.optimizer.update({'decay_epochs': (4.0, 8.0), **settings})
    return make_schedule(config.optimizer, make_plan(config, 100))  # 10 steps per epoch


@pytest.mark.parametrize('warmup', [0.0, 2.0])
def test_step_schedule_divides_at_its_epochs(warmup):
    schedule = schedule_of(schedule='step', warmup_epochs=warmup)
    steps = {20: 0.1, 39: 0.1, 40: 0.01, 79: 0.01, 80: 0.001, 99: 0.001}
    found = {step: float(schedule(step)) for step in steps}
    assert found == pytest.approx(steps, rel=1e-5)


def test_decays_that_round_to_the_same_step_multiply():
    config = base()
    config.batch_size, config.num_epochs = 100, 4.0
    config.optimizer.reference_batch_size = 100
    config.optimizer.decay_epochs = (1.2, 1.4, 3.0)
    schedule = make_schedule(config.optimizer, make_plan(config, 100))  # one step per epoch
    rates = [float(schedule(step)) for step in range(4)]
    assert rates == pytest.approx([0.1, 0.001, 0.001, 0.0001], rel=1e-5)


def test_cosine_schedule_falls_from_the_end_of_the_warm_up():
    schedule = schedule_of(
        schedule='cosine', warmup_epochs=2.0, decay_epochs=base().optimizer.decay_epochs
    )
    for step in range(100):
        expected = 0.1 * step / 20 if step < 20 else 0.05 * (1 + np.cos(np.pi * (step - 20) / 80))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-7)


def test_constant_schedule_warms_up():
    schedule = schedule_of(schedule='constant', warmup_epochs=1.0)
    assert [float(schedule(step)) for step in (0, 5, 10, 99)] == pytest.approx([0, 0.05, 0.1, 0.1])


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
