"""A run with every part of a recipe at once: killed, resumed, evaluated and loaded."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.trained.load import load_trained
from ssanet_jax.training import evaluation, loop
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal, reproducible, stop_after

pytestmark = pytest.mark.slow


def recipe(config):
    """Six steps of a ResNet-8 with everything on."""
    config.model.name = 'resnet8'
    config.num_train_steps, config.checkpoint_every_steps = 6, 1
    config.log_every_steps, config.eval_every_steps = 2, 3
    config.max_bad_steps = 2
    config.micro_batches = 2
    config.loss, config.target_threshold, config.label_smoothing = 'binary_cross_entropy', 0.2, 0.1
    config.mix.update({'mixup_alpha': 0.2, 'cutmix_alpha': 1.0})
    config.ema.horizon = 0.4
    config.model.dropout = 0.1
    config.optimizer.update(
        {
            'name': 'lamb',
            'decay_parameters': 'kernels',
            'clip_norm': 1.0,
            'schedule': 'cosine',
            'warmup_epochs': 0.05,
            'warmup_start': 0.1,
            'floor': 0.1,
            'cooldown_epochs': 0.05,
            'learning_rate': 0.02,
        }
    )
    return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory, data_dir):
    """The workdir of an uninterrupted run and its last state."""
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, jax.device_get(loop.train_and_evaluate(recipe(config), workdir))


def test_a_killed_run_resumes_bit_for_bit_with_everything_on(digits, whole, tmp_path):
    workdir, state = whole
    with pytest.raises(KilledError):
        loop.train_and_evaluate(recipe(digits), tmp_path, train_batches=stop_after(4))
    resumed = loop.train_and_evaluate(digits, tmp_path)
    assert_trees_equal(jax.device_get(resumed), state)
    assert reproducible(tmp_path) == reproducible(workdir)
    assert int(state.step) == 6


def test_averages_and_raw_weights_are_evaluated_side_by_side(digits, whole):
    workdir, state = whole
    last = [line for line in Workdir(workdir).read_metrics() if line['split'] == 'eval'][-1]
    assert last.keys() >= {'loss', 'top1', 'top5', 'raw/loss', 'raw/top1', 'raw/top5'}
    assert 'raw/num_examples' not in last
    setup, _ = evaluation.set_up(recipe(digits), loop.trainer_setup.build)
    plain = {'raw/': state.eval_states['raw/'], '': state.eval_states['']}
    for prefix, variant in plain.items():
        means = evaluation.evaluate(digits, setup, variant)
        assert means['loss'] == pytest.approx(last[f'{prefix}loss'], rel=1e-5)
    assert last['loss'] != pytest.approx(last['raw/loss'], rel=1e-3)


def test_a_checkpoint_evaluates_both_with_batch_norms_folded(digits, whole):
    workdir, _ = whole
    last = [line for line in Workdir(workdir).read_metrics() if line['split'] == 'eval'][-1]
    found = evaluation.evaluate_checkpoint(recipe(digits), workdir, 'latest')
    for name in ('loss', 'raw/loss', 'top1', 'raw/top1'):
        assert found[name] == pytest.approx(last[name], rel=1e-4), name


def test_averages_are_loaded_unless_the_raw_weights_are_asked_for(whole, digits_run):
    workdir, state = whole
    assert_trees_equal(load_trained(workdir, 'latest').variables, state.ema)
    assert_trees_equal(load_trained(workdir, 'latest:raw').variables, state.variables)
    with pytest.raises(ConfigError, match='--checkpoint=latest:mean: only :raw may follow'):
        load_trained(workdir, 'latest:mean')
    with pytest.raises(
        ConfigError, match='--checkpoint=best:raw: only :raw may follow, and only for'
    ):
        load_trained(digits_run, 'best:raw')


def test_a_checkpoint_has_averages_only_where_they_are_on(whole, digits_run):
    """Without them its arrays are those of before there were any."""

    def kinds(workdir):
        folder = Workdir(workdir).checkpoints
        step = max(folder.iterdir(), key=lambda path: int(path.name))
        tree = json.loads((step / 'default' / '_METADATA').read_text())['tree_metadata']
        return {entry['key_metadata'][1]['key'] for entry in tree.values()}

    assert kinds(whole[0]) >= {'step', 'params', 'batch_stats', 'opt_state', 'ema'}
    assert 'ema' not in kinds(digits_run)


def test_weights_given_to_a_run_are_also_its_first_averages(digits, whole):
    setup, _ = evaluation.set_up(recipe(digits), loop.trainer_setup.build)
    state = setup.init()
    doubled = state.map_variables(lambda v: jax.tree.map(lambda a: 2 * a, v))
    assert_trees_equal(doubled.ema, doubled.variables)
    fields = {f.name for f in dataclasses.fields(doubled)}
    assert fields == {'step', 'params', 'batch_stats', 'opt_state', 'ema'}
    np.testing.assert_array_equal(
        doubled.params['fc']['kernel'], 2 * np.asarray(state.params['fc']['kernel'])
    )
