"""The confusion matrix, the most frequent confusions, and the accuracy of each class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssanet_jax.tables import Column, Table, thousands

MATRIX_CLASSES = 30  # a larger matrix is unreadable
_TABLE_CLASSES = 20


class Cell(NamedTuple):
    """An entry of a confusion matrix: images, opacity of its color from 0 to 1, and CSS classes."""

    images: int
    opacity: float
    css: str


class Row(NamedTuple):
    """A row of a confusion matrix: the name of a label, and a cell for each prediction."""

    name: str
    cells: list[Cell]


def confusion(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts images by label (row) and prediction (column): int [K, K].

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    counts = np.zeros((num_classes, num_classes), int)
    np.add.at(counts, (label, prediction), 1)
    return counts


def matrix_rows(counts: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """The rows of the matrix; opacity is the root of the share of the row, so that errors show."""
    opacity = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = []
    for i, name in enumerate(classes):
        pairs = zip(counts[i].tolist(), opacity[i].tolist(), strict=True)
        rows.append(Row(name, [_cell(n, alpha, i == k) for k, (n, alpha) in enumerate(pairs)]))
    return rows


def _cell(count: int, opacity: float, correct: bool) -> Cell:
    css = ('correct deep' if opacity > 0.85 else 'correct') if correct else 'incorrect'
    return Cell(count, opacity, css if count else 'empty')


def confusions_table(counts: np.ndarray, classes: Sequence[str], max_rows: int) -> Table:
    """The most frequent confusions of a label with another class."""
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind='stable')[:max_rows]
    totals = counts.sum(axis=1)
    rows = [
        (classes[label], classes[prediction], int(n), 100 * float(n / totals[label]))
        for label, prediction in zip(*np.unravel_index(order, errors.shape), strict=True)
        if (n := errors[label, prediction])
    ]
    columns = [
        Column('label', left=True),
        Column('prediction', left=True),
        Column('images', thousands),
        Column('share of label', '{:.1f} %'.format),
    ]
    return Table('Most frequent confusions', columns, rows)


def class_tables(counts: np.ndarray, classes: Sequence[str]) -> list[Table]:
    """The accuracy of every class, or of the ten worst and the ten best."""
    totals, correct = counts.sum(axis=1), counts.diagonal()
    present = np.flatnonzero(totals)
    accuracy = correct[present] / totals[present]
    order = present[np.lexsort((present, -totals[present], accuracy))]  # worst first
    rows = [_class_row(index, counts, classes) for index in order]
    columns = [
        Column('class', left=True),
        Column('images', thousands),
        Column('accuracy', '{:.1f} %'.format),
        Column('most often predicted as', left=True),
    ]
    if len(rows) <= _TABLE_CLASSES:
        return [Table('Classes, worst first', columns, rows)]
    half = _TABLE_CLASSES // 2
    worst = Table('Worst classes', columns, rows[:half])
    return [worst, Table('Best classes', columns, rows[: -half - 1 : -1])]


def _class_row(index: int, counts: np.ndarray, classes: Sequence[str]) -> tuple[Any, ...]:
    row = counts[index]
    others = np.where(np.arange(len(row)) == index, 0, row)
    worst = int(others.argmax())
    confused_with = f'{classes[worst]} ({others[worst]:,})' if others[worst] else None
    return classes[index], int(row.sum()), 100 * float(row[index] / row.sum()), confused_with
