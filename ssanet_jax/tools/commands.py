"""The command `ssanet`, whose subcommands are the files of this folder that end in `cli.run`."""

import ast
import runpy
import sys
from pathlib import Path

from ssanet_jax.errors import nearest
from ssanet_jax.output import print_error
from ssanet_jax.version import __version__


def main() -> None:
    """Runs the subcommand that sys.argv names; exits with 2 if there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name == '--version':
        print(f'ssanet {__version__}')
    elif name in ('-h', '--help', 'help', ''):
        print(_help())
        sys.exit(0 if name else 2)
    elif name not in _files():
        known = nearest(name, _files())
        print_error(f'{name} is not a command; nearest: {known}. ssanet --help lists all.')
        sys.exit(2)
    else:
        sys.argv[:2] = [f'ssanet {name}']  # as errors and --help call it
        run(name)


def run(name: str) -> None:
    """Runs `ssanet NAME` with the flags in sys.argv, as `python -m ssanet_jax.tools.NAME` does."""
    sys.modules['__main__'].__doc__ = _docstring(_files()[name])  # which --help prints
    runpy.run_module(f'ssanet_jax.tools.{name}', run_name='__main__')


def _files() -> dict[str, Path]:
    """The file of each subcommand, found without importing it."""
    files = sorted(Path(__file__).parent.glob('*.py'))
    end = '\n    cli.run(main, define_flags)\n'
    return {file.stem: file for file in files if file.read_text('utf-8').endswith(end)}


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text('utf-8'))) or ''


def _help() -> str:
    lines = [f'  {name:14}{_docstring(file).splitlines()[0]}' for name, file in _files().items()]
    return '\n'.join(
        [
            'usage: ssanet COMMAND [--FLAG=VALUE ...]\n',
            *lines,
            '\nssanet COMMAND --help describes a command and its flags.',
        ]
    )
