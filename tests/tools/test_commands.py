"""The command `ssanet`, run as its entry point runs it."""

import ast
import os
import subprocess
import sys

import pytest

from ssanet_jax.tools import commands
from ssanet_jax.tools.commands import COMMANDS
from ssanet_jax.version import __version__
from tests.helpers import ROOT


def ssanet(*arguments, cwd):
    """Runs `ssanet` as the script that pip writes does."""
    code = (
        'import sys; sys.argv[0] = "/somewhere/bin/ssanet"\n'
        'from ssanet_jax.tools.commands import main; sys.exit(main())'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, '-c', code, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_each_module_with_a_main_is_a_command():
    found = []
    for path in sorted((ROOT / 'ssanet_jax/tools').glob('*.py')):
        tree = ast.parse(path.read_text())
        if path.stem != 'commands' and 'main' in {getattr(node, 'name', '') for node in tree.body}:
            found.append(path.stem)
    assert tuple(found) == COMMANDS


def test_help_lists_each_command(tmp_path):
    done = ssanet('--help', cwd=tmp_path)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith('  ')]
    assert (done.returncode, done.stderr, listed) == (0, '', list(COMMANDS))
    assert '  train         Trains an SSANet, or evaluates a checkpoint.\n' in done.stdout
    texts = [line for line in done.stdout.splitlines() if line.startswith('  ')]
    assert all(len(line) > 40 and line.endswith('.') for line in texts)


def test_the_version_is_printed_and_no_command_is_a_mistake(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['ssanet', '--version'])
    commands.main()
    assert capsys.readouterr().out == f'ssanet {__version__}\n'
    monkeypatch.setattr(sys, 'argv', ['ssanet'])
    with pytest.raises(SystemExit, match='2'):
        commands.main()


def test_an_unknown_command_is_one_line_with_the_nearest(tmp_path):
    done = ssanet('trian', '--config=x', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'ssanet: trian is not a command; nearest: train, prepare, predict. ssanet --help lists '
        'all.\n'
    )


def test_help_of_a_command_shows_its_docstring_and_flags(tmp_path):
    done = ssanet('predict', '--help', cwd=tmp_path)
    assert done.stdout.startswith('Prints the most probable classes of images')
    assert '\nssanet predict:\n  --batch_size: Images per batch.\n' in done.stdout
    assert '\n  --workdir: ' in done.stdout  # which a module of several commands defines


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['train', '--config=imagnet_ssa50', '--workdir=run'],
            'ssanet train: --config=imagnet_ssa50 is neither a file nor a recipe; nearest: '
            'imagenet_ssa50, imagenet_ssa50_a3, imagenet_ssa50_a2.\n',
        ),
        (['predict', '--workdir=run', 'x.png'], 'ssanet predict: run holds no checkpoints/'),
    ],
)
def test_an_error_names_the_command_as_typed(arguments, message, tmp_path):
    done = ssanet(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count('\n') == 1


def test_a_recipe_is_found_by_name_anywhere_and_a_file_of_that_name_comes_first(tmp_path):
    arguments = ('summary', '--config=cifar10_ssa50', '--num_classes=10', '--format=json')
    shipped = ssanet(*arguments, cwd=tmp_path)
    assert (shipped.returncode, shipped.stderr) == (0, '')
    assert 'ssa_resnet50' in shipped.stdout
    (tmp_path / 'cifar10_ssa50').write_text('raise ValueError("mine")\n')
    mine = ssanet(*arguments, cwd=tmp_path)
    assert 'cifar10_ssa50, line 1: ValueError: mine' in mine.stderr
