"""until_done.sh handles exit codes and signals as docs/launch.md says."""

import os
import re
import signal
import subprocess

import pytest

from ssanet_jax import errors
from tests.launch.helpers import (
    ENDS,
    LAUNCH,
    RUNS_AGAIN,
    TABLE,
    fails_with,
    program,
    run,
    runs,
    saves,
    started,
    wait_for,
)

UNTIL_DONE = str(LAUNCH / 'until_done.sh')


@pytest.fixture
def pauses(tmp_path):
    """A folder for PATH with a `sleep` that only logs its argument."""
    program(tmp_path / 'bin/sleep', f'echo "$1" >>{tmp_path}/pauses')
    return tmp_path / 'bin'


@pytest.mark.parametrize('name', ['until_done.sh', 'slurm.sbatch', 'tpu.sh'])
def test_scripts_are_executable_bash(name):
    assert os.access(LAUNCH / name, os.X_OK) or name.endswith('.sbatch')
    assert run('bash', '-n', str(LAUNCH / name)).stderr == ''


def test_the_table_has_every_exit_code_of_a_run():
    assert {0, 1, 2} < set(TABLE)
    assert {error.exit_code for error in errors.RunError.__subclasses__()} <= set(TABLE)


@pytest.mark.parametrize('code', ENDS)
def test_it_ends_where_another_try_would_not_help(code, tmp_path):
    result = run(UNTIL_DONE, fails_with(tmp_path, code), 'a b', FIRST_PAUSE='0')
    assert (result.returncode, runs(tmp_path)) == (code, ['a b'])


@pytest.mark.parametrize('code', RUNS_AGAIN)
def test_it_runs_again_where_another_try_may_help(code, tmp_path):
    result = run(UNTIL_DONE, fails_with(tmp_path, code), '--flag=a b', FIRST_PAUSE='0')
    assert (result.returncode, runs(tmp_path)) == (0, ['--flag=a b'] * 2)
    assert f'exit code {code} after ' in result.stderr
    assert 'restart 1 of 20 in 0 s.' in result.stderr


def test_more_codes_can_end_it(tmp_path):
    result = run(UNTIL_DONE, fails_with(tmp_path, 69, 75), ALSO_FINAL='75', FIRST_PAUSE='0')
    assert (result.returncode, len(runs(tmp_path))) == (75, 2)


def test_it_pauses_longer_each_time_and_gives_up(pauses, tmp_path):
    result = run(UNTIL_DONE, fails_with(tmp_path, *[69] * 9), MAX_RESTARTS='6', path=pauses)
    assert (result.returncode, len(runs(tmp_path))) == (69, 7)
    assert (tmp_path / 'pauses').read_text().split() == ['10', '20', '40', '80', '120', '120']
    assert 'gave up after 6 restarts' in result.stderr


def test_a_long_run_counts_anew(pauses, tmp_path):
    command = fails_with(tmp_path, 1, 1, 1)
    result = run(UNTIL_DONE, command, MAX_RESTARTS='1', RESET_AFTER='0', path=pauses)
    assert (result.returncode, len(runs(tmp_path))) == (0, 4)
    assert (tmp_path / 'pauses').read_text().split() == ['10'] * 3


@pytest.mark.parametrize(
    ('name', 'usage'),
    [
        ('until_done.sh', 'usage: .*until_done.sh COMMAND'),
        ('tpu.sh', 'launch/tpu.sh create --spot .*launch/tpu.sh delete$'),
        (
            'slurm.sbatch',
            'WORKDIR=/shared/runs/ssa50 sbatch .*It runs in a job of sbatch, with WORK',
        ),
    ],
)
def test_a_script_without_arguments_prints_its_usage(name, usage):
    unset = [f'--unset={name}' for name in ('ZONE', 'WORKDIR', 'SLURM_JOB_ID')]
    result = run('env', *unset, 'bash', str(LAUNCH / name))
    assert (result.returncode, result.stdout) == (2, '')
    assert re.search(usage, result.stderr.strip(), re.DOTALL)
    assert 'unbound' not in result.stderr
    assert '#' not in re.sub(' # .*', '', result.stderr)  # comment signs are cut off


@pytest.mark.parametrize(
    ('arguments', 'given', 'expected'),
    [
        (['state'], {}, 'set ZONE, the zone of the TPU, such as us-central2-b'),
        (['create'], {'ZONE': 'z'}, 'set TYPE, the type of the TPU, such as v4-32'),
        (['start'], {'ZONE': 'z'}, 'set WORKDIR, a folder that all hosts see'),
    ],
)
def test_a_tpu_script_names_the_variable_that_is_missing(arguments, given, expected):
    unset = ['--unset=ZONE', '--unset=TYPE', '--unset=WORKDIR']
    values = [f'{name}={value}' for name, value in given.items()]
    result = run('env', *unset, *values, str(LAUNCH / 'tpu.sh'), *arguments)
    assert (result.returncode, result.stderr.count('\n')) == (2, 1)
    assert expected in result.stderr


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP', 'Ctrl-C'])
def test_a_signal_reaches_the_command_once_and_ends_both(name, tmp_path):
    command = [UNTIL_DONE, program(tmp_path / 'command', saves(tmp_path))]
    with started(*command, start_new_session=True) as process:
        wait_for((tmp_path / 'runs').exists)
        if name == 'Ctrl-C':
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            process.send_signal(getattr(signal, name))
        assert process.wait(timeout=20) == 75
    assert runs(tmp_path) == ['started', 'signal']


def test_it_stays_until_the_command_has_ended_however_many_signals_come(tmp_path):
    command = [UNTIL_DONE, program(tmp_path / 'command', saves(tmp_path))]
    with started(*command) as process:
        wait_for((tmp_path / 'runs').exists)
        for count in (2, 3):
            process.terminate()
            wait_for(lambda count=count: len(runs(tmp_path)) == count)
        assert process.wait(timeout=20) == 75


def test_a_signal_ends_a_pause(tmp_path):
    command = [UNTIL_DONE, fails_with(tmp_path, 69)]
    with started(*command, stderr=subprocess.PIPE, text=True) as process:
        assert 'restart 1' in process.stderr.readline()
        process.terminate()
        assert process.wait(timeout=5) == 69
    assert len(runs(tmp_path)) == 1
