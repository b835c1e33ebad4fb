"""Image files outside any dataset, decoded as in evaluation."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.data.decoded_batches import decode_batches
from ssanet_jax.data.decoding.decode import DecodeSpec
from ssanet_jax.data.sources import READ_SIZE, EncodedBatch


class FileBatch(NamedTuple):
    """Decoded images in the order of their files.

    Attributes:
      files: the path or content of each.
      image: uint8 [n, size, size, 3]; black where `bad`.
      bad: {row: reason} for files that cannot be read or decoded, or are too large.
    """

    files: list[Path | bytes]
    image: np.ndarray
    bad: dict[int, str]

    def good(self) -> np.ndarray:
        """Rows that are not bad, int64 [m]."""
        return np.array([row for row in range(len(self.files)) if row not in self.bad], np.int64)


def file_batches(
    files: Iterable[Path | bytes], dataset: ConfigDict, batch_size: int
) -> Iterator[FileBatch]:
    """Yields files decoded and cropped exactly as by `eval_batches`, the last batch shorter.

    Args:
      files: paths or contents of files, in the formats of docs/data.md.
      dataset: `config.dataset` of a run.
      batch_size: images per batch.
    """
    seen: list[Path | bytes] = []
    unreadable: dict[int, str] = {}
    start = 0
    encoded = _read_all(files, dataset.max_image_bytes + 1, seen, unreadable)
    for decoded in decode_batches(encoded, DecodeSpec(dataset, dataset.eval_crop), batch_size):
        count = len(decoded.image)
        reasons = {row: unreadable.get(start + row, why) for row, why in decoded.bad.items()}
        yield FileBatch(seen[:count], decoded.image, reasons)
        del seen[:count]
        start += count


def read_file(path: str, limit: int) -> bytes:
    """Reads up to `limit` bytes of a file; raises OSError, also for a pipe, which would wait."""
    if '://' in path:
        with epath.Path(path).open('rb') as remote:
            return remote.read(limit)
    with open(path, 'rb', opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, 'it is not a regular file')
        return file.read(limit)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_all(
    files: Iterable[Path | bytes], limit: int, seen: list[Path | bytes], bad: dict[int, str]
) -> Iterator[EncodedBatch]:
    """Reads up to `limit` bytes of each; unreadable files are empty, their reasons go to `bad`."""
    contents: list[bytes] = []
    for number, file in enumerate(files):
        seen.append(file)
        contents.append(b'')
        try:
            contents[-1] = file if isinstance(file, bytes) else read_file(str(file), limit)
        except (OSError, ValueError) as error:  # ValueError: not a path
            bad[number] = f'It cannot be read: {getattr(error, "strerror", error)}.'
        if len(contents) == READ_SIZE:
            yield _encoded(contents)
            contents = []
    if contents:
        yield _encoded(contents)


def _encoded(contents: list[bytes]) -> EncodedBatch:
    zeros = np.zeros(len(contents), np.int64)
    return EncodedBatch(contents, zeros, zeros, zeros)
