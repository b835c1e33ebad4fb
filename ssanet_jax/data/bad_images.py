"""What becomes of images that cannot be decoded: never a silent loss."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
from absl import logging

from ssanet_jax.data.decoding import Decode
from ssanet_jax.data.pipeline import Decoded, key
from ssanet_jax.data.sources import EncodedBatch, Source
from ssanet_jax.errors import ConfigError

UNDECODABLE_LABEL = -1  # label of an image that no answer is right for


class BadImages:
    """Counts a split's bad images, each once, and logs them by name; on this host, since its start.

    Args:
      source: the split.
      decode: what the images went through.
      seed: of the augmentation.
      max_fraction: of the split; more than that raises ConfigError.
    """

    def __init__(self, source: Source, decode: Decode, *, seed: int, max_fraction: float):
        self._source, self._decode = source, decode
        self._seed, self._max_fraction = seed, max_fraction
        self.numbers: set[int] = set()

    def replace(self, decoded: Decoded) -> np.ndarray:
        """Puts the next good example in place of each bad one; returns the labels int64 [n].

        The next one by number where the source reads by number, else the next one of the
        batch; it is augmented with the bad one's randomness.
        """
        label = decoded.label()
        for row, reason in decoded.bad.items():
            bad = decoded.example(row)
            name = self._count(bad, reason)
            label[row] = self._fill(bad, name, decoded, row)
        return label

    def mark(self, decoded: Decoded, *, allowed: bool) -> np.ndarray:
        """The labels int64 [n], `UNDECODABLE_LABEL` for bad images, which stay black.

        Raises ConfigError where they are not `allowed`.
        """
        label = decoded.label()
        for row, reason in decoded.bad.items():
            bad = decoded.example(row)
            if not allowed:
                raise ConfigError(
                    f'{self._name(bad)} cannot be decoded: {reason} Repair it, or count such '
                    'images as wrongly classified: --config.dataset.bad_eval_images=incorrect'
                )
            name = self._count(bad, reason)
            logging.log_first_n(logging.WARNING, '%s counts as wrongly classified.', 20, name)
            label[row] = UNDECODABLE_LABEL
        return label

    def _count(self, bad: EncodedBatch, reason: str) -> str:
        name = self._name(bad)
        if bad.number[0] not in self.numbers:
            self.numbers.add(int(bad.number[0]))
            logging.warning('%s cannot be decoded: %s', name, reason)
        if len(self.numbers) > self._max_fraction * self._source.size:
            raise ConfigError(
                f'{len(self.numbers)} of {self._source.size} images cannot be decoded, more than '
                f'config.dataset.max_bad_fraction={self._max_fraction} allows; the last is {name}: '
                f'{reason} Repair them, or allow more.'
            )
        return name

    def _fill(self, bad: EncodedBatch, name: str, decoded: Decoded, row: int) -> int:
        rows = len(decoded.image)
        of_batch = (decoded.example((row + i) % rows) for i in range(1, rows))
        candidates: Iterator[EncodedBatch] = chain(self._source.after(int(bad.number[0])), of_batch)
        for candidate in candidates:
            augmentation = key(self._seed, bad)
            if not self._decode(candidate.files, augmentation, decoded.image[row : row + 1]):
                logging.log_first_n(
                    logging.WARNING, '%s takes the place of %s.', 20, self._name(candidate), name
                )
                return int(candidate.label[0])
        raise ConfigError(f'{name} cannot be decoded, nor any image that might stand in for it.')

    def _name(self, chunk: EncodedBatch) -> str:
        return self._source.name(int(chunk.number[0]))
