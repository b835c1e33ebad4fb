"""What a run says at its beginning and leaves at its end: summary.json and a table."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from ssanet_jax.analysis.macs import Cost, count_tails, model_cost
from ssanet_jax.data import DatasetInfo
from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import si_format
from ssanet_jax.training.atomic_io import replace_text
from ssanet_jax.training.checkpoint import quality
from ssanet_jax.training.metrics_file import finite, read_metrics
from ssanet_jax.training.optimizer import trained
from ssanet_jax.training.train_state import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup

_VALUES = ('top1', 'top5', 'loss', 'num_examples')


def console() -> Console:
    """Prints on the first host only, and plain text in notebooks, which cannot move a bar."""
    plain = False if Console().is_jupyter else None
    return Console(quiet=jax.process_index() != 0, force_jupyter=False, force_terminal=plain)


def announce(
    console: Console,
    config: ConfigDict,
    run: TrainerSetup,
    info: DatasetInfo,
    state: TrainState,
    notes: Sequence[str],
) -> None:
    """Prints what is about to be trained, on what, from what; then `notes`."""
    devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}'
    rate, reference = config.optimizer.learning_rate, config.optimizer.reference_batch_size
    lines = [
        f'{config.model.name} on {config.dataset.name}: {info.num_train:,} training and '
        f'{info.num_eval:,} evaluation images of {info.num_classes} classes; {devices}, '
        f'{jax.process_count()} host(s).',
        f'{run.plan.num_train_steps:,} steps of {config.batch_size} images. Learning rate '
        f'{rate:g} for {reference} images is {run.plan.peak_learning_rate:g} for '
        f'{config.batch_size}.',
    ]
    if config.init.weights and state.step == 0:
        how = 'with SSA put in' if config.init.attention == 'insert' else 'as they are'
        what = 'Weights' if config.init.head == 'load' else 'Weights of all layers but the last'
        lines.append(f'{what} from {config.init.weights}, {how}.')
    if config.optimizer.train_only:
        marks = trained(state.params, patterns=config.optimizer.train_only)
        sizes = np.array([leaf.size for leaf in jax.tree.leaves(state.params)])
        chosen = sizes[np.array(jax.tree.leaves(marks))]
        lines.append(f'Training {chosen.sum():,} of {sizes.sum():,} parameters.')
    if info.hint:
        lines.append(info.hint)
    if state.step > 0:
        lines.append(f'Going on from the checkpoint of step {int(state.step):,}.')
    for line in [*lines, *notes]:
        console.print(line, soft_wrap=True, highlight=False)


def finish(console: Console, config: ConfigDict, run: TrainerSetup, folder: epath.Path) -> None:
    """Writes summary.json and prints a table and the paths of what the run has left."""
    cost = model_cost(run.model, run.image_size)
    tails = count_tails(run.model, run.image_size, config.batch_size // jax.device_count())
    summary: dict[str, Any] = write_summary(folder, cost, tails)
    columns = {
        f'{name} (step {summary[name]["step"]})': summary[name] for name in ('final', 'best')
    }
    rows = cost_rows(cost, summary['images_per_second'])
    if sum(tails.values()):
        rows['blocks folded'] = f'{tails["folded"]} of {sum(tails.values())}'
    print_table(console, f'{config.model.name} on {config.dataset.name}', columns, rows)
    console.print(f'Written to {folder}:')
    for name in ('summary.json', 'metrics.jsonl', 'config.json', 'checkpoints'):
        console.print(f'  {folder / name}', soft_wrap=True, highlight=False)
    console.print(f'Curves: tensorboard --logdir {folder}', soft_wrap=True, highlight=False)


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
        'macs': cost.macs,
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
        'multiply-adds': si_format(cost.macs),
    }
