"""The command `ssanet`, whose subcommands are files of this folder."""

import ast
import runpy
import sys
from pathlib import Path

from ssanet_jax.errors import nearest
from ssanet_jax.output import print_error
from ssanet_jax.tools import name_extra
from ssanet_jax.version import __version__

COMMANDS = (
    'check_data',
    'checkpoints',
    'convert_torch',
    'demo',
    'evaluate',
    'export',
    'gates',
    'input_doctor',
    'nonfinite',
    'predict',
    'preflight',
    'prepare',
    'publish',
    'report',
    'saliency',
    'show_batch',
    'study',
    'summary',
    'train',
)


def main() -> None:
    """Runs the subcommand that sys.argv names; exits with 2 if there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ''
    if name == '--version':
        print(f'ssanet {__version__}')
    elif name in ('-h', '--help', 'help', ''):
        print('usage: ssanet COMMAND [--FLAG=VALUE ...]\n')
        print('\n'.join(f'  {name:14}{_summary(name)}' for name in COMMANDS))
        print('\nssanet COMMAND --help describes a command and its flags.')
        sys.exit(0 if name else 2)
    elif name not in COMMANDS:
        known = nearest(name, COMMANDS)
        print_error(f'{name} is not a command; nearest: {known}. ssanet --help lists all.')
        sys.exit(2)
    else:
        sys.argv[:2] = [f'ssanet {name}']  # as errors and --help call it
        run(name)


def run(name: str) -> None:
    """Runs `ssanet NAME` with the flags in sys.argv, as `python -m ssanet_jax.tools.NAME` does."""
    sys.excepthook = name_extra
    runpy.run_module(f'ssanet_jax.tools.{name}', run_name='__main__')


def _summary(name: str) -> str:
    """The first line of a command's docstring, without importing it."""
    module = ast.parse((Path(__file__).parent / f'{name}.py').read_text('utf-8'))
    return (ast.get_docstring(module) or '').partition('\n')[0]
