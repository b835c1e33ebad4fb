import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from ssanet_jax.errors import ConfigError, WorkdirInUseError
from ssanet_jax.tools import checkpoints as module
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import assert_trees_equal, run_tool


def tool(*arguments):
    """Runs the command in this process, as `checkpoints VERB --flag=value`."""
    run_tool(module, *arguments)


def tree(step):
    return {'params': {'fc': jnp.full((3, 4), step / 7)}}


@pytest.fixture
def workdir(tmp_path):
    """The workdir of a run with three checkpoints, the second of them best."""
    folder = tmp_path / 'run'
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, tree(step), wait=True)
    lines = [
        {'step': step, 'split': 'eval', 'top1': top1, 'loss': 1.0}
        for step, top1 in ((1, 50.0), (2, 70.0), (3, 60.0))
    ]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (folder / 'config.json').write_text('{"seed": 3}')
    return folder


def damage(workdir, step):
    path = next((workdir / 'checkpoints' / str(step) / 'default' / 'd').iterdir())
    path.write_bytes(path.read_bytes()[:-1])


def test_the_list_has_each_checkpoint_with_its_evaluation(workdir, capsys):
    tool('list', f'--workdir={workdir}', '--format=json')
    (table,) = json.loads(capsys.readouterr().out)
    assert [row['step'] for row in table['rows']] == [1, 2, 3]
    assert [row['top-1'] for row in table['rows']] == [50.0, 70.0, 60.0]
    assert [row['best'] for row in table['rows']] == [False, True, False]
    assert all(row['MB'] > 100 for row in table['rows'])


def test_a_damaged_checkpoint_is_named_and_exits_with_1(workdir, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool('verify', f'--workdir={workdir}')
    assert capsys.readouterr().out.endswith('3 checkpoints, 0 damaged\n')
    damage(workdir, 3)
    with pytest.raises(SystemExit, match='1'):
        tool('verify', f'--workdir={workdir}')
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ['1: intact', '2: intact']
    assert printed[2].startswith('3: damaged: default/d/')
    assert printed[3] == '3 checkpoints, 1 damaged'


def test_a_checkpoint_that_the_run_deletes_meanwhile_is_not_called_damaged(
    workdir, capsys, tmp_path, monkeypatch
):
    digest = integrity._digest

    def deleted(path):
        shutil.rmtree(workdir / 'checkpoints' / '2', ignore_errors=True)
        return digest(path)

    monkeypatch.setattr(integrity, '_digest', deleted)
    with pytest.raises(SystemExit, match='0'):
        tool('verify', f'--workdir={workdir}')
    assert '2: deleted meanwhile by the run' in capsys.readouterr().out


def test_a_checkpoint_that_is_deleted_while_it_is_copied_is_followed_by_another(
    workdir, capsys, tmp_path, monkeypatch
):
    copy = module._copy

    def deleted(source, target):
        shutil.rmtree(workdir / 'checkpoints' / '2', ignore_errors=True)
        copy(source, target)

    monkeypatch.setattr(module, '_copy', deleted)
    tool('export', f'--workdir={workdir}', f'--out={tmp_path}/best')
    assert 'step 3 of' in capsys.readouterr().out
    assert [path.name for path in (tmp_path / 'best/checkpoints').iterdir()] == ['3']


def test_a_checkpoint_that_is_deleted_while_it_is_listed_is_left_out(workdir, capsys, monkeypatch):
    def deleted(folder):
        shutil.rmtree(workdir / 'checkpoints' / '1', ignore_errors=True)
        return sum(int(path.stat().length) for path in folder.iterdir())

    monkeypatch.setattr(module, '_size', deleted)
    tool('list', f'--workdir={workdir}', '--format=json')
    (table,) = json.loads(capsys.readouterr().out)
    assert [row['step'] for row in table['rows']] == [2, 3]


def test_pruning_keeps_the_newest_and_the_best(workdir, capsys):
    tool('prune', f'--workdir={workdir}', '--keep=1')
    assert capsys.readouterr().out == 'Deleted 1; kept 2, 3.\n'
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['2', '3']


def test_nothing_is_pruned_if_a_kept_checkpoint_is_damaged(workdir):
    damage(workdir, 3)
    with pytest.raises(ConfigError, match=r'step 3 .*would be kept, is damaged: default/d/'):
        tool('prune', f'--workdir={workdir}', '--keep=1')
    assert sorted(path.name for path in (workdir / 'checkpoints').iterdir()) == ['1', '2', '3']


def test_a_run_in_progress_is_not_pruned(workdir):
    with Workdir(workdir).lock(), pytest.raises(WorkdirInUseError, match='runs in this workdir'):
        tool('prune', f'--workdir={workdir}', '--keep=1')


def test_an_export_is_a_new_workdir(workdir, tmp_path):
    (workdir / 'classes.json').write_text('["a", "b"]')
    before = sorted(workdir.rglob('*'))
    tool('export', f'--workdir={workdir}', f'--out={tmp_path}/best')
    assert sorted(workdir.rglob('*')) == before
    shutil.rmtree(workdir)
    assert json.loads((tmp_path / 'best' / 'classes.json').read_text()) == ['a', 'b']
    with CheckpointReader(tmp_path / 'best') as checkpoints:
        assert (checkpoints.steps(), checkpoints.find('best')) == ([2], 2)
        assert_trees_equal(jax.device_get(checkpoints.restore(2, tree(0))), tree(2))
    assert list(checkpoints.evaluations) == [1, 2]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'Usage: checkpoints {list,verify,prune,export} --workdir=WORKDIR; got nothing'),
        (['erase'], 'got erase'),
        (['list', '--keep=1'], '--keep has no effect with list'),
        (['prune'], 'Usage: checkpoints prune .*--keep'),
        (['export'], 'Usage: checkpoints export .*--out'),
        (['export', '--out=/'], '--out=/ exists'),
        (['export', '--out=/proc/none', '--checkpoint=9'], '--checkpoint=9 is not in'),
        (['export', '--out=/proc/none'], '--out=/proc/none cannot be written'),
    ],
)
def test_a_mistake_is_reported(arguments, message, workdir):
    with pytest.raises(ConfigError, match=message):
        tool(*arguments, f'--workdir={workdir}')


def test_a_damaged_checkpoint_is_not_exported(workdir, tmp_path):
    damage(workdir, 2)
    with pytest.raises(ConfigError, match=r'step 2 .* is damaged'):
        tool('export', f'--workdir={workdir}', f'--out={tmp_path}/best')
    assert not (tmp_path / 'best').exists()


def test_nothing_is_created_where_there_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match='name the workdir of a run'):
        tool('list', f'--workdir={tmp_path}/none')
    assert not (tmp_path / 'none').exists()
