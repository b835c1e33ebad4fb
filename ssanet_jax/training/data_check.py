"""Checks the data of a run before its first step: bad images, leakage, what limits the results."""

import math
from collections import Counter
from collections.abc import Mapping

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.checks.findings import count_warnings, left_out_sentence
from ssanet_jax.data.checks.scan import scan_split
from ssanet_jax.data.datasets.image_folder import ImageFolder
from ssanet_jax.errors import DataFileError
from ssanet_jax.output import printable
from ssanet_jax.training.monitoring.console import say
from ssanet_jax.training.storage import data_files
from ssanet_jax.training.storage.data_files import DataFile, some
from ssanet_jax.training.storage.workdir import Workdir

_LISTED = 200  # bad images


def check(config: ConfigDict, workdir: Workdir, console: Console) -> list[str]:
    """Decodes the images of a folder and compares the files with those of the last start.

    Runs on the first host only. With several hosts it decodes no image: the others would wait.

    Returns:
      Notes for the user: what was chosen, left out, changed, and what limits the results.

    Raises:
      DataFileError: more images are bad than `config.dataset` allows; all are printed.
    """
    if jax.process_index() != 0:
        return []
    dataset, builder = config.dataset, open_builder(config.dataset)
    before = data_files.read(workdir)
    now = data_files.current(dataset, before)
    notes = []
    if not isinstance(builder, ImageFolder):
        data_files.sample(dataset, now)
    elif jax.process_count() > 1:
        notes.append(
            'Several hosts do not decode all images before the first step; do it once with: '
            'ssanet check_data'
        )
    elif dataset.check_images:
        _decode(dataset, builder, now, console)
    data_files.write(workdir, now)
    notes += data_files.changes(before, now)
    if isinstance(builder, ImageFolder):
        notes = [*_folder_notes(dataset, builder), *_leakage(dataset, builder, now), *notes]
        if dataset.check_images and jax.process_count() == 1:  # else none was decoded
            notes += _judge(dataset, builder, now, console)
    return notes


def _decode(
    dataset: ConfigDict,
    builder: ImageFolder,
    now: dict[str, DataFile],
    console: Console,
) -> None:
    """Decodes the images that are new or changed; puts digests and problems into `now`."""
    stale = {name for name, file in now.items() if not file.digest}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task('checking images', total=len(stale))
        for split in (dataset.train_split, dataset.eval_split):
            files = builder.select(split)
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
        number = Counter(file.class_name for file in builder.select(split))
        counts.append(np.array([number[name] for name in classes]))
    return [*builder.notes, *left_out_sentence(builder.left_out), *count_warnings(classes, *counts)]


def _leakage(dataset: ConfigDict, builder: ImageFolder, now: Mapping[str, DataFile]) -> list[str]:
    """A sentence on evaluation images that are training images too, by content."""
    trained = {now[file.name].digest for file in builder.select(dataset.train_split)} - {''}
    both = [f.name for f in builder.select(dataset.eval_split) if now[f.name].digest in trained]
    if not both:
        return []
    return [
        f'Leakage: {len(both):,} evaluation images are training images too, so accuracy is '
        f'overstated: {some(both)}. Remove one copy of each; ssanet check_data lists all.'
    ]


def _judge(
    dataset: ConfigDict, builder: ImageFolder, now: Mapping[str, DataFile], console: Console
) -> list[str]:
    """Raises DataFileError if too many images are bad; else returns a note on them."""
    counts, remedies = [], []
    bad: dict[str, str] = {}
    for what, split in (('training', dataset.train_split), ('evaluation', dataset.eval_split)):
        files = builder.select(split)
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
        say(console, f'{path}: {problem}')
    cannot = f'{" and ".join(counts)} cannot be decoded: {some(list(bad))}.'
    if remedies:
        raise DataFileError(
            f'{cannot} Repair or remove them, or go on in spite of them with {" ".join(remedies)}.',
            [printable(path) for path in bad],
        )
    return [f'{cannot} Others replace them in training; in evaluation they count as incorrect.']
