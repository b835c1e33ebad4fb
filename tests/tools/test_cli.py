"""What the commands share."""

import importlib
import os
import subprocess
import sys

import pytest
from absl import flags

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli
from tests.helpers import ROOT, own_flags

TOOLS = sorted(
    path.stem
    for path in (ROOT / 'ssanet_jax/tools').glob('*.py')
    if 'def define_flags' in path.read_text()
)


@pytest.mark.parametrize('name', TOOLS)
def test_a_command_says_how_it_is_called_and_what_each_flag_is(name):
    module = importlib.import_module(f'ssanet_jax.tools.{name}')
    assert f'python -m ssanet_jax.tools.{name}' in module.__doc__
    with own_flags(module):
        own = flags.FLAGS.flags_by_module_dict()[module.__name__]
        assert all(flag.help for flag in own)


def test_a_command_for_the_cpu_is_not_too_late_to_say_so():
    """The package has imported JAX, which reads JAX_PLATFORMS, before any command runs."""
    code = (
        'import jax\nfrom ssanet_jax.tools import cli\ncli.use_cpu()\n'
        'print(jax.config.jax_platforms)'
    )
    for given, expected in ((None, 'cpu'), ('tpu', 'tpu')):
        environment = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}
        environment |= {'JAX_PLATFORMS': given} if given else {}
        ran = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert ran.stdout.strip() == expected, ran.stderr


@pytest.mark.parametrize(
    ('obeys', 'name', 'code'), [(True, 'SIGINT', 75), (True, 'SIGTERM', 75), (False, 'SIGINT', 0)]
)
def test_a_signal_that_python_would_lose_ends_the_process(obeys, name, code):
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
    assert ('run the same command to go on' in ran.stderr) == obeys


def test_flags_behind_images_are_checked_too():
    from ssanet_jax.tools import predict

    with own_flags(predict), pytest.raises(ConfigError, match=r'the shell leaves this ~'):
        cli._parse_flags(['predict', 'a.png', '--workdir=~/runs'])


def test_a_reader_that_has_enough_is_no_error(trained_digits, tmp_path):
    """As `predict ... | head -1` has it."""
    names = '\n'.join(f'{tmp_path}/{number}.png' for number in range(3000))
    command = (
        f'{sys.executable} -m ssanet_jax.tools.predict --workdir={trained_digits} '
        '--format=jsonl - | head -1'
    )
    ran = subprocess.run(
        command, shell=True, cwd=ROOT, input=names, capture_output=True, text=True, timeout=300
    )
    assert len(ran.stdout.splitlines()) == 1
    assert 'Traceback' not in ran.stderr
