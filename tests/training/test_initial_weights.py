"""Runs that start from a weight file, and runs that train a subset of the parameters."""

import itertools
import json
import os
import shutil
from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import data, weights
from ssanet_jax.config.validation import check
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import ResNet
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.trained.load import load_trained
from ssanet_jax.training import evaluation, loop, parallel, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.initial_weights import load_weights
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import load_config
from tests.report.runs import random_state


@pytest.fixture
def tiny(digits):
    """A config of two blocks and six steps."""
    digits.model.name = 'resnet8'
    digits.num_train_steps = 6
    digits.log_every_steps = 3
    digits.eval_every_steps = 6
    return digits


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data_dir):
    """The workdir of a ResNet-8 with random weights at step 6, and a file of the weights."""
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    config.model.name = 'resnet8'
    info = data.dataset_info(config)
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=info.num_train)
    workdir = Workdir(tmp_path_factory.mktemp('plain'))
    with Checkpoints(workdir) as checkpoints:
        state = random_state(setup, 6, seed=0)
        checkpoints.save(6, (state, setup.zero_metrics().sums), wait=True)
    run_history.record(config, info, workdir, 0)
    line = metrics_line(6, 'eval', loss=1.0, top1=50.0)
    workdir.metrics.write_text(line)
    loaded = load_trained(workdir)
    path = workdir.path / 'plain.safetensors'
    weights.save(path, weights.to_arrays(loaded.variables, loaded.model, naming='torchvision'))
    return workdir.path, str(path)


def test_a_run_is_read_from_its_workdir_with_its_model(trained):
    workdir, _ = trained
    loaded = load_trained(workdir)
    assert loaded.step == 6
    assert loaded.config.model.name == 'resnet8'
    assert loaded.model.num_classes == 10
    logits = loaded.model.apply(loaded.variables, np.zeros((1, 8, 8, 3), np.float32), train=False)
    assert logits.shape == (1, 10)
    with pytest.raises(ConfigError, match='holds no checkpoints/'):
        load_trained(workdir / 'nothing')


def test_a_run_of_an_older_config_and_of_more_devices_is_read(trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / 'old')
    saved = json.loads((workdir / 'config.json').read_text())
    del saved['init'], saved['model']['dropout'], saved['model']['eca']
    saved['model']['batch_norm_group_size'] = 4
    (workdir / 'config.json').write_text(json.dumps(saved))
    loaded = load_trained(workdir)
    check(loaded.config)
    assert loaded.config.model.batch_norm_group_size == 4
    assert isinstance(loaded.config.dataset.mean, tuple)


class Headed(ResNet):
    """A network whose last layer is not called fc."""

    @nn.compact
    def classify(self, x, train=None):
        return nn.Dense(self.num_classes, name='head')(jnp.mean(x, axis=(1, 2)))


def test_a_network_with_a_head_of_its_own_is_read(digits, tmp_path, monkeypatch):
    headed = partial(Headed, **NETWORKS['resnet8'].keywords)
    monkeypatch.setitem(NETWORKS, 'headed20', headed)
    digits.model.name = 'headed20'
    model = trainer_setup.build_model(digits, 10)
    shapes = variable_shapes(model, 8)
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, (variables, {}), wait=True)
    workdir = Workdir(tmp_path)
    workdir.config.write_text(digits.to_json_best_effort())
    with pytest.raises(ConfigError, match=r'classes.json is missing, .* no layer fc'):
        load_trained(tmp_path, 'latest')
    workdir.classes.write_text(json.dumps(list('abcdefghij')))
    trained = load_trained(tmp_path, 'latest')
    assert trained.model.num_classes == len(trained.classes) == 10
    assert trained.variables['params']['head']['bias'].shape == (10,)


def test_evaluation_of_the_weights_equals_that_of_the_run(trained, tiny, tmp_path):
    workdir, path = trained
    expected = evaluation.evaluate_checkpoint(tiny, str(workdir), 'best')
    tiny.init.weights = path
    found = evaluation.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')
    assert found == {**expected, 'step': 0}
    tiny.init.weights = None
    with pytest.raises(ConfigError, match=r'needs --config\.init\.weights=FILE'):
        evaluation.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')
    tiny.init.weights, tiny.init.head = path, 'new'
    with pytest.raises(ConfigError, match='would evaluate a random layer'):
        evaluation.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')


