"""Files of weights: safetensors, and what torch.save wrote, read without running any of it."""

import importlib
import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

# In older ones a file can run code in spite of weights_only: CVE-2025-32434, CVE-2026-24747.
_OLDEST_TORCH = (2, 10)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state_dict in a .safetensors file, or in a .pth, .pt, .bin or .tar file of torch.

    In torch's files it may be under 'state_dict', 'model' or 'net', as training scripts save it.
    They are read with weights_only=True: nothing in them is run.

    Raises:
      ValueError: the file is damaged, of another kind, or holds no weights.
      FileNotFoundError: there is no such file.
      ImportError: torch is needed and not installed, or older than 2.10.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} is no file; expected weights, .safetensors or .pth.')
    if path.endswith('.safetensors'):
        return _read_safetensors(path)
    if path.endswith(('.pth', '.pt', '.bin', '.tar')):
        return _read_torch(path)
    raise ValueError(
        f'{path} is not known as a file of weights; expected .safetensors, .pth, .pt, .bin or .tar.'
    )


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` as a .safetensors file, whole or not at all.

    Raises:
      ValueError: the name does not end in .safetensors.
      ImportError: safetensors is not installed.
    """
    save = _safetensors('numpy').save
    path = os.fspath(path)
    if not path.endswith('.safetensors'):
        raise ValueError(f'{path} must end in .safetensors.')
    partial = f'{path}.{os.getpid()}.partial'
    try:
        with open(partial, 'wb') as file:  # save_file would let nobody else read it
            file.write(save({**arrays}, metadata={'format': 'pt'}))
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def _read_safetensors(path: str) -> dict[str, Any]:
    load_file, broken = _safetensors('numpy').load_file, _safetensors().SafetensorError
    try:
        return load_file(path)
    except broken as error:
        raise ValueError(f'{path} is no complete safetensors file: {error}.') from error
    except AttributeError as error:  # float8
        raise ValueError(f'{path} has arrays of a type that NumPy lacks: {error}.') from error


def _safetensors(module: str = '') -> Any:
    try:
        return importlib.import_module(f'safetensors.{module}'.rstrip('.'))
    except ImportError as error:
        raise ImportError(
            'Files of weights need safetensors: pip install safetensors (the extra "weights").'
        ) from error


def _read_torch(path: str) -> dict[str, Any]:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f'{path} needs torch to be read: pip install torch, or save it as .safetensors.'
        ) from error
    if tuple(map(int, torch.__version__.split('.')[:2])) < _OLDEST_TORCH:
        raise ImportError(
            f'{path} needs torch 2.10 or newer, since {torch.__version__} can be made to run what '
            'is in a file: pip install --upgrade torch, or save it as .safetensors.'
        )
    try:
        _require_uncompressed(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own errors
        reason = str(error).partition('. ')[0]  # What follows advises to run what is in it.
        raise ValueError(
            f'{path} cannot be read as plain weights ({reason}); it is damaged, or holds objects '
            'that only running it would restore.'
        ) from error
    for key in ('state_dict', 'model', 'net'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise ValueError(f'{path} holds no state_dict: names with tensors were expected.')
    return dict(content)


def _require_uncompressed(path: str) -> None:
    """Raises ValueError for a zip file that unpacks to more than it has; torch writes none."""
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\3\4':  # as torch looks for it
            return
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    if size > os.path.getsize(path):
        raise ValueError(f'it unpacks to {size:,} bytes and has {os.path.getsize(path):,}')
