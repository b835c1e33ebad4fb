"""Averages of weights equal their recursion and timm's, and are evaluated, saved and loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.config import base, make_plan
from ssanet_jax.config.validation import changed_fields
from ssanet_jax.training.ema import AveragedState, average, ema_decay
from ssanet_jax.training.steps import TrainState
from tests.helpers import ROOT

TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())['averages']


def state_of(step, scale, var):
    return TrainState(jnp.int32(step), {'scale': jnp.float32(scale)}, {'var': jnp.float32(var)}, ())


@pytest.mark.parametrize('warmup', [0, 3])
def test_averages_equal_those_of_timm(warmup):
    """With a decay of 0.8, so a horizon of five of ten steps."""
    config = base()
    config.batch_size, config.num_train_steps, config.ema.horizon = 1, 10, 0.5
    config.optimizer.warmup_epochs = float(warmup)
    decay = ema_decay(config, make_plan(config, 1))
    state = AveragedState.start(state_of(0, 1.0, 1.0))
    for step, expected in enumerate(TIMM[str(warmup)]):
        new = state_of(step + 1, np.sin(step), np.cos(step))
        new = AveragedState(new.step, new.params, new.batch_stats, (), state.ema)
        state = average(new, decay=decay)
        found = [state.ema['params']['scale'], state.ema['batch_stats']['var']]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_horizon_is_a_fraction_of_the_run():
    config = base()
    config.batch_size, config.ema.horizon = 100, 0.04
    for epochs in (10.0, 90.0):
        config.num_epochs = epochs
        decay = ema_decay(config, make_plan(config, 10_000))
        assert float(decay(50)) == pytest.approx(1 - 1 / (0.04 * 100 * epochs), rel=1e-6)


def test_a_longer_run_is_another_run_where_averages_depend_on_the_length():
    config = base()
    config.optimizer.schedule = 'constant'
    for horizon, grave in ((0.0, []), (0.04, ['num_epochs was 100.0 and is 90.0'])):
        config.num_epochs, config.ema.horizon = 100.0, horizon
        saved = json.loads(config.to_json_best_effort())
        config.num_epochs = 90.0
        assert changed_fields(config, saved)[0] == grave


def test_a_step_that_was_skipped_does_not_move_the_averages():
    state = AveragedState.start(state_of(5, 2.0, 3.0))
    moved = AveragedState(
        state.step, {'scale': jnp.float32(9.0)}, {'var': jnp.float32(9.0)}, (), state.ema
    )
    after = average(moved, jnp.asarray(False), decay=lambda step: jnp.float32(0.5))
    assert jax.tree.leaves(after.ema) == [3.0, 2.0]
    after = average(moved, jnp.asarray(True), decay=lambda step: jnp.float32(0.5))
    assert jax.tree.leaves(after.ema) == [6.0, 5.5]
