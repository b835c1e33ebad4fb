"""Runs that start from a file of weights, and runs that train a part."""

import json
import shutil

import flax.traverse_util
import jax
import numpy as np
import pytest

from ssanet_jax import weights
from ssanet_jax.config.validation import check
from ssanet_jax.errors import ConfigError
from ssanet_jax.trained.load import load_trained
from ssanet_jax.training import loop, trainer_setup
from ssanet_jax.training.pretrained import load_weights


@pytest.fixture
def tiny(digits):
    """Two blocks, six steps."""
    digits.model.name = 'resnet20'
    digits.num_train_steps = 6
    digits.log_every_steps = 3
    digits.eval_every_steps = 6
    return digits


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data_dir):
    """The workdir of a plain ResNet-20 after six steps, and its weights as a file."""
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    config.model.name = 'resnet20'
    config.num_train_steps = 6
    config.eval_every_steps = 6
    workdir = tmp_path_factory.mktemp('plain')
    loop.train_and_evaluate(config, str(workdir))
    run = load_trained(workdir)
    path = workdir / 'plain.safetensors'
    weights.save(path, weights.to_arrays(run.variables, run.model, naming='torchvision'))
    return workdir, str(path)


def test_a_run_is_read_from_its_workdir_with_its_model(trained):
    workdir, _ = trained
    run = load_trained(workdir)
    assert run.step == 6
    assert run.config.model.name == 'resnet20'
    assert run.model.num_classes == 10
    logits = run.model.apply(run.variables, np.zeros((1, 8, 8, 3), np.float32), train=False)
    assert logits.shape == (1, 10)
    with pytest.raises(ConfigError, match='holds no checkpoints/'):
        load_trained(workdir / 'nothing')


def test_a_run_from_before_a_field_was_there_and_from_more_devices_is_read(trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / 'old')
    saved = json.loads((workdir / 'config.json').read_text())
    del saved['init'], saved['model']['dropout'], saved['model']['eca']
    saved['model']['batch_norm_group_size'] = 4
    (workdir / 'config.json').write_text(json.dumps(saved))
    run = load_trained(workdir)
    check(run.config)
    assert run.config.model.batch_norm_group_size == 4
    assert isinstance(run.config.dataset.mean, tuple)


def test_evaluation_of_the_weights_equals_that_of_the_run(trained, tiny, tmp_path):
    workdir, path = trained
    expected = loop.evaluate_checkpoint(tiny, str(workdir), 'best')
    tiny.init.weights = path
    found = loop.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')
    assert found == {**expected, 'step': 0}
    tiny.init.weights = None
    with pytest.raises(ConfigError, match=r'needs --config\.init\.weights=FILE'):
        loop.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')
    tiny.init.weights, tiny.init.head = path, 'new'
    with pytest.raises(ConfigError, match='would evaluate a random layer'):
        loop.evaluate_checkpoint(tiny, str(tmp_path / 'new'), 'init')


def test_ssa_put_into_a_trained_network_changes_no_answer_and_its_gates_train_alone(
    trained, tiny, tmp_path
):
    workdir, path = trained
    before = loop.evaluate_checkpoint(tiny, str(workdir), 'best')
    plain = load_trained(workdir).variables

    tiny.model.name = 'ssa_resnet20'
    tiny.model.ssa.gate = '2sigmoid'
    tiny.init.weights = path
    tiny.init.attention = 'insert'
    tiny.optimizer.train_only = ('*/ssa/*',)
    inserted = loop.evaluate_checkpoint(tiny, str(tmp_path / 'eval'), 'init')
    assert inserted['top1'] == before['top1']
    assert inserted['loss'] == pytest.approx(before['loss'], rel=1e-5)

    state = loop.train_and_evaluate(tiny, str(tmp_path / 'run'))
    flat = flax.traverse_util.flatten_dict(jax.device_get(state.params))
    old = flax.traverse_util.flatten_dict(plain['params'])
    gates = {p for p in flat if p[-3:-1] == ('ssa', 'bn')}
    assert len(gates) == 18
    for path_, value in flat.items():
        if path_ in gates:
            assert value != 0, path_
        else:
            np.testing.assert_array_equal(value, old[path_], err_msg=str(path_))


def test_a_resumed_run_does_not_read_the_file_again(trained, tiny, tmp_path):
    _, path = trained
    tiny.init.weights = path
    first = loop.train_and_evaluate(tiny, str(tmp_path))
    again = loop.train_and_evaluate(tiny, str(tmp_path))
    np.testing.assert_array_equal(first.params['fc']['bias'], again.params['fc']['bias'])


def test_a_new_head_leaves_the_other_layers(trained, tiny):
    _, path = trained
    tiny.init.weights = path
    tiny.init.head = 'new'
    run = trainer_setup.build(tiny, num_classes=4, num_train_examples=100)
    fresh = run.init()
    state = load_weights(tiny, run, fresh)
    np.testing.assert_array_equal(state.params['fc']['kernel'], fresh.params['fc']['kernel'])
    assert (state.params['conv1']['kernel'] != fresh.params['conv1']['kernel']).any()

    tiny.init.head = 'load'
    with pytest.raises(ConfigError, match=r'config.init: fc.* has shape .* same num_classes'):
        load_weights(tiny, run, fresh)


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('nothing.safetensors', 'nothing.safetensors is not a file'),
        ('text.safetensors', 'not a complete safetensors file'),
        ('text.onnx', r'expected .safetensors, .pth'),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_run_before_it_leaves_anything(
    tiny, tmp_path, file, message
):
    for name in ('text.safetensors', 'text.onnx'):
        (tmp_path / name).write_text('not weights')
    tiny.init.weights = str(tmp_path / file)
    with pytest.raises(ConfigError, match=message):
        loop.train_and_evaluate(tiny, str(tmp_path / 'run'))
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_a_pattern_that_finds_nothing_is_refused(tiny):
    tiny.optimizer.train_only = ('*/ssa/*',)
    with pytest.raises(ConfigError, match=r"'\*/ssa/\*', which matches no parameter; .* layer3_2"):
        trainer_setup.build(tiny, num_classes=10, num_train_examples=100)
