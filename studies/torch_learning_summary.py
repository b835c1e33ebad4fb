"""What the runs of torch_learning.py show: when losses diverge, and how accuracies differ."""

import statistics
from typing import Any

import numpy as np

COMPARED_STEPS = 200
LEVELS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# The runs of seed 0 whose losses are compared with those of `ours` in the same dtype.
COMPARISONS = {
    'float32 torch': ('ours float32 0', 'torch float32 0'),
    'float32 one ulp': ('ours float32 0', 'ours float32 0 changed'),
    'float64 torch': ('ours float64 0', 'torch float64 0'),
    'float64 one ulp': ('ours float64 0', 'ours float64 0 changed'),
}

Runs = dict[str, dict[str, Any]]


def comparisons(runs: Runs) -> list[str]:
    """The names of the comparisons whose runs have ended."""
    return [name for name, pair in COMPARISONS.items() if runs.keys() >= {*pair}]


def relative_difference(runs: Runs, name: str) -> np.ndarray:
    """|other - ours| / ours of the losses of a comparison, [steps]."""
    ours, other = (np.array(runs[run]['losses'][:COMPARED_STEPS]) for run in COMPARISONS[name])
    return abs(other - ours) / ours


def summarize(runs: Runs) -> dict[str, Any]:
    """For each comparison, the first step, from 0, above each level; and paired test results."""
    exceeded: dict[str, dict[str, int | None]] = {}
    for name in comparisons(runs):
        difference = relative_difference(runs, name)
        steps = {f'{level:g}': np.flatnonzero(difference > level) for level in LEVELS}
        exceeded[name] = {level: int(s[0]) if s.size else None for level, s in steps.items()}
    largest = {
        name: {f'first {n}': float(relative_difference(runs, name)[:n].max()) for n in (10, 50)}
        for name in comparisons(runs)
    }
    seeds = [name.split()[2] for name in runs if name.startswith('torch float32')]  # after ours
    pairs = {
        f'{kind} {metric}': [
            {
                'seed': int(seed),
                'ours': runs[f'ours float32 {seed}']['test'][metric],
                'torch': runs[f'torch float32 {seed}'][kind][metric],
            }
            for seed in seeds
        ]
        for kind in ('test', 'test_with_biased_variances')
        for metric in ('top1', 'loss')
    }
    return {
        'largest_relative_difference_of_the_loss': largest,
        'first_step_with_a_larger_relative_difference': exceeded,
        'pairs': {name: paired(rows) for name, rows in pairs.items() if rows},
    }


def paired(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means of both, and the mean and standard deviation of torch minus ours."""
    differences = [row['torch'] - row['ours'] for row in rows]
    return {
        'ours': statistics.mean(row['ours'] for row in rows),
        'torch': statistics.mean(row['torch'] for row in rows),
        'difference': statistics.mean(differences),
        'deviation_of_differences': statistics.stdev(differences) if len(rows) > 1 else None,
        'rows': rows,
    }
