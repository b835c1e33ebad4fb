"""Encoded images of one split, as chunks in the order of training or of evaluation.

array_record files and folders of images are read by number, in an order that is computed
(`RandomAccess`); tfrecord files are read from front to back (`tfrecords.TfRecords`).
"""

import dataclasses
import errno
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import PurePath
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax.data.batch import HostShard
from ssanet_jax.errors import ConfigError, RunError

CHUNK = 64  # images that are read together
_READERS = 4  # chunks that are read at a time

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedBatch:
    """Some encoded images, in order."""

    files: Sequence[bytes]  # m encoded images
    label: np.ndarray  # int64 [m]
    number: np.ndarray  # int64 [m], place in the split as it is stored
    epoch: np.ndarray  # int64 [m]

    def __len__(self) -> int:
        return len(self.label)

    def part(self, start: int, stop: int) -> 'EncodedBatch':
        """Images start..stop."""
        cut = slice(start, stop)
        return EncodedBatch(self.files[cut], self.label[cut], self.number[cut], self.epoch[cut])


class Source(Protocol):
    """One split. Its examples are numbered as they are stored."""

    size: int

    def training(
        self, *, seed: int, batch_size: int, start_step: int, share: HostShard
    ) -> Iterator[EncodedBatch]:
        """Endless chunks of this host's share of the shuffled batches from `start_step` on."""

    def evaluation(self, share: HostShard) -> Iterator[EncodedBatch]:
        """This host's contiguous part, once."""

    def after(self, number: int) -> Iterator[EncodedBatch]:
        """What may stand in for an example, one by one; nothing if the source cannot say."""

    def name(self, number: int) -> str:
        """What TFDS calls an example, or the path of its file."""


class RandomAccess:
    """A split whose examples are read by number.

    Epoch e reads them in the order of `shuffled(., seed, e)`: any step starts at once, no
    image waits in a buffer, and the order is the same for any number of hosts.
    """

    size: int

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes], np.ndarray]:
        """The files and labels int64 [m] of `numbers` [m]; thread-safe."""
        raise NotImplementedError

    def training(
        self, *, seed: int, batch_size: int, start_step: int, share: HostShard
    ) -> Iterator[EncodedBatch]:
        first, stop = share.bounds(batch_size)
        rows = stop - first

        def chunk(start: int) -> EncodedBatch:
            step, row = np.divmod(np.arange(start, start + CHUNK), rows)  # of this host's share
            epoch, place = np.divmod(step * batch_size + first + row, self.size)
            return self._chunk(shuffled(place, seed, epoch, self.size), epoch)

        starts = range(start_step * rows, 2**62, CHUNK)
        return read_ahead(chunk, starts)

    def evaluation(self, share: HostShard) -> Iterator[EncodedBatch]:
        first, stop = share.bounds(self.size)

        def chunk(start: int) -> EncodedBatch:
            number = np.arange(start, min(start + CHUNK, stop))
            return self._chunk(number, np.zeros_like(number))

        return read_ahead(chunk, range(first, stop, CHUNK))

    def after(self, number: int) -> Iterator[EncodedBatch]:
        for following in range(number + 1, number + self.size):
            yield self._chunk(np.array([following % self.size]), np.zeros(1, np.int64))

    def _chunk(self, number: np.ndarray, epoch: np.ndarray) -> EncodedBatch:
        return EncodedBatch(*self.read(number), number, epoch)


