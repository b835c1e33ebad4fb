"""Image files that belong to no data set, decoded as evaluation decodes."""

import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data import images
from ssanet_jax.data.pipeline import decode_batches
from ssanet_jax.data.sources import CHUNK, EncodedBatch


class FileBatch(NamedTuple):
    """Some images in the order of their files.

    Attributes:
      files: what each was read from.
      image: uint8 [n, size, size, 3]; black where `bad`.
      bad: {row: reason} of those that cannot be read or decoded, or are too large.
    """

    files: list[Path | bytes]
    image: np.ndarray
    bad: dict[int, str]

    def good(self) -> np.ndarray:
        """The rows that are not bad."""
        return np.array([row for row in range(len(self.files)) if row not in self.bad], np.int64)


def file_batches(
    files: Iterable[Path | bytes], dataset: ConfigDict, batch_size: int
) -> Iterator[FileBatch]:
    """Images exactly as `eval_batches` makes them of those in a data set, the last batch shorter.

    Args:
      files: paths, or the contents of files, JPEG or PNG.
      dataset: of a run's config, which says how its images are resized and cropped.
      batch_size: images at a time.
    """
    given: list[Path | bytes] = []
    unreadable: dict[int, str] = {}
    decode = images.center_crops if dataset.eval_crop == 'center' else images.whole_images
    start = 0
    for decoded in decode_batches(
        _chunks(files, dataset.max_image_bytes + 1, given, unreadable),
        partial(decode, dataset=dataset),
        seed=0,
        rows=batch_size,
        image_size=dataset.image_size,
        num_threads=dataset.num_threads,
    ):
        stop = start + len(decoded.image)
        reasons = {row: unreadable.get(start + row, why) for row, why in decoded.bad.items()}
        yield FileBatch(given[start:stop], decoded.image, reasons)
        start = stop


def _chunks(
    files: Iterable[Path | bytes], limit: int, given: list[Path | bytes], bad: dict[int, str]
) -> Iterator[EncodedBatch]:
    """Reads up to `limit` bytes of each; what cannot be read is empty, and `bad` says why."""
    contents: list[bytes] = []
    for number, file in enumerate(files):
        given.append(file)
        contents.append(b'')
        try:
            contents[-1] = file if isinstance(file, bytes) else _read(file, limit)
        except (OSError, ValueError) as error:  # ValueError: no path at all
            bad[number] = f'It cannot be read: {getattr(error, "strerror", error)}.'
        if len(contents) == CHUNK:
            yield _chunk(contents)
            contents = []
    if contents:
        yield _chunk(contents)


def _read(path: Path, limit: int) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # A pipe would be waited for.
        raise OSError(0, 'it is no regular file')
    with path.open('rb') as file:
        return file.read(limit)


def _chunk(contents: list[bytes]) -> EncodedBatch:
    zeros = np.zeros(len(contents), np.int64)
    return EncodedBatch(contents, zeros, zeros, zeros)
