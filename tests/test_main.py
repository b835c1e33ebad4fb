"""main.py, run as a user would; test_without_tensorflow.py trains and evaluates with it."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import train
from ssanet_jax.training import evaluation, loop
from tests.helpers import ROOT, run_tool


def main(*arguments, timeout=300, **environment):
    return subprocess.run(
        [sys.executable, 'main.py', *arguments],
        cwd=ROOT,
        env={**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=1', **environment},
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
        '--config.model.name=ssa_resnet8',
    ]


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, data_dir):
    result = main(*digits_flags(tmp_path / 'run', data_dir), '--config.model.name=ssa_resnt20')
    assert result.returncode == 2
    assert result.stderr.startswith('main.py: ')
    assert result.stderr.count('\n') == 1
    assert 'Nearest: ssa_resnet20' in result.stderr
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--mode=eval', '--allow_config_change'], 'has no effect without --mode=train'),
        (['--process_id=1'], 'belong together'),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, message, tmp_path, data_dir):
    with pytest.raises(ConfigError, match=message):
        run_tool(train, *digits_flags(tmp_path / 'run', data_dir), *flags)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('dataset.name', 'fashion_mnist_idx'),  # whose files are missing
        ('dataset.train_split', 'training'),
        ('model.batch_norm_group_size', 3),
        ('optimizer.train_only', ('*/nothing/*',)),
        ('init.weights', 'nowhere.safetensors'),
    ],
)
def test_a_mistake_found_after_the_start_is_one_line_and_leaves_nothing(
    field, value, digits, tmp_path
):
    digits.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=rf'config\.{field}|{value}') as error:
        loop.train_and_evaluate(digits, str(tmp_path / 'run'))
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'run').exists()


def test_help_has_the_command_the_flags_and_the_fields():
    result = main('--help')
    assert 'ssanet train --config=digits_ssa20' in result.stdout
    assert '--checkpoint' in result.stdout
    assert 'optimizer.momentum=0.9  Momentum.' in result.stdout


def test_a_workdir_that_is_a_file_is_refused(digits, tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(ConfigError, match='cannot be created'):
        loop.train_and_evaluate(digits, str(tmp_path / 'run'))


def test_evaluating_where_nothing_was_trained_makes_nothing(digits, tmp_path):
    with pytest.raises(ConfigError, match='name the workdir of a run'):
        evaluation.evaluate_checkpoint(digits, str(tmp_path / 'typo'), 'best')
    assert not (tmp_path / 'typo').exists()


@pytest.mark.slow
@pytest.mark.parametrize('redirect', ['| head -1', '>/dev/full', '>&- 2>&-', '2>/dev/full'])
def test_a_run_that_cannot_print_trains_to_its_end(redirect, tmp_path, data_dir):
    flags = digits_flags(tmp_path / 'lr[1] %s :boom:', data_dir)
    flags += ['--report', '--config.num_train_steps=4', '--config.log_every_steps=1']
    command = f'set -o pipefail; {sys.executable} main.py {shlex.join(flags)} {redirect}'
    environment = {**os.environ, 'XLA_FLAGS': ''}
    done = subprocess.run(
        ['bash', '-c', command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / 'lr[1] %s :boom:' / 'summary.json').read_text())['step'] == 4
    assert (tmp_path / 'lr[1] %s :boom:' / 'report.html').exists()
    assert main(*flags).returncode == 0  # its checkpoint is found


@pytest.mark.slow
def test_a_mistake_keeps_its_exit_code_where_it_cannot_be_printed(tmp_path, data_dir):
    flags = [*digits_flags(tmp_path / 'run', data_dir), '--config.num_train_steps=-1']
    command = f'{sys.executable} main.py {shlex.join(flags)} 2>/dev/full'
    assert subprocess.run(command, shell=True, cwd=ROOT).returncode == 2


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
