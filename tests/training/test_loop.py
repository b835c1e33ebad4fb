import json
import os
import socket
import time

import jax
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError, WorkdirInUseError
from ssanet_jax.training import loop
from ssanet_jax.training.metric_log import MetricsLog
from ssanet_jax.training.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal, reproducible, stop_after


def test_a_stopped_run_resumes_bit_for_bit(short, tmp_path):
    whole = loop.train_and_evaluate(short, str(tmp_path / 'whole'))
    for stop in (6, 19, 25):
        with pytest.raises(KilledError):
            loop.train_and_evaluate(short, tmp_path / 'stopped', train_batches=stop_after(stop))
    resumed = loop.train_and_evaluate(short, str(tmp_path / 'stopped'))

    assert_trees_equal(jax.device_get(resumed), jax.device_get(whole))
    assert reproducible(tmp_path / 'stopped') == reproducible(tmp_path / 'whole')
    steps = [(line['step'], line['split']) for line in reproducible(tmp_path / 'whole')]
    assert steps == [
        (7, 'train'), (10, 'eval'), (14, 'train'), (20, 'eval'),
        (21, 'train'), (28, 'train'), (30, 'train'), (30, 'eval'),
    ]  # fmt: skip


def test_a_run_leaves_what_it_promises(short, tmp_path, capsys):
    loop.train_and_evaluate(short, str(tmp_path))
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['step'] == summary['final']['step'] == 30
    assert {'top1', 'top5', 'loss', 'num_examples'} <= summary['final'].keys() & summary[
        'best'
    ].keys()
    assert summary['final']['num_examples'] == 360
    evaluated = [line for line in reproducible(tmp_path) if line['split'] == 'eval']
    assert summary['best']['top1'] == max(line['top1'] for line in evaluated)
    assert summary['parameters'] == 269_740
    assert json.loads((tmp_path / 'config.json').read_text())['batch_size'] == 64
    kept = {int(path.name) for path in (tmp_path / 'checkpoints').iterdir()}
    assert kept == {24, 28, 30} | {summary['best']['step']}
    assert list(tmp_path.glob('events.out.tfevents*'))
    printed = capsys.readouterr().out
    for word in ('top-1', 'top-5', 'loss', '360', 'images/s', '269,740', '2.547 M', 'summary.json'):
        assert word in printed


def test_evaluation_of_a_checkpoint_repeats_the_runs_own(short, tmp_path):
    loop.train_and_evaluate(short, str(tmp_path))
    summary = json.loads((tmp_path / 'summary.json').read_text())
    for which, expected in (
        ('best', summary['best']),
        ('latest', summary['final']),
        ('30', summary['final']),
    ):
        evaluated = loop.evaluate_checkpoint(short, str(tmp_path), which)
        assert evaluated == pytest.approx(expected, rel=1e-5)
    assert json.loads((tmp_path / 'evaluation.json').read_text())['step'] == 30


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


def test_images_in_another_order_are_refused(short, tmp_path):
    """As after converting tfrecord files in the middle of a run."""
    short.num_train_steps = 2
    loop.train_and_evaluate(short, str(tmp_path))
    path = tmp_path / 'config.json'
    assert json.loads(path.read_text())['data_order'] == 'a set in memory'
    changed = path.read_text().replace('a set in memory', 'tfrecord files on 2 host(s)')
    path.write_text(changed)
    short.num_train_steps = 4
    with pytest.raises(ConfigError, match=r'order changed from tfrecord files on 2 .* to a set in'):
        loop.train_and_evaluate(short, str(tmp_path))
    assert path.read_text() == changed


def test_a_checkpoint_that_is_not_there_is_told_which_are(short, tmp_path):
    with pytest.raises(ConfigError, match='holds no checkpoint'):
        loop.evaluate_checkpoint(short, str(tmp_path / 'empty'), 'best')
    short.num_train_steps = 4
    loop.train_and_evaluate(short, str(tmp_path))
    with pytest.raises(ConfigError, match=r'--checkpoint=7 is not in .* best, latest or one of 4'):
        loop.evaluate_checkpoint(short, str(tmp_path), '7')


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
    assert losses[-1] < 0.6 * losses[0]


def test_lines_that_training_will_write_again_are_removed(tmp_path):
    workdir = Workdir(tmp_path)
    lines = [{'step': step, 'split': 'train', 'loss': 1.0} for step in (1, 2, 3)]
    workdir.metrics.write_text(''.join(json.dumps(x) + '\n' for x in lines) + '{"step": 4, "sp')
    with MetricsLog(workdir, start_step=2) as log:
        log.write(3, 'train', {'loss': 0.5})
    assert workdir.read_metrics() == [*lines[:2], {'step': 3, 'split': 'train', 'loss': 0.5}]


