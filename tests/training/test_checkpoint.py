import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.retention import quality
from ssanet_jax.training.checkpoints.writer import Checkpoints
from tests.helpers import assert_trees_equal


def evaluation(top1, loss=1.0):
    return {'top1': top1, 'top5': 100.0, 'loss': loss, 'num_examples': 10}


def tree(step):
    return {'step': jnp.int32(step), 'kernel': jnp.full((3, 4), step / 7)}


def good_checkpoints(workdir, *steps):
    """Checkpoints of a finished run that was evaluated at each of `steps`."""
    with Checkpoints(workdir, keep=len(steps)) as checkpoints:
        for step in steps:
            checkpoints.save(step, tree(step))
            evaluate(workdir, checkpoints, step, evaluation(10.0 + step))


def evaluate(workdir, checkpoints, step, metrics):
    """Records an evaluation as a run does: in metrics.jsonl and with the checkpoints."""
    with (workdir / 'metrics.jsonl').open('a') as file:
        file.write(json.dumps({'step': step, 'split': 'eval', **metrics}) + '\n')
    checkpoints.evaluated(step, metrics)


def test_the_best_checkpoint_is_kept_when_it_is_old_and_after_reopening(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, top1 in ((1, 50.0), (2, 90.0), (3, 10.0)):
            checkpoints.save(step, tree(step))
            evaluate(tmp_path, checkpoints, step, evaluation(top1))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, top1 in ((4, 20.0), (5, 90.0), (6, 30.0), (7, 40.0)):
            checkpoints.save(step, tree(step))
            evaluate(tmp_path, checkpoints, step, evaluation(top1, loss=2.0))
        checkpoints.save(8, tree(8))
    with CheckpointReader(tmp_path) as checkpoints:
        assert checkpoints.best_step() == 2  # 5 has the same top-1 and a higher loss
        names = ('best', 'latest', '7')
        assert [checkpoints.find(name) for name in names] == [2, 8, 7]
        assert_trees_equal(checkpoints.restore(2, tree(0)), tree(2))
    assert {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()} == {2, 7, 8}


def test_pruning_leaves_the_newest_and_the_best(tmp_path):
    good_checkpoints(tmp_path, 1, 2, 3, 4)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        evaluate(tmp_path, checkpoints, 2, evaluation(99.0))
        assert checkpoints.prune() == [1, 3]
        assert checkpoints.steps() == [2, 4]


def test_a_background_save_holds_the_state_of_its_step(tmp_path):
    """Training overwrites its buffers while the save runs."""
    double = jax.jit(lambda state: jax.tree.map(lambda a: a * 2, state), donate_argnums=0)
    state = {'kernel': jnp.arange(100_000.0)}
    with Checkpoints(tmp_path, keep=5) as checkpoints:
        for step in range(1, 4):
            state = double(state)
            checkpoints.save(step, state)
            for _ in range(3):
                state = double(state)
        for step in range(1, 4):
            restored = checkpoints.restore(step, state)
            np.testing.assert_array_equal(
                restored['kernel'], np.arange(100_000.0) * 2 ** (4 * step - 3)
            )


def test_reading_leaves_the_folder_as_it_is(tmp_path):
    good_checkpoints(tmp_path, 1)
    unfinished = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp'
    unfinished.mkdir()
    with CheckpointReader(tmp_path) as checkpoints:
        assert checkpoints.find('best') == 1
    assert unfinished.exists()


def test_a_checkpoint_that_was_not_evaluated_is_not_called_the_best(tmp_path):
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, tree(1), wait=True)
        with pytest.raises(ConfigError, match='choose --checkpoint=latest'):
            checkpoints.find('best')


def test_an_unfinished_checkpoint_is_ignored_and_removed(tmp_path):
    good_checkpoints(tmp_path, 1)
    folder = tmp_path / 'checkpoints'
    shutil.copytree(folder / '1', folder / '2.orbax-checkpoint-tmp')
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest_good() == (1, {})
    assert [path.name for path in folder.iterdir()] == ['1']


def test_a_failed_save_at_the_end_does_not_hide_the_error_that_ended_the_run(tmp_path, monkeypatch):
    def full(folder):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(integrity, '_digests', full)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree(1))
    checkpoints.__exit__(KeyError, KeyError(), None)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, tree(2))
        assert checkpoints.written() == []


def test_restoring_another_tree_is_an_error_of_one_line(tmp_path):
    good_checkpoints(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ConfigError) as error:
        checkpoints.restore(1, {'step': jnp.int32(0), 'kernel': jnp.zeros((2, 4))})
    assert 'kernel was float32[3, 4] and is float32[2, 4]' in str(error.value)
    assert '\n' not in str(error.value)


def test_a_diverged_evaluation_is_never_the_best():
    assert quality(evaluation(10.0, loss=float('nan'))) < quality(evaluation(10.0, loss=99.0))
    assert quality(evaluation(9.0, loss=0.1)) < quality(evaluation(10.0, loss=float('nan')))
