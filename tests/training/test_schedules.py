"""Learning rates against equations, timm and torch."""

import json

import numpy as np
import pytest

from ssanet_jax.config import base, make_plan
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.optimizer import make_schedule
from tests.helpers import ROOT

TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())


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


@pytest.mark.parametrize(
    ('name', 'settings'),
    [
        ('cosine', {'warmup_start': 0.1, 'floor': 0.02, 'cooldown_epochs': 1.0}),
        ('polynomial', {'warmup_start': 0.1, 'floor': 0.02, 'power': 2.0}),
        ('torchvision', {'schedule': 'cosine', 'warmup_start': 0.01}),
    ],
)
def test_schedules_with_warm_up_floor_and_cool_down_equal_those_of_timm_and_torch(name, settings):
    settings = {'schedule': name, 'warmup_epochs': 2.0, 'learning_rate': 0.5, **settings}
    schedule = schedule_of(**settings)
    found = [float(schedule(step)) for step in range(100)]
    np.testing.assert_allclose(found, TIMM['schedules'][name], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize('warmup', [0.0, 2.0])
def test_a_piecewise_schedule_interpolates_between_epochs_of_the_run(warmup):
    """After a warm-up the lines go on as without one."""
    schedule = schedule_of(
        schedule='piecewise',
        warmup_epochs=warmup,
        knot_epochs=(0.0, 2.0, 9.0),
        knot_factors=(1e-4, 1.0, 0.1),
    )
    for step in range(20 if warmup else 0, 100):
        expected = 0.1 * np.interp(step / 10, [0, 2, 9], [1e-4, 1, 0.1])
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5)


def test_ffcvs_schedule_is_a_warm_up_and_a_polynomial():
    """np.interp([epoch], [0, lr_peak_epoch, epochs], [1e-4, 1, 0]), by step."""
    schedule = schedule_of(schedule='polynomial', warmup_epochs=2.0, warmup_start=1e-4)
    for step in range(100):
        expected = 0.1 * np.interp(step / 10, [0, 2, 10], [1e-4, 1, 0])
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_a_warm_up_and_cool_down_that_fill_the_run_are_refused():
    with pytest.raises(ConfigError, match=r'cooldown_epochs=5.0 are 50 steps, .* 50 after its war'):
        schedule_of(schedule='cosine', warmup_epochs=5.0, cooldown_epochs=5.0)
