"""Batches for training and evaluation: `train_batches` and `eval_batches`.

Images are read by the sources of `builders.open_source`, and decoded by `decoded_batches`.
"""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from ssanet_jax.config.sizes import eval_batch_size, eval_size, sizes_from
from ssanet_jax.data import memory
from ssanet_jax.data.bad_images import BadImages
from ssanet_jax.data.builders import open_builder, open_source, prepare_command, split_size
from ssanet_jax.data.decoded_batches import decode_batches
from ssanet_jax.data.decoding.decode import DecodeSpec
from ssanet_jax.data.read_errors import check_labels, readable
from ssanet_jax.data.sources import EncodedBatch, HostShard, Source

# A host's shard: image uint8 [n, H, W, 3], label int32 [n] (-1: no class is correct) and mask
# bool [n], False in padding.
Batch = dict[str, np.ndarray]


def train_batches(
    config: ConfigDict, *, start_step: int = 0, shard: HostShard | None = None
) -> Iterator[Batch]:
    """Yields this host's shard of the training batches from `start_step` on, endlessly.

    Batch k is a pure function of (seed, k): the examples are one endless stream, each epoch a
    permutation of the split, cut into pieces of `config.batch_size`. The size of its images is
    `train_size` in the epoch of its first example. Stopping anywhere and starting there again gives
    the same batches, on any number of hosts unless tfrecord files are streamed.

    Args:
      config: reads `seed`, `batch_size` and `dataset`.
      start_step: k of the first batch.
      shard: this host's part; by default that of this process.

    Raises:
      ConfigError: the dataset is unknown or not prepared, or too many of its images cannot be
        decoded.
    """
    shard = shard or HostShard.of_this_host()
    dataset = config.dataset
    if not dataset.in_memory:
        return _train_from_disk(config, start_step, shard)
    split = _load(FrozenConfigDict(dataset), dataset.train_split, training=True)
    spec = DecodeSpec(dataset, dataset.train_crop, config.seed, len(split.labels))
    images = memory.train_images(
        split, spec, batch_size=config.batch_size, start_step=start_step, shard=shard
    )
    return (_batch(*pair) for pair in images)


def eval_batches(
    config: ConfigDict, split: str, *, shard: HostShard | None = None
) -> Iterator[Batch]:
    """Yields this host's shard of every example of `split` once, unaugmented, in padded batches.

    All hosts yield the same number of batches, whose size is a multiple of the number of local
    devices; padding has `mask` False. Images that cannot be decoded are black and have label -1
    if `dataset.bad_eval_images` is 'incorrect'.

    Args:
      config: reads `batch_size`, `eval_batch_size` and `dataset`.
      split: a TFDS split, as `config.dataset.eval_split`.
      shard: this host's part; by default that of this process.

    Raises:
      ConfigError: the dataset or split is unknown or not prepared, or an image cannot be
        decoded.
    """
    shard = shard or HostShard.of_this_host()
    dataset = config.dataset
    devices = jax.local_device_count()
    rows = -(-eval_batch_size(config) // (shard.num_hosts * devices)) * devices
    largest_shard = -(-split_size(open_builder(dataset), split) // shard.num_hosts)
    batches: Iterator[Batch]
    if dataset.in_memory:
        loaded = _load(FrozenConfigDict(dataset), split, training=False)
        batches = (_batch(*pair) for pair in memory.eval_images(loaded, shard, rows))
    else:
        batches = _eval_from_disk(config, split, shard, rows)
    return _padded(batches, rows, -(-largest_shard // rows), eval_size(dataset))


def _train_from_disk(config: ConfigDict, start_step: int, shard: HostShard) -> Iterator[Batch]:
    dataset = config.dataset
    source = open_source(dataset, dataset.train_split)
    spec = DecodeSpec(dataset, dataset.train_crop, config.seed, source.size)
    bad = BadImages(source, dataset)
    encoded = source.training(
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=start_step,
        shard=shard,
        repeats=dataset.repeats,
    )
    start, stop = shard.bounds(config.batch_size)
    encoded = _readable(encoded, source, dataset)
    sizes = sizes_from(dataset, start_step, config.batch_size, source.size)
    for decoded in decode_batches(encoded, spec, stop - start, sizes):
        yield _batch(decoded.image, bad.replace(decoded, spec))


def _eval_from_disk(config: ConfigDict, split: str, shard: HostShard, rows: int) -> Iterator[Batch]:
    dataset = config.dataset
    source = open_source(dataset, split)
    spec, bad = DecodeSpec(dataset, dataset.eval_crop), BadImages(source, dataset)
    for decoded in decode_batches(_readable(source.evaluation(shard), source, dataset), spec, rows):
        yield _batch(decoded.image, bad.mark(decoded))


@functools.lru_cache(maxsize=4)
def _load(dataset: FrozenConfigDict, split: str, training: bool) -> memory.Split:
    """Decodes a split into memory, once."""
    source = open_source(dataset, split)
    encoded = list(_readable(source.evaluation(HostShard(0, 1)), source, dataset))
    spec = DecodeSpec(dataset, dataset.train_crop if training else dataset.eval_crop)
    load = memory.load_for_training if training else memory.load_for_evaluation
    return load(encoded, spec, BadImages(source, dataset))


def _readable(
    encoded: Iterator[EncodedBatch], source: Source, dataset: ConfigDict
) -> Iterator[EncodedBatch]:
    builder = open_builder(dataset)
    num_classes = builder.info.features['label'].num_classes
    for batch in readable(encoded, builder.data_path, prepare_command(dataset)):
        check_labels(batch, source, num_classes)
        yield batch


def _padded(batches: Iterator[Batch], rows: int, num_batches: int, size: int) -> Iterator[Batch]:
    """Yields exactly `num_batches` batches of `rows`, on every host; padding has `mask` False."""
    empty = _batch(np.zeros((0, size, size, 3), np.uint8), np.zeros(0))
    for _ in range(num_batches):
        batch = next(batches, empty)
        missing = rows - len(batch['mask'])
        yield {
            name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
            for name, array in batch.items()
        }


def _batch(image: np.ndarray, label: np.ndarray) -> Batch:
    return {'image': image, 'label': label.astype(np.int32), 'mask': np.ones(len(label), bool)}
