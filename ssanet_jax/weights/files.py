"""Weight files: reads safetensors and torch checkpoints, writes safetensors."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.weights import torch_file
from ssanet_jax.weights.checkpoint_parts import Say, log, select
from ssanet_jax.weights.file_kinds import kind_of

if TYPE_CHECKING:
    import torch


def load(
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    say: Say = log,
) -> 'dict[str, np.ndarray | torch.Tensor]':
    """Loads the state_dict in a file of safetensors or of torch (.pth, .pt, .bin, .tar, .ckpt).

    In a checkpoint it is found among what training scripts save beside it. Nothing in the file is
    executed.

    Args:
      path: of the file, whose content decides how it is read.
      part: names one of several networks in the file, as 'model_ema' or 'encoder_q'. By default
        weights are taken as trained, even if averaged ones are beside them.
      say: called with a sentence on what was taken and ignored, if there was a choice.

    Raises:
      ValueError: the file is damaged, of another kind, or holds no weights or several networks.
      FileNotFoundError: there is no such file.
      ImportError: safetensors is required and missing, or torch, or torch is older than 2.10.
    """
    path = os.fspath(path)
    if kind_of(Path(path)) == 'safetensors':
        content = _load_safetensors(path)
        return content if part is None else select(content, part, path, say)
    return select(torch_file.read(path), part, path, say)


def save(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` to a .safetensors file, atomically.

    Raises:
      ValueError: the name does not end in .safetensors.
      ImportError: safetensors is not installed.
    """
    serialize = _safetensors('numpy').save
    path = Path(path)
    if path.suffix != '.safetensors':
        raise ValueError(f'{path} must end in .safetensors.')
    with atomic_write(path) as temporary:
        # save_file would create a file that only its owner can read.
        plain = {name: np.asarray(array) for name, array in arrays.items()}
        temporary.write_bytes(serialize(plain, metadata={'format': 'pt'}))


def _load_safetensors(path: str) -> dict[str, np.ndarray]:
    load_file, broken = _safetensors('numpy').load_file, _safetensors().SafetensorError
    try:
        return load_file(path)
    except broken as error:
        raise ValueError(f'{path} is not a complete safetensors file: {error}.') from error
    except (AttributeError, TypeError) as error:  # float8
        raise ValueError(f'{path} has arrays of a dtype that NumPy lacks: {error}.') from error


def _safetensors(module: str = '') -> ModuleType:
    try:
        return importlib.import_module(f'safetensors.{module}'.rstrip('.'))
    except ImportError as error:
        raise ImportError(
            'Weight files need safetensors: pip install safetensors (the extra "weights").'
        ) from error
