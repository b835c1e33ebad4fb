import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssanet_jax import create_model, data, layers
from ssanet_jax.config.validation import check_batch_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.training import parallel, steps, trainer_setup
from ssanet_jax.training.evaluation import evaluate
from tests.helpers import mesh_of, quick_jit, quickly, train_in_float64
from tests.report.runs import random_state

ALL_REDUCE = r' all-reduce(-start)?\('


def build_on(num_devices, config):
    """The setup for a mesh of `num_devices`."""
    mesh = mesh_of(num_devices)
    return trainer_setup.build(config, num_classes=10, num_train_examples=1437, mesh=mesh)


def train(setup, config, steps):
    """Trains `steps` steps; returns the loss of each and the last state."""
    state, losses = setup.init(), []
    batches = itertools.islice(data.train_batches(config), steps)
    for batch in parallel.to_devices(batches, setup.mesh):
        state, metrics = setup.train_step(state, batch, setup.zero_metrics())
        losses.append(metrics.means()['loss'])
    return losses, state


@pytest.mark.slow
def test_global_batch_norm_makes_eight_devices_train_as_one(digits):
    digits.model.batch_norm_group_size = -1
    digits.optimizer.learning_rate = 0.01
    one, _ = train(build_on(1, digits), digits, 5)
    eight, _ = train(build_on(8, digits), digits, 5)
    np.testing.assert_allclose(eight, one, rtol=1e-4)


@pytest.mark.slow
def test_eight_devices_train_as_one_for_fifty_steps(digits):
    """In float64: training amplifies the rounding of float32 until it shows."""
    norm = partial(layers.BatchNorm, axis_name='data')
    model = create_model('ssa_resnet20', num_classes=10, norm=norm, dtype=jnp.float64)
    one, eight = (train_in_float64(model, digits, 50, num_devices) for num_devices in (1, 8))
    assert one[-1] < 0.8 * one[0]
    np.testing.assert_allclose(eight, one, rtol=1e-6)


@pytest.mark.slow
def test_grouped_batch_norm_is_between_local_and_global(digits):
    """Two groups of four equal global statistics when both groups see the same images."""
    batch = next(data.train_batches(digits))
    twice = {name: np.concatenate([array[:32], array[:32]]) for name, array in batch.items()}
    stats = {}
    for shared in (1, 4, -1):
        digits.model.batch_norm_group_size = shared
        setup = build_on(8, digits)
        (on_devices,) = parallel.to_devices([twice], setup.mesh)
        state, _ = setup.train_step(setup.init(), on_devices, setup.zero_metrics())
        stats[shared] = np.concatenate([np.ravel(s) for s in jax.tree.leaves(state.batch_stats)])
    np.testing.assert_allclose(stats[4], stats[-1], rtol=1e-4, atol=1e-6)
    assert np.abs(stats[1] - stats[-1]).max() > 1e-3


def test_local_batch_norm_crosses_devices_at_most_twice_a_step(digits):
    assert count_all_reduces(build_on(8, digits)) <= 2


@pytest.mark.slow
def test_a_hundred_layers_cross_devices_no_more_often(digits):
    """XLA combines 256 all-reduces at most, and this network has 767 arrays to add up."""
    digits.model.name = 'ssa_resnet110'
    assert count_all_reduces(build_on(8, digits)) <= 2


@pytest.mark.slow
def test_the_count_sees_the_all_reduces_of_global_batch_norm(digits):
    digits.model.batch_norm_group_size = -1
    assert count_all_reduces(build_on(8, digits)) > 20  # forward and back through ten of them


DIGITS = {
    'image': np.zeros((64, 8, 8, 3), np.uint8),
    'label': np.zeros(64, np.int32),
    'mask': np.ones(64, bool),
}


def count_all_reduces(setup):
    shapes = jax.eval_shape(lambda: (setup.init(), DIGITS, setup.zero_metrics()))
    compiled = setup.train_step.lower(*shapes).compile(quickly())
    return len(re.findall(ALL_REDUCE, compiled.as_text()))


