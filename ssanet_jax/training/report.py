"""The end of a run: summary.json and a table for people."""

import json
import statistics
from collections.abc import Mapping
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from ssanet_jax.analysis.cost import Cost
from ssanet_jax.config import ConfigError
from ssanet_jax.training.checkpoint import quality
from ssanet_jax.training.logs import finite, read_metrics, replace_text

_VALUES = ('top1', 'top5', 'loss', 'num_examples')


def write_summary(workdir: epath.Path, cost: Cost, tails: Mapping[str, int]) -> dict[str, Any]:
    """Sums up metrics.jsonl and the model's cost as summary.json, and returns it.

    `step` is the last evaluated one; `final` and `best` (highest top-1) each hold `step`,
    `top1` and `top5` in percent, `loss` in nats (null where it diverged), and
    `num_examples`. `tails` counts residual blocks computed in folded and in plain form.
    """
    lines = read_metrics(workdir)
    evaluated = [line for line in lines if line['split'] == 'eval']
    if not evaluated:
        raise ConfigError(f'{workdir}/metrics.jsonl lacks the evaluations of this run.')
    best = max(evaluated, key=lambda line: (quality(line), line['step']))
    rates = [r for line in lines if (r := line.get('images_per_second'))]
    summary = {
        'step': evaluated[-1]['step'],
        'final': finite({name: evaluated[-1][name] for name in ('step', *_VALUES)}),
        'best': finite({name: best[name] for name in ('step', *_VALUES)}),
        'parameters': cost.parameters,
        'multiply_adds': cost.multiply_adds,
        'tails': dict(tails),
        'images_per_second': statistics.median(rates) if rates else None,
    }
    replace_text(workdir / 'summary.json', json.dumps(summary, indent=2) + '\n')
    return summary


def print_table(
    console: Console,
    title: str,
    columns: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, str],
) -> None:
    """Prints evaluations side by side, then one line for each of `rows`."""
    table = Table(title=title, title_justify='left', show_header=len(columns) > 1)
    table.add_column('')
    for column in columns:
        table.add_column(column, justify='right')
    formats = {
        'top-1': lambda m: f'{m["top1"]:.2f} %',
        'top-5': lambda m: f'{m["top5"]:.2f} %',
        'loss': lambda m: 'not finite' if m['loss'] is None else f'{m["loss"]:.4f}',
        'images evaluated': lambda m: f'{m["num_examples"]:,}',
    }
    for name, text in formats.items():
        table.add_row(name, *(text(metrics) for metrics in columns.values()))
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def cost_rows(cost: Cost, rate: float | None = None) -> dict[str, str]:
    """What a table says of the model, after its evaluations."""
    rows = {'images/s, training': f'{rate:,.0f}'} if rate else {}
    return {
        **rows,
        'parameters': f'{cost.parameters:,}',
        'multiply-adds': f'{cost.multiply_adds / 1e6:,.4g} M',
    }
