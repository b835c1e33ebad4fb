"""Batches of evaluation, padded to the same number and shape on every host."""

from collections.abc import Iterable, Iterator

import numpy as np

# A host's shard: image uint8 [n, H, W, 3], label int32 [n] (-1: no class is correct) and mask
# bool [n], False in padding.
Batch = dict[str, np.ndarray]


def pad(batches: Iterable[Batch], rows: int, num_batches: int, image_size: int) -> Iterator[Batch]:
    """Yields exactly `num_batches` batches of `rows`; padding has `mask` False.

    Every host makes the same number of batches of the same shape, even with fewer examples.
    """
    iterator = iter(batches)
    for _ in range(num_batches):
        batch = next(iterator, None) or _empty_batch(0, image_size)
        missing = rows - len(batch['mask'])
        if missing:
            padding = _empty_batch(missing, image_size)
            batch = {name: np.concatenate([batch[name], padding[name]]) for name in batch}
        yield batch


def _empty_batch(rows: int, image_size: int) -> Batch:
    return {
        'image': np.zeros((rows, image_size, image_size, 3), np.uint8),
        'label': np.zeros(rows, np.int32),
        'mask': np.zeros(rows, bool),
    }
