"""Sources of encoded images: the interface, the order of training, and how far ahead to read.

`readers` has one for each kind of file.
"""

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeVar

import jax
import numpy as np

# How far ahead of the training step each host works. All of it is held in memory:
# READS_AHEAD * READ_SIZE encoded images, BATCHES_AHEAD + 1 batches encoded and decoded, and the
# batches of `training.parallel.to_devices`.
READ_SIZE = 64  # images per read
READS_AHEAD = 4  # reads in flight
BATCHES_AHEAD = 2  # batches being decoded while one is used

S = TypeVar('S')
T = TypeVar('T')


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_threads(wanted: int) -> int:
    """Threads that decode: `wanted`, or for -1 one more than cores, as one of them waits."""
    return wanted if wanted > 0 else num_cores() + 1


class HostShard(NamedTuple):
    """The part of the data that belongs to host number `host` of `num_hosts`."""

    host: int
    num_hosts: int

    @classmethod
    def of_this_host(cls) -> 'HostShard':
        return cls(jax.process_index(), jax.process_count())

    def bounds(self, total: int) -> tuple[int, int]:
        """The contiguous part of range(total) of this host, as (start, stop)."""
        return total * self.host // self.num_hosts, total * (self.host + 1) // self.num_hosts


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Encoded images with their labels, in order."""

    files: Sequence[bytes | np.ndarray]  # m encoded images, or decoded ones uint8 [H, W, 3]
    label: np.ndarray  # int64 [m]
    number: np.ndarray  # int64 [m], position in the split as it is stored
    epoch: np.ndarray  # int64 [m]; with repeats, epoch * repeats + the number of the repeat

    def __len__(self) -> int:
        return len(self.label)

    def part(self, start: int, stop: int) -> 'EncodedBatch':
        """Images start..stop."""
        cut = slice(start, stop)
        return EncodedBatch(self.files[cut], self.label[cut], self.number[cut], self.epoch[cut])

    def keys(self) -> np.ndarray:
        """(epoch, number) of each image, int64 [m, 2]."""
        return np.stack([self.epoch, self.number], axis=1)


class Source(Protocol):
    """One split, its examples numbered as they are stored."""

    size: int

    def training(
        self, *, seed: int, batch_size: int, start_step: int, shard: HostShard, repeats: int = 1
    ) -> Iterator[EncodedBatch]:
        """Yields this host's shard of the shuffled batches from `start_step` on, endlessly.

        Each example comes `repeats` times in a row of the stream that is cut into batches.
        """

    def evaluation(self, shard: HostShard) -> Iterator[EncodedBatch]:
        """Yields this host's contiguous part once, in stored order."""

    def after(self, number: int) -> Iterator[EncodedBatch]:
        """Yields substitutes for an example, one by one; none if the source cannot seek."""

    def name(self, number: int) -> str:
        """TFDS's id of an example, or the path of its file."""


class RandomAccess:
    """A split whose examples are read by number, in the order of `training_examples`.

    Any step starts at once, no image waits in a buffer, and the order is the same for any
    number of hosts.
    """

    size: int

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes | np.ndarray], np.ndarray]:
        """Reads the files and labels int64 [m] of `numbers` [m]; thread-safe."""
        raise NotImplementedError

    def training(
        self, *, seed: int, batch_size: int, start_step: int, shard: HostShard, repeats: int = 1
    ) -> Iterator[EncodedBatch]:
        def read(start: int) -> EncodedBatch:
            return self._batch(
                *training_examples(
                    np.arange(start, start + READ_SIZE),
                    size=self.size,
                    seed=seed,
                    batch_size=batch_size,
                    shard=shard,
                    repeats=repeats,
                )
            )

        start, stop = shard.bounds(batch_size)
        return read_ahead(read, range(start_step * (stop - start), 2**62, READ_SIZE))

    def evaluation(self, shard: HostShard) -> Iterator[EncodedBatch]:
        first, stop = shard.bounds(self.size)

        def read(start: int) -> EncodedBatch:
            number = np.arange(start, min(start + READ_SIZE, stop))
            return self._batch(number, np.zeros_like(number))

        return read_ahead(read, range(first, stop, READ_SIZE))

    def after(self, number: int) -> Iterator[EncodedBatch]:
        for following in range(number + 1, number + self.size):
            yield self._batch(np.array([following % self.size]), np.zeros(1, np.int64))

    def _batch(self, number: np.ndarray, epoch: np.ndarray) -> EncodedBatch:
        return EncodedBatch(*self.read(number), number, epoch)


def training_examples(
    index: np.ndarray,
    *,
    size: int,
    seed: int,
    batch_size: int,
    shard: HostShard,
    repeats: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns number and epoch, both int64 [m], of this host's training examples `index` [m].

    The stream of all hosts is one permutation of range(size) per epoch, cut into batches. With
    `repeats`, an epoch is as long but has each of its first examples `repeats` times in a row, and
    the epochs returned are epoch * repeats + the number of the repeat (Hoffer et al. 2020,
    https://arxiv.org/abs/1901.09335; the order of timm's RepeatAugSampler).
    """
    first, stop = shard.bounds(batch_size)
    step, row = np.divmod(index, stop - first)
    place_in_batch = interleave_repeats(batch_size, repeats)[first + row]
    epoch, place = np.divmod(step * batch_size + place_in_batch, size)
    place, repeat = np.divmod(place, repeats)
    return shuffled(place, seed, epoch, size), epoch * repeats + repeat


def interleave_repeats(total: int, repeats: int) -> np.ndarray:
    """Reorders range(total) so that `repeats` neighbors go to different devices: 0 3 1 4 2 5.

    Returns int64 [total]: 0, repeats, 2 * repeats, ..., then 1, repeats + 1, and so on.
    """
    return np.concatenate([np.arange(first, total, repeats) for first in range(repeats)])


def shuffled(place: np.ndarray, seed: int, epoch: np.ndarray, size: int) -> np.ndarray:
    """Returns the examples [m] at `place` [m] of the permutation of range(size) of their epochs.

    There is one permutation per (seed, epoch [m]); two are cached, 8 bytes per example.
    (TensorFlow's index_shuffle needs no memory but is far from uniform on small datasets, and
    repeats examples of datasets of 2**k + 1.)
    """
    example = np.empty_like(place)
    for e in np.unique(epoch):
        example[epoch == e] = _permutation(seed, int(e), size)[place[epoch == e]]
    return example


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def read_ahead(
    read: Callable[[S], T], starts: Iterable[S], ahead: int = READS_AHEAD
) -> Iterator[T]:
    """Yields `read(start)` for each of `starts` in order, `ahead` at a time in threads."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(ahead, thread_name_prefix='read') as pool:
        try:
            for start in starts:
                waiting.append(pool.submit(read, start))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
