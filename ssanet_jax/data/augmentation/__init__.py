"""Augmentation of training crops on the host; docs/augmentation.md has pictures and sources."""

from collections.abc import Collection

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.augmentation.erasing import Cutout, RandomErasing
from ssanet_jax.data.augmentation.policies import ColorJitter, Policy, make_policy

_STREAM = 1  # tells these draws from those of orders and crops, which begin with (seed, epoch)


def augment(
    images: np.ndarray,
    keys: np.ndarray,
    dataset: ConfigDict,
    seed: int,
    skip: Collection[int] = (),
) -> None:
    """Augments random crops in place; each is a pure function of its crop, `seed` and its key.

    Args:
      images: uint8 [n, size, size, 3], written.
      keys: int64 [n, 2], epoch and number of each example.
      dataset: `config.dataset`; reads `augment`, `color_jitter`, `random_erasing`, `cutout` and
        `mean`, the color of what is erased or outside the image.
      seed: of the draws.
      skip: rows to leave as they are.
    """
    color = np.round(255 * np.array(dataset.mean)).astype(np.uint8)
    policies: list[Policy] = []
    erasers: list[RandomErasing | Cutout] = []
    if dataset.augment != 'none':
        policies.append(make_policy(dataset.augment, tuple(color.tolist())))
    if any(dataset.color_jitter):
        policies.append(ColorJitter(*dataset.color_jitter))
    if dataset.random_erasing:
        erasers.append(RandomErasing(dataset.random_erasing, color))
    if dataset.cutout:
        erasers.append(Cutout(dataset.cutout, color))
    if not policies and not erasers:
        return
    for row, (epoch, number) in enumerate(keys.tolist()):
        if row in skip:
            continue
        rng = np.random.default_rng((seed, epoch, number, _STREAM))
        for policy in policies:
            images[row] = policy(images[row], rng)
        for erase in erasers:
            erase(images[row], rng)
