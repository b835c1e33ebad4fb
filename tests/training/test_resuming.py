"""Stopped and killed runs resume bit for bit."""

import itertools
import json
import time

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssanet_jax.errors import ConfigError
from ssanet_jax.training import loop
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal, reproducible, stop_after


def test_a_stopped_run_resumes_bit_for_bit(short, uninterrupted, tmp_path):
    workdir, state, _ = uninterrupted
    for stop in (6, 25):
        with pytest.raises(KilledError):
            loop.train_and_evaluate(short, tmp_path, train_batches=stop_after(stop))
    resumed = loop.train_and_evaluate(short, tmp_path)

    assert_trees_equal(jax.device_get(resumed), state)
    assert reproducible(tmp_path) == reproducible(workdir)
    steps = [(line['step'], line['split']) for line in reproducible(workdir)]
    assert steps == [
        (7, 'train'), (10, 'eval'), (14, 'train'), (20, 'eval'),
        (21, 'train'), (28, 'train'), (30, 'train'), (30, 'eval'),
    ]  # fmt: skip


def test_images_in_another_order_are_refused(short, finished):
    """As after converting tfrecord files in the middle of a run."""
    assert finished.read_config()['data_order'] == 'a set in memory'
    text = finished.config.read_text()
    changed = text.replace('a set in memory', 'tfrecord files on 2 host(s)')
    finished.config.write_text(changed)
    with pytest.raises(
        ConfigError, match=r'order changed from tfrecord files .* to a set in memory'
    ):
        loop.train_and_evaluate(short, finished)
    assert finished.config.read_text() == changed


def test_metrics_of_steps_to_be_repeated_are_removed(tmp_path):
    workdir = Workdir(tmp_path)
    lines = [{'step': step, 'split': 'train', 'loss': 1.0} for step in (1, 2, 3)]
    workdir.metrics.write_text(''.join(json.dumps(x) + '\n' for x in lines) + '{"step": 4, "sp')
    MetricsLog(workdir, start_step=2).write(3, 'train', {'loss': 0.5})
    assert workdir.read_metrics() == [*lines[:2], {'step': 3, 'split': 'train', 'loss': 0.5}]


def test_tensorboard_does_not_show_steps_to_be_repeated(tmp_path, monkeypatch):
    clock = itertools.count(1_700_000_000, 10)  # files are named and read by the second
    monkeypatch.setattr(time, 'time', lambda: next(clock))
    for start, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0}), (2, {3: 0.5})):
        log = MetricsLog(Workdir(tmp_path), start)
        for step, value in values.items():
            log.write(step, 'train', {'loss': value})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars('train/loss')
    assert [(event.step, event.value) for event in events] == [(1, 1.0), (2, 2.0), (3, 0.5)]


@pytest.mark.slow
def test_an_evaluation_that_was_killed_is_repeated(short, tmp_path):
    uninterrupted = loop.train_and_evaluate(short, str(tmp_path / 'whole'))

    def killed_at_20(state, step):
        if step == 20:
            raise KilledError
        return {}

    with pytest.raises(KilledError):
        loop.train_and_evaluate(short, tmp_path / 'killed', evaluators={'killed': killed_at_20})
    resumed = loop.train_and_evaluate(short, str(tmp_path / 'killed'))
    assert_trees_equal(jax.device_get(resumed), jax.device_get(uninterrupted))
    assert reproducible(tmp_path / 'killed') == reproducible(tmp_path / 'whole')


@pytest.mark.slow
def test_a_run_resumes_from_the_newest_good_checkpoint(short, tmp_path, capsys):
    short.optimizer.schedule = 'constant'
    uninterrupted = loop.train_and_evaluate(short, str(tmp_path / 'whole'))
    short.num_train_steps = 26
    loop.train_and_evaluate(short, str(tmp_path / 'damaged'))
    data_file = next((tmp_path / 'damaged' / 'checkpoints' / '26' / 'default' / 'd').iterdir())
    data_file.write_bytes(data_file.read_bytes()[:-9])
    short.num_train_steps = 30
    capsys.readouterr()
    resumed = loop.train_and_evaluate(short, str(tmp_path / 'damaged'))
    printed = capsys.readouterr().out
    assert 'Resuming from the checkpoint of step 24.' in printed
    assert f'step 26 is damaged: default/d/{data_file.name} is not what was written' in printed
    assert_trees_equal(jax.device_get(resumed), jax.device_get(uninterrupted))
    assert reproducible(tmp_path / 'damaged') == reproducible(tmp_path / 'whole')
    assert (tmp_path / 'damaged' / 'damaged' / '26').is_dir()


@pytest.mark.slow
def test_each_start_is_recorded_and_its_changes_are_printed(short, tmp_path, capsys):
    short.num_train_steps = 2
    short.optimizer.schedule = 'constant'
    loop.train_and_evaluate(short, str(tmp_path))
    path = tmp_path / 'starts.jsonl'
    first = json.loads(path.read_text())
    assert first['hosts'] == 1
    path.write_text(json.dumps({**first, 'hosts': 4}) + '\n')
    short.num_train_steps = 3
    loop.train_and_evaluate(short, str(tmp_path))
    printed = capsys.readouterr().out
    assert 'Changed since the last start: num_train_steps was 2 and is 3.' in printed
    assert 'Changed since the last start: hosts was 4 and is 1.' in printed
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [0, 2]


def test_other_data_and_another_config_are_refused_unless_allowed(short, finished):
    (first,) = finished.read_starts()
    finished.write_starts([{**first, 'dataset': 'digits/0.9.0 0123'}])
    short.dataset.crop_padding = 2
    message = (
        r'a different run: dataset.crop_padding was 1 and is 2; '
        r'its dataset was digits/0.9.0 0123 and is digits/1.0.0 .*--allow_config_change'
    )
    with pytest.raises(ConfigError, match=message):
        loop.train_and_evaluate(short, finished)
    state = loop.train_and_evaluate(short, finished, allow_config_change=True)
    assert int(state.step) == 30
    assert finished.read_config()['dataset']['crop_padding'] == 2
    short.model.name = 'ssa_resnet32'
    with pytest.raises(ConfigError, match=r'is of another model, optimizer or set of .* absent'):
        loop.train_and_evaluate(short, finished, allow_config_change=True)
