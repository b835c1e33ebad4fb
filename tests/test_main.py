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
    ]


def test_train_then_evaluate(tmp_path, data_dir):
    flags = digits_flags(tmp_path, data_dir)
    trained = main(*flags, '--config.num_train_steps=10', '--config.batch_size=32')
    assert trained.returncode == 0, trained.stderr
    assert 'Learning rate 0.1 for 64 images is 0.05 for 32' in trained.stdout
    assert 'step 10/10  eval' in trained.stdout
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
        (['spare'], "Unexpected argument 'spare'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, message, tmp_path, data_dir):
    result = main(*digits_flags(tmp_path / 'run', data_dir), *flags)
    assert result.returncode == 2
    assert result.stderr.startswith('main.py: ')
    assert result.stderr.count('\n') == 1
    assert message in result.stderr
    assert not (tmp_path / 'run').exists()


def test_help_explains_itself():
    result = main('--help')
    assert 'python main.py --config=configs/digits_ssa20.py' in result.stdout
    assert '--checkpoint' in result.stdout
