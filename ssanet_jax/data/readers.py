"""Readers by number, in any order, of array_record files, folders of images and sets in memory."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from ssanet_jax.data.datasets.array_dataset import ArrayDataset
from ssanet_jax.data.datasets.image_folder import ImageFolder
from ssanet_jax.data.image_files import read_file
from ssanet_jax.data.read_errors import unreadable
from ssanet_jax.data.sources import RandomAccess
from ssanet_jax.errors import ConfigError, file_errors
from ssanet_jax.output import printable


class ArrayRecords(RandomAccess):
    """A split of a TFDS dataset in array_record files, with features 'image' and 'label'."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        from array_record.python import array_record_data_source  # not on Windows

        self._files = builder.info.splits[split].file_instructions
        _allow_open_files()
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)
        self.size = len(self._records)

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes], np.ndarray]:
        # One at a time: __getitems__ starts threads at each call, which costs four times as much.
        parsed = [_parse(self._records[number]) for number in numbers.tolist()]
        return [file for file, _ in parsed], np.array([label for _, label in parsed], np.int64)

    def name(self, number: int) -> str:
        return tfds_id(self._files, number)


def _parse(record: bytes) -> tuple[bytes, int]:
    """The image and the label of a serialized tf.train.Example; raises OSError."""
    try:
        feature = tf_example_pb2.Example.FromString(record).features.feature
        return feature['image'].bytes_list.value[0], feature['label'].int64_list.value[0]
    except (DecodeError, IndexError) as error:
        raise OSError("a record is no example with features 'image' and 'label'") from error


def _allow_open_files() -> None:
    """Raises the limit of open files, often 1,024; array_record keeps every shard open."""
    import resource  # not on Windows, where there is no array_record either

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Folder(RandomAccess):
    """A split of an `ImageFolder`.

    Reads at most `max_bytes` + 1 bytes of a file.
    """

    def __init__(self, builder: ImageFolder, split: str, max_bytes: int):
        self.files = builder.select(split)
        label = {name: number for number, name in enumerate(builder.info.features['label'].names)}
        if unknown := sorted({file.class_name for file in self.files} - label.keys()):
            raise ConfigError(
                f'Split {split!r} has classes that the splits of the config do not have: '
                f'{", ".join(unknown[:5])}. Move their folders away.'
            )
        self.labels = np.array([label[file.class_name] for file in self.files], np.int64)
        self._max_bytes = max_bytes
        self.size = len(self.files)

    def read(self, numbers: np.ndarray) -> tuple[Sequence[bytes], np.ndarray]:
        return [self._read(number) for number in numbers], self.labels[numbers]

    def read_file(self, number: int) -> bytes:
        """Reads one file; raises `file_errors`."""
        return read_file(self.files[number].path, self._max_bytes + 1)

    def name(self, number: int) -> str:
        return printable(self.files[number].path)

    def _read(self, number: int) -> bytes:
        try:
            return self.read_file(number)
        except file_errors() as error:
            remedy = 'repair it, or remove it from the folder.'
            raise unreadable(self.name(number), error, remedy) from error


class Arrays(RandomAccess):
    """A split of a set in memory."""

    def __init__(self, builder: ArrayDataset, split: str):
        self._images, self._labels = builder.select(split)
        self._name = f'{builder.name}-{split}'
        self.size = len(self._labels)

    def read(self, numbers: np.ndarray) -> tuple[Sequence[np.ndarray], np.ndarray]:
        return list(self._images[numbers]), self._labels[numbers]

    def name(self, number: int) -> str:
        return f'{self._name}__{number}'


def tfds_id(files: list[Any], number: int) -> str:
    """Returns TFDS's id of example `number` of those that file instructions read."""
    for file in files:
        if number < file.take:
            return f'{PurePath(file.filename).name}__{file.skip + number}'
        number -= file.take
    raise IndexError(number)
