"""TFDS builder for Fashion-MNIST from its four idx files in a folder.

TFDS's `fashion_mnist` downloads them and compares checksums of the .gz files. This one
reads the idx content instead, so that it takes the original download as well as Debian's
package dataset-fashion-mnist, which was compressed again.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

CLASSES = (
    'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
    'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot',
)  # fmt: skip

FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}


class FashionMnistIdx(tfds.core.GeneratorBasedBuilder):
    """60,000 + 10,000 gray images of clothes, 28x28 (https://arxiv.org/abs/1708.07747)."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'Put the four files named *-ubyte.gz into manual_dir: from '
        'https://github.com/zalandoresearch/fashion-mnist, or `apt install '
        'dataset-fashion-mnist`, which puts them into /usr/share/datasets/fashion-mnist.'
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(28, 28, 1)),
                    'label': tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=('image', 'label'),
            homepage='https://github.com/zalandoresearch/fashion-mnist',
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        folder = Path(dl_manager.manual_dir)
        return {
            split: self._generate_examples(folder / images, folder / labels)
            for split, (images, labels) in FILES.items()
        }

    def _generate_examples(self, images: Path, labels: Path) -> Iterator[Any]:
        pairs = zip(read_idx(images), read_idx(labels), strict=True)
        for index, (image, label) in enumerate(pairs):
            yield index, {'image': image[..., None], 'label': int(label)}


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes (http://yann.lecun.com/exdb/mnist).

    Raises:
      ValueError: the content is not idx of unsigned bytes, or its length differs from that
        in its header.
    """
    with gzip.open(path) as file:
        content = file.read()
    if len(content) < 4 or content[:3] != b'\0\0\x08':
        raise ValueError(f'{path} is not an idx file of unsigned bytes: it starts {content[:4]!r}.')
    header = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:header], '>i4'))
    expected, actual = int(np.prod(shape, dtype=np.int64)), len(content) - header
    if expected != actual:
        raise ValueError(
            f'{path} should hold {expected} bytes for shape {shape}, but has {actual}.'
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
