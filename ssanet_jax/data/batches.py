"""The two iterators that the rest of the project reads: `train_batches` and `eval_batches`."""

from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from ssanet_jax.data import memory, stream
from ssanet_jax.data.batch import Batch, Share, padded_batches
from ssanet_jax.data.builders import open_builder, split_size


def train_batches(
    config: ConfigDict, *, start_step: int = 0, share: Share | None = None
) -> Iterator[Batch]:
    """Endless training batches of this host's share, from batch `start_step` on.

    Batch k is a pure function of (seed, k): the examples are one endless stream, each
    epoch a permutation of the split, cut into pieces of `config.batch_size`. Stopping
    anywhere and starting there again gives the same batches.

    Args:
      config: reads `seed`, `batch_size` and `dataset`.
      start_step: k of the first batch.
      share: which host's part; by default this process's.

    Raises:
      ConfigError: the data set is unknown or not prepared.
    """
    share = share or Share.of_this_host()
    dataset = config.dataset
    builder = open_builder(dataset)
    if dataset.reader == 'stream':
        return stream.train_batches(builder, config, start_step=start_step, share=share)
    return memory.train_batches(
        memory.load_split(builder, dataset.train_split, dataset.image_size),
        seed=config.seed,
        start_step=start_step,
        batch_size=config.batch_size,
        padding=dataset.crop_padding,
        flip=dataset.flip,
        share=share,
    )


def eval_batches(config: ConfigDict, split: str, *, share: Share | None = None) -> Iterator[Batch]:
    """This host's share of every example of `split` once, unaugmented, in padded batches.

    All hosts yield the same number of batches, whose size is a multiple of the number
    of local devices; padding has `mask` False.

    Args:
      config: reads `batch_size`, `eval_batch_size` and `dataset`.
      split: a TFDS split, as `config.dataset.eval_split`.
      share: which host's part; by default this process's.

    Raises:
      ConfigError: the data set or split is unknown or not prepared.
    """
    share = share or Share.of_this_host()
    dataset = config.dataset
    builder = open_builder(dataset)
    if dataset.reader == 'stream':
        examples = stream.eval_examples(builder, config, split, share)
    else:
        images = memory.load_split(builder, split, dataset.image_size)
        examples = memory.eval_examples(images, share)

    batch_size = config.eval_batch_size if config.eval_batch_size > 0 else config.batch_size
    rows = _round_up(batch_size, share.num_hosts * jax.local_device_count()) // share.num_hosts
    largest_share = -(-split_size(builder, split) // share.num_hosts)
    return padded_batches(examples, rows, -(-largest_share // rows), dataset.image_size)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
