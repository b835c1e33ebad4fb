import json
import sys

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import report as module
from tests.helpers import run_tool


def tool(*arguments):
    """Runs the command in this process, as `report --flag=value`."""
    run_tool(module, *arguments)


@pytest.fixture
def workdir(tmp_path):
    """A run that has logged a step and saved nothing yet."""
    folder = tmp_path / 'run'
    (folder / 'checkpoints').mkdir(parents=True)
    (folder / 'config.json').write_text('{"seed": 3}')
    line = {'step': 5, 'split': 'train', 'loss': 1.0, 'top1': 50.0, 'learning_rate': 0.1}
    (folder / 'metrics.jsonl').write_text(json.dumps(line) + '\n')
    return folder


def test_the_page_is_written_to_the_workdir_or_to_out(workdir, tmp_path, capsys):
    tool(f'--workdir={workdir}')
    assert capsys.readouterr().out == f'Written to {workdir}/report.html\n'
    tool(f'--workdir={workdir}', f'--out={tmp_path}/page.html')
    assert capsys.readouterr().out == f'Written to {tmp_path}/page.html\n'
    for path in (workdir / 'report.html', tmp_path / 'page.html'):
        assert path.read_text().startswith('<!DOCTYPE html>')
        assert 'There is no checkpoint to evaluate yet' in path.read_text()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--workdir=x', 'more'], "Unexpected argument 'more'"),
        (['--workdir=/proc/none'], 'name the workdir of a run'),
    ],
    ids=['argument', 'no run'],
)
def test_a_mistake_is_reported_before_tensorflow_starts(arguments, message, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)  # Importing it would raise.
    with pytest.raises(ConfigError, match=message):
        tool(*arguments)


def test_an_unwritable_out_is_reported(workdir):
    with pytest.raises(ConfigError, match=r'/proc/none/x.html cannot be written'):
        tool(f'--workdir={workdir}', '--out=/proc/none/x.html')
