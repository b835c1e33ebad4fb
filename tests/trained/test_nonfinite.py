"""Non-finite values planted in a known module are found there and nowhere else."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model
from ssanet_jax.pretrained.preprocessing import normalize
from ssanet_jax.trained.nonfinite import by_name, first_nonfinite
from ssanet_jax.training import steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.steps import TrainState, init_state
from tests.helpers import mesh_of


def network(**options):
    """An SSA-ResNet-20 cut to its first block, with 4 channels."""
    return create_model('ssa_resnet20', num_classes=5, stage_sizes=(1,), width=4, **options)


def batch_of(num_images, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': rng.integers(0, 256, (num_images, 8, 8, 3), np.uint8),
        'label': rng.integers(0, 5, num_images, np.int32),
        'mask': np.ones(num_images, bool),
    }


def diagnose(model, change=lambda variables: None, devices=1, scale=1 / 255, **options):
    """The diagnosis of one step, after `change` has modified the variables."""
    state = init_state(0, model=model, tx=optax.sgd(0.1), image_size=8)
    variables = jax.tree.map(np.array, state.variables)
    change(variables)
    state = TrainState(np.int32(0), variables['params'], variables['batch_stats'], ())
    options.setdefault('loss', cross_entropy)
    options.setdefault('preprocess', lambda image: image.astype(jnp.float32) * scale)
    return first_nonfinite(Objective(model, **options), state, batch_of(4), mesh_of(devices))


def plant(path, value, index=0):
    """A change that sets one value of a variable such as 'params/conv1/kernel'."""

    def change(variables):
        *parts, last = path.split('/')
        for part in parts:
            variables = variables[part]
        variables[last].flat[index] = value

    return change


def nonfinite(arrays):
    """The names of the arrays that are not finite."""
    return {name for name, array in arrays.items() if not np.isfinite(array).all()}


def test_a_good_step_has_the_loss_and_gradient_of_training():
    model = network(dropout=0.5)
    state = init_state(0, model=model, tx=optax.sgd(0.1), image_size=8)
    preprocess = partial(normalize, mean=(0.5,) * 3, std=(0.2,) * 3)
    objective = Objective(model, cross_entropy, preprocess, seed=3)
    step = partial(steps.train_step, objective=objective, tx=optax.sgd(1.0))
    mesh, batch = mesh_of(2), batch_of(4)
    spec = jax.sharding.PartitionSpec
    after, metrics = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(spec(), spec('data')),
            out_specs=spec(),
            check_vma=False,
        )
    )(state, batch)
    diagnosis = first_nonfinite(objective, state, batch, mesh)
    assert diagnosis.loss == pytest.approx(float(metrics.loss) / 4, rel=1e-5)
    grads = jax.tree.map(lambda old, new: np.asarray(old) - new, state.params, after.params)
    expected = by_name(grads)
    assert set(expected) == set(diagnosis.grads)
    for name, grad in diagnosis.grads.items():
        np.testing.assert_allclose(grad, expected[name], rtol=1e-3, atol=1e-5)
    assert diagnosis.forward is diagnosis.backward is None
    assert diagnosis.edges[0].values.size == 4 * 8 * 8 * 3
    images, output = (
        next(e for e in diagnosis.edges if e.path == 'conv1' and e.is_input == is_input)
        for is_input in (True, False)
    )
    assert (output.kind, output.values.size) == ('Conv', 4 * 8 * 8 * 4)
    pixels = preprocess(jnp.asarray(batch['image']))
    assert images.values.largest == pytest.approx(np.abs(pixels).max(), rel=1e-5)


slow = partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ('path', 'value', 'module', 'kind'),
    [
        slow('params/layer1_0/bn2/scale', np.inf, 'layer1_0/bn2', 'BatchNorm'),
        slow('params/layer1_0/bn1/bias', np.nan, 'layer1_0/bn1', 'BatchNorm'),
        slow('params/fc/bias', -np.inf, 'fc', 'Dense'),
        ('params/layer1_0/conv1/kernel', 3e38, 'layer1_0/conv1', 'Conv'),
        # Finite, but so large that the mean over all pixels is not.
        ('params/layer1_0/conv1/kernel', 1e37, 'layer1_0/bn1', 'BatchNorm'),
        ('params/layer1_0/ssa/bn/scale', np.nan, 'layer1_0/ssa/bn', 'BatchNorm'),
    ],
)
def test_the_planted_module_is_named(path, value, module, kind):
    diagnosis = diagnose(network(), plant(path, value))
    found = diagnosis.forward
    assert (found.path, found.kind) == (module, kind)
    assert found.received.nonfinite == 0 < found.produced.nonfinite
    assert diagnosis.backward is None


@pytest.mark.slow
def test_a_bad_value_on_one_of_several_devices_is_found_and_counted():
    """The images of the second device overflow at the first convolution's only large weight."""
    image = batch_of(4)['image']

    def preprocess(pixels):
        second = (jax.lax.axis_index('data') == 1).astype(jnp.float32)
        return jnp.ones(pixels.shape) * (1 + 9 * second)

    def change(variables):
        kernel = variables['params']['conv1']['kernel']
        kernel[:] = 0
        kernel[1, 1, 0, 2] = 1e38

    found = diagnose(network(), change, devices=2, preprocess=preprocess).forward
    assert found.path == 'conv1'
    assert found.produced.nonfinite == image.shape[0] // 2 * 8 * 8
    assert found.produced.size == image.shape[0] * 8 * 8 * 4
    assert found.received.largest == 10


