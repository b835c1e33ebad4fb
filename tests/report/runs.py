"""Parts of fabricated runs for tests of reports."""

import dataclasses
import json
import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssanet_jax.training.parallel import replicated
from ssanet_jax.training.steps import init_state
from ssanet_jax.training.storage.workdir import metrics_line


def random_state(setup, step, seed):
    """A state at `step` with kernels drawn by NumPy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key if hasattr(path[-1], 'key') else ''
        if leaf.ndim > 1 and name == 'kernel' and path[0].name == 'params':
            return rng.normal(size=leaf.shape, scale=math.prod(leaf.shape[:-1]) ** -0.5).astype(
                leaf.dtype
            )
        return np.full(leaf.shape, name in ('scale', 'var'), leaf.dtype)

    init = partial(init_state, model=setup.model, tx=setup.tx, image_size=setup.image_size)
    state = jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, 0))
    return jax.device_put(dataclasses.replace(state, step=np.int32(step)), replicated(setup.mesh))


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
