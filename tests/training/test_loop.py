import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import shutil
import socket
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssanet_jax.errors import ConfigError, WorkdirInUseError
from ssanet_jax.training import evaluation, loop, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal, mesh_of, reproducible, stop_after
from tests.training.conftest import short_config


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, data_dir):
    """The workdir of an uninterrupted run, its last state and its output."""
    config = short_config(data_dir)
    config.profile_start_step, config.profile_num_steps = 2, 2
    workdir, printed = tmp_path_factory.mktemp('uninterrupted'), io.StringIO()
    with contextlib.redirect_stdout(printed):
        state = loop.train_and_evaluate(config, workdir)
    return workdir, jax.device_get(state), printed.getvalue()


@pytest.fixture
def finished(uninterrupted, tmp_path):
    """A copy of that workdir."""
    return Workdir(shutil.copytree(uninterrupted[0], tmp_path / 'finished'))


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


def test_a_run_leaves_its_files_and_prints_a_summary(uninterrupted):
    workdir, _, printed = uninterrupted
    summary = json.loads((workdir / 'summary.json').read_text())
    assert summary['step'] == summary['final']['step'] == 30
    for name in ('final', 'best'):
        assert summary[name].keys() == {'step', 'top1', 'top5', 'loss', 'num_examples'}
    assert summary['final']['num_examples'] == 360
    evaluated = [line for line in reproducible(workdir) if line['split'] == 'eval']
    assert summary['best']['top1'] == max(line['top1'] for line in evaluated)
    assert summary['parameters'] == 75_296
    assert json.loads((workdir / 'config.json').read_text())['batch_size'] == 64
    kept = {int(path.name) for path in (workdir / 'checkpoints').iterdir()}
    assert kept == {24, 28, 30} | {summary['best']['step']}
    assert list(workdir.glob('events.out.tfevents*'))
    assert list((workdir / 'profile').rglob('*.xplane.pb'))
    assert not (workdir / 'run.lock').exists()
    assert not list(workdir.glob('*.partial'))
    for word in ('top-1', 'top-5', 'loss', '360', 'images/s', '75,296', '0.7694 M', 'summary.json'):
        assert word in printed


def test_evaluation_of_a_checkpoint_repeats_the_runs_own(short, finished):
    summary = json.loads(finished.summary.read_text())
    for which, expected in (('best', summary['best']), ('30', summary['final'])):
        evaluated = evaluation.evaluate_checkpoint(short, finished, which)
        assert evaluated == pytest.approx(expected, rel=1e-5)
    assert json.loads(finished.evaluation.read_text())['step'] == 30


class SlowSum:
    """A slow step on the device; counts the sums that are unfinished at each call."""

    def __init__(self):
        self.sums, self.unfinished = [], []

    def add(self, total):
        self.unfinished.append(sum(not one.loss.is_ready() for one in self.sums))
        self.sums.append(self._slow(total))
        return self.sums[-1]

    @staticmethod
    @jax.jit
    def _slow(total):
        product = jax.lax.fori_loop(0, 40, lambda _, a: a @ a, jnp.eye(200) + total.loss)
        return total.replace(sums={**total.sums, 'loss': product[0, 1]})


def test_the_host_trains_at_most_one_step_ahead_of_the_devices(short, tmp_path):
    """Or batches would pile up there, and a signal would wait for every step that is queued."""
    slow = SlowSum()

    def train_step(state, batch, total):
        return dataclasses.replace(state, step=state.step + 1), slow.add(total)

    def build(*args, **options):
        setup = trainer_setup.build(*args, **options, mesh=mesh_of(1))
        return setup._replace(train_step=train_step)

    short.model.name = 'resnet8'
    short.checkpoint_every_steps = short.log_every_steps = 30
    with pytest.raises(KilledError):
        loop.train_and_evaluate(short, tmp_path, build=build, train_batches=stop_after(12))
    assert len(slow.unfinished) > 8
    assert max(slow.unfinished) <= 1


def test_the_host_evaluates_at_most_one_step_ahead_of_the_devices(short):
    slow = SlowSum()
    short.model.name, short.eval_batch_size = 'resnet8', 24
    setup = trainer_setup.build(short, num_classes=10, num_train_examples=1437, mesh=mesh_of(1))
    setup = setup._replace(eval_step=lambda state, batch, total: slow.add(total))
    evaluation.evaluate(short, setup, setup.init())
    assert len(slow.unfinished) == 15  # 360 images
    assert max(slow.unfinished) <= 1


@pytest.mark.slow
def test_throughput_leaves_out_evaluations(short, tmp_path):
    def slow(state, step):
        time.sleep(5)
        return {}

    short.num_train_steps, short.eval_every_steps, short.log_every_steps = 6, 3, 6
    loop.train_and_evaluate(short, tmp_path, evaluators={'slow': slow})
    (throughput,) = (
        x['images_per_second'] for x in Workdir(tmp_path).read_metrics() if x['split'] == 'train'
    )
    assert throughput > 5 * 64 / 5


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


def test_a_missing_checkpoint_lists_the_others(short, finished, tmp_path):
    with pytest.raises(ConfigError, match='holds no checkpoint'):
        evaluation.evaluate_checkpoint(short, tmp_path / 'empty', 'best')
    with pytest.raises(ConfigError, match=r'--checkpoint=7 is not in .* or a step; nearest: \d'):
        evaluation.evaluate_checkpoint(short, finished, '7')


@pytest.mark.slow
def test_training_lowers_the_loss_in_bfloat16_with_smoothing_and_adamw(short, tmp_path):
    short.dtype = 'bfloat16'
    short.label_smoothing = 0.1
    short.optimizer.name = 'adamw'
    short.optimizer.learning_rate = 3e-3
    short.num_train_steps = 60
    state = loop.train_and_evaluate(short, str(tmp_path))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype('float32')}
    losses = [line['loss'] for line in reproducible(tmp_path) if line['split'] == 'train']
    assert losses[-1] < 0.7 * losses[0]  # smoothing keeps it above 0.5


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


def test_a_second_run_in_the_same_workdir_is_refused(short, finished):
    with finished.lock():
        message = rf'Process {os.getpid()} on {socket.gethostname()}, for 0 minutes, runs in'
        with pytest.raises(WorkdirInUseError, match=message):
            loop.train_and_evaluate(short, finished)


def test_the_lock_of_a_killed_run_is_not_in_the_way(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.run_lock.write_text('{"host": "gone", "pid": 1, "since": 0}')
    with workdir.lock():
        assert json.loads(workdir.run_lock.read_text())['pid'] == os.getpid()


def test_a_damaged_file_of_metrics_is_named(finished):
    damaged = finished.metrics.read_text().replace('{', '\0', 1)
    finished.metrics.write_text(damaged)
    with pytest.raises(ConfigError, match=r'metrics.jsonl is damaged: .* Restore a copy'):
        Checkpoints(finished)
    assert finished.metrics.read_text() == damaged


def test_a_run_lists_its_parameters(uninterrupted):
    workdir, state, _ = uninterrupted
    table = (workdir / 'parameters.txt').read_text()
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        shape = re.escape(str(leaf.shape))
        assert re.search(rf'^\| {name} +\| {shape} +\| float32 ', table, re.MULTILINE)
    assert f'Total: {sum(leaf.size for _, leaf in leaves):,} ' in table
