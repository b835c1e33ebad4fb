"""Reads and decodes every image of a split, on all cores: sizes, duplicates, bad files."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.builders import open_builder, open_source, prepare_command
from ssanet_jax.data.decoding.decode import decode_whole
from ssanet_jax.data.read_errors import readable
from ssanet_jax.data.readers import Folder
from ssanet_jax.data.sources import HostShard, Source, num_threads, read_ahead
from ssanet_jax.errors import file_errors

_PIECE = 4  # images per task; photographs take a tenth of a second each


class Scan(NamedTuple):
    """What was found in a split of n images.

    Attributes:
      split: its name.
      source: gives the names of its images.
      number: of each image in the split, int64 [m].
      label: int64 [m].
      num_bytes: of each file, int64 [m].
      sides: height and width, int64 [m, 2]; 0 if bad.
      digest: of the content, bytes [m].
      bad: {number: reason} for images that cannot be decoded.
    """

    split: str
    source: Source
    number: np.ndarray
    label: np.ndarray
    num_bytes: np.ndarray
    sides: np.ndarray
    digest: np.ndarray
    bad: dict[int, str]

    def good(self) -> np.ndarray:
        """Rows of images that are not bad, int64 [k]."""
        return np.flatnonzero(self.sides.all(axis=1))


class _Piece(NamedTuple):
    number: np.ndarray
    label: np.ndarray
    files: Sequence[bytes | np.ndarray] | None  # None: still to be read


class _Image(NamedTuple):
    num_bytes: int
    sides: tuple[int, int]
    digest: bytes
    reason: str


def scan_split(
    dataset: ConfigDict,
    split: str,
    progress: Callable[[int], object] = lambda images: None,
    numbers: np.ndarray | None = None,
) -> Scan:
    """Decodes each image of a split once, as training does.

    Args:
      dataset: `config.dataset`.
      split: a TFDS split.
      progress: called with the number of images done since the last call.
      numbers: of the images to decode, for a folder; by default all.

    Raises:
      ConfigError: as `open_source`; or a shard cannot be read.
    """
    source = open_source(dataset, split)
    num_classes = open_builder(dataset).info.features['label'].num_classes
    images: list[_Image] = []
    numbers_done, labels = [], []
    pieces = _pieces(source, dataset, numbers)
    inspected = read_ahead(
        lambda piece: (piece, _inspect(piece, source, dataset)),
        pieces,
        num_threads(dataset.num_threads),
    )
    for piece, found in inspected:
        numbers_done.append(piece.number)
        labels.append(piece.label)
        images += found
        progress(len(found))
    number, label = _joined(numbers_done), _joined(labels)
    bad = {int(n): image.reason for n, image in zip(number, images, strict=True) if image.reason}
    for row in np.flatnonzero((label < 0) | (label >= num_classes)):
        bad.setdefault(int(number[row]), f'Label {label[row]} is none of 0 to {num_classes - 1}.')
    return Scan(
        split,
        source,
        number,
        label,
        np.array([image.num_bytes for image in images], np.int64),
        np.array([image.sides for image in images], np.int64).reshape(-1, 2),
        np.array([image.digest for image in images], 'S16'),
        bad,
    )


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *arrays])


def _pieces(source: Source, dataset: ConfigDict, numbers: np.ndarray | None) -> Iterator[_Piece]:
    if isinstance(source, Folder):
        numbers = np.arange(source.size) if numbers is None else numbers
        for start in range(0, len(numbers), _PIECE):
            number = numbers[start : start + _PIECE]
            yield _Piece(number, source.labels[number], None)
        return
    encoded = source.evaluation(HostShard(0, 1))
    path = open_builder(dataset).data_path
    for batch in readable(encoded, path, prepare_command(dataset)):
        for start in range(0, len(batch), _PIECE):
            part = batch.part(start, start + _PIECE)
            yield _Piece(part.number, part.label, part.files)


def _inspect(piece: _Piece, source: Source, dataset: ConfigDict) -> list[_Image]:
    images = []
    for row, number in enumerate(piece.number.tolist()):
        try:
            file = piece.files[row] if piece.files else cast(Folder, source).read_file(number)
        except file_errors() as error:
            reason = getattr(error, 'strerror', None) or getattr(error, 'message', str(error))
            images.append(_Image(0, (0, 0), b'', f'It cannot be read: {reason}.'))
            continue
        (decoded,), bad = decode_whole([file], dataset)
        content = file if isinstance(file, bytes) else file.tobytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        sides = (0, 0) if bad else decoded.shape[:2]
        images.append(_Image(len(content), sides, digest, bad.get(0, '')))
    return images
