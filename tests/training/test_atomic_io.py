import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import SaveError
from ssanet_jax.training import loop, trainer_setup
from ssanet_jax.training.checkpoints import integrity
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring import metric_log
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.monitoring.profiling import Trace
from ssanet_jax.training.storage import atomic_io
from ssanet_jax.training.storage.atomic_io import AtomicAppender, check_room
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import assert_trees_equal, mesh_of


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(atomic_io, 'RETRY_DELAYS_S', (0.0, 0.0))


def full_disk(monkeypatch, times):
    """Makes the last write of a checkpoint fail `times` times, in Orbax's thread."""
    real, left = integrity._digests, [times]

    def digests(folder):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real(folder)

    monkeypatch.setattr(integrity, '_digests', digests)


def tree(step):
    return {'kernel': jnp.full((3, 4), step / 7)}


@pytest.mark.parametrize('wait', [True, False], ids=['waiting', 'in the background'])
def test_a_checkpoint_is_written_again_where_the_disk_was_full(wait, tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, tree(1), wait=True)
        full_disk(monkeypatch, 2)
        checkpoints.save(2, tree(2), wait=wait)
        checkpoints.save(3, tree(3), wait=True)
        steps = checkpoints.steps()
        assert steps == ([1, 2, 3] if wait else [1, 3])  # 2 was lost, and 3 took its place
        for step in steps:
            assert_trees_equal(checkpoints.restore(step, tree(0)), tree(step))
    names = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
    assert names == set(map(str, steps))


def test_a_disk_that_stays_full_stops_the_run_with_older_checkpoints_good(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(1, tree(1), wait=True)
        full_disk(monkeypatch, 99)
        message = r'of step 2 in .*No space left on device\. The checkpoints of steps 1 are un'
        with pytest.raises(SaveError, match=message):
            checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.newest_good() == (1, {})


def test_a_failure_in_the_background_is_reported_for_the_step_that_failed(
    tmp_path, monkeypatch, caplog
):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        full_disk(monkeypatch, 1)
        checkpoints.save(2, tree(2))
        checkpoints.save(3, tree(3))
        assert checkpoints.steps() == [3]  # waited for, since the one before failed
    (message,) = (m for m in caplog.messages if 'could not be written' in m)
    assert message.startswith('The checkpoint of step 2 in ')
    assert message.endswith('No space left on device. Now saving step 3 instead.')


def test_saving_a_step_again_waits_for_it_and_repeats_what_failed(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        full_disk(monkeypatch, 1)
        checkpoints.save(2, tree(2))
        checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.steps() == [2]
        full_disk(monkeypatch, 99)
        checkpoints.save(3, tree(3))
        with pytest.raises(SaveError, match='The checkpoint of step 3 in'):
            checkpoints.save(3, tree(3), wait=True)


@pytest.mark.slow
def test_a_stop_during_an_evaluation_reports_that_the_save_in_progress_failed(
    short, tmp_path, monkeypatch
):
    short.model.name, short.batch_size, short.eval_every_steps = 'resnet8', 8, 1
    failed = threading.Event()

    def full(folder):
        failed.set()
        raise OSError(errno.ENOSPC, 'No space left on device')

    def stopped(state, step):
        assert failed.wait(timeout=60)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)  # a thread listens
        return {}

    monkeypatch.setattr(integrity, '_digests', full)
    with pytest.raises(SaveError, match=r'The checkpoint of step 1 in .* No space left on device'):
        loop.train_and_evaluate(
            short,
            tmp_path,
            evaluators={'stopped': stopped},
            build=partial(trainer_setup.build, mesh=mesh_of(1)),
        )


def test_a_workdir_that_vanished_is_not_created_again(tmp_path):
    workdir = tmp_path / 'run'
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(1, tree(1), wait=True)
        workdir.rename(tmp_path / 'elsewhere')
        with pytest.raises(SaveError, match='checkpoints is gone'):
            checkpoints.save(2, tree(2), wait=True)
    assert not workdir.exists()


def test_a_checkpoint_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=2_000_000))
    folder = epath.Path(tmp_path)
    check_room(folder, 2_000_000)
    check_room(epath.Path('gs://bucket'), 10**12)  # has no end
    with pytest.raises(OSError, match=r'on device: 2\.1 MB are needed, 2\.0 free') as raised:
        check_room(folder, 2_100_000)
    assert raised.value.errno == errno.ENOSPC
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=1))
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(SaveError, match=r'of step 1 in .* MB are needed, 0\.0 free'),
    ):
        checkpoints.save(1, tree(1), wait=True)
    assert not list(tmp_path.glob('checkpoints/*'))


