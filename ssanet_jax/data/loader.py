"""Batches for training and evaluation: `train_batches` and `eval_batches`.

Encoded images are read by `sources`, decoded on all cores by `decode`, and written straight into
their batch. Threads share the work; libjpeg-turbo, OpenCV and Pillow do it without Python's lock.
"""

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from ssanet_jax.config.sizes import eval_size, sizes_from
from ssanet_jax.data import memory
from ssanet_jax.data.bad_images import BadImages
from ssanet_jax.data.builders import open_builder, open_source, prepare_command, split_size
from ssanet_jax.data.decoding.decode import DecodeSpec, decode
from ssanet_jax.data.padding import Batch, pad
from ssanet_jax.data.read_errors import check_labels, readable
from ssanet_jax.data.sources import (
    BATCHES_AHEAD,
    EncodedBatch,
    HostShard,
    Source,
    num_threads,
)

_GROUP = 16  # images that a thread decodes at a time; what is drawn for them is drawn together


def train_batches(
    config: ConfigDict, *, start_step: int = 0, share: HostShard | None = None
) -> Iterator[Batch]:
    """Yields this host's share of the training batches from `start_step` on, endlessly.

    Batch k is a pure function of (seed, k): the examples are one endless stream, each epoch a
    permutation of the split, cut into pieces of `config.batch_size`. The size of its images is
    `train_size` in the epoch of its first example. Stopping anywhere and starting there again gives
    the same batches, on any number of hosts unless tfrecord files are streamed.

    Args:
      config: reads `seed`, `batch_size` and `dataset`.
      start_step: k of the first batch.
      share: this host's part; by default that of this process.

    Raises:
      ConfigError: the dataset is unknown or not prepared, or too many of its images cannot be
        decoded.
    """
    share = share or HostShard.of_this_host()
    dataset = config.dataset
    if not dataset.in_memory:
        return _train_from_disk(config, start_step, share)
    split = _load(FrozenConfigDict(dataset), dataset.train_split, training=True)
    spec = DecodeSpec(dataset, dataset.train_crop, config.seed, len(split.labels))
    images = memory.train_images(
        split, spec, batch_size=config.batch_size, start_step=start_step, share=share
    )
    return (_batch(*pair) for pair in images)