def test_a_profile_is_recorded_when_asked_for(short, tmp_path):
    short.num_train_steps, short.profile_start_step, short.profile_num_steps = 4, 2, 2
    loop.train_and_evaluate(short, str(tmp_path))
    assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


@pytest.mark.slow
def test_an_evaluation_that_was_killed_is_repeated(short, tmp_path):
    whole = loop.train_and_evaluate(short, str(tmp_path / 'whole'))

    def killed_at_20(state, step):
        if step == 20:
            raise KilledError
        return {}

    with pytest.raises(KilledError):
        loop.train_and_evaluate(short, tmp_path / 'killed', evaluators={'killed': killed_at_20})
    resumed = loop.train_and_evaluate(short, str(tmp_path / 'killed'))
    assert_trees_equal(jax.device_get(resumed), jax.device_get(whole))
    assert reproducible(tmp_path / 'killed') == reproducible(tmp_path / 'whole')


@pytest.mark.slow
def test_a_run_resumes_from_the_newest_good_checkpoint(short, tmp_path, capsys):
    short.optimizer.schedule = 'constant'
    whole = loop.train_and_evaluate(short, str(tmp_path / 'whole'))
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
    assert_trees_equal(jax.device_get(resumed), jax.device_get(whole))
    assert reproducible(tmp_path / 'damaged') == reproducible(tmp_path / 'whole')
    assert (tmp_path / 'damaged' / 'damaged' / '26').is_dir()


@pytest.mark.slow
def test_each_start_is_recorded_and_what_changed_is_told(short, tmp_path, capsys):
    short.num_train_steps = 2
    short.optimizer.schedule = 'constant'
    loop.train_and_evaluate(short, str(tmp_path))
    path = tmp_path / 'starts.jsonl'
    first = json.loads(path.read_text())
    assert first['devices'] == 8
    path.write_text(json.dumps({**first, 'devices': 4}) + '\n')
    short.num_train_steps = 3
    loop.train_and_evaluate(short, str(tmp_path))
    printed = capsys.readouterr().out
    assert 'Changed since the last start: num_train_steps was 2 and is 3.' in printed
    assert 'Changed since the last start: devices was 4 and is 8.' in printed
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [0, 2]


def test_other_data_and_another_config_are_refused_unless_allowed(short, tmp_path):
    short.num_train_steps = 2
    loop.train_and_evaluate(short, str(tmp_path))
    path = tmp_path / 'starts.jsonl'
    first = json.loads(path.read_text())
    path.write_text(json.dumps({**first, 'dataset': 'digits/0.9.0 0123'}) + '\n')
    short.num_train_steps, short.optimizer.momentum = 3, 0.8
    message = (
        r'a different run: num_train_steps was 2 and is 3; optimizer.momentum was 0.9 and is 0.8; '
        r'its dataset was digits/0.9.0 0123 and is digits/1.0.0 .*--allow_config_change'
    )
    with pytest.raises(ConfigError, match=message):
        loop.train_and_evaluate(short, str(tmp_path))
    state = loop.train_and_evaluate(short, str(tmp_path), allow_config_change=True)
    assert int(state.step) == 3
    short.model.name, short.num_train_steps = 'ssa_resnet32', 4
    with pytest.raises(ConfigError, match=r'is of another model, optimizer or set of .* absent'):
        loop.train_and_evaluate(short, str(tmp_path), allow_config_change=True)


def test_a_second_run_in_the_same_workdir_is_refused(short, tmp_path):
    short.num_train_steps = 2
    with Workdir(tmp_path).lock():
        message = rf'Process {os.getpid()} on {socket.gethostname()}, for 0 minutes, runs in'
        with pytest.raises(WorkdirInUseError, match=message):
            loop.train_and_evaluate(short, str(tmp_path))
    loop.train_and_evaluate(short, str(tmp_path))
    assert not (tmp_path / 'run.lock').exists()


def test_the_lock_of_a_killed_run_is_not_in_the_way(tmp_path):
    (tmp_path / 'run.lock').write_text('{"host": "gone", "pid": 1, "since": 0}')
    with Workdir(tmp_path).lock():
        assert json.loads((tmp_path / 'run.lock').read_text())['pid'] == os.getpid()


def test_a_damaged_file_of_metrics_is_named(short, tmp_path):
    short.num_train_steps = 2
    loop.train_and_evaluate(short, str(tmp_path))
    path = tmp_path / 'metrics.jsonl'
    path.write_text(path.read_text().replace('{', '\0', 1))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r'metrics.jsonl is damaged: .* Put a copy back'):
        loop.train_and_evaluate(short, str(tmp_path))
    assert path.read_bytes() == before
