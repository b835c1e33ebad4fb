"""The counts of docs/performance.md, which are the compiler's and repeat exactly."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ssanet_jax.analysis.hlo import program_cost
from ssanet_jax.training import trainer_setup
from tests.helpers import load_config, mesh_of


@functools.cache
def cost(name, tail, num_devices=1, image_size=224):
    """Of the compiled training step of the ImageNet recipe, 32 images on each device."""
    config = load_config('imagenet_ssa50')
    config.model.name, config.model.tail = name, tail
    config.batch_size, config.dataset.image_size = 32 * num_devices, image_size
    run = trainer_setup.build(
        config, num_classes=1000, num_train_examples=1_281_167, mesh=mesh_of(num_devices)
    )
    batch = {
        'image': jax.ShapeDtypeStruct((config.batch_size, image_size, image_size, 3), jnp.uint8),
        'label': jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        'mask': jax.ShapeDtypeStruct((config.batch_size,), bool),
    }
    arguments = jax.eval_shape(run.init), batch, jax.eval_shape(run.zero_metrics)
    return program_cost(run.train_step.lower(*arguments).compile())


@pytest.mark.slow
def test_ssa_moves_less_than_a_plain_resnet():
    ssa, plain = cost('ssa_resnet50', 'auto'), cost('resnet50', 'plain')
    assert ssa.bytes_accessed < 0.92 * plain.bytes_accessed
    assert ssa.temporaries < 0.84 * plain.temporaries


def test_ssa_costs_next_to_nothing_when_both_are_folded():
    ssa, none = cost('ssa_resnet50', 'auto'), cost('resnet50', 'auto')
    assert ssa.bytes_accessed < 1.05 * none.bytes_accessed
    assert ssa.temporaries < 1.03 * none.temporaries
    assert ssa.flops < 1.03 * none.flops


def test_a_step_moves_no_more_than_it_did():
    """Gigabytes and gigaflops of 32 images at 224 pixels."""
    ssa = cost('ssa_resnet50', 'auto')
    assert ssa.bytes_accessed < 27.3e9
    assert ssa.temporaries < 2.36e9
    assert ssa.flops < 815e9


@pytest.mark.slow
def test_devices_exchange_the_gradients_and_statistics_once():
    numbers = 25_557_064 + 2 * 26_560 + 16 * 2 + 4  # parameters, statistics, SSA's, metrics
    exchange = cost('ssa_resnet50', 'auto', num_devices=8, image_size=32)
    assert exchange.all_reduces <= 2
    assert exchange.all_reduce_bytes == pytest.approx(4 * numbers, rel=1e-3)
