"""Losses and gradients that explode or are not finite."""

import json
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import data
from ssanet_jax.config import base, make_plan
from ssanet_jax.errors import DivergedError
from ssanet_jax.pretrained.preprocessing import Preprocessing
from ssanet_jax.training import loop, parallel, steps, trainer_setup
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.optimizer import make_optimizer, make_schedule
from tests.helpers import assert_trees_equal, mesh_of, reproducible


def test_a_diverged_run_stops_and_names_the_step_and_the_last_good_checkpoint(short, tmp_path):
    short.model.name, short.batch_size = 'resnet8', 8
    short.num_train_steps, short.optimizer.learning_rate = 30, 1e30
    message = r'At step 2 the loss or .* last good checkpoint in .* is none'
    with pytest.raises(DivergedError, match=message):
        loop.train_and_evaluate(
            short, tmp_path, build=partial(trainer_setup.build, mesh=mesh_of(1))
        )
    assert list((tmp_path / 'checkpoints').iterdir()) == []

    def refuse(constant):
        raise ValueError(constant)

    for line in (tmp_path / 'metrics.jsonl').read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.slow
def test_an_exploding_loss_stops_the_run_with_its_checkpoints_good(short, tmp_path):
    short.num_train_steps, short.checkpoint_every_steps = 8, 8
    short.optimizer.schedule = 'constant'
    loop.train_and_evaluate(short, str(tmp_path))
    short.num_train_steps, short.max_loss = 30, 1e-3
    with pytest.raises(DivergedError, match=r'At step 9 .* is that of step 8\.'):
        loop.train_and_evaluate(short, str(tmp_path))


def poison(config, bad_steps):
    """Arguments of a run whose images are infinite in some steps."""
    normalize = Preprocessing.from_config(config.dataset).normalize

    def preprocess(image):
        marked = (image[0, 0, 0, 0] == 255) & (image[0, 0, 0, 1] == 7)
        return normalize(image) * jnp.where(marked, jnp.inf, 1.0)

    def train_batches(config, *, start_step=0):
        batches = data.train_batches(config, start_step=start_step)
        for step, batch in enumerate(batches, start_step + 1):
            image = batch['image'].copy()
            image[:, 0, 0, :2] = (255, 7) if step in bad_steps else (255, 8)
            yield {**batch, 'image': image}

    return {
        'build': partial(trainer_setup.build, preprocess=preprocess),
        'train_batches': train_batches,
    }


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_counted(short, tmp_path):
    short.num_train_steps, short.eval_every_steps, short.log_every_steps = 10, 5, 1
    short.optimizer.schedule = 'cosine'
    poisoned = poison(short, {4, 5})
    with pytest.raises(DivergedError, match='At step 4 '):
        loop.train_and_evaluate(short, tmp_path / 'stops', **poisoned)
    short.max_bad_steps = 2
    state = loop.train_and_evaluate(short, tmp_path / 'skips', **poisoned)
    short.max_bad_steps = 1
    with pytest.raises(DivergedError, match='At step 5 '):
        loop.train_and_evaluate(short, tmp_path / 'too many', **poisoned)
    lines = [line for line in reproducible(tmp_path / 'skips') if line['split'] == 'train']
    assert [line['skipped_steps'] for line in lines] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert [line['num_examples'] for line in lines] == [64, 64, 64, 0, 0, 64, 64, 64, 64, 64]
    cosine = 0.1 * (1 + np.cos(np.pi * np.arange(10) / 10)) / 2
    assert [line['learning_rate'] for line in lines] == pytest.approx(cosine, rel=1e-5)
    assert int(state.step) == 10
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


class Scaled(nn.Module):
    """One weight: the logit is the weight times the pixel, which has a running mean."""

    @nn.compact
    def __call__(self, x, *, train):
        mean = self.variable('batch_stats', 'mean', jnp.zeros, ())
        mean.value = 0.9 * mean.value + 0.1 * x[0, 0, 0, 0]
        weight = self.param('weight', nn.initializers.constant(2.0), ())
        return weight * x[:, 0, 0, :1]


