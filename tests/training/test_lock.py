"""A workdir belongs to one run."""

import errno
import json
import os
import shutil

import jax.numpy as jnp
import pytest

from ssanet_jax.errors import ConfigError, RunError, SaveError, WorkdirInUseError
from ssanet_jax.training import loop
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.storage import lock
from ssanet_jax.training.storage.lock import Lock
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal

TREE = {'kernel': jnp.zeros(3)}


def moved(folder):
    folder.rename(folder.with_name('elsewhere'))


def moved_and_taken(folder):
    moved(folder)
    folder.mkdir()
    (folder / 'run.lock').write_text('{"host": "other", "pid": 7, "since": 0}')


def removed(folder):
    shutil.rmtree(folder)


def copied(folder):
    """The same text in another file, as after `cp -r`, `rm -rf` and `mv`."""
    shutil.copytree(folder, folder.with_name('copy'))
    shutil.rmtree(folder)
    folder.with_name('copy').rename(folder)


def overwritten(folder):
    """As by a run on a file system without locks."""
    (folder / 'run.lock').write_text('{"host": "other", "pid": 7, "since": 0}')


def garbled(folder):
    (folder / 'run.lock').write_bytes(b'\xff\xfe')


def replaced_by_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text('')


TAKEN = {
    'moved': (moved, 'run.lock was removed, moved or replaced'),
    'moved and taken': (moved_and_taken, 'run.lock was removed, moved or replaced'),
    'removed': (removed, 'run.lock was removed, moved or replaced'),
    'copied': (copied, 'run.lock was removed, moved or replaced'),
    'overwritten': (overwritten, r'process 7 on other, for \d+ minutes, runs there'),
    'garbled': (garbled, 'another process runs there'),
    'replaced by a file': (replaced_by_a_file, 'run.lock was removed, moved or replaced'),
}


@pytest.fixture
def workdir(tmp_path):
    folder = Workdir(tmp_path / 'run')
    folder.make()
    return folder


@pytest.mark.parametrize(('take', 'reason'), TAKEN.values(), ids=TAKEN)
def test_a_run_whose_folder_is_another_one_writes_nothing_and_ends(take, reason, workdir, tmp_path):
    message = rf'run no longer belongs to this run: {reason}\. .* use a new workdir\.'
    checkpoints, log = Checkpoints(workdir), MetricsLog(workdir, 0)
    with workdir.lock():
        log.write(1, 'train', {'loss': 2.0})
        checkpoints.save(1, TREE, wait=True)
        take(tmp_path / 'run')
        before = files(tmp_path)
        for write in (
            lambda: log.write(2, 'train', {'loss': 2.0}),
            lambda: checkpoints.save(2, TREE),
            lambda: checkpoints.save(2, TREE, wait=True),  # it remains so
            checkpoints.prune,
        ):
            with pytest.raises(SaveError, match=message):
                write()
    assert files(tmp_path) == before  # run.lock of the other run, too


