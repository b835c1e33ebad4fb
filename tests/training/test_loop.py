import dataclasses
import json
import os
import re
import socket
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError, WorkdirInUseError
from ssanet_jax.training import evaluation, loop, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, mesh_of, reproducible, stop_after


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


def test_a_second_run_in_the_same_workdir_is_refused(short, finished):
    with finished.lock():
        message = rf'Process {os.getpid()} on {socket.gethostname()}, for 0 minutes, runs in'
        with pytest.raises(WorkdirInUseError, match=message):
            loop.train_and_evaluate(short, finished)


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
