"""Helpers shared by several tests; importing them needs jax and pytest only."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

if TYPE_CHECKING:
    from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parents[1]

if hasattr(jax, 'enable_x64'):
    enable_x64 = jax.enable_x64
else:  # jax 0.7
    from jax.experimental import enable_x64


def quickly(level=0):
    """Compiler options that cut compilation to a third, or to a sixth at level 0.

    At level 0 gradients of convolutions with strides and groups take seconds each. Every
    operation is rounded to its dtype, as without compilation.
    """
    options = {
        'xla_backend_optimization_level': level,
        'xla_llvm_disable_expensive_passes': True,
        'xla_allow_excess_precision': False,
    }
    if jax.__version_info__ < (0, 11):  # later versions have no such option
        options['xla_cpu_use_fusion_emitters'] = False
    return options


quick_jit = partial(jax.jit, compiler_options=quickly())


@contextmanager
def own_flags(tool):
    """Defines the flags of a command within the block."""
    from absl import flags

    before = set(flags.FLAGS)
    tool.define_flags()
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)


def run_tool(tool, *arguments):
    """Runs a command in this process; raises its errors."""
    from ssanet_jax.tools import cli

    argv = [tool.__name__, *map(str, arguments)]
    with own_flags(tool), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', argv)  # where ml_collections looks for overrides
        cli.call(tool.main, cli.parse(argv))


@contextmanager
def float64():
    """Enables float64, and the implicit promotion that flax's BatchNorm needs for it."""
    with enable_x64(True), jax.numpy_dtype_promotion('standard'):
        yield


def load_config(name: str) -> ConfigDict:
    """The recipe configs/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'configs' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().lock()


def with_fields(**fields) -> ConfigDict:
    """The default config with other values of some fields, as dataset__image_size=8."""
    from ssanet_jax.config import base

    config = base()
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace('__', '.'): value})
    return config


def mesh_of(num_devices: int) -> jax.sharding.Mesh:
    """The first devices as a mesh over 'data'."""
    return jax.make_mesh(
        (num_devices,),
        ('data',),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:num_devices],
    )


def train_in_float64(model, config, num_steps, num_devices=1):
    """Losses of training `model` by SGD with momentum, all in float64."""
    import optax

    from ssanet_jax import data
    from ssanet_jax.training import parallel, steps
    from ssanet_jax.training.losses import cross_entropy
    from ssanet_jax.training.metrics import Metrics
    from ssanet_jax.training.objective import Objective
    from ssanet_jax.training.steps import TrainState, init_state

    tx, mesh = optax.sgd(0.1, momentum=0.9), mesh_of(num_devices)
    state = init_state(0, model=model.clone(dtype=jnp.float32), tx=tx, image_size=8)
    step = partial(
        steps.train_step,
        objective=Objective(
            model, cross_entropy, lambda image: image.astype(jnp.float64) / 128 - 1
        ),
        tx=tx,
    )
    losses = []
    with float64():
        step = parallel.parallel_train_step(step, mesh)
        params, stats = (
            jax.tree.map(lambda a: np.asarray(a, np.float64), tree)
            for tree in (state.params, state.batch_stats)
        )
        state = TrainState(np.int32(0), params, stats, tx.init(params))
        state = jax.device_put(state, parallel.replicated(mesh))
        zero = jax.device_put(Metrics.zero(), parallel.replicated(mesh))
        for batch in itertools.islice(data.train_batches(config), num_steps):
            (batch,) = parallel.to_devices([batch], mesh)
            state, metrics = step(state, batch, jax.tree.map(jnp.copy, zero))
            losses.append(float(metrics.loss) / config.batch_size)
    return losses


class KilledError(Exception):
    """Simulates a process that is killed."""


def stop_after(steps):
    """`train_batches` that raises KilledError when asked for more than `steps` batches."""
    from ssanet_jax import data

    def cut_short(config, *, start_step=0):
        for number, batch in enumerate(data.train_batches(config, start_step=start_step)):
            if start_step + number == steps:
                raise KilledError
            yield batch

    return cut_short


def reproducible(workdir):
    """Lines of metrics.jsonl without timings."""
    from ssanet_jax.training.storage.workdir import Workdir

    return [
        {
            name: value
            for name, value in line.items()
            if not name.endswith(('_seconds', '_per_second'))
        }
        for line in Workdir(workdir).read_metrics()
    ]


def assert_close(actual, expected):
    """Checks equality up to the rounding of float64."""
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-10)


def assert_same_function(actual, expected, *arguments):
    """Checks that functions have equal values and gradients, in float64."""
    rng = np.random.default_rng(1)
    with float64():
        arguments = [jnp.asarray(np.asarray(a, np.float64)) for a in arguments]
        y, pullback = jax.vjp(actual, *arguments)
        y_expected, pullback_expected = jax.vjp(expected, *arguments)
        cotangent = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), y_expected)
        jax.tree.map(assert_close, y, y_expected)
        jax.tree.map(assert_close, pullback(cotangent), pullback_expected(cotangent))


def assert_trees_equal(actual, expected):
    """Checks that trees have the same structure and equal arrays, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
