"""TFDS builder for the handwritten digits that ship inside scikit-learn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 gray digits of 8x8, 16 levels scaled to 0..255; 1,437 train, 360 test.

    The split is stratified by class and fixed. Source: UCI's Optical Recognition of
    Handwritten Digits test set, https://archive.ics.uci.edu/dataset/80.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(8, 8, 1)),
                    'label': tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=('image', 'label'),
            homepage='https://archive.ics.uci.edu/dataset/80',
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        from sklearn import datasets, model_selection

        digits = datasets.load_digits()
        train, test = model_selection.train_test_split(
            np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
        )
        return {
            'train': self._generate_examples(digits, train),
            'test': self._generate_examples(digits, test),
        }

    def _generate_examples(self, digits: Any, indices: np.ndarray) -> Iterator[Any]:
        for index in indices:
            image = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)[..., None]
            yield int(index), {'image': image, 'label': int(digits.target[index])}
