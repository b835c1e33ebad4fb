"""Runs in gs://: TensorFlow's files and Orbax's checkpoints, on a folder in place of a bucket."""

import pytest
import tensorflow as tf
from etils import epath
from etils.epath import backend, gpath
from orbax.checkpoint._src.path import gcs_utils
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssanet_jax.data.checks.dataset_files import sample_digest
from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.training import evaluation, loop
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring.dispensable import or_warn
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.storage.file_reading import read_text
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import assert_trees_equal
from tests.training.test_checkpoint import good_checkpoints, tree

BUCKET = 'gs://bucket'


class Gfile:
    """tf.io.gfile, with a folder in place of the bucket."""

    def __init__(self, folder):
        self._folder = str(folder)

    def _local(self, argument):
        return argument.replace(BUCKET, self._folder) if isinstance(argument, str) else argument

    def __getattr__(self, name):
        real = getattr(tf.io.gfile, name)
        return lambda *arguments, **options: real(*map(self._local, arguments), **options)

    def glob(self, pattern):
        found = tf.io.gfile.glob(self._local(pattern))
        return [path.replace(self._folder, BUCKET) for path in found]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in place of gs://bucket."""
    monkeypatch.setattr(backend._TfBackend, 'gfile', Gfile(tmp_path))
    monkeypatch.setattr(gpath, '_is_zonal_gcs_bucket', lambda bucket: False)
    monkeypatch.setattr(gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False)
    monkeypatch.setattr(
        gcs_utils,
        'get_kvstore_for_gcs',
        lambda path: {'driver': 'file', 'path': path.replace(BUCKET, str(tmp_path))},
    )
    return tmp_path


RUN = epath.Path(BUCKET) / 'run'


def test_checkpoints_are_written_verified_and_read(folder):
    good_checkpoints(RUN, 1, 2)
    assert (folder / 'run/checkpoints/2/commit_success.txt').exists()
    with CheckpointReader(RUN) as checkpoints:
        assert checkpoints.find('latest') == 2
        assert_trees_equal(checkpoints.restore(2, tree(0)), tree(2))


def test_an_unfinished_checkpoint_is_neither_good_nor_damaged(folder):
    """In a bucket Orbax writes in place, and commit_success.txt last."""
    good_checkpoints(RUN, 1, 2)
    (folder / 'run/checkpoints/2/commit_success.txt').unlink()
    assert Workdir(RUN).checkpoint_steps() == [1]
    with Checkpoints(RUN) as checkpoints:
        assert checkpoints.newest_good() == (1, {})
        checkpoints.save(2, tree(2), wait=True)
        assert checkpoints.newest_good() == (2, {})
    assert not (folder / 'run/damaged').exists()


def test_metrics_and_events_are_appended(folder):
    (folder / 'run').mkdir()
    log = MetricsLog(Workdir(RUN), 0)
    log.write(1, 'train', {'loss': 2.0})
    log.write(2, 'train', {'loss': 1.0})
    assert [line['loss'] for line in Workdir(RUN).read_metrics()] == [2.0, 1.0]
    events = EventAccumulator(str(folder / 'run')).Reload().Scalars('train/loss')
    assert [(event.step, event.value) for event in events] == [(1, 2.0), (2, 1.0)]


def test_errors_of_tensorflow_are_those_of_files(folder, monkeypatch, caplog):
    """Events are dispensable; what is read later is not taken for missing."""
    (folder / 'run').mkdir()

    def unavailable(*_):
        raise tf.errors.UnavailableError(None, None, 'try again')

    with monkeypatch.context() as patch:
        patch.setattr(Gfile, 'exists', unavailable, raising=False)
        patch.setattr(Gfile, 'listdir', unavailable, raising=False)
        patch.setattr(Gfile, 'GFile', unavailable, raising=False)
        assert or_warn('Events', (RUN / 'events').read_text) is None
        with pytest.raises(RunError, match=r'gs://bucket/run/config\.json cannot be read: .*again'):
            read_text(RUN / 'config.json')
    assert 'Events could not be written: ' in caplog.text


def test_the_end_of_a_shard_is_in_its_digest(folder):
    shard = folder / 'shard'
    shard.write_bytes(bytes(2**18))
    before = sample_digest(f'{BUCKET}/shard')
    assert before == sample_digest(str(shard)) != ''
    shard.write_bytes(bytes(2**18 - 1) + b'1')
    assert sample_digest(f'{BUCKET}/shard') != before


@pytest.mark.slow
def test_a_run_is_resumed_and_evaluated(short, folder):
    short.num_train_steps, short.optimizer.schedule = 10, 'constant'
    loop.train_and_evaluate(short, RUN)
    short.num_train_steps = 20
    assert int(loop.train_and_evaluate(short, RUN).step) == 20
    evaluated = evaluation.evaluate_checkpoint(short, RUN, 'latest')
    assert evaluated['num_examples'] == 360
    names = {path.name for path in (folder / 'run').iterdir()}
    assert {'config.json', 'metrics.jsonl', 'summary.json', 'evaluation.json'} <= names


def refuse(*_, **__):
    raise tf.errors.PermissionDeniedError(None, None, 'no access\nto the bucket.')


def test_a_bucket_that_refuses_is_one_line(folder, monkeypatch):
    workdir = Workdir(RUN)
    workdir.make()
    for name in ('mkdir', 'exists'):
        with monkeypatch.context() as patch:
            patch.setattr(gpath._GPath, name, refuse)
            with pytest.raises(ConfigError, match=r'cannot be created: no access to the bucket\.$'):
                Workdir(RUN).make()
            if name == 'mkdir':
                with pytest.raises(ConfigError, match=r'no access to the bucket\. Move what'):
                    Checkpoints(RUN)
    monkeypatch.setattr(gpath._GPath, 'write_text', refuse)
    with pytest.raises(
        ConfigError, match=r'run\.lock cannot be written: no access to the bucket\. Free'
    ):
        workdir.lock().__enter__()


def test_a_bucket_that_refuses_to_delete_stops_no_run(folder, monkeypatch):
    with Checkpoints(RUN) as checkpoints:
        pruned = folder / Workdir(RUN).pruned.relative_to(epath.Path(BUCKET))
        pruned.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(gpath._GPath, 'rmtree', refuse)
            checkpoints._empty_pruned()
        assert pruned.exists()
        checkpoints._empty_pruned()
        assert not pruned.exists()
    monkeypatch.setattr(gpath._GPath, 'unlink', refuse)
    with Workdir(RUN).lock():
        pass
    assert (folder / 'run/run.lock').exists()
