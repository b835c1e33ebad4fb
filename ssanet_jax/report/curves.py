"""Learning curves of a run, from metrics.jsonl, and the published curves of the same network."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.config.dataset_name import plain_name
from ssanet_jax.models.registry import split_name

_MAX_POINTS = 300  # of a curve
_REFERENCE = Path(__file__).parent / 'reference'
# The columns of the published logs, by split and by our name.
_COLUMNS = {
    'train': {'loss': 'train_loss', 'top1': 'train_top1', 'learning_rate': 'learning_rate'},
    'test': {'loss': 'test_loss', 'top1': 'test_top1'},
    'val': {'top1': 'val_top1'},
}

Series = dict[str, np.ndarray]


class Curves(NamedTuple):
    """Training and evaluation curves: {'x', 'loss', 'top1', ...}, arrays of equal length.

    Attributes:
      train: means over the steps since the previous point; includes 'learning_rate'.
      evaluation: of the evaluation split.
      unit: of x: 'epoch', or 'step' if the length of an epoch is unknown.
      nonfinite: number of lines of metrics.jsonl with a non-finite value; NaN in the arrays.
    """

    train: Series
    evaluation: Series
    unit: str
    nonfinite: int


class PublishedCurves(NamedTuple):
    """Curves of the SSANet authors, by epoch, as in `Curves`, without series they did not log."""

    name: str
    train: Series
    evaluation: Series


def read_curves(lines: Sequence[Mapping[str, Any]], steps_per_epoch: float | None) -> Curves:
    """The curves of `Workdir.read_metrics`; long ones are averaged over stretches."""
    scale = steps_per_epoch or 1.0
    train = _series(lines, 'train', ('loss', 'top1', 'learning_rate'), scale)
    evaluation = _series(lines, 'eval', ('loss', 'top1'), scale)
    nonfinite = sum(
        any(isinstance(value, float) and not math.isfinite(value) for value in line.values())
        for line in lines
    )
    unit = 'epoch' if steps_per_epoch else 'step'
    return Curves(_thin(train), _thin(evaluation), unit, nonfinite)


def steps_per_epoch(config: ConfigDict, lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Steps per epoch inferred from evaluations once per epoch, or None; needs no dataset."""
    steps = [line['step'] for line in lines if line['split'] == 'eval']
    steps = steps[:-1]  # the last evaluation is at the end of training
    return None if config.eval_every_steps > 0 or not steps else steps[-1] / len(steps)


def published(model: str, dataset: str) -> PublishedCurves | None:
    """The curves that the authors logged for this network and dataset, if any.

    Args:
      model: `config.model.name`.
      dataset: `config.dataset.name`.
    """
    try:
        kind, network = split_name(model)
    except ValueError:  # a model of an older version
        return None
    data = plain_name(dataset).replace('imagenet2012', 'imagenet')
    name = f'{data}_{kind}_{network}' if kind else f'{data}_{network}'
    known = {path.stem: path for path in _REFERENCE.glob('*.csv')}
    if name not in known:
        return None
    with known[name].open(newline='') as file:
        rows = list(csv.DictReader(file))
    x = np.array([float(row['epoch']) + 1 for row in rows])  # logged at the end of the epoch

    def columns(split: str) -> Series:
        logged = {k: c for k, c in _COLUMNS[split].items() if c in rows[0]}
        return {'x': x, **{k: np.array([float(row[c]) for row in rows]) for k, c in logged.items()}}

    return PublishedCurves(name, columns('train'), {**columns('test'), **columns('val')})


def _series(
    lines: Sequence[Mapping[str, Any]], split: str, names: Sequence[str], scale: float
) -> Series:
    chosen = [line for line in lines if line.get('split') == split]
    series = {'x': np.array([line['step'] / scale for line in chosen])}
    for name in names:
        series[name] = np.array([line.get(name, np.nan) for line in chosen], float)
    return series


def _thin(series: Series) -> Series:
    """Reduces to `_MAX_POINTS` points: means over equal intervals, at the end of each."""
    length = len(series['x'])
    if length <= _MAX_POINTS:
        return series
    parts = np.array_split(np.arange(length), _MAX_POINTS)
    means = {name: np.array([values[p].mean() for p in parts]) for name, values in series.items()}
    return {**means, 'x': np.array([series['x'][part[-1]] for part in parts])}
