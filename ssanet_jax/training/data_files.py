"""Checks the files of a run's data before the first step, and remembers them in the workdir.

`Workdir.data_files` has a line for each, so that the next start notices which were replaced or
removed, and does not decode again those of the same size and time of change.
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.dataset_files import dataset_files, sample_digest, status
from ssanet_jax.data.datasets.folder_files import printable
from ssanet_jax.data.datasets.image_folder import ImageFolder
from ssanet_jax.data.findings import count_warnings, left_out_sentence
from ssanet_jax.data.scan import scan_split
from ssanet_jax.errors import DataFileError
from ssanet_jax.training.atomic_io import write_text
from ssanet_jax.training.workdir import Workdir

_READERS = 16  # of the ends of shards
_SHOWN = 3  # names in a sentence
_LISTED = 200  # bad files


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


def check(config: ConfigDict, workdir: Workdir, console: Console) -> list[str]:
    """Decodes the images of a folder, compares files with the last start, and remembers them.

    Does nothing on other hosts than the first. With several hosts, no image is decoded: the
    others would wait.

    Returns:
      Notes for the user: what was chosen, left out, changed, and what limits the results.

    Raises:
      DataFileError: more images are bad than `config.dataset` allows; all are printed.
    """
    if jax.process_index() != 0:
        return []
    dataset, builder = config.dataset, open_builder(config.dataset)
    before, files = _read(workdir), dataset_files(config.dataset)
    now = {}
    for name, path in files.items():
        found, known = DataFile(name, *status(path)), before.get(name)
        same = known and known[:3] == found[:3] and known.digest and not known.problem
        now[name] = known if known and same else found
    stale = [name for name, file in now.items() if not file.digest]
    if not isinstance(builder, ImageFolder):
        with ThreadPoolExecutor(_READERS) as pool:
            digests = pool.map(sample_digest, [files[name] for name in stale])
            now |= {
                name: now[name]._replace(digest=digest)
                for name, digest in zip(stale, digests, strict=True)
            }
        _write(workdir, now)
        return _changes(before, now)
    notes = _folder_notes(dataset, builder)
    if jax.process_count() > 1:
        notes.append(
            'Several hosts do not decode all images before the first step; do it once with: '
            'python -m ssanet_jax.tools.check_data'
        )
    elif dataset.check_images:
        _decode(dataset, builder, set(stale), now, console)
    _write(workdir, now)
    notes += _leakage(dataset, builder, now)
    return [*notes, *_changes(before, now), *_judge(dataset, builder, now, console)]


def only_bad_ones_removed(dataset: ConfigDict, workdir: Workdir, classes: Sequence[str]) -> bool:
    """Whether a folder differs from that of the last start by removed bad files alone."""
    before = _read(workdir)
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
        known = _read(workdir)
        for name, path in dataset_files(dataset).items():
            if name in known and printable(path) in error.files:
                known[name] = known[name]._replace(problem=str(error))
        _write(workdir, known)
        raise


def _read(workdir: Workdir) -> dict[str, DataFile]:
    """The lines of the file; none if it is missing or damaged."""
    try:
        lines = workdir.data_files.read_text().splitlines()
        files = [DataFile(*json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        return {}
    return {file.name: file for file in files}


def _write(workdir: Workdir, files: Mapping[str, DataFile]) -> None:
    write_text(workdir.data_files, ''.join(f'{json.dumps(file)}\n' for file in files.values()))


def _decode(
    dataset: ConfigDict,
    builder: ImageFolder,
    stale: set[str],
    now: dict[str, DataFile],
    console: Console,
) -> None:
    """Decodes the images called `stale`, and puts digests and problems into `now`."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task('checking images', total=len(stale))
        for split in (dataset.train_split, dataset.eval_split):
            files = builder.chosen(split)
            numbers = np.array([n for n, f in enumerate(files) if f.name in stale], np.int64)
            scan = scan_split(
                dataset, split, lambda images: bar.advance(task, images), numbers=numbers
            )
            for number, digest in zip(scan.number.tolist(), scan.digest, strict=True):
                name = files[number].name
                problem = scan.bad.get(number, '')
                now[name] = now[name]._replace(digest=digest.hex(), problem=problem)


def _folder_notes(dataset: ConfigDict, builder: ImageFolder) -> list[str]:
    classes = builder.info.features['label'].names
    counts = []
    for split in (dataset.train_split, dataset.eval_split):
        number = Counter(file.class_name for file in builder.chosen(split))
        counts.append(np.array([number[name] for name in classes]))
    return [*builder.notes, *left_out_sentence(builder.left_out), *count_warnings(classes, *counts)]


def _leakage(dataset: ConfigDict, builder: ImageFolder, now: Mapping[str, DataFile]) -> list[str]:
    """A sentence on evaluation images that are training images too, by content."""
    trained = {now[file.name].digest for file in builder.chosen(dataset.train_split)} - {''}
    both = [f.name for f in builder.chosen(dataset.eval_split) if now[f.name].digest in trained]
    if not both:
        return []
    return [
        f'Leakage: {len(both):,} evaluation images are training images too, so accuracy is '
        f'overstated: {_some(both)}. Remove one copy of each; tools.check_data lists all.'
    ]


def _changes(before: Mapping[str, DataFile], now: Mapping[str, DataFile]) -> list[str]:
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
        f'Changed since the last start: {len(names):,} data files were {what}: {_some(names)}.'
        for what, names in kinds.items()
        if names
    ]


def _differ(before: DataFile, now: DataFile) -> bool:
    digests = before.digest, now.digest
    return before.size != now.size or (all(digests) and digests[0] != digests[1])


def _judge(
    dataset: ConfigDict, builder: ImageFolder, now: Mapping[str, DataFile], console: Console
) -> list[str]:
    """Raises DataFileError if too many images are bad; else returns a note on them."""
    counts, remedies = [], []
    bad: dict[str, str] = {}
    for what, split in (('training', dataset.train_split), ('evaluation', dataset.eval_split)):
        files = builder.chosen(split)
        of_split = {file.path: now[file.name].problem for file in files if now[file.name].problem}
        if not of_split:
            continue
        bad |= of_split
        share = len(of_split) / len(files)
        counts.append(f'{len(of_split):,} of {len(files):,} {what} images')
        if what == 'training' and share > dataset.max_bad_fraction:
            enough = math.ceil(share * 1e4) / 1e4
            remedies.append(f'--config.dataset.max_bad_fraction={enough:g}')
        elif what == 'evaluation' and dataset.bad_eval_images == 'error':
            remedies.append('--config.dataset.bad_eval_images=incorrect')
    if not bad:
        return []
    for path, problem in list(bad.items())[:_LISTED]:
        line = f'{printable(path)}: {problem}'
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    cannot = f'{" and ".join(counts)} cannot be decoded: {_some(list(bad))}.'
    if remedies:
        raise DataFileError(
            f'{cannot} Repair or remove them, or go on in spite of them with {" ".join(remedies)}.',
            [printable(path) for path in bad],
        )
    return [f'{cannot} Others replace them in training; in evaluation they count as incorrect.']


def _some(names: Sequence[str]) -> str:
    shown = ', '.join(map(printable, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f'{shown} and {len(names) - _SHOWN:,} more'
