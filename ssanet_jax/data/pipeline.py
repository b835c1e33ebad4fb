"""Decodes chunks of encoded images in order, on all cores, into batches.

Threads of Python share the work, each a few images at a time; TensorFlow, OpenCV and Pillow do
it without Python's lock, and every image is written straight into its batch.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ssanet_jax.data.decoding import Decode
from ssanet_jax.data.jpeg import GROUP
from ssanet_jax.data.sources import EncodedBatch

AHEAD = 2  # batches that are worked on while one is used


class Decoded(NamedTuple):
    """A batch, and why some of its images could not be decoded, which are black."""

    image: np.ndarray  # uint8 [n, size, size, 3]
    chunks: list[EncodedBatch]  # what it was decoded from; together n images
    bad: dict[int, str]  # row: reason

    def label(self) -> np.ndarray:
        return np.concatenate([chunk.label for chunk in self.chunks])

    def example(self, row: int) -> EncodedBatch:
        """The chunk of one image that `row` was to be decoded from."""
        for chunk in self.chunks:
            if row < len(chunk):
                return chunk.part(row, row + 1)
            row -= len(chunk)
        raise IndexError(row)


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def key(seed: int, chunk: EncodedBatch) -> np.ndarray:
    """int64 [m, 2]: what the augmentation of each image is drawn from, (seed, epoch, example)."""
    return np.stack([(seed << 32) + chunk.epoch, chunk.number], axis=1)


def decode_batches(
    chunks: Iterator[EncodedBatch],
    decode: Decode,
    *,
    seed: int,
    rows: int,
    image_size: int,
    num_threads: int,
) -> Iterator[Decoded]:
    """Batches of `rows` images, the last one shorter, in the order of `chunks`.

    Holds `AHEAD` + 1 batches, encoded and decoded, besides what `chunks` reads ahead.

    Args:
      chunks: of any sizes.
      decode: fills a part of a batch.
      seed: of the augmentation.
      rows: images of a batch.
      image_size: their height and width.
      num_threads: that decode, each `GROUP` images at a time, to which TensorFlow adds its
        own; -1: one more than cores.
    """
    threads = num_threads if num_threads > 0 else num_cores() + 1  # one of them waits
    under_way: deque[tuple[Decoded, list[Future[dict[int, str]]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix='decode') as pool:
        try:
            for parts in _cut(chunks, rows):
                image = np.empty((sum(map(len, parts)), image_size, image_size, 3), np.uint8)
                tasks, start = [], 0
                for part in parts:
                    out = image[start : start + len(part)]
                    tasks.append(pool.submit(decode, part.files, key(seed, part), out))
                    start += len(part)
                under_way.append((Decoded(image, parts, {}), tasks))
                if len(under_way) > AHEAD:
                    yield _finished(*under_way.popleft())
            while under_way:
                yield _finished(*under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def _cut(chunks: Iterator[EncodedBatch], rows: int) -> Iterator[list[EncodedBatch]]:
    """Lists of chunks of at most `GROUP` images, `rows` in each list but the last."""
    parts: list[EncodedBatch] = []
    missing = rows
    for chunk in chunks:
        start = 0
        while start < len(chunk):
            stop = min(start + GROUP, start + missing, len(chunk))
            parts.append(chunk.part(start, stop))
            missing -= stop - start
            start = stop
            if not missing:
                yield parts
                parts, missing = [], rows
    if parts:
        yield parts


def _finished(decoded: Decoded, tasks: list[Future[dict[int, str]]]) -> Decoded:
    start = 0
    for part, task in zip(decoded.chunks, tasks, strict=True):
        decoded.bad.update({start + row: reason for row, reason in task.result().items()})
        start += len(part)
    return decoded
