"""Substitutes for images that cannot be decoded, so that none is lost silently."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from ssanet_jax.data.decoding.decode import DecodeSpec, decode
from ssanet_jax.data.sources import EncodedBatch, Source
from ssanet_jax.errors import ConfigError, DataFileError

if TYPE_CHECKING:
    from ssanet_jax.data.decoded_batches import DecodedBatch

UNDECODABLE_LABEL = -1  # of an image for which no prediction is correct


class BadImages:
    """Substitutes a split's undecodable images; counts and logs each once, since this start.

    Args:
      source: the split.
      dataset: `config.dataset`; reads `max_bad_fraction`, above which ConfigError is raised, and
        `bad_eval_images`.
    """

    def __init__(self, source: Source, dataset: ConfigDict):
        self._source, self._dataset = source, dataset
        self._numbers: set[int] = set()

    def replace(self, decoded: 'DecodedBatch', spec: DecodeSpec) -> np.ndarray:
        """Replaces each bad example by the next good one; returns the labels int64 [n].

        The next one by number if the source can seek, else the next one of the batch. It gets
        the augmentation of the bad one.
        """
        label = decoded.label()
        for row, reason in decoded.bad.items():
            bad = decoded.example(row)
            name = self.count(int(bad.number[0]), reason)
            label[row] = self._fill(bad, name, decoded, row, spec)
        return label

    def mark(self, decoded: 'DecodedBatch') -> np.ndarray:
        """Returns the labels int64 [n], `UNDECODABLE_LABEL` for bad images."""
        label = decoded.label()
        for row, reason in decoded.bad.items():
            label[row] = self.eval_label(int(decoded.example(row).number[0]), reason)
        return label

    def eval_label(self, number: int, reason: str) -> int:
        """Returns `UNDECODABLE_LABEL`; raises ConfigError unless such images are allowed."""
        name = self._source.name(number)
        if self._dataset.bad_eval_images == 'error':
            raise DataFileError(
                f'{name} cannot be decoded: {reason} Repair it, or count such images as '
                'incorrectly classified: --config.dataset.bad_eval_images=incorrect',
                [name],
            )
        self._note(number, reason)
        logging.log_first_n(logging.WARNING, '%s counts as incorrectly classified.', 20, name)
        return UNDECODABLE_LABEL

    def count(self, number: int, reason: str) -> str:
        """Counts and logs a bad example; returns its name. Raises ConfigError if too many are."""
        name = self._note(number, reason)
        most = self._dataset.max_bad_fraction
        if len(self._numbers) > most * self._source.size:
            raise DataFileError(
                f'{len(self._numbers)} of {self._source.size} images cannot be decoded, more than '
                f'config.dataset.max_bad_fraction={most} allows; the last is {name}: {reason} '
                'Repair them, or allow more.',
                [self._source.name(bad) for bad in self._numbers],
            )
        return name

    def _note(self, number: int, reason: str) -> str:
        """Logs a bad example once; returns its name."""
        name = self._source.name(number)
        if number not in self._numbers:
            self._numbers.add(number)
            logging.warning('%s cannot be decoded: %s', name, reason)
        return name

    def substitute(self, name: str, number: int) -> None:
        """Logs that example `number` replaces the bad one called `name`."""
        other = self._source.name(number)
        logging.log_first_n(logging.WARNING, '%s replaces %s.', 20, other, name)

    def _fill(
        self, bad: EncodedBatch, name: str, decoded: 'DecodedBatch', row: int, spec: DecodeSpec
    ) -> int:
        rows = len(decoded.image)
        of_batch = (decoded.example((row + i) % rows) for i in range(1, rows))
        candidates: Iterator[EncodedBatch] = chain(self._source.after(int(bad.number[0])), of_batch)
        for candidate in candidates:
            if not decode(candidate.files, bad.keys(), decoded.image[row : row + 1], spec):
                self.substitute(name, int(candidate.number[0]))
                return int(candidate.label[0])
        raise ConfigError(
            f'{name} cannot be decoded, nor can any image that could replace it. Repair them.'
        )
