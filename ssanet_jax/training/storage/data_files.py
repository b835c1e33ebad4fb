"""Remembers the files of a run's data in its workdir.

`Workdir.data_files` has a line for each, so that the next start notices which were replaced or
removed, and does not decode again those of the same size and time of change.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.checks.dataset_files import dataset_files, sample_digest, status
from ssanet_jax.data.datasets.image_folder import ImageFolder
from ssanet_jax.errors import DataFileError, file_errors
from ssanet_jax.output import printable
from ssanet_jax.training.storage.atomic_io import write_text
from ssanet_jax.training.storage.workdir import Workdir

_READERS = 16  # threads; the files may be far away
_SHOWN = 3  # names in a sentence


class DataFile(NamedTuple):
    """What is known of a file.

    Attributes:
      name: below the folder of the data.
      size: in bytes.
      changed: in nanoseconds.
      digest: of its content or a sample of it; '' if not read.
      problem: why it cannot be used, or ''.
    """

    name: str
    size: int
    changed: int
    digest: str = ''
    problem: str = ''


def current(dataset: ConfigDict, before: Mapping[str, DataFile]) -> dict[str, DataFile]:
    """The files of the data by name; what `before` knows of unchanged ones is kept."""
    now, files = {}, dataset_files(dataset)
    with ThreadPoolExecutor(_READERS) as pool:
        for name, (size, changed) in zip(files, pool.map(status, files.values()), strict=True):
            known = before.get(name)
            if known and known[1:3] == (size, changed):
                # A bad file is decoded again: permission may have been granted.
                now[name] = known._replace(digest='') if known.problem else known
            else:
                now[name] = DataFile(name, size, changed)
    return now


def sample(dataset: ConfigDict, now: dict[str, DataFile]) -> None:
    """Puts digests of the ends of the files that have none into `now`."""
    files = dataset_files(dataset)
    stale = [name for name, file in now.items() if not file.digest]
    with ThreadPoolExecutor(_READERS) as pool:
        digests = pool.map(sample_digest, [files[name] for name in stale])
        for name, digest in zip(stale, digests, strict=True):
            now[name] = now[name]._replace(digest=digest)


def only_bad_ones_removed(dataset: ConfigDict, workdir: Workdir, classes: Sequence[str]) -> bool:
    """Whether a folder differs from that of the last start by removed bad files alone."""
    before = read(workdir)
    if not before or not isinstance(open_builder(dataset), ImageFolder):
        return False
    now = dataset_files(dataset).keys()
    removed = before.keys() - now
    return (
        now <= before.keys()
        and all(before[name].problem for name in removed)
        and tuple(classes) == workdir.read_classes()
    )


@contextlib.contextmanager
def remembering_bad_files(dataset: ConfigDict, workdir: Workdir) -> Iterator[None]:
    """Remembers the files that a DataFileError names, so that they may be repaired or removed."""
    try:
        yield
    except DataFileError as error:
        known = read(workdir)
        bad = [
            known[name]._replace(problem=str(error))
            for name, path in dataset_files(dataset).items()
            if name in known and printable(path) in error.files
        ]
        # Appended, since other hosts may add theirs; a failure must not hide `error`.
        with contextlib.suppress(*file_errors()), workdir.data_files.open('a') as file:
            file.write(f'\n{_lines(bad)}')  # an append before may have been cut short
        raise


def read(workdir: Workdir) -> dict[str, DataFile]:
    """The files by name, without damaged lines; the last line of a name counts."""
    files = {}
    try:
        lines = workdir.data_files.read_text().splitlines()
    except file_errors(ValueError):
        return {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            file = DataFile(*json.loads(line))
            files[file.name] = file
    return files


def write(workdir: Workdir, files: Mapping[str, DataFile]) -> None:
    write_text(workdir.data_files, _lines(files.values()))


def _lines(files: Iterable[DataFile]) -> str:
    return ''.join(f'{json.dumps(file)}\n' for file in files)


def changes(before: Mapping[str, DataFile], now: Mapping[str, DataFile]) -> list[str]:
    """Sentences about files that differ from those of the last start."""
    if not before:
        return []
    replaced = [
        name
        for name, file in now.items()
        if name in before and _differ(before[name], file) and not before[name].problem
    ]
    kinds = {
        'replaced by others of the same name': replaced,
        'repaired': [
            name for name, file in before.items() if file.problem and name in now
            and not now[name].problem
        ],
        'removed': [name for name in before if name not in now],
        'added': [name for name in now if name not in before],
    }  # fmt: skip
    return [
        f'Changed since the last start: {len(names):,} data files were {what}: {some(names)}.'
        for what, names in kinds.items()
        if names
    ]


def _differ(before: DataFile, now: DataFile) -> bool:
    digests = before.digest, now.digest
    return before.size != now.size or (all(digests) and digests[0] != digests[1])


def some(names: Sequence[str]) -> str:
    """The first names, printable."""
    shown = ', '.join(map(printable, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f'{shown} and {len(names) - _SHOWN:,} more'
