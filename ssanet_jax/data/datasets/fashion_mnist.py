"""Fashion-MNIST from its four idx files in a folder.

TFDS's `fashion_mnist` downloads them and compares checksums of the .gz files. This one reads the
idx content instead, so that it takes the original download as well as Debian's package
dataset-fashion-mnist, which was compressed again.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from ssanet_jax.data.datasets.array_dataset import ArrayDataset
from ssanet_jax.errors import ConfigError

CLASSES = (
    'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
    'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot',
)  # fmt: skip

FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
}


SOURCES = (
    'Put the four files named *-ubyte.gz into it: from '
    'https://github.com/zalandoresearch/fashion-mnist, or `apt install dataset-fashion-mnist`, '
    'which puts them into /usr/share/datasets/fashion-mnist.'
)


class FashionMnistIdx(ArrayDataset, skip_registration=True):  # type: ignore[call-arg]
    """60,000 + 10,000 gray images of clothes, 28x28 (https://arxiv.org/abs/1708.07747).

    Args:
      folder: of the four files.

    Raises:
      ConfigError: a file is missing or damaged.
    """

    name = 'fashion_mnist_idx'
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, folder: Path):
        missing = [n for names in FILES.values() for n in names if not (folder / n).exists()]
        if missing:
            raise ConfigError(
                f'{self.name} needs {", ".join(missing)} in {folder}, config.dataset.manual_dir. '
                f'{SOURCES}'
            )
        try:
            arrays = {
                split: (read_idx(folder / images), read_idx(folder / labels))
                for split, (images, labels) in FILES.items()
            }
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ConfigError(
                f'{folder}, config.dataset.manual_dir, cannot be read: {error}. {SOURCES}'
            ) from error
        super().__init__(
            {split: (*pair, np.arange(len(pair[1]))) for split, pair in arrays.items()}, CLASSES
        )


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
