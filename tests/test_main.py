"""main.py as people call it."""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT


def main(*arguments, timeout=300, **environment):
    return subprocess.run(
        [sys.executable, 'main.py', *arguments],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': '', **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def digits_flags(workdir, data_dir):
    return [
        '--config=configs/digits_ssa20.py',
        f'--workdir={workdir}',
        f'--config.dataset.data_dir={data_dir}',
        '--noreport',
    ]


def test_train_then_evaluate(tmp_path, data_dir):
    flags = digits_flags(tmp_path, data_dir)
    trained = main(*flags, '--report', '--config.num_train_steps=10', '--config.batch_size=32')
    assert trained.returncode == 0, trained.stderr
    assert 'Learning rate 0.1 for 64 images is 0.05 for 32' in trained.stdout
    assert 'step 10/10  eval' in trained.stdout
    assert f'Report: {tmp_path}/report.html' in trained.stdout
    assert 'ssa_resnet20' in (tmp_path / 'report.html').read_text()
    evaluated = main(*flags, '--mode=eval', '--checkpoint=latest')
    assert evaluated.returncode == 0, evaluated.stderr
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert f'{summary["final"]["top1"]:.2f} %' in evaluated.stdout
    assert trained.stderr + evaluated.stderr == ''


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--config.batch_siz=3'], 'config.batch_siz does not exist; nearest: batch_size'),
        (['--config.batch_size=many'], 'flag --config.batch_size=many: invalid literal'),
        (['--config.batch_size=0'], 'config.batch_size=0 is out of range'),
        (['--config.model.name=ssa_resnt20'], 'Nearest: ssa_resnet20'),
        (
            ['--config=configs/none.py'],
            '--config=configs/none.py is no file; recipes here: configs/',
        ),
        (['--mode=test'], 'flag --mode=test: value should be one of <train|eval>'),
        (['--process_id=1'], 'belong together'),
        (['--config', 'configs/none.py'], '--config=configs/none.py is no file'),
        (
            ['--process_id=2', '--num_processes=2', '--coordinator_address=a:1'],
            'hosts count from 0',
        ),
        (['--config.model.se.ratio=8'], "has no effect on config.model.name='ssa_resnet20'"),
        (['--config.dataset.data_dir=/proc/none'], 'config.dataset.data_dir'),
        (['spare'], "Unexpected argument 'spare'"),
        (['--workdir='], '--workdir has no value'),
        (['--workdir', '--config.seed=1'], '--workdir has no value'),
        (['--workdir=~/runs'], 'the shell leaves this ~ as it is'),
        (['--config=configs/imagenet_ssa50.py'], 'give only one of them'),
        (['--noconfig.dataset.flip=true'], 'does not take an argument'),
        (['--config.optimizer.learning_rate=nan'], 'learning_rate=nan is of the wrong type'),
        (['--config.dataset.mean=(0.5,'], 'Error while parsing string: (0.5, as tuple'),
        (['--config.model.ssa=3'], 'config.model.ssa is a group of fields'),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, message, tmp_path, data_dir):
    result = main(*digits_flags(tmp_path / 'run', data_dir), *flags)
    assert result.returncode == 2
    assert result.stderr.startswith('main.py: ')
    assert result.stderr.count('\n') == 1
    assert message in result.stderr
    assert not (tmp_path / 'run').exists()


def test_no_argument_at_all_is_a_mistake_too():
    result = main()
    assert (result.returncode, result.stderr.count('\n')) == (2, 1)
    assert '--config must have a value' in result.stderr


def test_help_explains_itself():
    result = main('--help')
    assert 'python main.py --config=configs/digits_ssa20.py' in result.stdout
    assert '--checkpoint' in result.stdout


def test_a_workdir_that_is_a_file_is_refused(tmp_path, data_dir):
    (tmp_path / 'run').write_text('')
    result = main(*digits_flags(tmp_path / 'run', data_dir))
    assert (result.returncode, result.stderr.count('\n')) == (2, 1)
    assert 'cannot be created' in result.stderr


def test_evaluating_where_nothing_was_trained_makes_nothing(tmp_path, data_dir):
    result = main(*digits_flags(tmp_path / 'typo', data_dir), '--mode=eval')
    assert (result.returncode, result.stderr.count('\n')) == (2, 1)
    assert 'name the workdir of a run' in result.stderr
    assert not (tmp_path / 'typo').exists()


@pytest.mark.slow
def test_another_config_in_the_same_workdir_is_refused_and_nothing_is_lost(tmp_path, data_dir):
    flags = [*digits_flags(tmp_path, data_dir), '--config.num_train_steps=4']
    assert main(*flags).returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for change in ('--config.seed=1', '--config.model.name=resnet20', '--config.num_train_steps=2'):
        result = main(*flags, change)
        assert (result.returncode, result.stderr.count('\n')) == (2, 1), result.stderr
        assert 'new workdir' in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before
