"""Whether what was written computes what the checkpoint does, on real images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.special
from absl import logging

from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.export.program import Program
from ssanet_jax.trained.load import TrainedModel

BATCH_SIZES = (1, 7)
_MOST_IMAGES = 64

# What a consumer calls: images to 'logits' and 'probabilities'.
Loaded = Callable[[np.ndarray], Mapping[str, Any]]


class ParityError(RunError):
    """What was written does not compute what the checkpoint does."""


def check(
    loaded: Loaded, program: Program, images: np.ndarray, *, bound: float
) -> dict[str, float]:
    """How far logits of a file are from what they should be, for batches of 1 and of 7 images.

    Args:
      loaded: from the file.
      program: with what it is compared, compiled by JAX for the same batches.
      images: [m, size, size, 3] as both take them; all are used, and to fill the last batch they
        are gone through again.
      bound: of the differences.

    Returns:
      {batch size: max |a - b| / max |b|} of the logits a of `loaded` and b of `program`.

    Raises:
      ParityError: one is above the bound, or the probabilities are not the logits' softmax.
    """
    expected = jax.jit(program)
    found = {}
    for size in BATCH_SIZES:
        whole = images[np.arange(-(-len(images) // size) * size) % len(images)]
        batches = np.split(whole, len(whole) // size)
        outputs = [loaded(batch) for batch in batches]
        a, probabilities = (
            np.concatenate([np.asarray(output[name], np.float64) for output in outputs])
            for name in ('logits', 'probabilities')
        )
        b = np.concatenate([expected(batch)['logits'] for batch in batches])
        difference = relative_difference(a, b)
        if not difference <= bound:
            raise ParityError(
                f'In batches of {size}, logits differ from those of the checkpoint by '
                f'{difference:.2g} of the largest; at most {bound:g} was expected.'
            )
        if not np.allclose(probabilities, scipy.special.softmax(a, axis=1), rtol=1e-4, atol=1e-6):
            raise ParityError('The probabilities are not the softmax of the logits.')
        found[str(size)] = difference
    return found


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Max |a - b| / max |b|; not a number where one of them is not."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


def evaluation_images(run: TrainedModel, count: int = 7) -> np.ndarray:
    """The first images of the run's evaluation split, uint8 [count, size, size, 3].

    Raises:
      ConfigError: the data are not here.
    """
    from ssanet_jax import data  # needs TensorFlow

    config = run.config.copy_and_resolve_references()
    config.eval_batch_size = count
    try:
        batch = next(data.eval_batches(config, config.dataset.eval_split))
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f'The images of the run are not here to compare on: {error} Or name images, whatever '
            'they show, at the end of the command.'
        ) from error
    good = batch['mask'] & (batch['label'] >= 0)
    if not good.any():
        raise ConfigError('The first images of the run cannot be decoded; name others at the end.')
    return batch['image'][good][:count]


def file_images(run: TrainedModel, files: Sequence[Path | bytes]) -> np.ndarray:
    """The first 64 images that a user names, decoded as in evaluation; bad ones are logged.

    Raises:
      ConfigError: none of them can be read.
    """
    from ssanet_jax import data  # needs TensorFlow

    (batch,) = data.file_batches(files[:_MOST_IMAGES], run.config.dataset, _MOST_IMAGES)
    for row, reason in batch.bad.items():
        file = batch.files[row]
        name = 'The image of standard input' if isinstance(file, bytes) else file
        logging.warning('%s is left out: %s', name, reason)
    if not len(batch.good()):
        raise ConfigError(f'None of the images can be compared on: {batch.bad[0]} Name others.')
    return batch.image[batch.good()]
