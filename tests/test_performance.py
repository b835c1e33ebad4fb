"""Ratios of compiler counts in docs/performance.md; benchmarks/ has the absolute counts."""

import functools

import jax
import jax.numpy as jnp
import pytest

from ssanet_jax.analysis.hlo import program_cost
from ssanet_jax.training import trainer_setup
from tests.helpers import load_config, mesh_of


@functools.cache
def cost(name, tail, num_devices=1, image_size=224):
    """Costs of the compiled training step of the ImageNet recipe, 32 images per device."""
    config = load_config('imagenet_ssa50')
    config.model.name, config.model.tail = name, tail
    config.batch_size, config.dataset.image_size = 32 * num_devices, image_size
    setup = trainer_setup.build(
        config, num_classes=1000, num_train_examples=1_281_167, mesh=mesh_of(num_devices)
    )
    batch = {
        'image': jax.ShapeDtypeStruct((config.batch_size, image_size, image_size, 3), jnp.uint8),
        'label': jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        'mask': jax.ShapeDtypeStruct((config.batch_size,), bool),
    }
    arguments = jax.eval_shape(setup.init), batch, jax.eval_shape(setup.zero_metrics)
    # The machine code is never run, and the counts precede its optimization.
    options = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
    return program_cost(setup.train_step.lower(*arguments).compile(options))


@pytest.mark.slow
def test_ssa_moves_less_than_a_plain_resnet():
    ssa, plain = cost('ssa_resnet50', 'auto'), cost('resnet50', 'plain')
    assert ssa.bytes_accessed < 0.92 * plain.bytes_accessed
    assert ssa.temporaries < 0.84 * plain.temporaries


def test_ssa_adds_few_percent_to_a_folded_resnet():
    ssa, none = cost('ssa_resnet50', 'auto'), cost('resnet50', 'auto')
    assert ssa.bytes_accessed < 1.05 * none.bytes_accessed
    assert ssa.temporaries < 1.03 * none.temporaries
    assert ssa.flops < 1.03 * none.flops


@pytest.mark.slow
def test_devices_exchange_the_gradients_and_statistics_once():
    numbers = 25_557_064 + 2 * 26_560 + 16 * 2 + 4  # parameters, statistics, SSA's, metrics
    exchange = cost('ssa_resnet50', 'auto', num_devices=8, image_size=32)
    assert exchange.all_reduces <= 2
    assert exchange.all_reduce_bytes == pytest.approx(4 * numbers, rel=1e-3)
