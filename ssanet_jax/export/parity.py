"""Comparison of a loaded export with the checkpoint, on real images."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import scipy.special
from absl import logging

from ssanet_jax.errors import ConfigError, RunError, one_line
from ssanet_jax.export.program import Program
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.sources import AnyModel

BATCH_SIZES = (1, 7)
_MAX_IMAGES = 64

# A loaded network: images to 'logits' and 'probabilities'.
LoadedFn = Callable[[np.ndarray], Mapping[str, np.ndarray | jax.Array]]


class ParityError(RunError):
    """The exported network does not compute what the checkpoint does."""


def check(
    loaded: LoadedFn, program: Program, images: np.ndarray, *, tolerance: float
) -> dict[str, float]:
    """Compares logits in batches of 1 and of 7 images.

    Args:
      loaded: the network read back from its file.
      program: the reference, compiled by JAX for the same batches.
      images: [M, size, size, 3]; the last batch is filled up by starting over.
      tolerance: the largest accepted difference.

    Returns:
      {batch size: max |a - b| / max |b|} for logits a of `loaded` and b of `program`.

    Raises:
      ParityError: logits are not finite, a difference exceeds the tolerance, or the probabilities
        are not the softmax of the logits.
    """
    reference = jax.jit(program)
    differences = {}
    for size in BATCH_SIZES:
        padded = images[np.arange(-(-len(images) // size) * size) % len(images)]
        batches = np.split(padded, len(padded) // size)
        outputs = [loaded(batch) for batch in batches]
        a, probabilities = (
            np.concatenate([np.asarray(output[name], np.float64) for output in outputs])
            for name in ('logits', 'probabilities')
        )
        b = np.concatenate([reference(batch)['logits'] for batch in batches])
        if not np.isfinite(b).all():
            raise ParityError('The logits of the checkpoint are not finite; export another one.')
        difference = relative_difference(a, b)
        if not difference <= tolerance:
            raise ParityError(
                f'In batches of {size}, logits differ from the checkpoint by {difference:.2g} of '
                f'the largest; expected at most {tolerance:g}.'
            )
        if not np.allclose(probabilities, scipy.special.softmax(a, axis=1), rtol=1e-4, atol=1e-6):
            raise ParityError('The probabilities are not the softmax of the logits.')
        differences[str(size)] = difference
    return differences


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Max |a - b| / max |b|; NaN if either contains NaN."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))


def evaluation_images(trained: TrainedModel) -> np.ndarray:
    """The first seven images of the run's evaluation split, uint8 [7, size, size, 3].

    Raises:
      ConfigError: the dataset is not available, or none of the images can be decoded.
    """
    from ssanet_jax import data

    config = trained.config.copy_and_resolve_references()
    config.eval_batch_size = BATCH_SIZES[-1]
    try:
        batch = next(data.eval_batches(config, config.dataset.eval_split))
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f'The evaluation images of the run are not available: {one_line(error).rstrip(".")}. '
            'Or pass any image files as arguments.'
        ) from error
    good = batch['mask'] & (batch['label'] >= 0)
    if not good.any():
        raise ConfigError('The first evaluation images cannot be decoded; pass image files.')
    return batch['image'][good][: BATCH_SIZES[-1]]


def file_images(trained: AnyModel, files: Sequence[Path | bytes]) -> np.ndarray:
    """The first 64 of `files`, decoded as in evaluation; undecodable ones are logged and skipped.

    Raises:
      ConfigError: none of them can be decoded.
    """
    from ssanet_jax import data

    (batch,) = data.file_batches(files[:_MAX_IMAGES], trained.dataset, _MAX_IMAGES)
    for row, reason in batch.bad.items():
        file = batch.files[row]
        name = 'The image from standard input' if isinstance(file, bytes) else file
        logging.warning('%s is skipped: %s', name, reason)
    if not len(batch.good()):
        raise ConfigError(f'No image can be decoded: {batch.bad[0]} Pass other files.')
    return batch.image[batch.good()]
