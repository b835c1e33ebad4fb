"""Flags, errors and exit codes of all commands."""

import importlib
import os
import subprocess
import sys
from logging import LogRecord

import pytest
from absl import flags

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli
from ssanet_jax.tools.commands import COMMANDS
from tests.helpers import ROOT, own_flags


@pytest.mark.parametrize('name', COMMANDS)
def test_help_shows_the_usage_and_each_flag(name):
    module = importlib.import_module(f'ssanet_jax.tools.{name}')
    assert f'ssanet {name}' in module.__doc__
    with own_flags(module):
        own = flags.FLAGS.flags_by_module_dict()[module.__name__]
        assert all(flag.help for flag in own)


def test_a_command_can_choose_the_cpu_after_jax_was_imported():
    code = (
        'import jax\nfrom ssanet_jax import runtime\nruntime.use_cpu()\n'
        'print(jax.config.jax_platforms)'
    )
    for given in (None, 'tpu'):
        environment = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}
        environment |= {'JAX_PLATFORMS': given} if given else {}
        ran = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert ran.stdout.strip() == 'cpu', ran.stderr


@pytest.mark.parametrize(
    ('obeys', 'name', 'code'), [(True, 'SIGINT', 75), (True, 'SIGTERM', 75), (False, 'SIGINT', 0)]
)
def test_a_signal_during_a_destructor_ends_the_process(obeys, name, code):
    """In a destructor a KeyboardInterrupt is printed and ignored."""
    code_text = (
        'import os, signal, time\nfrom ssanet_jax.tools import cli\n'
        f'if {obeys}: cli.obey_interrupts()\n'
        'class Lost:\n'
        '    def __del__(self):\n'
        f'        os.kill(os.getpid(), signal.{name}); time.sleep(1)\n'
        'lost = Lost(); del lost\n'
    )
    command = [sys.executable, '-c', code_text]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ran.returncode == code
    assert ('run the same command to resume' in ran.stderr) == obeys


def test_names_in_log_records_are_escaped(tmp_path):
    record = LogRecord('absl', 30, '', 1, '%s and %s: %d', ('\x1b[2J', tmp_path / 'a\nb', 3), None)
    assert cli._make_printable(record)
    assert record.getMessage() == rf'\x1b[2J and {tmp_path}/a\nb: 3'


def write_command(folder, body):
    """Writes a command with this body of main(); returns its command line."""
    (folder / 'command.py').write_text(
        'from ssanet_jax.errors import ConfigError\nfrom ssanet_jax.tools import cli\n'
        f'def main():\n    {body}\ncli.run(main, lambda: None)\n'
    )
    return f'PYTHONPATH={ROOT} {sys.executable} {folder}/command.py'


def failing(folder, *flags):
    """Runs a command that raises a ConfigError; returns its standard error."""
    call = write_command(folder, r"raise ConfigError('first\nsecond')")
    ran = subprocess.run(' '.join([call, *flags]), shell=True, capture_output=True, text=True)
    assert ran.returncode == 2
    return ran.stderr


def test_an_error_is_one_line(tmp_path):
    assert failing(tmp_path) == 'command.py: first second\n'


@pytest.mark.parametrize('how', ['--traceback', '--flagfile'])
def test_a_traceback_is_printed_however_it_is_asked_for(how, tmp_path):
    (tmp_path / 'flags.txt').write_text('--traceback\n')
    how = f'{how}={tmp_path}/flags.txt' if how == '--flagfile' else how
    assert 'Traceback (most recent call last)' in failing(tmp_path, how)


def test_arguments_are_refused_by_a_command_that_takes_none():
    with pytest.raises(ConfigError, match=r"Unexpected argument 'a\.png': every option begins"):
        cli.call(lambda: None, ['a.png'])
    taken = []
    cli.call(taken.extend, ['a.png'])
    assert taken == ['a.png']


def test_a_network_that_exceeds_the_memory_is_a_mistake_in_the_config(tmp_path):
    """Trying again would not help: launch/until_done.sh stops."""
    call = write_command(tmp_path, r"raise RuntimeError('RESOURCE_EXHAUSTED: Out of\nmemory.')")
    ran = subprocess.run(call, shell=True, capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith('command.py: RESOURCE_EXHAUSTED: Out of memory. Lower the batch')


def test_a_closed_pipe_is_no_error(tmp_path):
    """As in `command | head -1`; the output is larger than a pipe's buffer."""
    call = write_command(tmp_path, "print('line\\n' * 100_000)")
    ran = subprocess.run(f'{call} | head -1', shell=True, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ('line\n', '')
