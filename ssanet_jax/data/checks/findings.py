"""What a user should know of a dataset: tables, and warnings with numbers."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ssanet_jax.data.checks.scan import Scan
from ssanet_jax.data.datasets.folder_files import HIDDEN
from ssanet_jax.output import printable
from ssanet_jax.tables import Column, Table, thousands

_FEW_OF_CLASS = 10  # evaluation images
_FEW = 400  # the standard error of top-1 is then 2.5 points
_IMBALANCE = 4  # largest over smallest class
_SHOWN = 5  # names in a sentence


def standard_error(images: int) -> float:
    """The largest standard error of an accuracy over `images`, in percentage points.

    That of a binomial share, 100 * sqrt(p * (1 - p) / n), at p = 1/2.

    >>> standard_error(100)
    5.0
    """
    return 50 / math.sqrt(images)


def count_warnings(classes: Sequence[str], train: np.ndarray, evaluated: np.ndarray) -> list[str]:
    """Sentences about classes, from their numbers of images in both splits, int [K]."""
    found = [
        *_missing(classes, train, evaluated),
        *_alike(classes),
        *_imbalance(classes, train, evaluated),
    ]
    total = int(evaluated.sum())
    few = np.flatnonzero((evaluated > 0) & (evaluated < _FEW_OF_CLASS))
    if few.size:
        least = few[evaluated[few].argmin()]
        found.append(
            f'{len(few):,} of {len(classes):,} classes have fewer than {_FEW_OF_CLASS} evaluation '
            f'images; {classes[least]} has {evaluated[least]}, so the standard error of its '
            f'accuracy is up to {standard_error(evaluated[least]):.1f} points.'
        )
    if 0 < total < _FEW:
        error = standard_error(total)
        found.append(
            f'{total:,} evaluation images: the standard error of top-1 is up to {error:.1f} '
            f'points (binomial), so a difference below {2 * error:.0f} points says little.'
        )
    return found


def _missing(classes: Sequence[str], train: np.ndarray, evaluated: np.ndarray) -> list[str]:
    found = []
    if len(classes) == 1:
        found.append(
            f'There is one class, {classes[0]}, with {train.sum():,} training images: top-1 is '
            '100 % whatever the network does. Add another class.'
        )
    if names := _named(classes, (train == 0) & (evaluated > 0), evaluated):
        found.append(
            f'Without a training image, so never learned: {names} evaluation images. Add training '
            'images, or remove the class.'
        )
    if names := _named(classes, (evaluated == 0) & (train > 0), train):
        found.append(f'Without an evaluation image, so never measured: {names} training images.')
    if names := _named(classes, (evaluated == 0) & (train == 0), train):
        found.append(f'Without any image: {names} images.')
    return found


def _named(classes: Sequence[str], chosen: np.ndarray, counts: np.ndarray) -> str:
    """'ash with 3, beech with 4 and 7 more classes with 80'; '' for none."""
    rows = np.flatnonzero(chosen)
    shown = [f'{classes[row]} with {counts[row]:,}' for row in rows[:_SHOWN]]
    if len(rows) > _SHOWN:
        rest = counts[rows[_SHOWN:]]
        shown.append(f'{len(rest):,} more classes with {rest.sum():,}')
    return ', '.join(shown)


def _alike(classes: Sequence[str]) -> list[str]:
    spellings = defaultdict(list)
    for name in classes:
        spellings[re.sub(r'[\s_-]+', ' ', name.casefold()).strip()].append(name)
    return [
        f'Classes {" and ".join(map(repr, names))} differ in spelling only; if they are one, give '
        'their folders one name.'
        for names in spellings.values()
        if len(names) > 1
    ]


def _imbalance(classes: Sequence[str], train: np.ndarray, evaluated: np.ndarray) -> list[str]:
    present = np.flatnonzero(train)
    if not present.size:
        return []
    most, least = present[train[present].argmax()], present[train[present].argmin()]
    if train[most] < _IMBALANCE * train[least]:
        return []
    right = 100 * evaluated[most] / max(1, evaluated.sum())
    return [
        f'{classes[most]} has {train[most] / train[least]:.3g} times as many training images as '
        f'{classes[least]}, {train[most]:,} and {train[least]:,}. Always answering {classes[most]} '
        f'is right for {right:.1f} % of the evaluation images.'
    ]


def class_counts(scan: Scan, num_classes: int) -> np.ndarray:
    """Images of each class, int64 [K]; labels outside the classes are not counted."""
    label = scan.label[(scan.label >= 0) & (scan.label < num_classes)]
    return np.bincount(label, minlength=num_classes)


def class_table(classes: Sequence[str], scans: Mapping[str, Scan]) -> Table:
    """Images of each class in each split."""
    counts = [class_counts(scan, len(classes)) for scan in scans.values()]
    rows = [(name, *map(int, row)) for name, *row in zip(classes, *counts, strict=True)]
    columns = [Column('class', left=True), *(Column(split, thousands) for split in scans)]
    total = ('all', *(int(count.sum()) for count in counts))
    return Table('Images by class', columns, [*rows, total])


def size_table(scans: Iterable[Scan]) -> Table:
    """Smallest, median and largest image and file of each split."""
    columns = [Column('split', left=True), Column('of', left=True)]
    columns += [Column(name, thousands) for name in ('smallest', 'median', 'largest')]
    rows = []
    for scan in scans:
        good = scan.good()
        if not good.size:
            continue
        height, width = scan.sides[good].T
        values = {
            'width': width,
            'height': height,
            'pixels': width * height,
            'bytes': scan.num_bytes[good],
        }
        for name, value in values.items():
            three = (value.min(), np.median(value), value.max())
            rows.append((scan.split, name, *map(int, three)))
    return Table('Sizes of images that can be decoded', columns, rows)


def bad_table(classes: Sequence[str], scans: Iterable[Scan]) -> Table:
    """Each image that cannot be used, and why."""
    columns = [Column(name, left=True) for name in ('split', 'class', 'file', 'problem')]
    rows = []
    for scan in scans:
        names = dict(zip(scan.number.tolist(), scan.label.tolist(), strict=True))
        for number, reason in scan.bad.items():
            label = names[number]
            rows.append(
                (scan.split, _class(classes, label), scan.source.name(number), printable(reason))
            )
    return Table('Images that cannot be used', columns, sorted(rows))


def _class(classes: Sequence[str], label: int) -> str:
    """The name of a class, or the label if it is outside the classes."""
    return classes[label] if 0 <= label < len(classes) else str(label)


def duplicate_table(classes: Sequence[str], scans: Iterable[Scan]) -> Table:
    """Groups of files with the same content, the harmful ones first."""
    scans = list(scans)
    where = np.concatenate(
        [np.stack([np.full_like(s.good(), i), s.good()], axis=1) for i, s in enumerate(scans)]
    )
    digests = np.concatenate([scan.digest[scan.good()] for scan in scans])
    _, group, size = np.unique(digests, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind='stable')
    order = order[size[group[order]] > 1]
    groups = np.split(where[order], np.flatnonzero(np.diff(group[order])) + 1) if order.size else []
    rows = sorted((_duplicate(classes, scans, pairs) for pairs in groups), key=_harm)
    columns = [Column(name, left=True) for name in ('problem', 'files')]
    return Table('Files with the same content', columns, rows)


_LEAK, _LABELS, _TWICE = 'in training and evaluation', 'of different classes', 'twice'


def _duplicate(classes: Sequence[str], scans: Sequence[Scan], pairs: np.ndarray) -> tuple[str, str]:
    labels = sorted({int(scans[i].label[row]) for i, row in pairs})
    kinds = []
    if len(set(pairs[:, 0].tolist())) > 1:
        kinds.append(_LEAK)
    if len(labels) > 1:
        names = (_class(classes, label) for label in labels)
        kinds.append(f'{_LABELS}: {", ".join(names)}')
    files = [scans[i].source.name(int(scans[i].number[row])) for i, row in pairs]
    return '; '.join(kinds) or _TWICE, ', '.join(files)


def _harm(row: tuple[str, str]) -> tuple[bool, bool, str]:
    return _LEAK not in row[0], _LABELS not in row[0], row[1]


def left_out_table(left_out: Mapping[str, Sequence[str]]) -> Table:
    """Files and folders that are no examples, by reason."""
    columns = [Column('reason', left=True), Column('number', thousands), Column('as', left=True)]
    rows = [
        (reason, len(names), ', '.join(map(printable, sorted(names)[:_SHOWN])))
        for reason, names in sorted(left_out.items())
    ]
    return Table('Left out', columns, rows)


def left_out_sentence(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """One sentence on what is left out, hidden files apart; none if there is nothing."""
    reasons = [
        f'{reason}, {len(names):,} ({", ".join(map(printable, sorted(names)[:2]))}'
        f'{", ..." if len(names) > 2 else ""})'
        for reason, names in sorted(left_out.items())
        if reason != HIDDEN
    ]
    return [f'Left out: {"; ".join(reasons)}.'] if reasons else []


def image_warnings(bad: Table, duplicates: Table) -> list[str]:
    """Sentences about files, from their tables."""
    found = []
    if bad.rows:
        found.append(f'Images that cannot be used: {len(bad.rows):,}. Repair or remove them.')
    leaks = sum(_LEAK in row[0] for row in duplicates.rows)
    if leaks:
        found.append(
            f'Leakage: {leaks:,} images are in training and evaluation. Remove one copy of each, '
            'else accuracy is overstated.'
        )
    if twice := sum(_LABELS in row[0] for row in duplicates.rows):
        found.append(f'{twice:,} images are in several classes. Keep the right copy of each.')
    return found