def files(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


def test_a_save_that_fails_because_the_folder_was_taken_leaves_the_saves_of_the_other_run(
    workdir, tmp_path, monkeypatch
):
    def taken(folder):
        moved_and_taken(tmp_path / 'run')
        (tmp_path / 'run/checkpoints/1.orbax-checkpoint-tmp').mkdir(parents=True)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(integrity, '_digests', taken)
    with workdir.lock(), pytest.raises(SaveError, match='no longer belongs to this run'):
        Checkpoints(workdir).save(1, TREE, wait=True)
    assert (tmp_path / 'run/checkpoints/1.orbax-checkpoint-tmp').exists()


def test_an_error_of_the_file_system_does_not_end_the_run(workdir, monkeypatch):
    def stale(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with workdir.lock():
        with monkeypatch.context() as patch:
            patch.setattr(lock, '_is_open_at', stale)
            workdir.check_lock()
        workdir.check_lock()
    assert not workdir.run_lock.exists()


class Bucket:
    """run.lock in an object store, which has no locks."""

    parent, name, text = 'gs://bucket/run', 'run.lock', None

    def __str__(self):
        return f'{self.parent}/{self.name}'

    def write_text(self, text):
        self.text = text

    def read_text(self):
        if self.text is None:
            raise FileNotFoundError
        return self.text

    def unlink(self):
        self.text = None


def test_in_an_object_store_the_first_of_two_runs_ends(monkeypatch):
    path = Bucket()
    with Lock(path) as first:
        first.check()
        with Lock(path) as second:
            second.check()
            with pytest.raises(SaveError, match=rf'process {os.getpid()} on .*, runs there'):
                first.check()
        assert path.text is None
    with Lock(path):
        pass
    assert path.text is None


def test_a_run_is_compared_with_the_one_before_under_the_lock(short, workdir, monkeypatch):
    """Otherwise another run could come and go in between."""

    def compare(*arguments):
        with pytest.raises(WorkdirInUseError), Workdir(workdir).lock():
            pass
        raise KilledError

    monkeypatch.setattr(loop.run_history, 'check_same_run', compare)
    with pytest.raises(KilledError):
        loop.train_and_evaluate(short, workdir)
    assert workdir.path.exists()  # it was there before


READS = {
    'config': Workdir.read_config,
    'classes': Workdir.read_classes,
    'starts': Workdir.read_starts,
    'metrics': Workdir.read_metrics,
    'checkpoints': Workdir.checkpoint_steps,
}


@pytest.mark.parametrize(('name', 'read'), READS.items(), ids=READS)
def test_a_file_that_cannot_be_read_now_is_not_taken_for_missing(name, read, workdir):
    workdir.checkpoints.mkdir()
    path = getattr(workdir, name)
    if name == 'checkpoints':
        path.rmdir()
    os.symlink(path, path)  # ELOOP
    message = (
        r'cannot be read: .*symbolic links.*\. Nothing was changed; run the same command again'
    )
    with pytest.raises(RunError, match=message) as error:
        read(workdir)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ('name', 'text'),
    [('config', '[1'), ('classes', '3'), ('metrics', '{"loss": 1}\n'), ('metrics', '\udcff\n')],
)
def test_a_damaged_file_is_one_line(name, text, workdir):
    workdir.checkpoints.mkdir()
    path = getattr(workdir, name)
    path.write_bytes(os.fsencode(text))
    with pytest.raises(ConfigError, match=rf'{path} is damaged: .*\. Restore a copy, or'):
        READS[name](workdir)


def test_starts_that_are_damaged_count_up_to_there(workdir):
    workdir.starts.write_text('{"step": 1}\n\n{')
    assert workdir.read_starts() == [{'step': 1}]


@pytest.mark.parametrize(
    'name', ['a\nb', 'a\x1b[31m', 'bad\udcff', 'configs:', 'back\\slash', 'rtl\u202e', 'bell\x07']
)
def test_a_workdir_that_would_lose_its_checkpoints_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r' has .*; choose another name\.') as error:
        Workdir(tmp_path / name / 'run').make()
    assert str(error.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'name', ['lr[1]', '[red]x[/red]', 'a{b,c}', '100%', '%s', 'q?', 'st*r', '**', 'trail ', '日本']
)
def test_checkpoints_are_found_whatever_the_name_of_the_workdir(name, tmp_path):
    workdir = Workdir(tmp_path / name)
    workdir.make()
    with workdir.lock(), Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, TREE, wait=True)
        assert checkpoints.newest_good() == (1, {})
        assert_trees_equal(checkpoints.restore(1, TREE), TREE)


def test_the_lock_of_a_killed_run_is_not_in_the_way(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.run_lock.write_text('{"host": "gone", "pid": 1, "since": 0}')
    with workdir.lock():
        assert json.loads(workdir.run_lock.read_text())['pid'] == os.getpid()
