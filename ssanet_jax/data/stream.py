"""Large data sets: tfrecord files read in order, decoded and augmented by tf.data."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from ssanet_jax.config import ConfigError
from ssanet_jax.data.batch import Batch, Share

_FOREVER = 2**62
_FLIP = (0, 2**40)  # makes of a crop's key the key of the flip


def train_batches(
    builder: tfds.core.DatasetBuilder, config: ConfigDict, *, start_step: int, share: Share
) -> Iterator[Batch]:
    """Endless training batches; a resumed run skips what it has read, before decoding.

    Batch k depends on (seed, k) and on the number of hosts: each reads its own part of
    the split, its files in a new order every epoch, through a shuffle buffer.
    """
    dataset, seed = config.dataset, config.seed
    start, stop = share.bounds(config.batch_size)
    rows = stop - start
    part = _part(builder, dataset.train_split, share)
    first_epoch, position = divmod(start_step * rows, part.size)

    def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
        records = part.records(file_seed=(seed, 2 * epoch))
        order = tf.random.stateless_uniform((), (seed, 2 * epoch + 1), maxval=2**62, dtype=tf.int64)
        return records.shuffle(dataset.shuffle_buffer, seed=order)

    records = tf.data.Dataset.range(first_epoch, _FOREVER).flat_map(epoch_records).skip(position)
    # The augmentation of an example is keyed by its place in the stream of all hosts.
    records = records.enumerate(start=first_epoch * part.size + position)

    def example(index: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.stack([tf.cast(seed, tf.int64), index * share.num_hosts + share.host])
        encoded, label = _parse(builder, record)
        return augment(encoded, key, dataset), label

    batches = records.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    batches = batches.batch(rows).prefetch(2)
    for image, label in _deterministic(batches).as_numpy_iterator():
        yield {'image': image, 'label': label.astype(np.int32), 'mask': np.ones(rows, bool)}


def eval_examples(
    builder: tfds.core.DatasetBuilder, config: ConfigDict, split: str, share: Share
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This host's examples (image [H, W, 3], label), one at a time, each once."""

    def example(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = _parse(builder, record)
        return center_crop(encoded, config.dataset), label

    records = _part(builder, split, share).records(file_seed=None)
    examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE).prefetch(64)
    yield from _deterministic(examples).as_numpy_iterator()


class _Part:
    """One host's contiguous part of a split: slices of tfrecord files."""

    def __init__(self, instructions: list[Any]):
        self.size = sum(i.take for i in instructions)
        self._files = (
            [str(i.filename) for i in instructions],
            np.array([i.skip for i in instructions], np.int64),
            np.array([i.take for i in instructions], np.int64),
        )

    def records(self, file_seed: tuple[int, tf.Tensor] | None) -> tf.data.Dataset:
        """Every record once; the files in an order drawn from file_seed, or as they are."""
        files = self._files
        if file_seed is not None:
            order = tf.argsort(tf.random.stateless_uniform((len(files[0]),), tf.stack(file_seed)))
            files = tuple(tf.gather(column, order) for column in files)

        def read(name: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(name).skip(skip).take(take)

        dataset = tf.data.Dataset.from_tensor_slices(files)
        if file_seed is None:
            return dataset.flat_map(read)
        return dataset.interleave(
            read, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


def _part(builder: tfds.core.DatasetBuilder, split: str, share: Share) -> _Part:
    file_format = builder.info.file_format
    if file_format != tfds.core.FileFormat.TFRECORD:
        raise ConfigError(
            f"config.dataset.reader='stream' reads tfrecord, but {builder.data_path} "
            f'holds {file_format.value}. Prepare it again with: '
            f'tfds build {builder.name} --file_format=tfrecord'
        )
    info = builder.info.splits[split]
    start, stop = share.bounds(info.num_examples)
    if start == stop:
        raise ConfigError(
            f'Split {split!r} has fewer examples than there are hosts ({share.num_hosts}).'
        )
    return _Part(_slice(info.file_instructions, start, stop))


def _slice(instructions: list[Any], start: int, stop: int) -> list[Any]:
    """The instructions for examples start..stop of those that `instructions` read."""
    sliced, first = [], 0
    for instruction in instructions:
        low, high = max(start - first, 0), min(stop - first, instruction.take)
        if low < high:
            sliced.append(instruction.replace(skip=instruction.skip + low, take=high - low))
        first += instruction.take
    return sliced


def _parse(builder: tfds.core.DatasetBuilder, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    example = builder.info.features.deserialize_example(
        record, decoders={'image': tfds.decode.SkipDecoding()}
    )
    return example['image'], example['label']


def _deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options)


def augment(encoded: tf.Tensor, key: tf.Tensor, dataset: ConfigDict) -> tf.Tensor:
    """Random resized crop and flip of one encoded image; a pure function of key int64 [2].

    The crop covers `crop_area` of the image with aspect `crop_aspect` (Szegedy et al.
    2015, section 6); returns uint8 [image_size, image_size, 3].
    """
    is_jpeg = tf.io.is_jpeg(encoded)
    shape = tf.cond(
        is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded), lambda: tf.shape(_decode(encoded))
    )
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=key,
        min_object_covered=0.0,
        area_range=tuple(dataset.crop_area),
        aspect_ratio_range=tuple(dataset.crop_aspect),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], axis=0)
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_and_crop_jpeg(encoded, window, channels=3),
        lambda: tf.image.crop_to_bounding_box(_decode(encoded), *tf.unstack(window)),
    )
    image = resize(image, dataset.image_size)
    if dataset.flip:
        image = tf.image.stateless_random_flip_left_right(image, seed=key + _FLIP)
    return image


def center_crop(encoded: tf.Tensor, dataset: ConfigDict) -> tf.Tensor:
    """The centre of one encoded image, uint8 [image_size, image_size, 3].

    As resizing the short side to image_size / eval_crop_fraction and cropping the centre.
    """
    image = _decode(encoded)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    short = tf.reduce_min(shape)
    target = tf.round(shape / short * round(dataset.image_size / dataset.eval_crop_fraction))
    image = tf.image.resize(tf.cast(image, tf.float32), tf.cast(target, tf.int32), antialias=True)
    corner = tf.cast((target - dataset.image_size) / 2, tf.int32)
    image = tf.image.crop_to_bounding_box(image, corner[0], corner[1], *[dataset.image_size] * 2)
    return to_uint8(image)


def _decode(encoded: tf.Tensor) -> tf.Tensor:
    """Whatever the file's name says: a few of ImageNet's .JPEG are PNG."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes one image to uint8 [size, size, C], bilinearly and antialiased as PIL does."""
    return to_uint8(tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True))


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
