"""A TFDS dataset of 500x375 JPEGs, quality 92, cropped from scikit-learn's two photographs.

Similar to ImageNet images: 57 kB on average. Prepared in seconds.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_sample_images

NUM_TRAIN = 2048
SIZE = (500, 375)  # width, height


def encoded(number: int) -> bytes:
    """JPEG of a random crop of one of the two photographs; deterministic in `number`."""
    rng = np.random.default_rng(number)
    photo = Image.fromarray(load_sample_images().images[rng.integers(2)])
    height = int(rng.integers(280, 425))
    width = height * SIZE[0] // SIZE[1]
    left = int(rng.integers(0, photo.width - width + 1))
    top = int(rng.integers(0, photo.height - height + 1))
    buffer = io.BytesIO()
    part = photo.crop((left, top, left + width, top + height)).resize(SIZE)
    part.save(buffer, 'JPEG', quality=92)
    return buffer.getvalue()


class Photographs(tfds.core.GeneratorBasedBuilder):
    """2,048 + 256 photographs, with ImageNet's features."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(num_classes=1000),
            'file_name': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        return {
            'train': self._generate_examples(range(NUM_TRAIN)),
            'validation': self._generate_examples(range(NUM_TRAIN, NUM_TRAIN + 256)),
        }

    def _generate_examples(self, numbers: range) -> Iterator[Any]:
        for number in numbers:
            image = io.BytesIO(encoded(number))
            yield number, {'image': image, 'label': number % 1000, 'file_name': f'{number}.JPEG'}


def prepare(data_dir: Path, file_format: str) -> Path:
    """Prepares the dataset in data_dir/FILE_FORMAT if missing."""
    folder = data_dir / file_format
    builder = Photographs(data_dir=folder, file_format=file_format)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=8),
    )
    return folder
