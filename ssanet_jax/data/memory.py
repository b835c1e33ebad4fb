"""Small data sets: the whole split decoded once, augmented with NumPy."""

import functools
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax.data.batch import Batch, HostShard
from ssanet_jax.data.decoding import fit
from ssanet_jax.errors import ConfigError

Split = tuple[np.ndarray, np.ndarray]  # image uint8 [N, H, W, 3], label int32 [N]


@functools.lru_cache(maxsize=4)
def load_split(builder: tfds.core.DatasetBuilder, split: str, image_size: int) -> Split:
    """Decodes a split into memory, in its stored order; grey images get three channels.

    Images of another size are resized, bilinearly and antialiased. Raises ConfigError for a
    folder of images.
    """
    if isinstance(builder, tfds.ImageFolder):
        raise ConfigError(
            "A folder's images are not read into memory; set config.dataset.in_memory=False."
        )
    examples: Iterable[tuple[np.ndarray, np.ndarray]]
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        source = builder.as_data_source(split)
        examples = ((fit(tf.constant(x['image']), image_size), x['label']) for x in source)
    else:
        dataset = builder.as_dataset(split=split, shuffle_files=False)
        dataset = dataset.map(lambda x: (fit(x['image'], image_size), x['label']))
        examples = dataset.as_numpy_iterator()
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.asarray(labels, np.int32)


def train_batches(
    split: Split,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    padding: int,
    flip: bool,
    share: HostShard,
) -> Iterator[Batch]:
    """Endless training batches; batch k depends on (seed, k) alone, so any k starts at once."""
    images, labels = split
    size = images.shape[1]
    around = (padding, padding)
    padded = np.pad(images, ((0, 0), around, around, (0, 0)))
    step = start_step
    while True:
        positions = share.of(np.arange(step * batch_size, (step + 1) * batch_size))
        parts = []
        for epoch in np.unique(positions // len(labels)):
            order, offsets, flips = _epoch_randomness(seed, int(epoch), len(labels), padding)
            rows = order[positions[positions // len(labels) == epoch] % len(labels)]
            crops = crop(padded, rows, offsets[rows], flips[rows] & flip, size)
            parts.append((crops, labels[rows]))
        image, label = (np.concatenate(part) for part in zip(*parts, strict=True))
        yield {'image': image, 'label': label, 'mask': np.ones(len(label), bool)}
        step += 1


@functools.lru_cache(maxsize=2)
def _epoch_randomness(seed: int, epoch: int, size: int, padding: int) -> tuple[np.ndarray, ...]:
    """The epoch's order [N], and for each example its crop's corner [N, 2] and its flip [N]."""
    rng = np.random.default_rng((seed, epoch))
    return (
        rng.permutation(size),
        rng.integers(0, 2 * padding, size=(size, 2), endpoint=True),
        rng.random(size) < 0.5,
    )


def crop(
    images: np.ndarray, rows: np.ndarray, offsets: np.ndarray, flips: np.ndarray, size: int
) -> np.ndarray:
    """Squares of `size` of images[rows], at offsets [n, 2], mirrored where flips [n]."""
    out = np.empty((len(rows), size, size, images.shape[3]), np.uint8)
    corners = zip(rows.tolist(), offsets.tolist(), flips.tolist(), strict=True)
    for square, (row, (top, left), mirror) in zip(out, corners, strict=True):
        found = images[row, top : top + size, left : left + size]
        if mirror:
            cv2.flip(found, 1, square)
        else:
            square[:] = found
    return out


def eval_batches(split: Split, share: HostShard, rows: int) -> Iterator[Batch]:
    """This host's examples, each once, in batches of up to `rows`."""
    images, labels = (share.of(array) for array in split)
    for start in range(0, len(labels), rows):
        label = labels[start : start + rows]
        mask = np.ones(len(label), bool)
        yield {'image': images[start : start + rows], 'label': label, 'mask': mask}
