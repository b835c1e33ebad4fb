"""Which classes are taken for which: the confusion matrix, the worst and the best classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from ssanet_jax.tables import Column, Table, thousands

MATRIX_CLASSES = 30  # a matrix of more cannot be read
_TABLE_CLASSES = 20


class Cell(NamedTuple):
    """Of a confusion matrix: images, how deep its shade is from 0 to 1, and classes of style."""

    images: int
    shade: float
    kind: str


class Row(NamedTuple):
    """Of a confusion matrix: a label's name, and what its images are taken for."""

    name: str
    cells: list[Cell]


def confusion(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """How many images of each label are taken for each class: int [K, K], rows are labels."""
    if num_classes == 1:  # of which scikit-learn warns
        return np.array([[len(label)]])
    return confusion_matrix(label, prediction, labels=np.arange(num_classes))


def matrix_rows(counts: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """The matrix for a page; shades are roots of shares of rows, so that few wrong ones show."""
    shades = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return [
        Row(name, [_cell(int(row[k]), float(shade[k]), k == label) for k in range(len(row))])
        for label, (name, row, shade) in enumerate(zip(classes, counts, shades, strict=True))
    ]


def _cell(count: int, shade: float, right: bool) -> Cell:
    kind = ('right deep' if shade > 0.85 else 'right') if right else 'wrong'
    return Cell(count, shade, kind if count else 'none')


def pairs_table(counts: np.ndarray, classes: Sequence[str], most: int) -> Table:
    """The confusions that happen most often, the most frequent first; at most so many."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind='stable')[:most]
    totals = counts.sum(axis=1)
    rows = [
        (classes[label], classes[prediction], int(n), 100 * float(n / totals[label]))
        for label, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if (n := wrong[label, prediction])
    ]
    columns = [
        Column('label', left=True),
        Column('prediction', left=True),
        Column('images', thousands),
        Column('of its label', '{:.1f} %'.format),
    ]
    return Table('Most frequent confusions', columns, rows)


def class_tables(counts: np.ndarray, classes: Sequence[str]) -> list[Table]:
    """How many images of each class are right: of all, or of the ten worst and best."""
    totals, right = counts.sum(axis=1), counts.diagonal()
    present = np.flatnonzero(totals)
    accuracy = right[present] / totals[present]
    order = present[np.lexsort((present, -totals[present], accuracy))]  # the worst first
    rows = [_class_row(index, counts, classes) for index in order]
    columns = [
        Column('class', left=True),
        Column('images', thousands),
        Column('right', '{:.1f} %'.format),
        Column('most often taken for', left=True),
    ]
    if len(rows) <= _TABLE_CLASSES:
        return [Table('Classes, the worst first', columns, rows)]
    half = _TABLE_CLASSES // 2
    worst = Table('The worst classes', columns, rows[:half])
    return [worst, Table('The best classes', columns, rows[: -half - 1 : -1])]


def _class_row(index: int, counts: np.ndarray, classes: Sequence[str]) -> tuple[Any, ...]:
    row = counts[index]
    others = np.where(np.arange(len(row)) == index, 0, row)
    worst = int(others.argmax())
    taken_for = f'{classes[worst]} ({others[worst]:,})' if others[worst] else None
    return classes[index], int(row.sum()), 100 * float(row[index] / row.sum()), taken_for
