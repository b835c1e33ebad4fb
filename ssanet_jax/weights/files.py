"""Weight files: safetensors, and torch checkpoints read without executing their pickles."""

import importlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ssanet_jax.atomic_write import atomic_write

if TYPE_CHECKING:
    import torch

# In older versions a file can execute code despite weights_only: CVE-2025-32434, CVE-2026-24747.
_MIN_TORCH = (2, 10)


def load(path: str | os.PathLike[str]) -> 'dict[str, np.ndarray] | dict[str, torch.Tensor]':
    """Loads the state_dict in a .safetensors file, or in a .pth, .pt, .bin or .tar file of torch.

    In torch files it may be under 'state_dict', 'model' or 'net', where training scripts put it.
    They are read with weights_only=True, so nothing in them is executed.

    Raises:
      ValueError: the file is damaged, of another kind, or holds no weights.
      FileNotFoundError: there is no such file.
      ImportError: torch is required and missing, or older than 2.10.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is not a file; expected weights, .safetensors or .pth.')
    if path.endswith('.safetensors'):
        return _load_safetensors(path)
    if path.endswith(('.pth', '.pt', '.bin', '.tar')):
        return _load_torch(path)
    raise ValueError(
        f'{path} is not a known kind of weight file; expected .safetensors, .pth, .pt, .bin or '
        '.tar.'
    )


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
        temporary.write_bytes(serialize({**arrays}, metadata={'format': 'pt'}))


def _load_safetensors(path: str) -> dict[str, np.ndarray]:
    load_file, broken = _safetensors('numpy').load_file, _safetensors().SafetensorError
    try:
        return load_file(path)
    except broken as error:
        raise ValueError(f'{path} is not a complete safetensors file: {error}.') from error
    except AttributeError as error:  # float8
        raise ValueError(f'{path} has arrays of a dtype that NumPy lacks: {error}.') from error


def _safetensors(module: str = '') -> ModuleType:
    try:
        return importlib.import_module(f'safetensors.{module}'.rstrip('.'))
    except ImportError as error:
        raise ImportError(
            'Weight files need safetensors: pip install safetensors (the extra "weights").'
        ) from error


def _load_torch(path: str) -> 'dict[str, torch.Tensor]':
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'Reading {path} needs torch: pip install torch, or convert it to .safetensors.'
        ) from error
    if tuple(map(int, torch.__version__.split('.')[:2])) < _MIN_TORCH:
        raise ImportError(
            f'Reading {path} needs torch 2.10 or newer, since {torch.__version__} can execute code '
            'in a file: pip install --upgrade torch, or convert it to .safetensors.'
        )
    try:
        _require_uncompressed(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # of pickle, zipfile and torch
        reason = str(error).partition('. ')[0]  # the rest suggests to unpickle the file anyway
        raise ValueError(
            f'{path} cannot be read as plain weights ({reason}); it is damaged, or holds objects '
            'that only executing it would restore.'
        ) from error
    for key in ('state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError(f'{path} holds no state_dict; expected a mapping of names to tensors.')
    return dict(content)


def _require_uncompressed(path: str) -> None:
    """Raises ValueError for a zip bomb: a file that unpacks to more than its size.

    Torch writes uncompressed zip files.
    """
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\3\4':  # the test that torch applies
            return
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    if size > os.path.getsize(path):
        raise ValueError(f'it unpacks to {size:,} bytes and has {os.path.getsize(path):,}')
