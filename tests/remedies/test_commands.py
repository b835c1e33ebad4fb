"""The remedies in messages about command lines and hosts."""

import socket
import sys
from functools import partial
from types import SimpleNamespace

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.study.definition import Study, Variant, load_study
from ssanet_jax.tools import (
    cli,
    evaluate,
    prepare,
    report,
    show_batch,
    summary,
    train,
)
from ssanet_jax.trained.benchmarks import BENCHMARKS
from ssanet_jax.training.multihost import hosts, rendezvous
from tests.helpers import ROOT, load_config, own_flags, run_tool
from tests.remedies.helpers import after, listed, refused

DIGITS = '--config=configs/digits_ssa20.py'


@pytest.fixture(autouse=True)
def at_the_top(monkeypatch):
    monkeypatch.chdir(ROOT)


def parsed(*arguments, tool=train):
    """Parses and checks a command line; returns its config."""
    argv = ['main.py', *map(str, arguments)]
    with own_flags(tool), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', argv)
        cli.parse(argv)
        return cli.recipe() if 'config' in cli.flags.FLAGS else None


def test_a_flag_that_is_given_once_or_with_its_value_or_left_out_works():
    refused('times; give it once', parsed, DIGITS, '--workdir=a', '--workdir=b')
    refused('has no value; write --', parsed, DIGITS, '--workdir=a', '--checkpoint=')
    parsed(DIGITS, '--workdir=a')
    parsed(DIGITS, '--workdir=a', '--checkpoint=best')
    message = refused('times; give it once', run_tool, report, '--workdir=a', '--workdir=b')
    assert message == '--workdir is given 2 times; give it once.'


def test_the_test_sets_that_are_named_exist():
    message = refused('is not known; nearest: ', evaluate.choose, ['imagenet_w'])
    assert evaluate.choose(listed('nearest: ', message))
    message = refused('--on has no value; name some of ', evaluate.choose, [])
    assert list(evaluate.choose(listed('name some of ', message))) == list(BENCHMARKS)


@pytest.mark.parametrize('flag', ['--batch_size=3', '--work_dir=x', '--seed=1', '--help_me'])
def test_the_flags_that_are_named_exist(flag):
    message = refused('does not exist; nearest: ', parsed, DIGITS, '--workdir=a', flag)
    with own_flags(train):
        known = {*cli.flags.FLAGS, *(f'config.{name}' for name in cli.FIELDS)}
    assert set(listed('nearest: ', message)) <= known


def test_a_tuple_written_at_once_works():
    field = '--config.optimizer.decay_epochs'
    flags = [DIGITS, '--workdir=a', '--config.optimizer.schedule=step']
    message = refused('write the whole tuple at once', parsed, *flags, f'{field}=1', f'{field}=2')
    value = after('at once, as ', message).strip('"')
    assert parsed(*flags, f'{field}={value}').optimizer.decay_epochs == (1, 2)


def test_an_option_begins_with_two_dashes():
    refused('every option begins with --', run_tool, report, '--workdir=x', 'out=y')
    parsed('--workdir=x', tool=report)


def test_the_recipes_that_are_named_exist():
    phrase = 'is neither a file nor a recipe; nearest: '
    message = refused(phrase, parsed, '--config=x.py', '--workdir=a')
    for name in listed('nearest: ', message):
        parsed(f'--config={name}', '--workdir=a')


def test_a_config_or_the_workdir_of_a_run_works(tmp_path):
    message = refused('holds no run to read the config of', parsed, f'--workdir={tmp_path}')
    assert after('; add --config=', message) == 'RECIPE'
    config = parsed(f'--workdir={tmp_path}', DIGITS)
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'config.json').write_text(config.to_json_best_effort())
    assert parsed(f'--workdir={tmp_path}') == config
    assert parsed(f'--workdir={tmp_path}', '--config.seed=3').seed == 3
    assert parsed('--workdir', tmp_path, '--mode=eval') == config
    assert parsed(f'--config={tmp_path}/config.json', '--workdir=a') == config