def test_writers_in_containers_with_the_same_number_have_their_own_files(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    with atomic_write(path) as mine:
        mine.write_text('mine')
        with monkeypatch.context() as patch:
            patch.setattr(socket, 'gethostname', lambda: 'other')
            with atomic_write(path) as other:
                other.write_text('other')
        assert path.read_text() == 'other'
    assert path.read_text() == 'mine'


def test_a_line_cut_off_by_a_full_disk_is_completed(tmp_path):
    path = epath.Path(tmp_path / 'metrics.jsonl')
    file = AtomicAppender(path, 'one\n')
    file.append('two\n')
    with path.open('a') as other:  # the rest of a line
        other.write('thr')
    file.append('three\n')
    assert path.read_text() == 'one\ntwo\nthree\n'


def test_appending_stops_if_another_process_truncated_or_removed_the_file(tmp_path):
    path = epath.Path(tmp_path / 'metrics.jsonl')
    file = AtomicAppender(path, 'one\n')
    path.write_text('')
    with pytest.raises(SaveError, match='it had 4 bytes and has 0'):
        file.append('two\n')
    path.unlink()
    with pytest.raises(SaveError, match='No such file'):
        file.append('two\n')


def test_a_failure_to_write_events_does_not_end_a_run(tmp_path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    log = MetricsLog(Workdir(tmp_path), 0)
    monkeypatch.setattr(log._events, 'write_scalars', full)
    log.write(1, 'train', {'loss': 2.0})
    (line,) = Workdir(tmp_path).read_metrics()
    assert line == {'step': 1, 'split': 'train', 'loss': 2.0}
    assert caplog.text.count('could not be written: [Errno 28] No space left on device') == 1


def test_a_run_without_a_place_for_events_or_traces_goes_on(tmp_path, monkeypatch, caplog):
    def refused(folder, start_step):
        raise PermissionError(f'{folder} is not writable')

    monkeypatch.setattr(metric_log, 'EventFile', refused)
    MetricsLog(Workdir(tmp_path), 0).write(1, 'train', {'loss': 2.0})
    assert caplog.text.count(f'could not be written: {tmp_path} is not writable') == 1

    config = ConfigDict({'profile_start_step': 1, 'profile_num_steps': 1})
    (tmp_path / 'file').write_text('')
    with Trace(config, epath.Path(tmp_path / 'file' / 'profile'), 0) as trace:
        trace.before(1)
        trace.after(1, jnp.zeros(1))
    assert caplog.text.count('The profiler trace could not be written: ') == 1
    with Trace(config, epath.Path(tmp_path / 'profile'), 0) as trace:
        trace.before(1)
        trace.after(1, jnp.zeros(1))
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_the_next_run_removes_what_a_killed_write_left(tmp_path):
    code = (
        'import os, signal, sys\n'
        'from pathlib import Path\n'
        'from ssanet_jax.atomic_write import atomic_write\n'
        'with atomic_write(Path(sys.argv[1]) / "config.json") as temporary:\n'
        '    temporary.write_text("half")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    workdir = Workdir(tmp_path)
    workdir.config.write_text('whole')
    killed = subprocess.run([sys.executable, '-c', code, str(tmp_path)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    workdir.remove_partial_files()
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']
    assert workdir.config.read_text() == 'whole'
