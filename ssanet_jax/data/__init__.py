"""TFDS data sets as batches of NumPy arrays."""

from ssanet_jax.data.batch import Batch, Share
from ssanet_jax.data.batches import eval_batches, train_batches
from ssanet_jax.data.builders import DatasetInfo, dataset_info

__all__ = ['Batch', 'DatasetInfo', 'Share', 'dataset_info', 'eval_batches', 'train_batches']
