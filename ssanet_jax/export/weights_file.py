"""Weights as safetensors, by the names that torch's libraries have for them where they have some.

They are the checkpoint's, bit for bit: BatchNorms are not folded, and those of a run in bfloat16
are float32 as they were.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax import weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.export import description
from ssanet_jax.export.parity import Loaded
from ssanet_jax.export.program import Program, as_trained
from ssanet_jax.models import Network
from ssanet_jax.trained.load import TrainedModel, with_defaults
from ssanet_jax.training.trainer_setup import build_model

FILE = 'model.safetensors'
FORMAT = 'safetensors'


def write(program: Program, folder: Path, described: Mapping[str, Any]) -> None:
    """Writes the weights to folder/model.safetensors; raises OSError if they do not read back."""
    weights.write(folder / FILE, weights.to_arrays(program.variables, program.model))
    back = _read(folder, program.model, program.size)
    if not jax.tree.all(jax.tree.map(np.array_equal, back, program.variables)):
        raise OSError(f'{FILE} does not read back as it was written; check the disk')


def load(folder: Path) -> Loaded:
    """The network as a user of this package calls it, from uint8 images."""
    return jax.jit(as_trained(load_exported(folder), preprocessing=True))


def load_exported(folder: str | Path) -> TrainedModel:
    """A run's network from what `tools.export --format=safetensors` wrote, without the run.

    Raises:
      ConfigError: the folder is none of those, or damaged.
    """
    folder = Path(folder)
    described = description.read(folder)
    if described['format'] != FORMAT:
        raise ConfigError(
            f'{folder} holds a network as {described["format"]}, which docs/export.md says how to '
            f'load; this needs one written with --format={FORMAT}.'
        )
    try:
        config = with_defaults(described['run'])
        model = build_model(config, len(described['classes']))
        variables = _read(folder, model, config.dataset.image_size)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'{folder} cannot be loaded: {reason}') from error
    return TrainedModel(config, model, variables, described['step'], tuple(described['classes']))


def _read(folder: Path, model: Network, size: int) -> dict[str, Any]:
    return weights.from_torch(weights.read(folder / FILE), model, image_size=size)