def eval_batches(
    config: ConfigDict, split: str, *, share: HostShard | None = None
) -> Iterator[Batch]:
    """Yields this host's share of every example of `split` once, unaugmented, in padded batches.

    All hosts yield the same number of batches, whose size is a multiple of the number of local
    devices; padding has `mask` False. Images that cannot be decoded are black and have label -1
    if `dataset.bad_eval_images` is 'incorrect'.

    Args:
      config: reads `batch_size`, `eval_batch_size` and `dataset`.
      split: a TFDS split, as `config.dataset.eval_split`.
      share: this host's part; by default that of this process.

    Raises:
      ConfigError: the dataset or split is unknown or not prepared, or an image cannot be
        decoded.
    """
    share = share or HostShard.of_this_host()
    dataset = config.dataset
    batch_size = config.eval_batch_size if config.eval_batch_size > 0 else config.batch_size
    devices = jax.local_device_count()
    rows = -(-batch_size // (share.num_hosts * devices)) * devices
    largest_share = -(-split_size(open_builder(dataset), split) // share.num_hosts)
    batches: Iterator[Batch]
    if dataset.in_memory:
        loaded = _load(FrozenConfigDict(dataset), split, training=False)
        batches = (_batch(*pair) for pair in memory.eval_images(loaded, share, rows))
    else:
        batches = _eval_from_disk(config, split, share, rows)
    return pad(batches, rows, -(-largest_share // rows), eval_size(dataset))


class DecodedBatch(NamedTuple):
    """A batch, and the reasons why some of its images cannot be decoded; those are black."""

    image: np.ndarray  # uint8 [n, size, size, 3]
    parts: list[EncodedBatch]  # together n images
    bad: dict[int, str]  # {row: reason}

    def label(self) -> np.ndarray:
        return np.concatenate([part.label for part in self.parts])

    def example(self, row: int) -> EncodedBatch:
        """The one encoded image of `row`."""
        for part in self.parts:
            if row < len(part):
                return part.part(row, row + 1)
            row -= len(part)
        raise IndexError(row)


def decode_batches(
    encoded: Iterator[EncodedBatch],
    spec: DecodeSpec,
    rows: int,
    sizes: Iterable[int] | None = None,
) -> Iterator[DecodedBatch]:
    """Yields batches of `rows` images, the last one shorter, in order; BATCHES_AHEAD in advance.

    `sizes` are those of each batch, by default `spec.size` of all. `spec.dataset.num_threads`
    threads decode.
    """
    in_flight: deque[tuple[DecodedBatch, list[Future[dict[int, str]]]]] = deque()
    threads = num_threads(spec.dataset.num_threads)
    with ThreadPoolExecutor(threads, thread_name_prefix='decode') as pool:
        try:
            sizes = itertools.repeat(spec.size) if sizes is None else sizes
            for parts, size in zip(_cut(encoded, rows, _GROUP), sizes, strict=False):
                image = np.empty((sum(map(len, parts)), size, size, 3), np.uint8)
                tasks, start = [], 0
                for part in parts:
                    out = image[start : start + len(part)]
                    tasks.append(pool.submit(decode, part.files, part.keys(), out, spec))
                    start += len(part)
                in_flight.append((DecodedBatch(image, parts, {}), tasks))
                if len(in_flight) > BATCHES_AHEAD:
                    yield _finished(*in_flight.popleft())
            while in_flight:
                yield _finished(*in_flight.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _train_from_disk(config: ConfigDict, start_step: int, share: HostShard) -> Iterator[Batch]:
    dataset = config.dataset
    source = open_source(dataset, dataset.train_split)
    spec = DecodeSpec(dataset, dataset.train_crop, config.seed, source.size)
    bad = BadImages(source, dataset)
    encoded = source.training(
        seed=config.seed,
        batch_size=config.batch_size,
        start_step=start_step,
        share=share,
        repeats=dataset.repeats,
    )
    start, stop = share.bounds(config.batch_size)
    encoded = _readable(encoded, source, dataset)
    sizes = sizes_from(dataset, start_step, config.batch_size, source.size)
    for decoded in decode_batches(encoded, spec, stop - start, sizes):
        yield _batch(decoded.image, bad.replace(decoded, spec))


def _eval_from_disk(config: ConfigDict, split: str, share: HostShard, rows: int) -> Iterator[Batch]:
    dataset = config.dataset
    source = open_source(dataset, split)
    spec, bad = DecodeSpec(dataset, dataset.eval_crop), BadImages(source, dataset)
    for decoded in decode_batches(_readable(source.evaluation(share), source, dataset), spec, rows):
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


def _cut(encoded: Iterator[EncodedBatch], rows: int, most: int) -> Iterator[list[EncodedBatch]]:
    """Yields `rows` images at a time, the last ones fewer, in parts of up to `most`."""
    parts: list[EncodedBatch] = []
    missing = rows
    for batch in encoded:
        start = 0
        while start < len(batch):
            stop = min(start + most, start + missing, len(batch))
            parts.append(batch.part(start, stop))
            missing -= stop - start
            start = stop
            if not missing:
                yield parts
                parts, missing = [], rows
    if parts:
        yield parts


def _finished(decoded: DecodedBatch, tasks: list[Future[dict[int, str]]]) -> DecodedBatch:
    start = 0
    for part, task in zip(decoded.parts, tasks, strict=True):
        decoded.bad.update({start + row: reason for row, reason in task.result().items()})
        start += len(part)
    return decoded


def _batch(image: np.ndarray, label: np.ndarray) -> Batch:
    return {'image': image, 'label': label.astype(np.int32), 'mask': np.ones(len(label), bool)}
