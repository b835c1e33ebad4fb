"""Loads a folder with config.json and model.safetensors, from anyone."""

import hashlib
from pathlib import Path

from ssanet_jax import weights
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.models import create_model
from ssanet_jax.pretrained import description
from ssanet_jax.pretrained.model import PretrainedModel
from ssanet_jax.weights.file_kinds import kind_of

_AGAIN = 'copy, publish or export it again'


def load_folder(folder: Path, remedy: str = _AGAIN) -> PretrainedModel:
    """Loads what `ssanet publish`, or `ssanet export --format=safetensors`, wrote.

    Args:
      folder: only its config.json and model.safetensors are read.
      remedy: what to do about a damaged file.

    Raises:
      ConfigError: a file is missing or damaged, or the weights are not those of the network.
    """
    described = description.read(folder)
    path = folder / description.WEIGHTS
    size = described.preprocessing.size
    try:
        check_sha256(path, described.sha256, remedy)
        if kind_of(path) != 'safetensors':
            raise ValueError(f'{path} is not a safetensors file; {remedy}.')
        model = create_model(
            described.network, num_classes=len(described.classes), **described.options
        )
        variables = weights.from_torch(weights.load(path), model, image_size=size)
    except ConfigError:
        raise
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        raise ConfigError(f'{folder} cannot be loaded: {one_line(error, 600)}') from error
    return PretrainedModel(
        described.network,
        described.options,
        model,
        variables,
        described.classes,
        described.preprocessing,
    )


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raises ConfigError unless the SHA-256 of a file begins with `expected`, hexadecimal."""
    found = sha256(path)
    if not found.startswith(expected):
        raise ConfigError(
            f'{path} does not match its recorded SHA-256: expected {expected[:8]}..., found '
            f'{found[:8]}...; {remedy}.'
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal; raises OSError."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file; expected weights, .safetensors.')
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
