"""Opens datasets: those that TFDS has prepared, and those that are read as they are."""

import functools
import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from ssanet_jax import runtime
from ssanet_jax.data.datasets.array_dataset import ArrayDataset
from ssanet_jax.data.datasets.digits import Digits
from ssanet_jax.data.datasets.fashion_mnist import FashionMnistIdx
from ssanet_jax.data.datasets.image_folder import FolderSpec, ImageFolder, open_folder
from ssanet_jax.data.imagenet import imagenet_names
from ssanet_jax.data.readers import ArrayRecords, Arrays, Folder
from ssanet_jax.data.sources import Source
from ssanet_jax.errors import ConfigError, nearest

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD

# Called with `data_dir` and `manual_dir`.
LOCAL_BUILDERS: dict[str, Callable[[str | None, str | None], ArrayDataset]] = {
    'digits': lambda data_dir, manual_dir: Digits(),
    'fashion_mnist_idx': lambda data_dir, manual_dir: FashionMnistIdx(
        manual_folder(data_dir, manual_dir)
    ),
}


class DatasetInfo(NamedTuple):
    """Sizes, classes and identity of a run's data.

    `order` tells what the order of training images depends on, `hint` how to read them faster.
    """

    num_train: int
    num_eval: int
    num_classes: int
    class_names: tuple[str, ...]
    order: str
    hint: str  # or ''
    fingerprint: str  # of name, version, sizes and classes


def dataset_info(config: ConfigDict) -> DatasetInfo:
    """Describes `config.dataset`; raises ConfigError as `open_builder` does."""
    builder = open_builder(config.dataset)
    features = builder.info.features
    if not {'image', 'label'} <= set(features):
        raise ConfigError(
            f"{builder.info.full_name} has no features 'image' and 'label', but "
            f'{", ".join(features)}; choose a dataset for image classification.'
        )
    label = features['label']
    return DatasetInfo(
        num_train=split_size(builder, config.dataset.train_split),
        num_eval=split_size(builder, config.dataset.eval_split),
        num_classes=label.num_classes,
        class_names=class_names(label),
        order=_order(config.dataset, builder),
        hint=_hint(config.dataset, builder),
        fingerprint=_fingerprint(builder),
    )


def class_names(label: tfds.features.ClassLabel) -> tuple[str, ...]:
    """The names of classes, those of ImageNet in English."""
    return tuple(imagenet_names().get(name, name) for name in label.names)


def _fingerprint(builder: tfds.core.DatasetBuilder) -> str:
    """TFDS's name of the data and a digest of splits, classes and a folder's file names."""
    splits = {name: list(split.shard_lengths) for name, split in builder.info.splits.items()}
    paths = []
    if isinstance(builder, ImageFolder):
        splits = {name: splits[name] for name in builder.used}
        paths = [file.name for split in sorted(splits) for file in builder.files[split]]
    described = json.dumps([splits, builder.info.features['label'].names, paths], sort_keys=True)
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    return f'{builder.info.full_name} {digest}'


def open_source(dataset: ConfigDict, split: str) -> Source:
    """Opens a split of `config.dataset`; raises ConfigError."""
    builder = open_builder(dataset)
    split_size(builder, split)  # raises where there is no such split
    if isinstance(builder, ImageFolder):
        return Folder(builder, split, dataset.max_image_bytes)
    if isinstance(builder, ArrayDataset):
        return Arrays(builder, split)
    if builder.info.file_format == ARRAY_RECORD:
        return ArrayRecords(builder, split)
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        runtime.load_tensorflow('Reading tfrecord files')
        from ssanet_jax.data.tfrecords import TfRecords

        return TfRecords(builder, split, dataset.shuffle_buffer)
    raise ConfigError(
        f'{builder.data_path} holds {builder.info.file_format.value} files, which cannot be read; '
        f'prepare it again with: {prepare_command(dataset)}'
    )


def prepare_command(dataset: ConfigDict) -> str:
    """The command that prepares `config.dataset`."""
    folders = [
        f'--{name}={value}'
        for name in ('data_dir', 'manual_dir')
        if (value := getattr(dataset, name))
    ]
    command = ['ssanet', 'prepare', f'--dataset={dataset.name}', *folders]
    return shlex.join(command)


