"""Losses and gradients that explode or are not finite."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.errors import DivergedError
from ssanet_jax.training import loop, trainer_setup
from tests.helpers import assert_trees_equal, reproducible


def test_a_diverged_run_stops_and_names_the_step_and_the_last_good_checkpoint(short, tmp_path):
    short.num_train_steps, short.optimizer.learning_rate = 30, 1e30
    message = r'At step 2 the loss or .* last good checkpoint in .* is none'
    with pytest.raises(DivergedError, match=message):
        loop.train_and_evaluate(short, str(tmp_path))
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


def poison(monkeypatch, bad_steps):
    """Makes every image of some steps so large that the network computes nothing finite."""
    real = trainer_setup.steps.preprocess

    def preprocess(image, *, mean, std):
        marked = (image[0, 0, 0, 0] == 255) & (image[0, 0, 0, 1] == 7)
        return real(image, mean=mean, std=std) * jnp.where(marked, jnp.inf, 1.0)

    batches = data.train_batches

    def marked_batches(config, *, start_step=0):
        for number, batch in enumerate(batches(config, start_step=start_step), start_step + 1):
            image = batch['image'].copy()
            image[:, 0, 0, :2] = (255, 7) if number in bad_steps else (255, 8)
            yield {**batch, 'image': image}

    monkeypatch.setattr(trainer_setup.steps, 'preprocess', preprocess)
    monkeypatch.setattr(loop.data, 'train_batches', marked_batches)


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_counted(short, tmp_path, monkeypatch):
    short.num_train_steps, short.eval_every_steps, short.log_every_steps = 10, 5, 1
    short.optimizer.schedule = 'constant'
    with monkeypatch.context() as patch:
        poison(patch, {4, 5})
        with pytest.raises(DivergedError, match='At step 4 '):
            loop.train_and_evaluate(short, str(tmp_path / 'stops'))
        short.max_bad_steps = 2
        state = loop.train_and_evaluate(short, str(tmp_path / 'skips'))
        short.max_bad_steps = 1
        with pytest.raises(DivergedError, match='At step 5 '):
            loop.train_and_evaluate(short, str(tmp_path / 'too many'))
    lines = [line for line in reproducible(tmp_path / 'skips') if line['split'] == 'train']
    assert [line['skipped_steps'] for line in lines] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert [line['num_examples'] for line in lines] == [64, 64, 64, 0, 0, 64, 64, 64, 64, 64]
    assert int(state.step) == 10
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


@pytest.mark.slow
def test_a_skipped_step_changes_nothing_else(short, tmp_path, monkeypatch):
    short.optimizer.schedule, short.max_bad_steps = 'constant', 1
    poison(monkeypatch, {3})
    states = {}
    for steps in (2, 3):
        short.num_train_steps = steps
        states[steps] = jax.device_get(loop.train_and_evaluate(short, str(tmp_path / str(steps))))
    assert_trees_equal(states[3].params, states[2].params)
    assert_trees_equal(states[3].batch_stats, states[2].batch_stats)
    assert_trees_equal(states[3].opt_state.inner_state, states[2].opt_state.inner_state)