def shuffled(place: np.ndarray, seed: int, epoch: np.ndarray, size: int) -> np.ndarray:
    """The examples [m] at `place` [m] of a random permutation of range(size).

    One permutation for each (seed, epoch [m]), of which two are held: 8 bytes an example.
    (TensorFlow's index_shuffle, which holds nothing, is far from uniform on small sets and
    repeats examples of sets of 2**k + 1.)
    """
    example = np.empty_like(place)
    for e in np.unique(epoch):
        example[epoch == e] = _permutation(seed, int(e), size)[place[epoch == e]]
    return example


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def read_ahead(read: Callable[[int], T], starts: Iterable[int]) -> Iterator[T]:
    """`read(start)` for each of `starts`, in order, a few of them at a time in threads."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix='read') as pool:
        try:
            for start in starts:
                waiting.append(pool.submit(read, start))
                if len(waiting) >= _READERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class ArrayRecords(RandomAccess):
    """A split of a TFDS data set in array_record files, with features 'image' and 'label'."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        from array_record.python import array_record_data_source  # Linux only

        self._files = builder.info.splits[split].file_instructions
        _allow_open_files()
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)
        self.size = len(self._records)

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes], np.ndarray]:
        # One at a time: __getitems__ would start threads anew, for four times the work.
        return parse(tf.constant([self._records[number] for number in numbers.tolist()]))

    def name(self, number: int) -> str:
        return tfds_id(self._files, number)


def _allow_open_files() -> None:
    """Every shard stays open, and many systems allow a process 1,024 files at first."""
    import resource  # not on Windows, where there is no array_record either

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Folder(RandomAccess):
    """A split of a tfds.ImageFolder: `split/class/image`.

    Of a file of more than `max_bytes` no more than that and one byte is read.
    """

    def __init__(self, builder: tfds.ImageFolder, split: str, max_bytes: int):
        labels = builder.info.features['label']
        # TFDS keeps the paths to itself; as_dataset alone would open every file.
        examples = builder._split_examples
        instruction = tfds.core.ReadInstruction.from_spec(split)
        parts = instruction.to_absolute(builder.info.splits)
        chosen = [e for part in parts for e in examples[part.splitname][part.from_ : part.to]]
        self._paths = [example.image_path for example in chosen]
        self._labels = np.array([labels.str2int(example.label) for example in chosen], np.int64)
        self._max_bytes = max_bytes
        self.size = len(chosen)

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes], np.ndarray]:
        files = [_read(self._paths[number], self._max_bytes + 1) for number in numbers]
        return files, self._labels[numbers]

    def name(self, number: int) -> str:
        return self._paths[number]


def _read(path: str, limit: int) -> bytes:
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            return file.read(min(file.size(), limit))
    except tf.errors.OpError as error:
        raise unreadable(path, error, 'mend it, or take it out of the folder.') from error


_PASSING = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.ResourceExhaustedError,
)
_PASSING_TEXTS = [  # which array_record and TensorFlow quote
    os.strerror(number)
    for number in (
        errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE,
        errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN, errno.EHOSTUNREACH,
    )
]  # fmt: skip


def unreadable(path: object, error: Exception, remedy: str) -> ConfigError | RunError:
    """What to raise of data that cannot be read: a RunError where another try may help."""
    text = ' '.join(getattr(error, 'message', str(error)).split())
    if isinstance(error, _PASSING) or any(passing in text for passing in _PASSING_TEXTS):
        return RunError(
            f'{path} cannot be read now: {text[:300]} Nothing was lost; run the same command again.'
        )
    return ConfigError(f'{path} cannot be read: {text[:300]} Nothing was lost; {remedy}')


def parse(records: tf.Tensor) -> tuple[Sequence[bytes], np.ndarray]:
    """The files and labels int64 [m] of serialized tf.train.Examples [m]."""
    features = {
        'image': tf.io.FixedLenFeature((), tf.string),
        'label': tf.io.FixedLenFeature((), tf.int64),
    }
    parsed = tf.io.parse_example(records, features)
    return parsed['image'].numpy().tolist(), parsed['label'].numpy()


def tfds_id(files: list[Any], number: int) -> str:
    """TFDS's name of example `number` of those that file instructions read."""
    for file in files:
        if number < file.take:
            return f'{PurePath(file.filename).name}__{file.skip + number}'
        number -= file.take
    raise IndexError(number)
