"""Opens TFDS data sets: those made from local files are prepared on the fly."""

import difflib
import functools
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from ssanet_jax.config import ConfigError
from ssanet_jax.data.digits import Digits
from ssanet_jax.data.fashion_mnist import FILES, FashionMnistIdx

LOCAL_BUILDERS: dict[str, type[tfds.core.DatasetBuilder]] = {
    'digits': Digits,
    'fashion_mnist_idx': FashionMnistIdx,
}


class DatasetInfo(NamedTuple):
    """What a run needs to know about its data before it reads any."""

    num_train: int
    num_eval: int
    num_classes: int
    class_names: tuple[str, ...]


def dataset_info(config: ConfigDict) -> DatasetInfo:
    """Sizes of `config.dataset`'s two splits and its classes; see `open_builder` for errors."""
    builder = open_builder(config.dataset)
    label = builder.info.features['label']
    return DatasetInfo(
        num_train=split_size(builder, config.dataset.train_split),
        num_eval=split_size(builder, config.dataset.eval_split),
        num_classes=label.num_classes,
        class_names=tuple(label.names),
    )


def open_builder(dataset: ConfigDict) -> tfds.core.DatasetBuilder:
    """The prepared TFDS builder that `config.dataset` names; the same object for the same name.

    Raises:
      ConfigError: TFDS knows no such data set, or it is not prepared; the message
        names the command and the files that are needed.
    """
    return _open(dataset.name, dataset.data_dir, dataset.manual_dir)


@functools.lru_cache(maxsize=4)
def _open(name: str, data_dir: str | None, manual_dir: str | None) -> tfds.core.DatasetBuilder:
    if name in LOCAL_BUILDERS:
        builder = LOCAL_BUILDERS[name](data_dir=data_dir)
        if not builder.data_path.exists():
            _prepare_local(builder, manual_dir)
        return builder
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError) as error:  # the latter: its version
        known = [*LOCAL_BUILDERS, *tfds.list_builders()]
        nearest = difflib.get_close_matches(name.partition(':')[0], known, n=3)
        raise ConfigError(
            f'config.dataset.name={name!r} is not a data set of TFDS or of ssanet_jax; '
            f'nearest: {", ".join(nearest or LOCAL_BUILDERS)}. {str(error).splitlines()[0]}'
        ) from error
    if not builder.data_path.exists():
        raise ConfigError(_how_to_prepare(builder, data_dir, manual_dir))
    return builder


def split_size(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Number of examples of a split; raises ConfigError where there is no such split."""
    try:
        size = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f'{builder.info.full_name} has no split {split!r}; it has '
            f'{", ".join(builder.info.splits)}, and slices of them like "train[:90%]".'
        ) from error
    if not size:
        raise ConfigError(f'Split {split!r} of {builder.info.full_name} holds no example.')
    return size


def _prepare_local(builder: tfds.core.DatasetBuilder, manual_dir: str | None) -> None:
    if isinstance(builder, FashionMnistIdx):
        folder = Path(manual_dir or _default_manual_dir(builder))
        missing = [n for names in FILES.values() for n in names if not (folder / n).exists()]
        if missing:
            raise ConfigError(
                f'{builder.name} needs {", ".join(missing)} in {folder} (config.dataset.'
                f'manual_dir). {builder.MANUAL_DOWNLOAD_INSTRUCTIONS}'
            )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    download = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=download)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(
            f'{builder.name} could not be written to {builder.data_path} '
            f'(config.dataset.data_dir): {error}'
        ) from error


def _how_to_prepare(
    builder: tfds.core.DatasetBuilder, data_dir: str | None, manual_dir: str | None
) -> str:
    options = f' --data_dir={data_dir}' if data_dir else ''
    files = ''
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        options += f' --manual_dir={manual_dir}' if manual_dir else ''
        folder = manual_dir or _default_manual_dir(builder)
        files = f' First put the files it needs into {folder}: {_manual_files(builder)}.'
    return (
        f'{builder.info.full_name} is not prepared in {builder.data_path}.{files} '
        f'Prepare it once with: tfds build {builder.name}{options}'
    )


def _default_manual_dir(builder: tfds.core.DatasetBuilder) -> Path:
    return Path(builder.data_path).parents[1] / 'downloads' / 'manual'


def _manual_files(builder: tfds.core.DatasetBuilder) -> str:
    if builder.name == 'imagenet2012':
        return 'ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from https://image-net.org'
    return ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