def sum_of_rows(num_devices, all_reduce_dtype):
    """The all-reduce of gradients and statistics, each device's a row of the arguments."""

    def f(grads, others):
        grads, others = jax.tree.map(lambda a: a[0], (grads, others))
        return steps._sum_over_devices(grads, others, all_reduce_dtype)

    mesh = mesh_of(num_devices)
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P('data'), out_specs=P(), check_vma=False))


def rows():
    """Gradients of a kernel and of a bias, and a running mean, on eight devices."""
    rng = np.random.default_rng(0)
    shapes = {'kernel': (8, 30, 20), 'bias': (8, 20)}
    grads = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return grads, rng.normal(size=(8, 20)).astype(np.float32)


def test_an_all_reduce_in_bfloat16_rounds_the_gradients_of_kernels_only():
    grads, mean = rows()
    compiled = sum_of_rows(8, jnp.bfloat16).lower(grads, mean).compile()
    assert len(re.findall(ALL_REDUCE, compiled.as_text())) <= 2
    summed, summed_mean = compiled(grads, mean)
    np.testing.assert_allclose(summed['bias'], grads['bias'].sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(summed_mean, mean.sum(0), rtol=1e-5, atol=1e-6)
    assert summed['kernel'].dtype == np.float32
    error = np.abs(summed['kernel'] - grads['kernel'].sum(0))
    # Eight significant bits; one rounding of each row, and at most seven of partial sums.
    assert (error <= 8 * 2**-8 * np.abs(grads['kernel']).sum(0)).all()
    assert error.max() > 1e-3


def test_an_all_reduce_in_float32_or_on_one_device_adds_nothing_to_the_program():
    def program(num_devices, all_reduce_dtype):
        return sum_of_rows(num_devices, all_reduce_dtype).lower(*rows()).as_text()

    assert program(8, jnp.float32) == program(8, None)
    assert program(1, jnp.bfloat16) == program(1, None)
    assert program(8, jnp.bfloat16) != program(8, None)


def test_the_step_reduces_gradients_in_the_dtype_of_the_config(digits):
    digits.all_reduce_dtype = 'bfloat16'
    setup = build_on(8, digits)
    shapes = jax.eval_shape(lambda: (setup.init(), DIGITS, setup.zero_metrics()))
    assert 'bf16' in str(setup.train_step.trace(*shapes).jaxpr)


def test_evaluation_is_the_same_for_any_batch_size_and_devices(digits):
    """Masked padding does not count: 360 digits give one top-1."""
    setup = build_on(1, digits)
    state = jax.device_get(random_state(setup, 60, seed=42))
    images = next(data.eval_batches(digits, 'test'))
    logits = quick_jit(partial(setup.model.apply, train=False))(
        state.variables, (images['image'] / np.float32(255) - np.float32(0.3)) / np.float32(0.37)
    )
    predicted = np.argmax(np.asarray(logits), axis=1)[images['mask']]
    correct = predicted == images['label'][images['mask']]
    assert correct.shape == (360,)
    assert 0 < correct.mean() < 1

    for num_devices, batch_size in ((1, 64), (8, 7), (8, 1000)):
        digits.eval_batch_size = batch_size
        setup = build_on(num_devices, digits)
        means = evaluate(digits, setup, jax.device_put(state, parallel.replicated(setup.mesh)))
        assert (means['num_examples'], means['top1']) == (360, pytest.approx(100 * correct.mean()))


def test_a_batch_that_does_not_split_names_the_nearest_that_do(digits):
    digits.batch_size = 100
    with pytest.raises(ConfigError, match=r'over 8 devices.*nearest sizes that fit are 96 and 104'):
        check_batch_size(digits, 8)


def test_devices_that_do_not_split_into_groups_are_refused(digits):
    digits.model.batch_norm_group_size = 3
    with pytest.raises(ConfigError, match='choose one of 1, 2, 4, 8, or -1'):
        trainer_setup.build(digits, num_classes=10, num_train_examples=1437)
