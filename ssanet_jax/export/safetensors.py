"""The checkpoint's weights, bit for bit, as safetensors under the names of torch libraries.

BatchNorms are not folded; the weights of a bfloat16 run are float32, as they were trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax import weights
from ssanet_jax.config import with_defaults
from ssanet_jax.errors import ConfigError
from ssanet_jax.export.parity import LoadedFn
from ssanet_jax.export.program import Program, as_trained, read_metadata
from ssanet_jax.models import Network
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.model import build_model

FILE = 'model.safetensors'


def write(program: Program, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the weights to folder/model.safetensors; raises OSError if they do not read back."""
    weights.save(folder / FILE, weights.to_arrays(program.variables, program.model))
    restored = _load_variables(folder, program.model, program.size)
    if not jax.tree.all(jax.tree.map(np.array_equal, restored, program.variables)):
        raise OSError(f'{FILE} does not read back as it was written; check the disk')


def load(folder: Path) -> LoadedFn:
    """Loads the network with this package; it takes uint8 images."""
    return jax.jit(as_trained(load_exported(folder), preprocessing=True))


def load_exported(folder: str | Path) -> TrainedModel:
    """Loads the output of `tools.export --format=safetensors`, without the run it came from.

    Raises:
      ConfigError: the folder holds another format, or is damaged.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata['format'] != 'safetensors':
        raise ConfigError(
            f'{folder} holds a network in format {metadata["format"]}, which docs/export.md shows '
            'how to load; expected one exported with --format=safetensors.'
        )
    try:
        config = with_defaults(metadata['run'])
        model = build_model(config, len(metadata['classes']))
        variables = _load_variables(folder, model, config.dataset.image_size)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(f'{folder} cannot be loaded: {reason}') from error
    return TrainedModel(config, model, variables, metadata['step'], tuple(metadata['classes']))


def _load_variables(folder: Path, model: Network, size: int) -> dict[str, Any]:
    return weights.from_torch(weights.load(folder / FILE), model, image_size=size)
