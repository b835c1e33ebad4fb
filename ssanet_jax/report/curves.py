"""Learning curves of a run from its metrics.jsonl, and the published ones beside them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.models.registry import split_name

_POINTS = 300  # of a curve, at most
_REFERENCE = Path(__file__).parent / 'reference'
# Names of columns in the logs, and here.
_COLUMNS = {
    'train': {'loss': 'train_loss', 'top1': 'train_top1', 'learning_rate': 'learning_rate'},
    'test': {'loss': 'test_loss', 'top1': 'test_top1'},
    'val': {'top1': 'val_top1'},
}

Series = dict[str, np.ndarray]


class Curves(NamedTuple):
    """Of training and evaluation: {'x', 'loss', 'top1', ...}, arrays of one length each.

    Attributes:
      train: means over stretches of training, at their ends; with 'learning_rate'.
      evaluation: of the evaluation split.
      unit: of x: 'epoch', or 'step' where the length of an epoch is not known.
      not_finite: lines of metrics.jsonl with a value that is not; NaN in the arrays.
    """

    train: Series
    evaluation: Series
    unit: str
    not_finite: int


class Published(NamedTuple):
    """A curve of the SSANet authors, by epochs; as in `Curves`, without what they did not log."""

    name: str
    train: Series
    evaluation: Series


def read_curves(lines: Sequence[Mapping[str, Any]], steps_per_epoch: float | None) -> Curves:
    """The curves of `Workdir.read_metrics`; long ones are averaged over stretches."""
    scale = steps_per_epoch or 1.0
    train = _series(lines, 'train', ('loss', 'top1', 'learning_rate'), scale)
    evaluation = _series(lines, 'eval', ('loss', 'top1'), scale)
    not_finite = sum(
        any(isinstance(value, float) and not math.isfinite(value) for value in line.values())
        for line in lines
    )
    unit = 'epoch' if steps_per_epoch else 'step'
    return Curves(_thin(train), _thin(evaluation), unit, not_finite)


def steps_per_epoch(config: ConfigDict, lines: Sequence[Mapping[str, Any]]) -> float | None:
    """What a run tells of it without its data, by evaluations that were once an epoch, or None."""
    steps = [line['step'] for line in lines if line['split'] == 'eval'][:-1]  # The last ends it.
    return None if config.eval_every_steps > 0 or not steps else steps[-1] / len(steps)


def published(model: str, dataset: str) -> Published | None:
    """What the authors' code logged for this network on this data, if it is known.

    Args:
      model: as `config.model.name`.
      dataset: as `config.dataset.name`.
    """
    try:
        kind, network = split_name(model)
    except ValueError:  # a name of an older version
        return None
    data = dataset.partition(':')[0].partition('/')[0].replace('imagenet2012', 'imagenet')
    name = f'{data}_{kind}_{network}' if kind else f'{data}_{network}'
    known = {path.stem: path for path in _REFERENCE.glob('*.csv')}
    if name not in known:
        return None
    with known[name].open(newline='') as file:
        rows = list(csv.DictReader(file))
    x = np.array([float(row['epoch']) + 1 for row in rows])  # A line is of the end of its epoch.

    def columns(split: str) -> Series:
        there = {k: c for k, c in _COLUMNS[split].items() if c in rows[0]}
        return {'x': x, **{k: np.array([float(row[c]) for row in rows]) for k, c in there.items()}}

    return Published(name, columns('train'), {**columns('test'), **columns('val')})


def _series(
    lines: Sequence[Mapping[str, Any]], split: str, names: Sequence[str], scale: float
) -> Series:
    chosen = [line for line in lines if line.get('split') == split]
    series = {'x': np.array([line['step'] / scale for line in chosen])}
    for name in names:
        series[name] = np.array([line.get(name, np.nan) for line in chosen], float)
    return series


def _thin(series: Series) -> Series:
    """At most `_POINTS` points: means over equal stretches, at the ends of these."""
    length = len(series['x'])
    if length <= _POINTS:
        return series
    parts = np.array_split(np.arange(length), _POINTS)
    means = {name: np.array([values[p].mean() for p in parts]) for name, values in series.items()}
    return {**means, 'x': np.array([series['x'][part[-1]] for part in parts])}
