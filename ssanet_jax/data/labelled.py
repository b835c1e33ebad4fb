"""Encoded images of a TFDS dataset with any number of labels each, for evaluation only."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from ssanet_jax import runtime
from ssanet_jax.data.builders import ARRAY_RECORD, open_builder, prepare_command, split_size
from ssanet_jax.data.read_errors import readable
from ssanet_jax.data.sources import read_ahead


class LabelledFile(NamedTuple):
    """An encoded image and its labels, int64 [l] with l >= 0."""

    file: bytes
    labels: np.ndarray


def labelled_files(dataset: ConfigDict, split: str, feature: str) -> Iterator[LabelledFile]:
    """Yields every example of a split once, as it is stored.

    Args:
      dataset: reads `name`, `data_dir` and `manual_dir`.
      split: a TFDS split.
      feature: name of the label, a ClassLabel or a sequence of them.

    Raises:
      ConfigError: the dataset or the split is unknown or not prepared, or cannot be read.
    """
    builder = open_builder(dataset)
    split_size(builder, split)  # raises where there is no such split
    undecoded: Any = {'image': tfds.decode.SkipDecoding()}
    examples: Iterator[Any]
    if builder.info.file_format == ARRAY_RECORD:
        source = builder.as_data_source(split=split, decoders=undecoded)
        examples = read_ahead(source.__getitem__, range(len(source)))
    else:
        runtime.load_tensorflow('Reading tfrecord files')
        stored = builder.as_dataset(split=split, decoders=undecoded, shuffle_files=False)
        examples = iter(tfds.as_numpy(stored))
    for example in readable(examples, builder.data_path, prepare_command(dataset)):
        yield LabelledFile(example['image'], np.atleast_1d(example[feature]).astype(np.int64))
