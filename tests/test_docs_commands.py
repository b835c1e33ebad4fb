"""The command lines in the docs have flags that their commands know."""

import importlib
import re
import shlex
import sys

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli
from tests.helpers import ROOT, own_flags
from tests.test_docs import PAGES

_COMMAND = re.compile(r'(?:^|[\s/])ssanet ([a-z_]+) (.*)')
_VALUES = {'$CONFIG': 'imagenet_ssa50_large_batch', '$DATA': '/data'}


def commands(path):
    """(tool, arguments) of each command in the indented blocks of a page."""
    text = re.sub(r'\\\n\s*', '', path.read_text())
    text = text.replace('python -m ssanet_jax.tools.', 'ssanet ')
    text = text.replace('python main.py', 'ssanet train')
    for line in re.findall(r'^ {4,}(.*)$', text, re.M):
        for tool, arguments in _COMMAND.findall(line):
            for name, value in _VALUES.items():
                arguments = arguments.replace(name, value)
            if '...' not in arguments:
                yield tool, re.split(r' [|<] ?', f'{arguments} ')[0]


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_every_command_of_a_page_parses(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, line in commands(path):
        module = importlib.import_module(f'ssanet_jax.tools.{name}')
        argv = [name, *shlex.split(line, comments=True)]
        if name == 'train' and not any(argument.startswith('--config=') for argument in argv):
            argv.insert(1, '--config=digits_ssa20')  # in place of that of a run
        monkeypatch.setattr(sys, 'argv', argv)
        with own_flags(module):
            try:
                cli.parse(argv)
            except ConfigError as error:
                pytest.fail(f'{shlex.join(argv)}: {error}')


def test_the_pages_have_commands():
    assert sum(len(list(commands(path))) for path in PAGES) > 40
