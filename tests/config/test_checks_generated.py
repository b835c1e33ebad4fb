"""Every malformed config is refused in one line that names the remedy, before anything is done."""

import sys
from types import SimpleNamespace

import pytest
from absl import flags
from ml_collections import config_flags

from benchmarks.reliability.malformed import OUT_OF_RANGE, cases
from ssanet_jax.attention import ATTENTION
from ssanet_jax.config import base, flatten
from ssanet_jax.config.fields import field_types
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli
from tests.helpers import ROOT, own_flags

CASES = {case.name: case for case in cases()}


def define_flags():
    """Those of main.py, as far as a config is concerned."""
    config_flags.DEFINE_config_file('config', None, 'Recipe.')
    flags.DEFINE_string('workdir', None, 'Folder.')
    flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.')
    flags.DEFINE_string('checkpoint', 'best', 'Which.')
    flags.DEFINE_string('coordinator_address', None, 'host:port.')
    flags.DEFINE_integer('num_processes', None, 'Hosts.', lower_bound=1)
    flags.DEFINE_integer('process_id', None, 'This host.', lower_bound=0)
    flags.mark_flags_as_required(['config', 'workdir'])


@pytest.fixture
def parse(monkeypatch):
    """Parses and checks a command line as main.py does."""

    def parse_and_check(arguments):
        argv = ['main.py', *arguments]
        monkeypatch.setattr(sys, 'argv', argv)  # which ml_collections reads
        return cli.recipe(cli._parse_flags(argv))

    monkeypatch.chdir(ROOT)
    with own_flags(SimpleNamespace(define_flags=define_flags)):
        yield parse_and_check


def filled_in(case, folder):
    recipe = ROOT / 'configs' / 'digits_ssa20.py'
    if case.recipe is not None:
        recipe = folder / 'recipe.py'
        recipe.write_text(case.recipe)
    places = {'{config}': recipe, '{workdir}': folder / 'run', '{data}': folder / 'data'}
    arguments = case.flags
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    return arguments


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if not case.late])
def test_a_malformed_config_is_refused_in_one_line(name, parse, tmp_path):
    with pytest.raises(ConfigError) as error:
        parse(filled_in(CASES[name], tmp_path))
    message = str(error.value)
    assert message.isprintable()
    assert message.endswith('.')
    assert set(tmp_path.iterdir()) <= {tmp_path / 'recipe.py'}


@pytest.mark.parametrize(
    ('arguments', 'field', 'value'),
    [
        ([], 'model.name', 'ssa_resnet20'),
        (['-config.batch_size=32'], 'batch_size', 32),
        (['--config.batch_size', '32'], 'batch_size', 32),
        (['--config.batch_size=16', '--config.batch_size=32'], 'batch_size', 32),
        (['--config.eval_batch_size', '-1'], 'eval_batch_size', -1),
        (['--config.num_epochs=90'], 'num_epochs', 90.0),
        (['--config.dataset.flip'], 'dataset.flip', True),
        (['--noconfig.dataset.flip'], 'dataset.flip', False),
        (['--config.model.attention_stages=2'], 'model.attention_stages', (2,)),
        (['--config.model.attention_stages=[2, 3]'], 'model.attention_stages', (2, 3)),
        (['--config.optimizer.train_only=*/ssa/*'], 'optimizer.train_only', ('*/ssa/*',)),
        (['--config.optimizer.train_only=()'], 'optimizer.train_only', ()),
        (['--flagfile={folder}/flags.txt'], 'seed', 7),
    ],
)
def test_what_is_right_passes(arguments, field, value, parse, tmp_path):
    (tmp_path / 'flags.txt').write_text('--config.seed=7\n')
    start = ['--config=configs/digits_ssa20.py', '--workdir', str(tmp_path / 'run')]
    config = parse([*start, *(a.replace('{folder}', str(tmp_path)) for a in arguments)])
    assert flatten(config)[field] == value
    assert type(flatten(config)[field]) is type(value)


def test_an_argument_after_a_colon_is_given_to_the_recipe(parse, tmp_path):
    text = CASES['recipe: 1 / 0'].recipe.replace('get_config()', 'get_config(size)')
    (tmp_path / 'x.py').write_text(text.replace('1 / 0', 'config.batch_size = int(size)'))
    assert parse([f'--config={tmp_path}/x.py:16', '--workdir=run']).batch_size == 16


def test_the_line_of_a_recipe_that_raised_is_named(parse, tmp_path):
    with pytest.raises(ConfigError, match=r'recipe\.py, line 9: ZeroDivisionError: division') as e:
        parse(filled_in(CASES['recipe: 1 / 0'], tmp_path))
    assert isinstance(e.value.__cause__, ZeroDivisionError)


def test_every_number_of_the_config_has_a_range():
    numbers = {name for name, kind in field_types(base()).items() if kind in (int, float)}
    blocks = {f'model.{kind}.{name}' for kind in ATTENTION for name in base().model[kind]}
    assert numbers - blocks <= set(OUT_OF_RANGE)
