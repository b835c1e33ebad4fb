"""Reads the checkpoints of a run that deletes them meanwhile."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.training.checkpoints import integrity, reader
from ssanet_jax.training.checkpoints.reader import CheckpointReader, read_checkpoint
from ssanet_jax.training.checkpoints.writer import Checkpoints
from tests.helpers import assert_trees_equal
from tests.training.test_checkpoint import evaluate, evaluation, good_checkpoints, tree
from tests.training.test_checkpoint_integrity import raises


def test_reading_starts_over_if_the_run_deletes_the_checkpoint_meanwhile(tmp_path):
    good_checkpoints(tmp_path, 1, 2, 3)
    tried = []

    def read(reader, step):
        tried.append(step)
        if step > 1:
            shutil.rmtree(tmp_path / 'checkpoints' / str(step))
        return reader.restore(step, tree(0))

    assert_trees_equal(read_checkpoint(tmp_path, 'latest', read), tree(1))
    assert tried == [3, 2, 1]


def test_a_checkpoint_that_is_deleted_while_it_is_verified_is_not_called_damaged(
    tmp_path, monkeypatch
):
    good_checkpoints(tmp_path, 1, 2)
    digest = integrity._digest

    def deleted(path):
        shutil.rmtree(tmp_path / 'checkpoints' / '2', ignore_errors=True)
        return digest(path)

    monkeypatch.setattr(integrity, '_digest', deleted)
    assert read_checkpoint(tmp_path, 'best', lambda reader, step: step) == 1
    with pytest.raises(ConfigError, match=r'--checkpoint=2 is not in'):
        read_checkpoint(tmp_path, '2', lambda reader, step: step)


def test_a_run_that_deletes_faster_than_one_can_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, '_RETRY_S', 0.0)
    good_checkpoints(tmp_path, 1)
    read = raises(reader.DeletedError('It was deleted.'))
    with pytest.raises(RunError, match='a run trains there and keeps few checkpoints'):
        read_checkpoint(tmp_path, 'latest', read)


def test_evaluations_written_after_the_listing_of_checkpoints_count(tmp_path, monkeypatch):
    """The newest checkpoint may be the only one, and be evaluated while a reader opens."""
    good_checkpoints(tmp_path, 1)
    (tmp_path / 'metrics.jsonl').rename(tmp_path / 'later')
    opened = CheckpointReader._open

    def slow(reader):
        manager = opened(reader)
        (tmp_path / 'later').rename(tmp_path / 'metrics.jsonl')
        return manager

    monkeypatch.setattr(CheckpointReader, '_open', slow)
    assert read_checkpoint(tmp_path, 'best', lambda reader, step: step) == 1


def test_a_deleted_checkpoint_vanishes_at_once(tmp_path, monkeypatch):
    """Readers see all of its files or none."""
    seen = []
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr(
            checkpoints,
            '_empty_pruned',
            lambda: seen.append(sorted(os.listdir(tmp_path / 'checkpoints'))),
        )
        for step in (1, 2, 3):
            checkpoints.save(step, tree(step), wait=True)
        monkeypatch.undo()
    assert seen == [[], ['1'], ['2', 'pruned']]
    assert os.listdir(tmp_path / 'checkpoints') == ['3']


@pytest.mark.slow
def test_a_run_that_saves_at_every_step_is_read_without_errors(tmp_path):
    done, loaded = threading.Event(), []

    def read():
        while not done.is_set():
            for which in ('best', 'latest'):
                state = read_checkpoint(tmp_path, which, lambda r, step: r.restore(step, tree(0)))
                loaded.append(int(state['step']))

    good_checkpoints(tmp_path, 1)
    with ThreadPoolExecutor() as pool, Checkpoints(tmp_path) as checkpoints:
        reader = pool.submit(read)
        for step in range(2, 100):
            checkpoints.save(step, tree(step))
            evaluate(tmp_path, checkpoints, step, evaluation(10.0 + step))
        done.set()
        reader.result()
    assert len(set(loaded)) > 5