def _order(dataset: ConfigDict, builder: tfds.core.DatasetBuilder) -> str:
    if dataset.in_memory or isinstance(builder, ArrayDataset):
        return 'a set in memory'  # saved in config.json
    if isinstance(builder, ImageFolder):
        return 'a folder'
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        return f'tfrecord files on {jax.process_count()} host(s)'
    return f'{builder.info.file_format.value} files'


def _hint(dataset: ConfigDict, builder: tfds.core.DatasetBuilder) -> str:
    if dataset.in_memory or isinstance(builder, ArrayDataset | ImageFolder):
        return ''
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        return ''
    if '://' in str(builder.data_path):  # array_record would ask the bucket for each image
        return ''
    return (
        f'{builder.info.full_name} is streamed from tfrecord files, shuffled through a buffer. As '
        'array_record it is shuffled globally, resumes at any step at once, and has the same '
        f'order on any number of hosts. Convert it before a run, not during one, with: '
        f'{prepare_command(dataset)}'
    )


def open_builder(dataset: ConfigDict) -> tfds.core.DatasetBuilder:
    """Returns the prepared TFDS builder of `config.dataset`; the same object for the same name.

    Raises:
      ConfigError: TFDS has no such dataset, or it is not prepared; the message names the
        command and the files that are needed.
    """
    if dataset.name == 'folder':
        return open_folder(FolderSpec.of(dataset))
    return _open(dataset.name, dataset.data_dir, dataset.manual_dir)


@functools.lru_cache(maxsize=4)
def _open(name: str, data_dir: str | None, manual_dir: str | None) -> tfds.core.DatasetBuilder:
    if name in LOCAL_BUILDERS:
        return LOCAL_BUILDERS[name](data_dir, manual_dir)
    builder = find_builder(name, data_dir)
    if not builder.data_path.exists():
        raise ConfigError(_how_to_prepare(builder, name, data_dir, manual_dir))
    if ARRAY_RECORD in builder.info.alternative_file_formats:
        builder.info.set_file_format(ARRAY_RECORD, override=True, override_if_initialized=True)
    return builder


# Raised by tfds.builder for a malformed name, version or config.
_BAD_NAME = (AssertionError, ValueError, TypeError, ImportError)


def find_builder(name: str, data_dir: str | None, **options: Any) -> tfds.core.DatasetBuilder:
    """Returns TFDS's builder of that name, prepared or not; raises ConfigError if unknown."""
    try:
        return tfds.builder(name, data_dir=data_dir, **options)
    except (tfds.core.DatasetNotFoundError, *_BAD_NAME) as error:
        known = sorted({'folder', *LOCAL_BUILDERS, *tfds.list_builders()})
        raise ConfigError(
            f'config.dataset.name={name!r} is not a dataset of TFDS or of ssanet_jax; '
            f'nearest: {nearest(name.partition(":")[0], known)}. {str(error).splitlines()[0]}'
        ) from error


def split_size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Returns the number of examples of a split; raises ConfigError if there are none."""
    try:
        size = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f'{builder.info.full_name} has no split {split!r}; nearest: '
            f'{nearest(split, builder.info.splits)}, and slices of them like "train[:90%]".'
        ) from error
    if size <= 0:
        raise ConfigError(f'Split {split!r} of {builder.info.full_name} is empty; choose another.')
    return size


def _how_to_prepare(
    builder: tfds.core.DatasetBuilder, name: str, data_dir: str | None, manual_dir: str | None
) -> str:
    dataset = ConfigDict({'name': name, 'data_dir': data_dir, 'manual_dir': manual_dir})
    return (
        f'{builder.info.full_name} is not prepared in {builder.data_path}.'
        f'{files_by_hand(builder, manual_dir)} Prepare it once with: {prepare_command(dataset)}'
    )


def files_by_hand(builder: tfds.core.DatasetBuilder, manual_dir: str | None) -> str:
    """Returns a sentence naming the files that a user must download, and their folder; or ''."""
    if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return ''
    folder = manual_folder(builder.data_dir_root, manual_dir)
    return f' First put the files it needs into {folder}: {_manual_files(builder)}.'


def manual_folder(data_dir: Any, manual_dir: str | None) -> Path:
    """The folder where a user puts files that TFDS cannot download."""
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    return Path(manual_dir).expanduser() if manual_dir else root / 'downloads' / 'manual'


def _manual_files(builder: tfds.core.DatasetBuilder) -> str:
    if builder.name == 'imagenet2012':
        return 'ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from https://image-net.org'
    return ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