def step_of_scaled(tx, loss=lambda logits, label: logits[:, 0], **options):
    objective = Objective(Scaled(), loss, lambda image: image)
    step = partial(steps.train_step, objective=objective, tx=tx, **options)
    return parallel.parallel_train_step(step, mesh_of(1))


def state_of_scaled(tx):
    params, stats = {'weight': jnp.float32(2.0)}, {'mean': jnp.float32(0.0)}
    return steps.TrainState(jnp.int32(0), params, stats, tx.init(params))


def batch_of_one(pixel):
    return {
        'image': np.full((1, 1, 1, 3), pixel, np.float32),
        'label': np.zeros(1, np.int32),
        'mask': np.ones(1, bool),
    }


@pytest.mark.parametrize('skips', [0, 3])
def test_a_loss_that_is_not_finite_is_bad_though_its_gradient_is_finite(skips):
    """The loss is w * x + NaN, whose gradient is x."""
    tx = optax.apply_if_finite(optax.sgd(0.1), skips) if skips else optax.sgd(0.1)
    step = step_of_scaled(tx, lambda logits, label: logits[:, 0] + jnp.nan, max_bad_steps=skips)
    _, total = step(state_of_scaled(tx), batch_of_one(1.0), Metrics.zero())
    assert int(total.bad_step) == 1


def test_a_skipped_step_changes_nothing_else():
    tx = optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 1)
    step = step_of_scaled(tx, max_bad_steps=1)
    state, total = step(state_of_scaled(tx), batch_of_one(1.0), Metrics.zero())
    before = jax.device_get(state)
    after, total = step(state, batch_of_one(np.inf), total)
    assert_trees_equal(after.variables, before.variables)
    assert_trees_equal(after.opt_state.inner_state, before.opt_state.inner_state)
    assert (int(after.step), int(total.num_examples), int(total.bad_step)) == (2, 1, 0)
    assert after.batch_stats['mean'] == pytest.approx(0.1)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
@pytest.mark.parametrize('schedule', ['cosine', 'step'])
def test_the_learning_rate_follows_the_step_where_steps_are_skipped(schedule, name):
    """The loss is w * x, whose gradient is x; steps 2 to 4 of 10 have an infinite x."""
    config = base()
    config.batch_size = config.optimizer.reference_batch_size = 1
    config.num_train_steps = 10
    config.optimizer.update({'schedule': schedule, 'name': name, 'decay_epochs': (3.0, 7.0)})
    config.optimizer.weight_decay = 0.01
    plan = make_plan(config, 1)  # one step an epoch
    tx = optax.apply_if_finite(
        make_optimizer(config.optimizer, make_schedule(config.optimizer, plan)), 3
    )
    step = step_of_scaled(tx, max_bad_steps=3)
    pixels = np.random.default_rng(0).uniform(0.5, 1.5, 10).astype(np.float32)
    pixels[2:5] = np.inf
    state, total = state_of_scaled(tx), Metrics.zero()
    found = []
    for pixel in pixels:
        state, total = step(state, batch_of_one(pixel), total)
        found.append(float(state.params['weight']))
    assert found == pytest.approx(by_hand(pixels, schedule, name), rel=1e-5)
    assert int(total.bad_step) == 0


def by_hand(pixels, schedule, name, decay=0.01):
    """Weights after each step, in float64, with learning rates by the number of the step."""
    weight, first, second, updates, weights = 2.0, 0.0, 0.0, 0, []
    for step, gradient in enumerate(pixels.astype(np.float64)):
        rate = (
            0.1
            * {
                'cosine': (1 + np.cos(np.pi * step / 10)) / 2,
                'step': 0.1 ** ((step >= 3) + (step >= 7)),
            }[schedule]
        )
        if np.isfinite(gradient) and name == 'sgd':
            first = 0.9 * first + gradient + decay * weight
            weight -= rate * first
        elif np.isfinite(gradient):
            updates += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            corrected = np.sqrt(second / (1 - 0.999**updates)) + 1e-8
            weight -= rate * (first / (1 - 0.9**updates) / corrected + decay * weight)
        weights.append(weight)
    return weights
