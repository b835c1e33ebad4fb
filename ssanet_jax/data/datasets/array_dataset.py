"""Small datasets that are read into memory as they are: nothing is prepared."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing


class Examples(NamedTuple):
    """Images uint8 [N, H, W, 3] and their labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, rows: Any) -> 'Examples':
        return Examples(self.images[rows], self.labels[rows])


class ArrayDataset(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Gray images of one size; their order is that of the dataset when TFDS prepares it.

    Args:
      splits: of each split, images uint8 [N, H, W], labels int [N] and keys int [N].
      class_names: of the labels.
    """

    def __init__(
        self,
        splits: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
        class_names: Sequence[str],
    ):
        self._class_names = class_names
        self._splits = {split: _in_order(split, *arrays) for split, arrays in splits.items()}
        super().__init__(data_dir=os.devnull)  # in which TFDS finds nothing
        infos = [
            tfds.core.SplitInfo(name=split, shard_lengths=[len(examples.labels)], num_bytes=0)
            for split, examples in self._splits.items()
        ]
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(),
            'label': tfds.features.ClassLabel(names=self._class_names),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def select(self, split: str) -> Examples:
        """The examples of a split or a slice of one, in order."""
        parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(self.info.splits)
        chosen = [self._splits[p.splitname].take(slice(p.from_, p.to)) for p in parts]
        return Examples(*map(np.concatenate, zip(*chosen, strict=True)))

    def _download_and_prepare(self, **options: Any) -> NoReturn:
        raise NotImplementedError('The images are read as they are.')

    def _as_dataset(self, **options: Any) -> NoReturn:
        raise NotImplementedError('readers.Arrays reads the images.')


def _in_order(split: str, images: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> Examples:
    """Sorts by the hashes of keys."""
    hashes = map(hashing.Hasher(split).hash_key, keys.tolist())
    order = [row for _, row in sorted(zip(hashes, range(len(keys)), strict=True))]
    gray = images[order][..., None]
    return Examples(np.repeat(gray, 3, axis=3), labels[order].astype(np.int64))
