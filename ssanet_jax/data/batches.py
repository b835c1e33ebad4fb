"""The two iterators that the rest of the project reads: `train_batches` and `eval_batches`."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ssanet_jax.data import images, memory
from ssanet_jax.data.bad_images import BadImages
from ssanet_jax.data.batch import Batch, HostShard, pad
from ssanet_jax.data.builders import open_builder, open_source, prepare_command, split_size
from ssanet_jax.data.decoding import Decode
from ssanet_jax.data.pipeline import Decoded, decode_batches
from ssanet_jax.data.sources import EncodedBatch, Source, unreadable


def train_batches(
    config: ConfigDict, *, start_step: int = 0, share: HostShard | None = None
) -> Iterator[Batch]:
    """Endless training batches of this host's share, from batch `start_step` on.

    Batch k is a pure function of (seed, k): the examples are one endless stream, each
    epoch a permutation of the split, cut into pieces of `config.batch_size`. Stopping
    anywhere and starting there again gives the same batches. They do not depend on the
    number of hosts either, but where tfrecord files are streamed.

    Args:
      config: reads `seed`, `batch_size` and `dataset`.
      start_step: k of the first batch.
      share: which host's part; by default this process's.

    Raises:
      ConfigError: the data set is unknown or not prepared, or too many of its images
        cannot be decoded.
    """
    share = share or HostShard.of_this_host()
    dataset = config.dataset
    if not dataset.in_memory:
        return _train_from_disk(config, start_step, share)
    split = memory.load_split(open_builder(dataset), dataset.train_split, dataset.image_size)
    return memory.train_batches(
        split,
        seed=config.seed,
        start_step=start_step,
        batch_size=config.batch_size,
        padding=dataset.crop_padding,
        flip=dataset.flip,
        share=share,
    )


def eval_batches(
    config: ConfigDict, split: str, *, share: HostShard | None = None
) -> Iterator[Batch]:
    """This host's share of every example of `split` once, unaugmented, in padded batches.

    All hosts yield the same number of batches, whose size is a multiple of the number
    of local devices; padding has `mask` False. An image that cannot be decoded has label
    -1 where `dataset.bad_eval_images` is 'incorrect'.

    Args:
      config: reads `batch_size`, `eval_batch_size` and `dataset`.
      split: a TFDS split, as `config.dataset.eval_split`.
      share: which host's part; by default this process's.

    Raises:
      ConfigError: the data set or split is unknown or not prepared, or an image cannot be
        decoded.
    """
    share = share or HostShard.of_this_host()
    dataset = config.dataset
    builder = open_builder(dataset)
    batch_size = config.eval_batch_size if config.eval_batch_size > 0 else config.batch_size
    rows = _round_up(batch_size, share.num_hosts * jax.local_device_count()) // share.num_hosts
    largest_share = -(-split_size(builder, split) // share.num_hosts)
    if not dataset.in_memory:
        batches = _eval_from_disk(config, split, share, rows)
    else:
        whole = memory.load_split(builder, split, dataset.image_size)
        batches = memory.eval_batches(whole, share, rows)
    return pad(batches, rows, -(-largest_share // rows), dataset.image_size)


def _train_from_disk(config: ConfigDict, start_step: int, share: HostShard) -> Iterator[Batch]:
    dataset = config.dataset
    source = open_source(dataset, dataset.train_split)
    decode = partial(images.random_crops, dataset=dataset)
    bad = BadImages(source, decode, seed=config.seed, max_fraction=dataset.max_bad_fraction)
    chunks = source.training(
        seed=config.seed, batch_size=config.batch_size, start_step=start_step, share=share
    )
    start, stop = share.bounds(config.batch_size)
    for decoded in _decode(config, chunks, decode, stop - start):
        yield _batch(decoded, bad.replace(decoded))


def _eval_from_disk(config: ConfigDict, split: str, share: HostShard, rows: int) -> Iterator[Batch]:
    dataset = config.dataset
    source: Source = open_source(dataset, split)
    decode = partial(images.center_crops, dataset=dataset)
    bad = BadImages(source, decode, seed=config.seed, max_fraction=dataset.max_bad_fraction)
    allowed = dataset.bad_eval_images == 'incorrect'
    for decoded in _decode(config, source.evaluation(share), decode, rows):
        yield _batch(decoded, bad.mark(decoded, allowed=allowed))


def _decode(
    config: ConfigDict, chunks: Iterator[EncodedBatch], decode: Decode, rows: int
) -> Iterator[Decoded]:
    return decode_batches(
        _readable(chunks, config.dataset),
        decode,
        seed=config.seed,
        rows=rows,
        image_size=config.dataset.image_size,
        num_threads=config.dataset.num_threads,
    )


def _readable(chunks: Iterator[EncodedBatch], dataset: ConfigDict) -> Iterator[EncodedBatch]:
    """The same; what reading raises becomes a line."""
    try:
        yield from chunks
    except (tf.errors.OpError, RuntimeError, OSError) as error:  # RuntimeError: array_record's
        remedy = f'mend it, or remove it and prepare it again with: {prepare_command(dataset)}'
        raise unreadable(open_builder(dataset).data_path, error, remedy) from error


def _batch(decoded: Decoded, label: np.ndarray) -> Batch:
    return {
        'image': decoded.image,
        'label': label.astype(np.int32),
        'mask': np.ones(len(label), bool),
    }


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
