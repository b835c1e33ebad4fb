"""Streams tfrecord files from front to back, by TensorFlow."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax.data.readers import tfds_id
from ssanet_jax.data.sources import (
    READ_SIZE,
    READS_AHEAD,
    EncodedBatch,
    HostShard,
    interleave_repeats,
)
from ssanet_jax.errors import ConfigError

_FOREVER = 2**62
_FILES_AT_ONCE = 16


class TfRecords:
    """A split of a TFDS dataset in tfrecord files, with features 'image' and 'label'.

    Each host reads a disjoint part of the split, files in a new order every epoch, through a
    shuffle buffer of `shuffle_buffer` encoded images. The order depends on the number of hosts.
    A run that resumes at step k reads and drops the earlier records of that epoch.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, shuffle_buffer: int):
        self._files = builder.info.splits[split].file_instructions
        self._split = split
        self._shuffle_buffer = shuffle_buffer
        self.size = builder.info.splits[split].num_examples

    def training(
        self, *, seed: int, batch_size: int, start_step: int, shard: HostShard, repeats: int = 1
    ) -> Iterator[EncodedBatch]:
        part = self._part(shard)
        rows = np.diff(shard.bounds(batch_size)).item()
        first_epoch, skipped = divmod(start_step * rows, part.size)

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            records = part.records(file_seed=(seed, 2 * epoch))
            order = tf.random.stateless_uniform(
                (), (seed, 2 * epoch + 1), maxval=2**62, dtype=tf.int64
            )
            records = records.shuffle(self._shuffle_buffer, seed=order)
            if repeats == 1:
                return records.map(lambda number, record: (number, epoch, record))
            passes = tf.data.Dataset.range(epoch * repeats, (epoch + 1) * repeats)
            records = records.flat_map(
                lambda number, record: passes.map(lambda e: (number, e, record))
            )
            return records.take(part.size)

        epochs = tf.data.Dataset.range(first_epoch, _FOREVER)
        records = epochs.flat_map(epoch_records).skip(skipped)
        return _batches(_interleave_repeats(records, rows, repeats) if repeats > 1 else records)

    def evaluation(self, shard: HostShard) -> Iterator[EncodedBatch]:
        records = self._part(shard).records(file_seed=None)
        return _batches(records.map(lambda n, record: (n, tf.zeros((), tf.int64), record)))

    def after(self, number: int) -> Iterator[EncodedBatch]:
        return iter(())

    def name(self, number: int) -> str:
        return tfds_id(self._files, number)

    def _part(self, shard: HostShard) -> '_Part':
        if self.size < shard.num_hosts:
            raise ConfigError(
                f'Split {self._split!r} has {self.size} examples for {shard.num_hosts} hosts; '
                'use at most as many hosts as examples.'
            )
        return _Part(self._files, *shard.bounds(self.size))


class _Part:
    """Examples start..stop of a split, as slices of files and the number of each first example."""

    def __init__(self, files: list[Any], start: int, stop: int):
        self.size = stop - start
        slices, first = [], 0
        for file in files:
            low, high = max(start - first, 0), min(stop - first, file.take)
            if low < high:
                slices.append((str(file.filename), file.skip + low, high - low, first + low))
            first += file.take
        names, *numbers = zip(*slices, strict=True)
        columns = (np.array(column, np.int64) for column in numbers)
        self._slices: tuple[Any, ...] = (list(names), *columns)

    def records(self, file_seed: tuple[int, tf.Tensor] | None) -> tf.data.Dataset:
        """Each (number, record) once; files in an order drawn from `file_seed`, or as stored."""
        slices = self._slices
        if file_seed is not None:
            draws = tf.random.stateless_uniform((len(slices[0]),), tf.stack(file_seed))
            order = tf.argsort(draws, stable=True)
            slices = tuple(tf.gather(column, order) for column in slices)

        def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, first: tf.Tensor) -> Any:
            records = tf.data.TFRecordDataset(name).skip(skip).take(take)
            # Otherwise a file truncated between records would pass for a shorter one.
            records = records.apply(tf.data.experimental.assert_cardinality(take))
            return records.enumerate(first)

        dataset = tf.data.Dataset.from_tensor_slices(slices)
        if file_seed is None:
            return dataset.flat_map(read)
        return dataset.interleave(
            read,
            cycle_length=_FILES_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def _interleave_repeats(records: tf.data.Dataset, rows: int, repeats: int) -> tf.data.Dataset:
    """`sources.interleave_repeats` of each `rows` records."""
    order = interleave_repeats(rows, repeats)
    batches = records.batch(rows)
    return batches.map(lambda *columns: tuple(tf.gather(c, order) for c in columns)).unbatch()


def _batches(records: tf.data.Dataset) -> Iterator[EncodedBatch]:
    options = tf.data.Options()
    options.deterministic = True
    batches = records.batch(READ_SIZE).prefetch(READS_AHEAD).with_options(options)
    for number, epoch, record in batches:
        yield EncodedBatch(*_parse(record), number.numpy(), epoch.numpy())


def _parse(records: tf.Tensor) -> tuple[Sequence[bytes], np.ndarray]:
    """Parses serialized tf.train.Examples [m] into files and labels int64 [m]."""
    features = {
        'image': tf.io.FixedLenFeature((), tf.string),
        'label': tf.io.FixedLenFeature((), tf.int64),
    }
    parsed = tf.io.parse_example(records, features)
    return parsed['image'].numpy().tolist(), parsed['label'].numpy()
