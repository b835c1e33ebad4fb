"""Runs with random weights, and parts of fabricated ones for tests of reports."""

import dataclasses
import json
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.training import loop, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring import console
from ssanet_jax.training.parallel import replicated
from ssanet_jax.training.steps import init_state
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from tests.helpers import load_config


def random_state(setup, step, seed):
    """A state at `step` with variables drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if path[0].name not in ('params', 'batch_stats'):
            return np.zeros(leaf.shape, leaf.dtype)
        draw = {
            'kernel': lambda size: rng.normal(size=size) * math.prod(size[:-1]) ** -0.5,
            'scale': partial(rng.uniform, 0.7, 1.2),
            'var': partial(rng.uniform, 0.8, 1.6),
        }.get(path[-1].key, partial(rng.normal, 0, 0.1))
        return draw(size=leaf.shape).astype(leaf.dtype)

    init = partial(init_state, model=setup.model, tx=setup.tx, image_size=setup.image_size)
    state = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, 0))
    return jax.device_put(dataclasses.replace(state, step=np.int32(step)), replicated(setup.mesh))


def evaluated_run(folder, data_dir):
    """Creates the workdir of a run on the digits, evaluated by the loop at two steps."""
    config = load_config('digits_ssa20')
    config.model.name = 'ssa_resnet8'
    config.dataset.data_dir = str(data_dir)
    info = data.dataset_info(config)
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=info.num_train)
    workdir = Workdir(epath.Path(folder))
    with Checkpoints(workdir, keep=2) as checkpoints:
        run_history.record(config, info, workdir, 0)
        lines = []
        for step, seed in ((23, 42), (45, 33)):  # which predict five classes, the first better
            state = random_state(setup, step, seed)
            checkpoints.save(step, (state, setup.zero_metrics().sums), wait=True)
            lines.append(metrics_line(step, 'train', loss=2.0 / step, top1=50.0, learning_rate=0.1))
            lines.append(metrics_line(step, 'eval', **loop.evaluate(config, setup, state)))
    workdir.metrics.write_text(''.join(lines))
    console.write_summary(workdir, model_cost(setup.model, 8), {'folded': 0, 'plain': 9})
    return workdir.path


class Brightness(nn.Module):
    """The smallest network: logits are a linear function of the mean color."""

    num_classes: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.num_classes, name='fc')(jnp.mean(x, axis=(1, 2)))


def without_checkpoint(workdir, lines=(), **config):
    """Creates a workdir with config.json, metrics.jsonl and an empty checkpoints/."""
    workdir = epath.Path(workdir)
    (workdir / 'checkpoints').mkdir(parents=True)
    (workdir / 'config.json').write_text(json.dumps(config))
    (workdir / 'metrics.jsonl').write_text(''.join(metrics_line(**values) for values in lines))
    return workdir


def random_images(n, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)
