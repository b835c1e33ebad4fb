"""Converts prepared TFDS datasets to another file format or to smaller images, shard by shard.

TFDS's own converter (tensorflow_datasets.scripts.cli.convert_format_utils) cannot be imported
without Apache Beam, neither counts examples nor replaces the metadata atomically, and converts
the shards of a dataset one after another unless Beam runs them.
"""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core import dataset_info, file_adapters
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.utils import py_utils

from ssanet_jax.config import base
from ssanet_jax.data.decoding.images import decode_image, image_shape
from ssanet_jax.errors import ConfigError

_LIMITS = base().dataset
_INFO = 'dataset_info.json'


class Shrink(NamedTuple):
    """Re-encodes images whose short side is longer than `short_side` pixels, as JPEG.

    They are rotated by Exif and composited on white, as training sees them.
    """

    short_side: int
    quality: int

    def smaller(self, file: bytes) -> bytes:
        """Returns the smaller file; the same one if it is small or cannot be re-encoded."""
        try:
            height, width = image_shape(file, _LIMITS)
            short = min(height, width)
            if short <= self.short_side:
                return file
            size = (width * self.short_side // short, height * self.short_side // short)
            image = Image.fromarray(decode_image(file, _LIMITS))
            buffer = io.BytesIO()
            image.resize(size, Image.Resampling.BICUBIC).save(buffer, 'JPEG', quality=self.quality)
        except (OSError, ValueError):
            return file  # reported and counted when it is read
        return buffer.getvalue()


class Shard(NamedTuple):
    """One file to convert."""

    path: epath.Path
    new_path: epath.Path
    num_examples: int


def is_prepared(folder: epath.Path, file_format: str) -> bool:
    """Whether `folder` holds a complete dataset in that format."""
    if not (folder / _INFO).exists():
        return False
    info = tfds.builder_from_directory(folder).info
    return FileFormat(file_format) in info.available_file_formats()


class Conversion:
    """The shards of a prepared dataset that are still to be converted.

    Args:
      builder: prepared.
      file_format: to convert to, 'array_record' or 'tfrecord'.
      folder: of the new files; the builder's own to add a format to it.
      shrink: makes the images smaller.

    Raises:
      ConfigError: the dataset is in some other format.
    """

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        file_format: str,
        folder: epath.Path,
        shrink: Shrink | None = None,
    ):
        self._builder, self._format, self.folder = builder, FileFormat(file_format), folder
        self._shrink = shrink
        if builder.info.file_format not in (FileFormat.ARRAY_RECORD, FileFormat.TFRECORD):
            raise ConfigError(
                f'{builder.data_path} holds {builder.info.file_format.value} files; only '
                'array_record and tfrecord can be converted. Prepare it as one of these.'
            )
        shards = [s for split in builder.info.splits.values() for s in self._shards(split)]
        self.shards = [shard for shard in shards if not shard.new_path.exists()]
        self.num_done = len(shards) - len(self.shards)

    def size(self) -> int:
        """Estimates the bytes of the missing shards from a sample of the first."""
        old = sum(shard.path.stat().length for shard in self.shards)
        if not self.shards or self._shrink is None:
            return old
        before = list(itertools.islice(self._read(self.shards[0]), 64))
        after = [_shrunk(record, self._shrink) for record in before]
        return old * sum(map(len, after)) // max(1, sum(map(len, before)))

    def run(self, workers: int, progress: Callable[[int], object]) -> None:
        """Converts in threads; calls `progress` with the number of shards done.

        Raises:
          ValueError: the number of examples in a shard differs from its metadata.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers) as pool:
            try:
                for done, _ in enumerate(pool.map(self._convert, self.shards), self.num_done + 1):
                    progress(done)
            finally:
                pool.shutdown(cancel_futures=True)
        self._finish()

    def _convert(self, shard: Shard) -> None:
        """Writes the new file under a temporary name, then renames it."""
        adapter = file_adapters.ADAPTER_FOR_FORMAT[self._format]
        with py_utils.incomplete_file(shard.new_path) as unfinished:
            adapter.write_examples(unfinished, enumerate(self._new_records(shard)))

    def _new_records(self, shard: Shard) -> Iterator[bytes]:
        count = 0
        for record in self._read(shard):
            count += 1
            yield record if self._shrink is None else _shrunk(record, self._shrink)
        if count != shard.num_examples:
            raise ValueError(f'{shard.path} holds {count} examples instead of {shard.num_examples}')

    def _read(self, shard: Shard) -> Iterable[bytes]:
        if self._builder.info.file_format == FileFormat.ARRAY_RECORD:
            from array_record.python import array_record_data_source  # not on Windows

            return array_record_data_source.ArrayRecordDataSource([str(shard.path)])
        return tf.data.TFRecordDataset(str(shard.path)).as_numpy_iterator()

    def _shards(self, split: tfds.core.SplitInfo) -> Iterator[Shard]:
        old = split.filename_template
        new = old.replace(data_dir=self.folder, filetype_suffix=self._format.file_suffix)
        for index, length in enumerate(split.shard_lengths):
            place = {'shard_index': index, 'num_shards': split.num_shards}
            yield Shard(old.sharded_filepath(**place), new.sharded_filepath(**place), length)

    def _finish(self) -> None:
        """Writes the metadata; until then TFDS does not see the new files."""
        source = epath.Path(self._builder.data_path)
        info = dataset_info.read_proto_from_builder_dir(source)
        if self.folder == source:
            info.alternative_file_formats.append(self._format.value)
        else:
            for file in [*source.glob('*.json'), *source.glob('*.txt')]:
                if file.name != _INFO:
                    file.copy(self.folder / file.name, overwrite=True)
            info.file_format = self._format.value
            del info.alternative_file_formats[:]
        unfinished = self.folder / 'incomplete.info'
        unfinished.mkdir(exist_ok=True)
        dataset_info.write_dataset_info_proto(info, dataset_info_dir=unfinished)
        (unfinished / _INFO).replace(self.folder / _INFO)
        for rest in self.folder.glob('incomplete.*'):  # of runs that were killed
            if rest.is_dir():
                rest.rmtree()
            else:
                rest.unlink()


def _shrunk(record: bytes, shrink: Shrink) -> bytes:
    example = tf.train.Example.FromString(record)
    image = example.features.feature['image'].bytes_list
    image.value[0] = shrink.smaller(image.value[0])
    return example.SerializeToString()
