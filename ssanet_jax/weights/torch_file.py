"""Reads torch checkpoints without executing their pickles."""

import os
import re
import zipfile
from collections import OrderedDict
from types import ModuleType
from typing import Any

# In older versions a file can execute code despite weights_only: CVE-2025-32434, CVE-2026-24747.
_MIN_TORCH = (2, 10)
_MOST_CLASSES = 50

# What torch says of a class that is not loaded, and of one that is filled like a container.
_UNKNOWN = re.compile(r'Unsupported global: GLOBAL (\S+) was not an allowed')
_CONTAINER = re.compile(r"Can only (\w+) .* but got <class '_StandIn\.(\S+)'>", re.DOTALL)


class Opaque:
    """Stands for an object of a class that is not loaded, such as `args` beside the weights."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Dict(Opaque):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


class _List(Opaque):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return []


def read(path: str) -> Any:
    """The content of a file of torch, in which instances of `Opaque` stand for other objects.

    It is read with weights_only=True, so that nothing in it is executed: of classes only the names
    are read.

    Raises:
      ValueError: the file is damaged, or holds what cannot be read in this way.
      ImportError: torch is missing, or older than 2.10.
    """
    torch = _torch(path)
    stand_ins: dict[str, type[Opaque]] = {}
    try:
        _require_uncompressed(path)
        while True:
            try:
                return _load(torch, path, stand_ins)
            except Exception as error:
                if not _add_stand_in(stand_ins, str(error)):
                    raise
    except Exception as error:  # of pickle, zipfile and torch
        raise ValueError(
            f'{path} cannot be read as plain weights ({_reason(error)}); it is damaged, or holds '
            'objects that only executing it would restore. Where it was made, save '
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from error


def _torch(path: str) -> ModuleType:
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
    return torch


def _load(torch: ModuleType, path: str, stand_ins: dict[str, type[Opaque]]) -> Any:
    if not stand_ins:
        return torch.load(path, map_location='cpu', weights_only=True)
    names = [(kind, name) for name, kind in stand_ins.items()]
    with torch.serialization.safe_globals(names):
        return torch.load(path, map_location='cpu', weights_only=True)


def _add_stand_in(stand_ins: dict[str, type[Opaque]], message: str) -> bool:
    """Adds the stand-in that the error of torch asks for; returns whether there is one."""
    if (unknown := _UNKNOWN.search(message)) and len(stand_ins) < _MOST_CLASSES:
        name = unknown[1] if '.' in unknown[1] else f'builtins.{unknown[1]}'
        base = Opaque
    elif container := _CONTAINER.search(message):
        name, base = container[2], _Dict if container[1].startswith('SETITEM') else _List
    else:
        return False
    stand_ins[name] = type(name, (base,), {'__module__': '_StandIn'})
    return True


def _reason(error: Exception) -> str:
    """The cause that torch gives, without its advice to unpickle the file anyway."""
    cause = str(error).partition('Check the documentation')[0]
    for advice in ('trusted source.', 'WeightsUnpickler error:'):
        cause = cause.rpartition(advice)[2]
    return ' '.join(cause.split()).partition('. ')[0].rstrip('.') or type(error).__name__


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
