"""TFDS data sets in tfrecord files: read from front to back, shuffled through a buffer."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax.data.batch import HostShard
from ssanet_jax.data.sources import CHUNK, EncodedBatch, parse, tfds_id
from ssanet_jax.errors import ConfigError

_FOREVER = 2**62
_FILES_AT_ONCE = 16


class TfRecords:
    """A split of a TFDS data set in tfrecord files, with features 'image' and 'label'.

    Each host reads its own part of the split, its files in a new order every epoch, through
    a shuffle buffer of `shuffle_buffer` encoded images. The order depends on the number of
    hosts; a run that goes on at step k reads and drops what came before in that epoch.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, shuffle_buffer: int):
        self._files = builder.info.splits[split].file_instructions
        self._split = split
        self._shuffle_buffer = shuffle_buffer
        self.size = builder.info.splits[split].num_examples

    def training(
        self, *, seed: int, batch_size: int, start_step: int, share: HostShard
    ) -> Iterator[EncodedBatch]:
        part = self._part(share)
        rows = np.diff(share.bounds(batch_size)).item()
        first_epoch, skipped = divmod(start_step * rows, part.size)

        def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
            records = part.records(file_seed=(seed, 2 * epoch))
            order = tf.random.stateless_uniform(
                (), (seed, 2 * epoch + 1), maxval=2**62, dtype=tf.int64
            )
            records = records.shuffle(self._shuffle_buffer, seed=order)
            return records.map(lambda number, record: (number, epoch, record))

        epochs = tf.data.Dataset.range(first_epoch, _FOREVER)
        return _chunks(epochs.flat_map(epoch_records).skip(skipped))

    def evaluation(self, share: HostShard) -> Iterator[EncodedBatch]:
        records = self._part(share).records(file_seed=None)
        return _chunks(records.map(lambda n, record: (n, tf.zeros((), tf.int64), record)))

    def after(self, number: int) -> Iterator[EncodedBatch]:
        return iter(())

    def name(self, number: int) -> str:
        return tfds_id(self._files, number)

    def _part(self, share: HostShard) -> '_Part':
        if self.size < share.num_hosts:
            raise ConfigError(
                f'Split {self._split!r} has fewer examples than there are hosts '
                f'({share.num_hosts}).'
            )
        return _Part(self._files, *share.bounds(self.size))


class _Part:
    """Examples start..stop of a split: slices of files, each with the number of its first one."""

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
        """Every (number, record) once; the files in an order drawn from file_seed, or as stored."""
        slices = self._slices
        if file_seed is not None:
            draws = tf.random.stateless_uniform((len(slices[0]),), tf.stack(file_seed))
            order = tf.argsort(draws, stable=True)
            slices = tuple(tf.gather(column, order) for column in slices)

        def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, first: tf.Tensor) -> Any:
            records = tf.data.TFRecordDataset(name).skip(skip).take(take)
            # A file that was cut off between records would pass for a shorter one.
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


def _chunks(records: tf.data.Dataset) -> Iterator[EncodedBatch]:
    options = tf.data.Options()
    options.deterministic = True
    for number, epoch, record in records.batch(CHUNK).prefetch(4).with_options(options):
        yield EncodedBatch(*parse(record), number.numpy(), epoch.numpy())
