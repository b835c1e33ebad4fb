"""Height and width of images: in evaluation, and in training by epoch."""

import itertools
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.config.plan import TrainPlan


def eval_size(dataset: ConfigDict) -> int:
    """Height and width of images in evaluation, and wherever a trained network is used."""
    return dataset.eval_size if dataset.eval_size > 0 else dataset.image_size


def eval_batch_size(config: ConfigDict) -> int:
    """Images per evaluation step, over all devices of all hosts."""
    return config.eval_batch_size if config.eval_batch_size > 0 else config.batch_size


def resized_side(size: int, eval_crop_pct: float) -> int:
    """Length of the short side from which the center crop of `size` is cut."""
    return round(size / eval_crop_pct)


def train_size(dataset: ConfigDict, epoch: int) -> int:
    """Height and width of training images in an epoch, from 0.

    With `initial_size`, it rises linearly between `growth_epochs`, rounded to the nearest multiple
    of `growth_multiple`. This is `get_resolution` of ffcv's ImageNet example
    (https://github.com/libffcv/ffcv-imagenet), where the multiple is 32.

    >>> from ssanet_jax.config import base
    >>> dataset = base().dataset
    >>> dataset.initial_size, dataset.growth_epochs = 160, (35.0, 75.0)
    >>> [train_size(dataset, epoch) for epoch in (0, 35, 40, 50, 65, 75, 89)]
    [160, 160, 160, 192, 192, 224, 224]
    """
    first, last = dataset.initial_size, dataset.image_size
    start, stop = dataset.growth_epochs
    if first < 0 or epoch >= stop:
        return last
    if epoch <= start:
        return first
    multiple = dataset.growth_multiple
    nearest = round(np.interp(epoch, (start, stop), (first, last)) / multiple) * multiple
    return min(max(nearest, first), last)


def sizes_from(
    dataset: ConfigDict, start_step: int, batch_size: int, num_examples: int
) -> Iterator[int]:
    """Yields the size of each training batch from a step on: that of its first example's epoch."""
    for step in itertools.count(start_step):
        yield train_size(dataset, step * batch_size // num_examples)


def train_sizes(dataset: ConfigDict, plan: TrainPlan, start_step: int) -> list[int]:
    """The sizes of the training images from a step on, each once, in the order of their use."""
    first = start_step // plan.steps_per_epoch
    last = max(first, (plan.num_train_steps - 1) // plan.steps_per_epoch)
    sizes = (train_size(dataset, epoch) for epoch in range(first, last + 1))
    return list(dict.fromkeys(sizes))