def test_ssa_inserted_into_a_trained_network_starts_as_an_identity_and_trains_alone(trained, tiny):
    workdir, path = trained
    before = evaluation.evaluate_checkpoint(tiny, str(workdir), 'best')
    plain = load_trained(workdir).variables

    tiny.model.name = 'ssa_resnet8'
    tiny.model.ssa.gate_scale = 2.0
    tiny.model.ssa.zero_init = True
    tiny.init.weights = path
    tiny.init.attention = 'insert'
    tiny.optimizer.train_only = ('*/ssa/*',)
    setup = trainer_setup.build(tiny, num_classes=10, num_train_examples=1437)
    state = load_weights(tiny, setup, setup.init())
    inserted = evaluation.evaluate(tiny, setup, state)
    assert inserted['top1'] == before['top1']
    assert inserted['loss'] == pytest.approx(before['loss'], rel=1e-5)

    for batch in parallel.to_devices(itertools.islice(data.train_batches(tiny), 2), setup.mesh):
        state, _ = setup.train_step(state, batch, setup.zero_metrics())
    flat = flax.traverse_util.flatten_dict(jax.device_get(state.params))
    old = flax.traverse_util.flatten_dict(plain['params'])
    gates = {p for p in flat if p[-3:-1] == ('ssa', 'bn')}
    assert len(gates) == 6
    for path_, value in flat.items():
        if path_ in gates:
            assert value != 0, path_
        else:
            np.testing.assert_array_equal(value, old[path_], err_msg=str(path_))


def test_a_resumed_run_does_not_read_the_file_again(trained, tiny, tmp_path):
    path = shutil.copy(trained[1], tmp_path)
    tiny.init.weights, tiny.num_train_steps = path, 1
    first = loop.train_and_evaluate(tiny, tmp_path / 'run')
    os.remove(path)
    again = loop.train_and_evaluate(tiny, tmp_path / 'run')
    np.testing.assert_array_equal(first.params['fc']['bias'], again.params['fc']['bias'])


def test_a_new_head_leaves_the_other_layers(trained, tiny):
    _, path = trained
    tiny.init.weights = path
    tiny.init.head = 'new'
    setup = trainer_setup.build(tiny, num_classes=4, num_train_examples=100)
    fresh = setup.init()
    state = load_weights(tiny, setup, fresh)
    np.testing.assert_array_equal(state.params['fc']['kernel'], fresh.params['fc']['kernel'])
    assert (state.params['conv1']['kernel'] != fresh.params['conv1']['kernel']).any()

    tiny.init.head = 'load'
    with pytest.raises(ConfigError, match=r'config.init: fc.* has 4\. .*init.head=new'):
        load_weights(tiny, setup, fresh)


def test_a_choice_among_the_weights_of_a_file_is_announced(trained, tiny, tmp_path):
    raw = weights.load(trained[1])
    averaged = {f'ema.{name}': value + (value.ndim > 0) for name, value in raw.items()}
    tiny.init.weights = str(tmp_path / 'both.safetensors')
    weights.save(
        tiny.init.weights, {**averaged, **{f'model.{name}': value for name, value in raw.items()}}
    )
    setup = trainer_setup.build(tiny, num_classes=10, num_train_examples=100)
    found = {}
    for part in (None, 'ema'):
        tiny.init.part = part
        said = []
        state = load_weights(tiny, setup, setup.init(), said.append)
        found[part] = np.asarray(state.params['fc']['bias'])
        if part is None:
            assert said == [
                'Stripped the prefix model. of the weights. The file also has averaged weights, '
                'ema: --config.init.part=ema (--part of ssanet convert_torch) takes them.'
            ]
    np.testing.assert_array_equal(found[None], raw['fc.bias'])
    np.testing.assert_array_equal(found['ema'], raw['fc.bias'] + 1)


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('nothing.safetensors', 'nothing.safetensors is not a file'),
        ('text.safetensors', 'not a complete safetensors file'),
        ('text.onnx', r'expected .safetensors, .pth'),
    ],
)
def test_an_unreadable_file_of_weights_stops_the_run_before_the_workdir_is_created(
    tiny, tmp_path, file, message
):
    for name in ('text.safetensors', 'text.onnx'):
        (tmp_path / name).write_text('not weights')
    tiny.init.weights = str(tmp_path / file)
    with pytest.raises(ConfigError, match=message):
        loop.train_and_evaluate(tiny, str(tmp_path / 'run'))
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_names_in_a_file_of_weights_are_escaped_where_it_is_evaluated(tiny, monkeypatch, capsys):
    setup = SimpleNamespace(init=lambda: None)
    monkeypatch.setattr(evaluation, 'set_up', lambda *_: (setup, None))
    monkeypatch.setattr(evaluation, 'load_weights', lambda *_: _[-1]('Ignored \x1b[2J, [b].'))
    tiny.init.weights = 'a.pth'
    evaluation._initial(tiny)
    assert capsys.readouterr().out == 'Ignored \\x1b[2J, [b].\n'


def test_a_pattern_without_a_match_is_refused(tiny):
    tiny.optimizer.train_only = ('*/ssa/*',)
    with pytest.raises(ConfigError, match=r"'\*/ssa/\*', which matches no parameter; nearest: "):
        trainer_setup.build(tiny, num_classes=10, num_train_examples=100)
