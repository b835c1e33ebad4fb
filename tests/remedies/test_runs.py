"""The remedies in messages about a run, its workdir and its checkpoints."""

import json
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from ssanet_jax.config.validation import check_same_model
from ssanet_jax.data import DatasetInfo
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from tests.helpers import load_config
from tests.remedies.helpers import after, listed, refused
from tests.test_main import digits_flags, main

INFO = DatasetInfo(100, 10, 10, tuple('0123456789'), 'a folder', '', 'digits 1')


def tree(step):
    return {'step': jnp.int32(step), 'kernel': jnp.full((2,), step / 7)}


@pytest.fixture
def run(tmp_path):
    """The workdir of a run with checkpoints of steps 3 and 5, of which none was evaluated."""
    workdir = Workdir(tmp_path / 'run')
    workdir.make()
    with Checkpoints(workdir, keep=2) as checkpoints:
        for step in (3, 5):
            checkpoints.save(step, tree(step), wait=True)
    run_history.record(load_config('digits_ssa20'), INFO, workdir, 0)
    return workdir


def test_a_run_goes_on_in_each_way_that_is_named(run, tmp_path):
    config = load_config('digits_ssa20')
    config.seed = 7

    def start(config=config, workdir=run, info=INFO, **options):
        options = {'allow_config_change': False, **options}
        return run_history.check_same_run(config, info, workdir, **options)

    message = refused('This workdir belongs to a different run', start)
    assert message.endswith(
        'Use a new workdir, restore the old values, or pass --allow_config_change.'
    )
    assert start(workdir=Workdir(tmp_path / 'new')) == []
    config.seed = int(re.search(r'seed was (\d+)', message)[1])
    assert start() == []
    config.seed = 7
    assert start(allow_config_change=True) == ['Changed since the last start: seed was 0 and is 7.']
    message = refused('belongs to a different run', start, model_fits=lambda: False)
    assert message.endswith('Use a new workdir, or restore the old values.')
    config.seed = 0
    for info in (INFO._replace(order='a set in memory'), INFO._replace(fingerprint='digits 2')):
        refused('belongs to a different run', start, info=info)
        assert start(info=info, allow_config_change=True)


def test_a_checkpoint_of_another_model_is_evaluated_with_the_old_values(run):
    config = load_config('digits_ssa20')
    config.model.name = 'resnet20'
    message = refused('The run in this workdir has another config', check_same_model, config,
                      run.read_config())  # fmt: skip
    config.model.name = re.search(r"model.name was '(\w+)'", message)[1]
    check_same_model(config, run.read_config())
    assert message.endswith('or omit --config to evaluate with the config of the run.')
    check_same_model(ConfigDict(run.read_config()), run.read_config())


def test_the_checkpoints_that_are_named_exist(run):
    with CheckpointReader(run) as checkpoints:
        message = refused('was evaluated; choose --checkpoint=latest', checkpoints.find, 'best')
        assert checkpoints.find(after('choose --checkpoint=', message)) == 5
        message = refused('is not in', checkpoints.find, '4')
        assert {checkpoints.find(name) for name in listed('nearest: ', message)} == {3, 5}
        next(Path(run.checkpoints, '5').rglob('_METADATA')).write_text('damaged')
        message = refused(' is damaged: ', checkpoints.find, '5')
        (other,) = listed('there are ', message)
        assert checkpoints.find(other) == 3
        refused(
            'Use the config that it was trained with',
            checkpoints.restore,
            3,
            {'step': jnp.zeros(2)},
        )
        assert checkpoints.restore(3, tree(0))


def test_the_newest_checkpoint_may_be_restored_or_the_workdir_left(run, tmp_path):
    run.metrics.write_text(metrics_line(3, 'eval', top1=1.0) + metrics_line(6, 'eval', top1=2.0))
    shutil.move(run.checkpoints, tmp_path / 'kept')
    refused('checkpoints/ back, or use a new workdir', run_history.check_nothing_lost, run)
    assert run_history.check_nothing_lost(Workdir(tmp_path / 'new')) == []
    refused('holds no checkpoints/; name the workdir of a run', run.read_config)
    shutil.move(tmp_path / 'kept', run.checkpoints)
    assert run.read_config()
    assert run.checkpoint_steps() == [3, 5]


def test_damaged_files_of_a_run_are_restored_or_removed(run):
    for path, read, otherwise in (
        (run.classes, run.read_classes, 'remove it'),
        (run.config, run.read_config, 'use a new workdir'),
    ):
        text = path.read_text()
        path.write_text('{')
        message = refused(' is damaged: ', read)
        assert message.endswith(f'Restore a copy, or {otherwise}.')
        path.write_text(text)
        assert read()
    run.classes.unlink()
    assert run.read_classes() == ()
    run.metrics.write_text('{\n{}\n')
    refused(' is damaged: ', run.read_metrics)
    run.metrics.write_text(metrics_line(3, 'eval', top1=1.0))
    assert len(run.read_metrics()) == 1


def test_a_workdir_is_free_when_its_run_has_ended(run):
    with run.lock():
        refused('wait for it, stop it, or use another', run.lock().__enter__)
    with run.lock():
        assert json.loads(run.run_lock.read_text())


@pytest.fixture
def flags(tmp_path, data_dir):
    flags = digits_flags(tmp_path / 'run', data_dir)
    return [*flags, '--config.optimizer.schedule=constant']


def test_a_workdir_with_another_name_works(tmp_path):
    refused('; choose another name', Workdir(tmp_path / 'a\\b').check_name)
    Workdir(tmp_path / 'a[b]').check_name()


@pytest.mark.slow
def test_a_frozen_network_is_trained_with_the_flag_that_is_advised(flags):
    frozen = '--config.optimizer.train_only=("fc/*",)'
    assert main(*flags, frozen, '--config.num_train_steps=2').returncode == 0
    flags.append('--config.num_train_steps=4')
    advised = main(*flags)
    assert (advised.returncode, advised.stderr.count('\n')) == (2, 1), advised.stderr
    allowed = main(*flags, re.search(r'or pass (--\w+)\.', advised.stderr)[1])
    assert allowed.returncode == 0, allowed.stderr
    assert 'it starts anew' in allowed.stdout


@pytest.mark.slow
def test_an_evaluation_needs_the_workdir_alone(trained_digits, tmp_path):
    evaluation = ['--mode=eval', f'--workdir={shutil.copytree(trained_digits, tmp_path / "run")}']
    contradicted = main(*evaluation, '--config.model.name=resnet8')
    assert contradicted.returncode == 2
    assert "another config: model.name was 'ssa_resnet8'" in contradicted.stderr
    result = main(*evaluation, '--checkpoint=60')
    assert (result.returncode, result.stderr) == (0, '')
    assert 'ssa_resnet8, step 60, on digits test' in result.stdout


@pytest.mark.slow
def test_a_diverged_run_goes_on_with_a_lower_learning_rate(flags):
    assert main(*flags, '--config.num_train_steps=2').returncode == 0
    flags += ['--config.num_train_steps=6', '--allow_config_change']
    diverged = main(*flags, '--config.optimizer.learning_rate=1e6')
    assert diverged.returncode == 3, diverged.stderr
    assert (
        'is that of step 2. Lower config.optimizer.learning_rate and pass --all' in diverged.stderr
    )
    lower = main(*flags, '--config.optimizer.learning_rate=0.01')
    assert lower.returncode == 0, lower.stderr
