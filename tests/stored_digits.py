"""The digits as a dataset that TFDS prepares in files."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from sklearn import datasets, model_selection


class StoredDigits(tfds.core.GeneratorBasedBuilder):
    """The dataset `digits`, in files."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(8, 8, 1)),
            'label': tfds.features.ClassLabel(num_classes=10),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        digits = datasets.load_digits()
        train, test = model_selection.train_test_split(
            np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
        )
        return {
            'train': self._generate_examples(digits, train),
            'test': self._generate_examples(digits, test),
        }

    def _generate_examples(self, digits, indices):
        for index in indices:
            image = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)[..., None]
            yield int(index), {'image': image, 'label': int(digits.target[index])}


def prepare(folder: Path, file_format: str, num_shards: int) -> Path:
    """Writes the dataset to `folder`, from where `use` reads it."""
    StoredDigits(data_dir=folder, file_format=file_format).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=num_shards)
    )
    return folder


def use(config, folder: Path) -> None:
    """Makes a config of the digits read them from `folder`."""
    config.dataset.name, config.dataset.data_dir = 'stored_digits', str(folder)
