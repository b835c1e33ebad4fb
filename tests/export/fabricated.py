"""Runs with random weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.trainer_setup import build_model
from tests.helpers import load_config


def random_variables(model, size):
    """Variables like those of a trained network: kernels of both signs, positive variances."""
    rng = np.random.default_rng(0)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)

    def draw(shape):
        sign = rng.choice([-1, 1], shape) * np.prod(shape) ** -0.5 if len(shape) > 1 else 1
        return (sign * rng.uniform(0.5, 1.5, shape)).astype(np.float32)

    return jax.tree.map(lambda leaf: draw(leaf.shape), shapes)


def make_run(
    folder: Path,
    data_dir: Path,
    *,
    recipe: str = 'digits_ssa20',
    classes: Sequence[str] = tuple(f'digit {i}' for i in range(10)),
    **fields: Any,
) -> Path:
    """Creates a workdir with one evaluated checkpoint, at step 3."""
    config = load_config(recipe)
    config.dataset.data_dir = str(data_dir)
    config.update_from_flattened_dict(fields)
    variables = random_variables(build_model(config, len(classes)), config.dataset.image_size)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, (jax.tree.map(jnp.asarray, variables), jnp.zeros(1)), wait=True)
    evaluation = {'step': 3, 'split': 'eval', 'top1': 50.0, 'loss': 1.0}
    (folder / 'metrics.jsonl').write_text(json.dumps(evaluation) + '\n')
    (folder / 'config.json').write_text(config.to_json_best_effort())
    (folder / 'classes.json').write_text(json.dumps(list(classes)))
    return folder
