"""Batches of NumPy arrays from TFDS datasets and image files.

Importing it imports neither TFDS nor the decoders. TensorFlow is imported only to read
tfrecord files and by `conversion`.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from ssanet_jax.data.builders import DatasetInfo, dataset_info
    from ssanet_jax.data.image_files import FileBatch, file_batches
    from ssanet_jax.data.loader import Batch, eval_batches, train_batches
    from ssanet_jax.data.sources import HostShard

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