def test_non_finite_images_blame_no_module():
    diagnosis = diagnose(network(), scale=np.inf)
    assert diagnosis.forward is diagnosis.backward is None
    assert diagnosis.edges[0].values.nonfinite > 0


@pytest.mark.slow
def test_non_finite_running_statistics_blame_no_module():
    """Training does not read them."""
    diagnosis = diagnose(network(), plant('batch_stats/bn1/var', np.inf))
    assert diagnosis.forward is diagnosis.backward is None
    assert np.isfinite(diagnosis.loss)


@pytest.mark.slow
def test_a_folded_tail_names_its_parts():
    model = create_model(
        'ssa_resnet50', num_classes=5, stem='cifar', stage_sizes=(1,), tail='folded'
    )
    for parameter, module in (('conv3/kernel', 'conv3'), ('bn3/scale', 'bn3')):
        found = diagnose(model, plant(f'params/layer1_0/{parameter}', np.nan)).forward
        assert found.path == f'layer1_0/{module}'


class Root(nn.Module):
    """Its gradient is not finite at 0."""

    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(x - jax.lax.stop_gradient(x))


class Tiny(nn.Module):
    """Three dense layers, with a `Root` or plain code before the last one."""

    between: str = ''

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(4, name='first')(x.mean((1, 2)))
        x = nn.Dense(4, name='second')(x)
        if self.between == 'module':
            x = x + Root(name='root')(x)
        elif self.between == 'code':
            x = x + jnp.sqrt(x - jax.lax.stop_gradient(x))
        elif self.between == 'forward':
            x = x / jnp.zeros_like(x)
        return nn.Dense(5, name='last')(x)


def test_a_rematerialized_block_is_inspected_as_any_other():
    diagnosis = diagnose(network(remat=(1,)), plant('params/layer1_0/conv2/kernel', np.nan))
    assert diagnosis.forward.path == 'layer1_0/conv2'


def test_a_gradient_is_followed_to_a_module_without_parameters():
    diagnosis = diagnose(Tiny('module'))
    assert np.isfinite(diagnosis.loss)
    assert diagnosis.forward is None
    found = diagnosis.backward
    assert (found.path, found.kind, found.submodule) == ('root', 'Root', '')
    assert found.received.nonfinite == 0 < found.produced.nonfinite
    assert {name.split('/')[0] for name in nonfinite(diagnosis.grads)} == {'first', 'second'}


def test_code_between_modules_belongs_to_the_module_around_them():
    found = diagnose(Tiny('code')).backward
    assert (found.path, found.kind, found.submodule) == ('', 'Tiny', 'second')
    found = diagnose(Tiny('forward')).forward
    assert (found.path, found.kind, found.submodule) == ('', 'Tiny', 'last')
    assert found.produced.nonfinite == found.produced.size == 16


def test_a_parameters_gradient_is_found_alone():
    """The layer's input is so large that only the kernel's gradient overflows."""
    change = plant('params/last/kernel', 0)

    def large(variables):
        change(variables)
        variables['params']['second']['bias'][:] = 1e38
        variables['params']['last']['kernel'][:] = 0

    diagnosis = diagnose(
        Tiny(), large, loss=lambda logits, label: 100 * cross_entropy(logits, label)
    )
    assert np.isfinite(diagnosis.loss)
    assert nonfinite(diagnosis.grads) == {'last/kernel'}
    assert diagnosis.backward.path == 'last'
    assert 0 < diagnosis.backward.produced.nonfinite <= 20


def test_a_non_finite_loss_blames_no_module():
    bad = diagnose(Tiny(), loss=lambda logits, label: logits[:, 0] * jnp.inf)
    assert bad.forward is bad.backward is None
    assert not np.isfinite(bad.loss)
    bad = diagnose(
        Tiny(),
        loss=lambda logits, label: jnp.sqrt(logits - jax.lax.stop_gradient(logits)).sum(1),
    )
    assert bad.backward.path is None
    assert bad.loss == 0
