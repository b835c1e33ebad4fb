"""Training images that grow: compiled ahead, killed, resumed; evaluation at another size."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.config import make_plan
from ssanet_jax.errors import ConfigError
from ssanet_jax.trained.load import load_trained
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.training import evaluation, loop, parallel, steps, trainer_setup
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.model import build_model
from ssanet_jax.training.steps import TrainState
from tests.helpers import KilledError, assert_trees_equal, mesh_of, reproducible, stop_after
from tests.host_processes import finish, start_hosts


def growing(config):
    """Eight steps of a ResNet-8 in epochs of two steps: images of 8, 8, 12 and 12 pixels."""
    config.model.name = 'resnet8'
    config.num_train_steps, config.checkpoint_every_steps = 8, 1
    config.log_every_steps, config.eval_every_steps = 2, 8
    dataset = config.dataset
    dataset.train_split, dataset.train_crop = 'train[:128]', 'resized'
    dataset.initial_size, dataset.image_size, dataset.growth_multiple = 8, 12, 4
    dataset.growth_epochs = (1.0, 2.0)
    dataset.eval_size, dataset.eval_flip = 16, True
    return config


@pytest.fixture
def compilations():
    """A list that gets longer with each program that XLA compiles."""
    found = []

    def listen(name, seconds, **_):
        if 'backend_compile' in name:
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def image_batch(size):
    return {
        'image': np.zeros((8, size, size, 3), np.uint8),
        'label': np.zeros(8, np.int32),
        'mask': np.ones(8, bool),
    }


def test_steps_of_all_sizes_are_compiled_before_the_first(digits, compilations):
    """For arrays placed like those of real batches, so that calls find the programs."""

    def step(state, batch):
        mean = jax.lax.psum(jnp.mean(batch['image'].astype(jnp.float32)), 'data')
        logits = jnp.zeros((len(batch['label']), 10))
        total = Metrics.of(logits, batch['label'], jnp.zeros(1), batch['mask'])
        return dataclasses.replace(state, params=state.params + mean), total

    config, mesh = growing(digits), mesh_of(8)
    config.batch_size = 8
    train_step = parallel.parallel_train_step(step, mesh)
    setup = types.SimpleNamespace(plan=make_plan(config, 16), mesh=mesh, train_step=train_step)
    state, total = jax.device_put(
        (TrainState(jnp.int32(0), jnp.zeros(()), {}, ()), Metrics.zero()),
        parallel.replicated(mesh),
    )
    batches = list(parallel.to_devices([image_batch(8), image_batch(12)], mesh))
    late = dataclasses.replace(state, step=jnp.int32(6))  # all later images have 12 pixels

    def compiled_by(function, *arguments):
        before = len(compilations)
        result = function(*arguments)
        return len(compilations) - before, result

    compile_ahead = trainer_setup.TrainerSetup.compile_ahead
    assert compiled_by(compile_ahead, setup, config, late, total)[0] == 0
    assert compiled_by(compile_ahead, setup, config, state, total)[0] == 2
    for batch in batches:
        count, (state, total) = compiled_by(train_step, state, batch, total)
        assert count == 0


class Corner(nn.Module):
    """Logits are the first pixel."""

    @nn.compact
    def __call__(self, x, *, train):
        return x[:, 0, 0]


def test_flipped_evaluation_is_the_mean_over_an_image_and_its_mirror_image():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
    left, right = images[:, 0, 0].astype(np.float32), images[:, 0, -1].astype(np.float32)
    for flip, expected in ((False, left), (True, (left + right) / 2)):
        found = steps.predict(
            {}, jnp.asarray(images), Corner(), lambda x: x.astype(jnp.float32), flip=flip
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('field', 'train_crop'), [('eval_size', 'padded'), ('initial_size', 'resized')]
)
def test_a_network_whose_parameters_depend_on_the_size_needs_one_size(digits, field, train_crop):
    digits.model.name = 'ge_resnet8'
    digits.model.ge.gather = 'conv'
    digits.dataset.image_size, digits.dataset.train_crop = 16, train_crop
    build_model(digits, 10)
    digits.dataset[field] = 8
    message = rf'parameters of ge_resnet8 depend on the size .* leave config.dataset.{field} at -1'
    with pytest.raises(ConfigError, match=message):
        build_model(digits, 10)


@pytest.fixture(scope='module')
def whole(tmp_path_factory, data_dir):
    """The workdir of an uninterrupted run and its last state."""
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, jax.device_get(loop.train_and_evaluate(growing(config), workdir))


@pytest.mark.slow
@pytest.mark.parametrize('stop', [6, 7])
def test_a_run_killed_around_a_change_of_size_resumes_bit_for_bit(digits, whole, stop, tmp_path):
    """Two batches are prefetched: the last step has the last batch of 8 pixels, or the next."""
    workdir, state = whole
    with pytest.raises(KilledError):
        loop.train_and_evaluate(growing(digits), tmp_path, train_batches=stop_after(stop))
    resumed = loop.train_and_evaluate(digits, tmp_path)
    assert_trees_equal(jax.device_get(resumed), state)
    assert reproducible(tmp_path) == reproducible(workdir)


@pytest.mark.slow
def test_two_hosts_change_the_size_in_the_same_step(tmp_path, data_dir):
    flags = ['train_split=train[:640]', 'train_crop=resized', 'initial_size=8', 'image_size=12']
    flags += ['growth_multiple=2', 'growth_epochs=(0, 2)', 'eval_size=16', 'eval_flip=True']
    flags = ['--config.num_train_steps=30', *(f'--config.dataset.{flag}' for flag in flags)]
    found = []
    for hosts in (1, 2):
        workdir = tmp_path / str(hosts)
        outputs, _ = finish(start_hosts(hosts, workdir, data_dir, *flags), 0)
        assert any('Training images grow: 8, 10, 12 pixels.' in output for output in outputs)
        found.append(reproducible(workdir))
    one, two = found
    assert [line['step'] for line in two] == [line['step'] for line in one]
    for line, expected in zip(two, one, strict=True):
        assert line['loss'] == pytest.approx(expected['loss'], rel=1e-3)


@pytest.mark.slow
def test_no_step_waits_for_the_compiler_when_the_size_changes(digits, tmp_path, compilations):
    counts = []

    def counted(config, *, start_step):
        for batch in data.train_batches(config, start_step=start_step):
            counts.append((batch['image'].shape[1], len(compilations)))
            yield batch

    config = growing(digits)
    config.log_every_steps = 100
    loop.train_and_evaluate(config, tmp_path, train_batches=counted)
    sizes, compiled = zip(*counts, strict=True)
    assert sizes[:6] == (8,) * 4 + (12,) * 2
    # Batch 8 is made before step 6, and so after step 5, the first of 12 pixels.
    assert compiled[7] == compiled[4]


@pytest.mark.slow
def test_a_run_is_evaluated_at_its_size_with_flips_wherever_it_is_read(digits, whole):
    workdir, _ = whole
    trained = load_trained(workdir, 'latest')
    logits, labels = [], []
    forward = jax.jit(lambda x: trained.model.apply(trained.variables, x, train=False))
    for batch in data.eval_batches(growing(digits), 'test'):
        assert batch['image'].shape[1:3] == (16, 16)
        good = batch['mask']
        x = np.asarray(trained.preprocess(batch['image'][good]))
        logits.append((np.asarray(forward(x)) + np.asarray(forward(x[:, :, ::-1]))) / 2)
        labels.append(batch['label'][good])
        predicted = Predictor(trained).logits(batch['image'][good])
        np.testing.assert_allclose(predicted, logits[-1], rtol=1e-4, atol=1e-4)
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    top1 = 100 * np.mean(logits.argmax(axis=1) == labels)
    (line,) = [line for line in reproducible(workdir) if line['split'] == 'eval']
    assert line['top1'] == pytest.approx(top1, abs=0.3)
    assert evaluation.evaluate_checkpoint(digits, workdir, 'latest')['top1'] == pytest.approx(
        top1, abs=0.3
    )
    digits.dataset.eval_flip = False
    without = evaluation.evaluate_checkpoint(digits, workdir, 'latest')
    assert without['loss'] != pytest.approx(line['loss'], rel=1e-4)
