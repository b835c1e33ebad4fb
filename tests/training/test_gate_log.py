import dataclasses
import itertools
import json
from types import SimpleNamespace

import flax.traverse_util
import jax
import numpy as np
import pytest
import scipy.stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssanet_jax import data, feature_maps
from ssanet_jax.config.validation import changed_fields
from ssanet_jax.errors import ConfigError
from ssanet_jax.training import loop, parallel, trainer_setup
from ssanet_jax.training.monitoring import console
from ssanet_jax.training.monitoring.gate_log import GateLog
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import KilledError, assert_trees_equal, reproducible, stop_after
from tests.report.runs import random_state
from tests.test_hosts import finish, start_hosts


@pytest.fixture
def logged(short):
    """12 steps, with training metrics at 5, 10 and 12 and checkpoints at 4, 8 and 12."""
    short.log_gates = True
    short.num_train_steps = short.eval_every_steps = 12
    short.log_every_steps = 5
    return short


@pytest.mark.slow
def test_training_is_the_same_with_and_without_the_gate_log(logged, tmp_path):
    """A run without the log, killed after step 11, resumes with it from step 8."""
    state = loop.train_and_evaluate(logged, str(tmp_path / 'whole'))
    logged.log_gates = False
    with pytest.raises(KilledError):  # two batches are prefetched
        loop.train_and_evaluate(logged, tmp_path / 'killed', train_batches=stop_after(13))
    assert [line['split'] for line in reproducible(tmp_path / 'killed')] == ['train', 'train']
    logged.log_gates = True
    resumed = loop.train_and_evaluate(logged, str(tmp_path / 'killed'))

    assert_trees_equal(jax.device_get(resumed), jax.device_get(state))
    lines = reproducible(tmp_path / 'whole')
    assert [(line['step'], line['split']) for line in lines] == [
        (5, 'train'), (5, 'gates'), (10, 'train'), (10, 'gates'),
        (12, 'train'), (12, 'gates'), (12, 'eval'),
    ]  # fmt: skip
    first = [line for line in lines if (line['step'], line['split']) == (5, 'gates')]
    assert reproducible(tmp_path / 'killed') == [line for line in lines if line not in first]
    assert 'images_per_second' not in Workdir(tmp_path / 'whole').read_metrics()[1]
    _check_values(logged, state, next(data.train_batches(logged, start_step=11)), lines[5])
    _check_events(tmp_path / 'whole', lines[1:6:2])


def test_gate_statistics_are_written_to_metrics_and_tensorboard(digits, tmp_path):
    digits.log_gates = True
    setup = trainer_setup.build(digits, num_classes=10, num_train_examples=1437)
    batches = list(itertools.islice(data.train_batches(digits), 2))
    states = [random_state(setup, step, seed=step) for step in (5, 10)]
    gates = GateLog(setup, MetricsLog(Workdir(tmp_path), 0), console.make_console())
    for state, batch in zip(states, parallel.to_devices(batches, setup.mesh), strict=True):
        gates.write(int(state.step), state, batch)
    lines = Workdir(tmp_path).read_metrics()
    assert [(line['step'], line['split']) for line in lines] == [(5, 'gates'), (10, 'gates')]
    for state, batch, line in zip(states, batches, lines, strict=True):
        _check_values(digits, state, batch, line)
    _check_events(tmp_path, lines)
    assert lines[0]['layer1_0/ssa/spatial_std'] > 0.01  # They vary, and from state to state.
    assert lines[0]['layer1_0/ssa/mean'] != lines[1]['layer1_0/ssa/mean']


def _check_values(config, state, batch, line):
    """Checks a metrics line against NumPy on the feature maps of a state on its batch."""
    images = (batch['image'] / np.float32(255) - np.float32(0.3)) / np.float32(0.37)
    variables = jax.device_get(state.variables)
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=1437)
    maps = feature_maps(setup.model, variables, images, ['*/ssa/gate'])
    assert len(maps) == 3
    expected = {}
    for name, gate in maps.items():
        block, gate = name.removesuffix('/gate'), np.asarray(gate, np.float64)
        pixels = gate.reshape(len(gate), -1)
        expected |= {
            f'{block}/mean': gate.mean(),
            f'{block}/std': gate.std(),
            f'{block}/spatial_std': gate.std(axis=(1, 2)).mean(),
            f'{block}/image_std': gate.mean(axis=(1, 2)).std(),
            f'{block}/low': (gate < 0.05).mean(),
            f'{block}/high': (gate > 0.95).mean(),
            f'{block}/entropy': scipy.stats.entropy(pixels, axis=1).mean() / np.log(pixels[0].size),
        }
    found = {name: value for name, value in line.items() if name not in ('step', 'split')}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


