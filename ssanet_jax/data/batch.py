"""What a batch is, and which part of it is this host's."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np

# A host's share: image uint8 [n, H, W, 3], label int32 [n] (-1: no class is right), mask bool [n],
# False in padding.
Batch = dict[str, np.ndarray]


class HostShard(NamedTuple):
    """The part of the data that is host number `host`'s, of `num_hosts`."""

    host: int
    num_hosts: int

    @classmethod
    def of_this_host(cls) -> 'HostShard':
        return cls(jax.process_index(), jax.process_count())

    def bounds(self, total: int) -> tuple[int, int]:
        """The contiguous part of range(total) that is this host's."""
        return total * self.host // self.num_hosts, total * (self.host + 1) // self.num_hosts

    def of(self, rows: np.ndarray) -> np.ndarray:
        """This host's contiguous part of rows [n]."""
        start, stop = self.bounds(len(rows))
        return rows[start:stop]


def pad(batches: Iterable[Batch], rows: int, num_batches: int, image_size: int) -> Iterator[Batch]:
    """Exactly `num_batches` batches of `rows`: short ones padded, their `mask` False there.

    Every host makes the same number of batches of the same shape, even with fewer examples.
    """
    iterator = iter(batches)
    for _ in range(num_batches):
        batch = next(iterator, None) or empty_batch(0, image_size)
        missing = rows - len(batch['mask'])
        if missing:
            padding = empty_batch(missing, image_size)
            batch = {name: np.concatenate([batch[name], padding[name]]) for name in batch}
        yield batch


def empty_batch(rows: int, image_size: int) -> Batch:
    """Black images of class 0 that are not counted."""
    return {
        'image': np.zeros((rows, image_size, image_size, 3), np.uint8),
        'label': np.zeros(rows, np.int32),
        'mask': np.zeros(rows, bool),
    }
