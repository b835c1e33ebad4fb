r"""Downloads and prepares a dataset through TFDS, or converts a prepared one.

    ssanet prepare --dataset='imagenet2012:5.*.*' --manual_dir=/data/tars

Writes array_record files, which training reads in any order; a dataset in tfrecord files gets
them in addition. --short_side makes a smaller copy of a prepared dataset, such as NAME_256px_q90,
which decodes faster. Reports the disk space it needs and checks it first. After an interruption,
the same command resumes with the missing downloads and shards.
"""

import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Any

import tensorflow_datasets as tfds
from absl import flags
from etils import epath
from rich import progress as bars
from rich.console import Console

from ssanet_jax import runtime
from ssanet_jax.data.builders import LOCAL_BUILDERS, files_by_hand, find_builder, manual_folder
from ssanet_jax.data.sources import num_cores
from ssanet_jax.errors import ConfigError, file_errors, one_line
from ssanet_jax.tools import cli

if TYPE_CHECKING:  # it imports TensorFlow
    from ssanet_jax.data.conversion import Conversion

FLAGS = flags.FLAGS
_console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

# Sizes in bytes of files that a user downloads, which TFDS does not know.
_ARCHIVES = {
    'imagenet2012': {
        'ILSVRC2012_img_train.tar': 147_897_477_120,
        'ILSVRC2012_img_val.tar': 6_744_924_160,
    }
}


def main() -> None:
    runtime.load_tensorflow('Preparing a dataset')
    if FLAGS['jpeg_quality'].present and not FLAGS.short_side:
        raise ConfigError('--jpeg_quality has no effect without --short_side; omit it.')
    from ssanet_jax.data.conversion import Conversion, Shrink, is_prepared

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    name: str = FLAGS.dataset
    data_dir = FLAGS.data_dir
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        builder = _builder(name, data_dir, file_format=FLAGS.file_format)
        _download_and_prepare(builder)
        if FLAGS.dry_run:
            return
    folder, shrink = epath.Path(builder.data_path), None
    if FLAGS.short_side:
        shrink = Shrink(FLAGS.short_side, FLAGS.jpeg_quality)
        config = f'_{builder.builder_config.name}' if builder.builder_config else ''
        name = f'{builder.name}{config}_{FLAGS.short_side}px_q{FLAGS.jpeg_quality}'
        folder = epath.Path(builder.data_dir_root) / name / str(builder.version)
    if is_prepared(folder, FLAGS.file_format):
        _console.print(f'{name} is prepared as {FLAGS.file_format} in {folder}.')
    else:
        _convert(Conversion(builder, FLAGS.file_format, folder, shrink))
    if not FLAGS.dry_run:
        fields = [f'--config.dataset.name={name}']
        fields += [f'--config.dataset.data_dir={data_dir}'] if data_dir else []
        _console.print(f'Train on it with: {shlex.join(fields)}')


def _builder(name: str, data_dir: str | None, **options: Any) -> tfds.core.DatasetBuilder:
    if name in ('folder', *LOCAL_BUILDERS):
        raise ConfigError(f'The files of {name} are read as they are; there is nothing to prepare.')
    return find_builder(name, data_dir, **options)


def _download_and_prepare(builder: tfds.core.DatasetBuilder) -> None:
    size = int(builder.info.download_size or 0) + int(builder.info.dataset_size or 0)
    folder = epath.Path(manual_folder(builder.data_dir_root, FLAGS.manual_dir))
    archives = _ARCHIVES.get(builder.name, {})
    missing = {name: archives[name] for name in archives if not (folder / name).exists()}
    if not size:  # unknown to TFDS; about the size of the archives
        size = sum(file.stat().length for file in folder.glob('*')) + sum(missing.values())
    known = f'about {_gigabytes(size)}' if size else 'an amount of space unknown to TFDS'
    _announce(
        f'Preparing {builder.info.full_name} as {FLAGS.file_format}', builder.data_path, known
    )
    if missing:
        files = ' and '.join(f'{name} ({_gigabytes(missing[name])})' for name in missing)
        raise ConfigError(
            f'{builder.info.full_name} needs {files} in {folder}; download them from '
            'https://image-net.org, or name the folder that has them: --manual_dir=FOLDER.'
        )
    _check_disk(epath.Path(builder.data_dir_root), size)
    if FLAGS.dry_run:
        return
    download = tfds.download.DownloadConfig(manual_dir=FLAGS.manual_dir)
    try:
        builder.download_and_prepare(download_config=download)
    except Exception as error:  # Builders raise anything for malformed files.
        by_hand = files_by_hand(builder, FLAGS.manual_dir)
        reason = one_line(error)
        raise ConfigError(
            f'{builder.info.full_name} could not be prepared: {reason}{by_hand}'
        ) from error


def _convert(conversion: 'Conversion') -> None:
    try:
        _announce_and_convert(conversion)
    except file_errors(RuntimeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = one_line(getattr(error, 'message', error))
        raise ConfigError(
            f'Stopped: {reason}. Converted shards are kept; the same command resumes.'
        ) from error


def _announce_and_convert(conversion: 'Conversion') -> None:
    size = conversion.size()
    number = len(conversion.shards)
    there = f', {conversion.num_done} already converted' if conversion.num_done else ''
    title = f'Converting {number} shards to {FLAGS.file_format}{there}'
    _announce(title, conversion.folder, f'about {_gigabytes(size)}')
    _check_disk(conversion.folder, size)
    if FLAGS.dry_run:
        return
    columns = (*bars.Progress.get_default_columns(), bars.MofNCompleteColumn())
    with bars.Progress(*columns, console=_console) as bar:
        task = bar.add_task('shards', total=number + conversion.num_done)
        conversion.run(FLAGS.workers or num_cores(), lambda done: bar.update(task, completed=done))


def _announce(title: str, folder: Any, needs: str) -> None:
    free = _free(epath.Path(folder))
    room = '' if free is None else f' {_gigabytes(free)} are free.'
    _console.print(f'{title} in {folder}. Needs {needs}.{room}')


def _check_disk(folder: epath.Path, needed: int) -> None:
    free = _free(folder)
    if free is not None and free < needed:
        raise ConfigError(
            f'{folder} has {_gigabytes(free)} free, and {_gigabytes(needed)} are needed; free some '
            'space, or choose another --data_dir.'
        )


def _free(folder: epath.Path) -> int | None:
    """Bytes free where `folder` is or will be; None in a bucket."""
    if '://' in str(folder):
        return None
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _gigabytes(size: int) -> str:
    return f'{size / 1e9:,.3g} GB'


def define_flags() -> None:
    flags.DEFINE_string('dataset', None, 'TFDS name, with a version if needed.', required=True)
    flags.DEFINE_string(
        'data_dir', None, 'Folder of prepared datasets; unset: the default of TFDS.'
    )
    flags.DEFINE_string('manual_dir', None, 'Folder of manually downloaded files.')
    flags.DEFINE_enum(
        'file_format',
        'array_record',
        ['array_record', 'tfrecord'],
        'Format of the files to write.',
    )
    flags.DEFINE_integer(
        'short_side',
        None,
        'Shrink images to short sides of at most this many pixels.',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'jpeg_quality',
        90,
        'Quality of images shrunk by --short_side.',
        lower_bound=1,
        upper_bound=100,
    )
    flags.DEFINE_integer(
        'workers', None, 'Threads that convert; unset: one per core.', lower_bound=1
    )
    flags.DEFINE_bool('dry_run', False, 'Only report what would be done and the space it needs.')


if __name__ == '__main__':
    cli.run(main, define_flags)