def _check_events(workdir, lines):
    events = EventAccumulator(str(workdir), size_guidance={'scalars': 0}).Reload()
    written = events.Scalars('gates/layer3_0/ssa/mean')
    assert [event.step for event in written] == [line['step'] for line in lines]
    assert [event.value for event in written] == pytest.approx(
        [line['layer3_0/ssa/mean'] for line in lines], rel=1e-6
    )


def test_the_training_step_compiles_to_the_same_with_and_without_the_gate_log(digits):
    texts = []
    for digits.log_gates in (False, True):
        setup = trainer_setup.build(digits, num_classes=10, num_train_examples=1437)
        (batch,) = parallel.to_devices(itertools.islice(data.train_batches(digits), 1), setup.mesh)
        state = jax.eval_shape(setup.init)
        lowered = setup.train_step.lower(state, batch, setup.zero_metrics())
        texts.append(lowered.as_text())  # what XLA compiles
    assert texts[0] == texts[1]
    assert len(setup.gates) == 3


def _without_gates(params):
    """The parameters with scales and biases of gates at 0, as with `zero_init`."""
    flat = flax.traverse_util.flatten_dict(params)
    flat = {path: x * 0 if 'ssa' in path else x for path, x in flat.items()}
    return flax.traverse_util.unflatten_dict(flat)


def test_a_dead_gate_is_reported_once(digits, capsys):
    """2 sigmoid(0) is 1 everywhere."""
    digits.log_gates = True
    digits.model.ssa.gate_scale = 2.0
    digits.model.ssa.zero_init = True
    setup = trainer_setup.build(digits, num_classes=10, num_train_examples=1437)
    (batch,) = parallel.to_devices(itertools.islice(data.train_batches(digits), 1), setup.mesh)
    lines = []
    gates = GateLog(
        setup, SimpleNamespace(write=lambda *line: lines.append(line)), console.make_console()
    )
    state = random_state(setup, 50, seed=0)
    state = dataclasses.replace(state, params=_without_gates(state.params))
    for step in (50, 100):
        gates.write(step, state, batch)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3
    assert told[0] == (
        'step 50: gate layer1_0/ssa hardly varies, within images or between them (mean 1.000).'
    )
    assert [line[:2] for line in lines] == [(50, 'gates'), (100, 'gates')]
    assert (lines[0][2]['layer1_0/ssa/mean'], lines[0][2]['layer1_0/ssa/std']) == (1, 0)


def test_a_network_without_gates_is_refused_before_the_workdir_is_created(logged, tmp_path):
    logged.model.name = 'resnet8'
    message = r'config.log_gates=True, but resnet8 has no gates; leave it out, or choose'
    with pytest.raises(ConfigError, match=message):
        loop.train_and_evaluate(logged, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_the_gate_log_may_be_turned_on_when_resuming(logged):
    saved = {**json.loads(logged.to_json()), 'log_gates': False}
    assert changed_fields(logged, saved) == ([], ['log_gates was False and is True'])


@pytest.mark.slow
def test_two_hosts_log_the_gates_of_all_images(tmp_path, data_dir):
    flags = ['--config.log_gates', '--config.num_train_steps=20']
    found = []
    for hosts in (1, 2):
        workdir = tmp_path / str(hosts)
        finish(start_hosts(hosts, workdir, data_dir, *flags), 0)
        found.append([line for line in reproducible(workdir) if line['split'] == 'gates'])
    one, two = found
    assert [line['step'] for line in two] == [10, 20]
    for line, expected in zip(two, one, strict=True):
        assert line.pop('split') == expected.pop('split')
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-5)
