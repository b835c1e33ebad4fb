"""Prepared TFDS data sets in another file format, with smaller images, shard by shard."""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image
from tensorflow_datasets.core import dataset_info, file_adapters
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.core.utils import py_utils

from ssanet_jax.errors import ConfigError

_INFO = 'dataset_info.json'


class Shrink(NamedTuple):
    """Re-encodes images whose short side is longer than `max_side` pixels, as JPEG."""

    max_side: int
    quality: int

    def smaller(self, file: bytes) -> bytes:
        """The smaller file; the same where it is small enough, or cannot be decoded or encoded."""
        try:
            # Training reads no other formats, some of which Pillow gives to other programs.
            image = Image.open(io.BytesIO(file), formats=('JPEG', 'PNG'))
            short = min(image.size)
            if short <= self.max_side:
                return file
            size = (image.width * self.max_side // short, image.height * self.max_side // short)
            small = image.convert('RGB').resize(size, Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            small.save(buffer, 'JPEG', quality=self.quality)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return file  # is told and counted where it is read
        return buffer.getvalue()


class Shard(NamedTuple):
    """One file to convert; plain values, which Beam can send to other machines."""

    path: str
    file_format: str
    new_path: str
    new_format: str
    shrink: Shrink | None
    num_examples: int

    def convert(self) -> 'Shard':
        """Writes the new file under another name first, so that it is never half there.

        Raises ValueError where the old file does not hold as many examples as it should.
        """
        adapter = file_adapters.ADAPTER_FOR_FORMAT[FileFormat(self.new_format)]
        with py_utils.incomplete_file(epath.Path(self.new_path)) as unfinished:
            adapter.write_examples(unfinished, enumerate(self._all_records()))
        return self

    def _all_records(self) -> Iterator[bytes]:
        count = 0
        for record in self._records():
            count += 1
            yield record
        if count != self.num_examples:
            raise ValueError(f'{self.path} holds {count} examples in place of {self.num_examples}')

    def _records(self) -> Iterator[bytes]:
        records: Iterable[bytes]
        if self.file_format == FileFormat.ARRAY_RECORD.value:
            from array_record.python import array_record_data_source  # Linux only

            records = array_record_data_source.ArrayRecordDataSource([self.path])
        else:
            records = tf.data.TFRecordDataset(self.path).as_numpy_iterator()
        for record in records:
            yield record if self.shrink is None else _shrunk(record, self.shrink)


def _shrunk(record: bytes, shrink: Shrink) -> bytes:
    example = tf.train.Example.FromString(record)
    image = example.features.feature['image'].bytes_list
    image.value[0] = shrink.smaller(image.value[0])
    return example.SerializeToString()


def is_prepared(folder: epath.Path, file_format: str) -> bool:
    """Whether a data set is complete in `folder`, in that format."""
    if not (folder / _INFO).exists():
        return False
    info = tfds.builder_from_directory(folder).info
    return FileFormat(file_format) in info.available_file_formats()


class Conversion:
    """A prepared data set, and the shards of its new form that are not there yet.

    Args:
      builder: prepared.
      file_format: of the new form, 'array_record' or 'tfrecord'.
      folder: where the new form goes; the builder's own folder for another format of it.
      shrink: makes the images smaller.
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
                'array_record and tfrecord can be converted.'
            )
        shards = [
            shard
            for split in builder.info.splits.values()
            for shard in _shards(split, builder.info.file_format, self._format, folder, shrink)
        ]
        self.shards = [shard for shard in shards if not epath.Path(shard.new_path).exists()]
        self.num_done = len(shards) - len(self.shards)

    def size(self) -> int:
        """About how many bytes the missing shards will have, from a sample of the first."""
        old = sum(epath.Path(shard.path).stat().length for shard in self.shards)
        if not self.shards or self._shrink is None:
            return old
        before = list(itertools.islice(self.shards[0]._replace(shrink=None)._records(), 64))
        after = [_shrunk(record, self._shrink) for record in before]
        return old * sum(map(len, after)) // max(1, sum(map(len, before)))

    def run(self, workers: int, progress: Callable[[int], Any]) -> None:
        """Converts in threads; calls `progress` with the number of shards that are done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers) as pool:
            done = self.num_done
            try:
                for _ in pool.map(Shard.convert, self.shards):
                    done += 1
                    progress(done)
            finally:
                pool.shutdown(cancel_futures=True)
        self.finish()

    def run_on_beam(self, options: Sequence[str]) -> None:
        """Converts on Apache Beam, whose runner is one of `options`; waits for the end."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        self.folder.mkdir(parents=True, exist_ok=True)
        with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
            shards = pipeline | beam.Create(self.shards) | beam.Reshuffle()
            _ = shards | beam.Map(Shard.convert)
        self.finish()

    def finish(self) -> None:
        """Writes the metadata; until then TFDS does not see the new form."""
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


def _shards(
    split: tfds.core.SplitInfo,
    old: FileFormat,
    new: FileFormat,
    folder: epath.Path,
    shrink: Shrink | None,
) -> Iterator[Shard]:
    template = split.filename_template
    renamed = template.replace(data_dir=folder, filetype_suffix=new.file_suffix)
    for index in range(split.num_shards):
        place = {'shard_index': index, 'num_shards': split.num_shards}
        yield Shard(
            path=str(template.sharded_filepath(**place)),
            file_format=old.value,
            new_path=str(renamed.sharded_filepath(**place)),
            new_format=new.value,
            shrink=shrink,
            num_examples=split.shard_lengths[index],
        )