@pytest.mark.parametrize(
    ('text', 'phrase', 'right'),
    [
        ('', 'has no function get_config(); see configs/', None),
        ('def get_config():\n    return 3\n', 'begin it with config = base() and end it', None),
        ('def get_config(size):\n    return base()\n', 'choose --config=RECIPE or ', ':64'),
    ],
)
def test_a_recipe_as_the_message_describes_it_works(text, phrase, right, tmp_path):
    first = 'from ssanet_jax.config import base\n'
    path = tmp_path / 'recipe.py'
    path.write_text(first + text)
    if right is None:
        refused(phrase, parsed, f'--config={path}', '--workdir=a')
        path.write_text(f'{first}def get_config():\n    config = base()\n    return config\n')
    else:
        with pytest.raises(ConfigError, match=phrase):
            parsed(f'--config={path}', '--workdir=a')
    parsed(f'--config={path}{right or ""}', '--workdir=a')


def test_evaluation_takes_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, 'connect', lambda *_: None)
    run = partial(run_tool, train, DIGITS, f'--workdir={tmp_path}/none', '--checkpoint=latest')
    refused('has no effect without --mode=eval', run)
    with pytest.raises(ConfigError, match='name the workdir of a run'):
        run('--mode=eval')


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        (prepare, ['--dataset=mnist', '--jpeg_quality=90']),
        (show_batch, [DIGITS, '--split=eval', '--step=3', '--out=batch.png']),
    ],
)
def test_flags_without_effect_are_to_be_omitted(tool, arguments):
    refused('has no effect with', run_tool, tool, *arguments)


def test_all_or_none_of_the_flags_of_a_host_work(monkeypatch):
    started = []
    monkeypatch.setattr(hosts.rendezvous, 'meet', lambda *args: None)
    monkeypatch.setattr(hosts, '_initialize', lambda **args: started.append(tuple(args.values())))
    refused('Give all three or none', hosts.connect, None, 2, 0)
    refused('hosts count from 0', hosts.connect, 'a:1', 2, 2)
    hosts.connect(None, None, None)
    hosts.connect('a:1', 2, 1)
    assert started == [(), ('a:1', 2, 1)]


@pytest.mark.slow
def test_summary_works_with_the_flags_that_are_named(capsys):
    summarize = partial(run_tool, summary)
    message = refused('Choose one of --model=NAME', summarize)
    assert '--list' in message
    summarize('--list')
    recipe = '--config=configs/digits_ssa20.py'
    message = refused('does not set the number of classes', summarize, recipe)
    summarize(recipe, after('add ', message), '--depth=1')
    refused('; omit it', summarize, '--list', '--stem=cifar')
    assert 'ssa_resnet20, 10 classes' in capsys.readouterr().out


def test_the_address_and_the_numbers_of_hosts_that_are_named_work(monkeypatch):
    meet = partial(rendezvous.meet, num_processes=1, process_id=0, timeout=9)
    message = refused('is not HOST:PORT, as ', meet, 'localhost')
    with socket.create_server(('', 0)) as taken:
        refused('cannot be opened here', meet, f'localhost:{taken.getsockname()[1]}')
    assert after('HOST:PORT, as ', message) == '10.0.0.1:8476'
    filled = []
    monkeypatch.setattr(rendezvous._Registry, 'fill', lambda self, *given: filled.append(given[0]))
    meet('10.0.0.1:8476')
    assert filled == [8476]

    registry, other = rendezvous._Registry(3), SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(registry, '_alive', lambda: {1})

    def register(*hello):
        registry.refusal = None
        registry._register(other, *hello)
        if registry.refusal:
            raise registry.refusal

    refused('--num_processes is ', register, 2, 4)
    message = refused('give each its own, from 0 to ', register, 1, 3)
    register(int(after('from 0 to ', message)), 3)


def test_a_study_with_the_names_that_are_listed_works(tmp_path):
    config = load_config('digits_ssa20')

    def study(*, variants=('none', 'ssa'), seeds=(0, 1), **options):
        return Study(
            'Does it?', config, {name: Variant() for name in variants}, seeds, 0.3, **options
        )

    message = refused('is not among the variants', study, baseline='plain')
    for name in listed('among the variants: ', message):
        assert study(baseline=name)
    message = refused('; choose among ', study, corruptions=('rain',))
    assert study(corruptions=listed('choose among ', message))
    refused('has a seed twice', study, seeds=(0, 0))
    refused('expected lowercase letters, digits', study, variants=('none', 'SSA'))
    message = refused('is not a file; expected one as', load_study, tmp_path / 'x.py')
    assert load_study(after('expected one as ', message))
