"""Small splits decoded once and kept in memory.

Images are stored as the crop needs them: resized to image_size for 'padded' crops, at their
original sizes for 'resized' ones, whatever the size of the crop, and already cropped for
evaluation.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ssanet_jax.config.sizes import sizes_from
from ssanet_jax.data.augmentation import augment
from ssanet_jax.data.bad_images import BadImages
from ssanet_jax.data.decoding.decode import (
    DecodeSpec,
    crop,
    crop_padded,
    decode,
    decode_whole,
    draw,
)
from ssanet_jax.data.sources import EncodedBatch, HostShard, num_threads, training_examples
from ssanet_jax.errors import ConfigError


class Split(NamedTuple):
    """A decoded split, in its stored order."""

    images: np.ndarray | list[np.ndarray]  # uint8 [N, H, W, 3], or N times [H, W, 3]
    labels: np.ndarray  # int32 [N]


def load_for_training(batches: Sequence[EncodedBatch], spec: DecodeSpec, bad: BadImages) -> Split:
    """Decodes a split for `train_images`; each bad image is replaced by the next good one.

    Raises ConfigError if too many images are bad.
    """
    split, reasons = _decode(batches, spec)
    good = np.setdiff1d(np.arange(len(split.labels)), list(reasons))
    for number, reason in reasons.items():
        name = bad.count(number, reason)
        if not good.size:
            raise ConfigError(f'{name} cannot be decoded, nor can any other image. Repair them.')
        other = int(good[np.searchsorted(good, number) % len(good)])
        bad.substitute(name, other)
        split.images[number] = split.images[other]
        split.labels[number] = split.labels[other]
    return split


def load_for_evaluation(batches: Sequence[EncodedBatch], spec: DecodeSpec, bad: BadImages) -> Split:
    """Decodes and crops a split for `eval_images`; raises ConfigError if bad images are errors."""
    split, reasons = _decode(batches, spec)
    for number, reason in reasons.items():
        split.labels[number] = bad.eval_label(number, reason)
    return split


def train_images(
    split: Split, spec: DecodeSpec, *, batch_size: int, start_step: int, shard: HostShard
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (images uint8 [n, size, size, 3], labels int32 [n]) of each batch, endlessly."""
    first, stop = shard.bounds(batch_size)
    rows = stop - first
    sizes = sizes_from(spec.dataset, start_step, batch_size, len(split.labels))
    for step, size in enumerate(sizes, start_step):
        number, epoch = training_examples(
            np.arange(step * rows, (step + 1) * rows),
            size=len(split.labels),
            seed=spec.seed,
            batch_size=batch_size,
            shard=shard,
            repeats=spec.dataset.repeats,
        )
        keys = np.stack([epoch, number], axis=1)
        draws = draw(keys, spec)
        out = np.empty((rows, size, size, 3), np.uint8)
        images = (split.images[n] for n in number.tolist())
        if spec.crop == 'padded':
            crop_padded(images, draws, out)
        else:
            for image, place, square in zip(images, draws, out, strict=True):
                crop(image, place, square, spec)
        augment(out, keys, spec.dataset, spec.seed)
        yield out, split.labels[number]


def eval_images(
    split: Split, shard: HostShard, rows: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields this host's images and labels, each once, in batches of up to `rows`."""
    first, stop = shard.bounds(len(split.labels))
    for start in range(first, stop, rows):
        part = slice(start, min(start + rows, stop))
        yield np.asarray(split.images[part]), split.labels[part]


def _decode(batches: Sequence[EncodedBatch], spec: DecodeSpec) -> tuple[Split, dict[int, str]]:
    """Decodes in threads; returns the split and {number: reason} of its bad images."""
    labels = np.concatenate([batch.label for batch in batches]).astype(np.int32)
    decode_all = _decode_at_own_size if spec.crop == 'resized' else _decode_resized
    with ThreadPoolExecutor(num_threads(spec.dataset.num_threads)) as pool:
        images, bad = decode_all(batches, spec, pool)
    reasons = {
        int(batch.number[row]): reason
        for batch, rows in zip(batches, bad, strict=True)
        for row, reason in rows.items()
    }
    return Split(images, labels), reasons


def _decode_at_own_size(
    batches: Sequence[EncodedBatch], spec: DecodeSpec, pool: ThreadPoolExecutor
) -> tuple[list[np.ndarray], list[dict[int, str]]]:
    decoded = list(pool.map(lambda batch: decode_whole(batch.files, spec.dataset), batches))
    return [image for images, _ in decoded for image in images], [bad for _, bad in decoded]


def _decode_resized(
    batches: Sequence[EncodedBatch], spec: DecodeSpec, pool: ThreadPoolExecutor
) -> tuple[np.ndarray, list[dict[int, str]]]:
    size, padding = spec.size, 0
    if spec.crop == 'padded':
        spec, padding = spec._replace(crop='whole'), spec.dataset.crop_padding
    side = size + 2 * padding
    images = np.zeros((sum(map(len, batches)), side, side, 3), np.uint8)
    inside = images[:, padding : padding + size, padding : padding + size]

    def decode_batch(batch: EncodedBatch) -> dict[int, str]:
        out = inside[batch.number[0] : batch.number[-1] + 1]
        return decode(batch.files, batch.keys(), out, spec)

    return images, list(pool.map(decode_batch, batches))
