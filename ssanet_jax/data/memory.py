"""Small data sets: the whole split decoded once, augmented with NumPy."""

import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax.data.batch import Batch, Share

Split = tuple[np.ndarray, np.ndarray]  # image uint8 [N, H, W, 3], label int32 [N]


@functools.lru_cache(maxsize=4)
def load_split(builder: tfds.core.DatasetBuilder, split: str, image_size: int) -> Split:
    """Decodes a split into memory, in its stored order; grey images get three channels.

    Images of another size are resized, bilinearly and antialiased.
    """
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    dataset = dataset.map(lambda x: (_resize(x['image'], image_size), x['label']))
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(images), np.asarray(labels, np.int32)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    if image.shape[:2] != (size, size):
        image = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image


def train_batches(
    split: Split,
    *,
    seed: int,
    start_step: int,
    batch_size: int,
    padding: int,
    flip: bool,
    share: Share,
) -> Iterator[Batch]:
    """Endless training batches; batch k depends on (seed, k) alone, so any k starts at once."""
    images, labels = split
    step = start_step
    while True:
        positions = share.of(np.arange(step * batch_size, (step + 1) * batch_size))
        parts = []
        for epoch in np.unique(positions // len(labels)):
            order, offsets, flips = _epoch_randomness(seed, int(epoch), len(labels), padding)
            rows = order[positions[positions // len(labels) == epoch] % len(labels)]
            mirror = flips[rows] & flip
            parts.append((crop(images[rows], offsets[rows], mirror, padding), labels[rows]))
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


def crop(images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, padding: int) -> np.ndarray:
    """Pads images [n, H, W, C] and crops them at offsets [n, 2]; mirrors where flips [n]."""
    n, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = offsets[:, :1] + np.arange(height)  # [n, H]
    columns = offsets[:, 1:] + np.arange(width)  # [n, W]
    columns = np.where(flips[:, None], columns[:, ::-1], columns)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def eval_examples(split: Split, share: Share) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This host's examples (image [H, W, 3], label), one at a time, each once."""
    images, labels = split
    for index in share.of(np.arange(len(labels))):
        yield images[index], labels[index]
