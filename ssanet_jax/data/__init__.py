"""Batches of NumPy arrays from TFDS datasets and image files.

Importing it imports neither TFDS nor the decoders. TensorFlow is imported by `tfrecords` and
`conversion` alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssanet_jax.data.builders import DatasetInfo, dataset_info
    from ssanet_jax.data.image_files import FileBatch, file_batches
    from ssanet_jax.data.loader import Batch, eval_batches, train_batches
    from ssanet_jax.data.sources import HostShard

_MODULES = {
    'Batch': 'loader',
    'DatasetInfo': 'builders',
    'FileBatch': 'image_files',
    'HostShard': 'sources',
    'dataset_info': 'builders',
    'eval_batches': 'loader',
    'file_batches': 'image_files',
    'train_batches': 'loader',
}

__all__ = [
    'Batch',
    'DatasetInfo',
    'FileBatch',
    'HostShard',
    'dataset_info',
    'eval_batches',
    'file_batches',
    'train_batches',
]


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
