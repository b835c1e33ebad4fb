"""Decodes a stream of encoded images on all cores, straight into batches.

Threads share the work; libjpeg-turbo, OpenCV and Pillow do it without Python's lock.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ssanet_jax.data.decoding.decode import DecodeSpec, decode
from ssanet_jax.data.sources import BATCHES_AHEAD, EncodedBatch, num_threads

_GROUP = 16  # images that a thread decodes at a time; what is drawn for them is drawn together


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
