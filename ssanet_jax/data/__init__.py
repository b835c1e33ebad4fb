"""TFDS data sets, and image files, as batches of NumPy arrays."""

from ssanet_jax.data.batch import Batch, HostShard
from ssanet_jax.data.batches import eval_batches, train_batches
from ssanet_jax.data.builders import DatasetInfo, dataset_info
from ssanet_jax.data.image_files import FileBatch, file_batches

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
