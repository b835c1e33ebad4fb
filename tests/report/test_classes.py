"""Confusions, against counting image by image."""

import numpy as np
import pytest

from ssanet_jax.report.classes import class_tables, confusion, confusions_table, matrix_rows


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 200)
    label[label == 2] = 0  # a class without an image
    return label, np.where(rng.random(200) < 0.6, label, rng.integers(0, 5, 200))


def test_the_matrix_has_a_row_per_label_and_a_column_per_prediction(answers):
    expected = [[0] * 5 for _ in range(5)]
    for label, prediction in zip(*answers, strict=True):
        expected[label][prediction] += 1
    counts = confusion(*answers, 5)
    assert counts.tolist() == expected
    rows = matrix_rows(counts, 'vwxyz')
    assert [[cell.images for cell in row.cells] for row in rows] == expected
    assert [row.name for row in rows] == list('vwxyz')
    total = sum(expected[1])
    assert rows[1].cells[3].opacity == pytest.approx((expected[1][3] / total) ** 0.5)
    assert rows[1].cells[1].css == 'correct'
    assert {cell.css for cell in rows[2].cells} == {'empty'}  # no image has this label
    assert rows[1].cells[0].css == 'incorrect'


def test_confusions_are_the_largest_entries_off_the_diagonal(answers):
    counts = confusion(*answers, 5)
    rows = confusions_table(counts, 'vwxyz', 100).rows
    assert confusions_table(counts, 'vwxyz', 3).rows == rows[:3]
    pairs = {('vwxyz'[i], 'vwxyz'[k]): counts[i, k] for i in range(5) for k in range(5) if i != k}
    assert {row[:2]: row[2] for row in rows} == {p: n for p, n in pairs.items() if n}
    assert [row[2] for row in rows] == sorted((n for n in pairs.values() if n), reverse=True)
    label, _, n, share = rows[0]
    of_label = np.sum(answers[0] == 'vwxyz'.index(label))
    assert share == pytest.approx(100 * n / of_label)


def test_classes_are_sorted_worst_first_with_their_most_frequent_confusion():
    label = np.repeat([0, 1, 2], [10, 20, 5])
    prediction = np.concatenate([[0] * 9 + [2], [1] * 5 + [0] * 12 + [2] * 3, [2] * 5])
    (table,) = class_tables(confusion(label, prediction, 4), ['a', 'b', 'c', 'absent'])
    assert table.rows == [
        ('b', 20, 25.0, 'a (12)'), ('a', 10, 90.0, 'c (1)'), ('c', 5, 100.0, None),
    ]  # fmt: skip


def test_only_the_worst_and_best_of_many_classes_are_listed():
    label = np.repeat(np.arange(40), 40)
    prediction = np.where(np.tile(np.arange(40), 40) < label, label, (label + 1) % 40)
    worst, best = class_tables(confusion(label, prediction, 40), [str(k) for k in range(40)])
    assert [row[0] for row in worst.rows] == [str(k) for k in range(10)]
    assert [row[0] for row in best.rows] == [str(k) for k in range(39, 29, -1)]


def test_a_single_class():
    counts = confusion(np.zeros(3, int), np.zeros(3, int), 1)
    assert counts.tolist() == [[3]]
    assert confusions_table(counts, ['a'], 10).rows == []
    assert class_tables(counts, ['a'])[0].rows == [('a', 3, 100.0, None)]
