"""Every malformed config is refused in one line that names the field and the remedy."""

import re
import sys

import pytest

from ssanet_jax.attention import ATTENTION
from ssanet_jax.config import flatten
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli, train
from tests.config.malformed import COMMANDS, FLAGS, LINES, OUT_OF_RANGE, RECIPES
from tests.helpers import ROOT, own_flags

DIGITS = 'configs/digits_ssa20.py'
START = ['--config={recipe}', '--workdir=run']
RECIPE = """from ml_collections import ConfigDict
from ml_collections.config_dict import required_placeholder
from configs.digits_ssa20 import get_config as digits


def get_config():
    config = digits()
    {}
    return config
"""


@pytest.fixture
def parse(monkeypatch):
    """Parses and checks a command line as main.py does."""
    monkeypatch.chdir(ROOT)

    def parse_and_check(arguments, recipe=DIGITS):
        argv = ['main.py', *(a.replace('{recipe}', str(recipe)) for a in arguments)]
        monkeypatch.setattr(sys, 'argv', argv)  # where ml_collections looks for overrides
        with own_flags(train):
            config = []
            cli.call(lambda: config.append(cli.recipe()), cli.parse(argv))
            return config[0]

    return parse_and_check


@pytest.fixture
def refuses(parse, tmp_path):
    """Checks that a command line, and recipe if given, raises a one-line error that matches."""

    def check(message, arguments=START, text=None):
        recipe = DIGITS
        if text is not None:
            recipe = tmp_path / 'recipe.py'
            recipe.write_text(text)
        with pytest.raises(ConfigError, match=message) as error:
            parse(arguments, recipe)
        assert str(error.value).isprintable()
        assert str(error.value).endswith('.')

    return check


@pytest.mark.parametrize(('flags', 'message'), FLAGS)
def test_a_malformed_flag_is_refused(flags, message, refuses):
    refuses(message, [*START, *flags])


@pytest.mark.parametrize(('arguments', 'message'), COMMANDS)
def test_a_malformed_command_is_refused(arguments, message, refuses):
    refuses(message, arguments)


@pytest.mark.parametrize(('text', 'message'), RECIPES)
def test_a_malformed_recipe_is_refused(text, message, refuses):
    refuses(message, text=text)


@pytest.mark.parametrize(('line', 'message'), LINES)
def test_a_malformed_line_of_a_recipe_is_refused(line, message, refuses):
    refuses(message, text=RECIPE.format(line))


@pytest.mark.parametrize(('name', 'value'), OUT_OF_RANGE.items())
def test_a_value_out_of_range_is_refused_with_those_allowed(name, value, refuses):
    expected = re.escape(FIELDS[name].expected)
    refuses(rf'config\.{name}=.*(must be|choose) {expected}', [*START, f'--config.{name}={value}'])


def test_every_field_with_a_range_or_choices_has_a_value_outside():
    blocks = tuple(f'model.{kind}.' for kind in ATTENTION)
    limited = {f.name for f in FIELDS.values() if f.check or f.choices}
    assert {name for name in limited if not name.startswith(blocks)} <= set(OUT_OF_RANGE)
    numbers = {f.name for f in FIELDS.values() if not f.is_tuple and f.value_type in (int, float)}
    assert {name for name in numbers if not name.startswith(blocks)} <= limited


def test_a_recipe_error_keeps_its_cause(parse, tmp_path):
    (tmp_path / 'recipe.py').write_text(RECIPE.format('1 / 0'))
    with pytest.raises(ConfigError) as error:
        parse(START, tmp_path / 'recipe.py')
    assert isinstance(error.value.__cause__, ZeroDivisionError)


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
def test_a_well_formed_override_sets_its_field(arguments, field, value, parse, tmp_path):
    (tmp_path / 'flags.txt').write_text('--config.seed=7\n')
    config = parse([*START, *(a.replace('{folder}', str(tmp_path)) for a in arguments)])
    assert flatten(config)[field] == value
    assert type(flatten(config)[field]) is type(value)


def test_an_argument_after_a_colon_is_given_to_the_recipe(parse, tmp_path):
    text = RECIPE.replace('get_config()', 'get_config(size)')
    (tmp_path / 'x.py').write_text(text.format('config.batch_size = int(size)'))
    assert parse([f'--config={tmp_path}/x.py:16', '--workdir=run']).batch_size == 16
