"""Terminal output of a run: the announcement, the progress bar and the final table."""

import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssanet_jax.analysis.macs import Cost, count_tails, model_cost
from ssanet_jax.config.sizes import train_sizes
from ssanet_jax.data import DatasetInfo
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable
from ssanet_jax.tables import si_format
from ssanet_jax.training.checkpoints.retention import quality
from ssanet_jax.training.optimizer import trainable_mask
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage.atomic_io import write_json
from ssanet_jax.training.storage.workdir import Workdir, finite
from ssanet_jax.training.trainer_setup import TrainerSetup


def make_console() -> Console:
    """A console of the first host only; plain text in notebooks, which cannot move a bar."""
    plain = False if Console().is_jupyter else None
    return Console(quiet=jax.process_index() != 0, force_jupyter=False, force_terminal=plain)


def say(console: Console, text: str) -> None:
    """Prints a line as it is: paths may hold brackets, colons and escape sequences."""
    console.print(Text(printable(text)), soft_wrap=True)


def announce(
    console: Console,
    config: ConfigDict,
    setup: TrainerSetup,
    info: DatasetInfo,
    state: TrainState,
    notes: Sequence[str],
) -> None:
    """Prints the model, data, devices, length and learning rate of a run; then `notes`."""
    devices = f'{setup.mesh.size} x {setup.mesh.devices.flat[0].device_kind}'
    if jax.process_count() > 1:
        devices += f' on {jax.process_count()} hosts'
    rate, images = setup.plan.peak_learning_rate, config.optimizer.reference_batch_size
    per = f' ({config.optimizer.learning_rate:g} per {images:,} images)'
    lines = [
        f'{config.model.name} on {config.dataset.name}: {info.num_train:,} training and '
        f'{info.num_eval:,} evaluation images, {info.num_classes:,} classes; {devices}.',
        f'{setup.plan.num_train_steps:,} steps of {config.batch_size:,} images; peak learning rate '
        f'{rate:g}{per if config.batch_size != images else ""}.',
    ]
    if config.init.weights and state.step == 0:
        how = ', with SSA inserted' if config.init.attention == 'insert' else ''
        what = 'Weights' if config.init.head == 'load' else 'Weights of all layers but the last'
        lines.append(f'{what} from {config.init.weights}{how}.')
    if config.optimizer.train_only:
        mask = trainable_mask(state.params, patterns=config.optimizer.train_only)
        sizes = np.array([leaf.size for leaf in jax.tree.leaves(state.params)])
        chosen = sizes[np.array(jax.tree.leaves(mask))]
        lines.append(f'Training {chosen.sum():,} of {sizes.sum():,} parameters.')
    growing = train_sizes(config.dataset, setup.plan, int(state.step))
    if len(growing) > 1:
        pixels = ', '.join(map(str, growing))
        lines.append(f'Training images grow: {pixels} pixels. All steps are compiled first.')
    if info.hint:
        lines.append(info.hint)
    if state.step > 0:
        lines.append(f'Resuming from the checkpoint of step {int(state.step):,}.')
    for line in [*lines, *notes]:
        say(console, line)


class Progress:
    """A bar with throughput, time left and loss on a terminal; plain lines elsewhere."""

    def __init__(self, console: Console, *, total: int, start: int, batch_size: int):
        self._console = console
        self._total = total
        self._batch_size = batch_size
        self._bar = bars.Progress(
            bars.TextColumn('step'),
            bars.MofNCompleteColumn(),
            bars.BarColumn(bar_width=20),
            bars.TextColumn('{task.fields[throughput]}', markup=False),
            bars.TimeRemainingColumn(),
            bars.TextColumn('{task.fields[note]}', markup=False),
            console=console,
            disable=not console.is_terminal or console.quiet,
        )
        self._task = self._bar.add_task(
            '', total=total, completed=start, throughput='', note='compiling'
        )

    def __enter__(self) -> 'Progress':
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar.disable:
            return
        speed = self._bar.tasks[0].speed
        throughput = f'{speed * self._batch_size:,.0f} images/s' if speed else ''
        self._bar.update(self._task, completed=step, throughput=throughput)

    def report(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Shows one line of metrics."""
        if split == 'train' and self._console.is_terminal:
            shown = {name: values[name] for name in ('loss', 'learning_rate')}
            self._bar.update(self._task, note=describe(shown))
        else:
            text = f'step {step}/{self._total}  {split:5}  {describe(values)}'
            say(self._console, text)


_FORMATS = {
    'loss': 'loss {:.4f}',
    'top1': 'top-1 {:.2f}%',
    'learning_rate': 'learning rate {:.4g}',
    'images_per_second': '{:,.0f} images/s',
    'num_examples': '{:,} images',
}
_NOT_SHOWN = ('top5', 'skipped_steps')


def describe(values: Mapping[str, float]) -> str:
    """One short line of metrics.

    >>> describe({'loss': 0.03124, 'top1': 99.1667, 'num_examples': 360, 'margin': 2.5})
    'loss 0.0312  top-1 99.17%  360 images  margin 2.5'
    """
    known = [text.format(values[name]) for name, text in _FORMATS.items() if name in values]
    others = values.keys() - _FORMATS.keys() - set(_NOT_SHOWN)
    return '  '.join([*known, *(f'{name} {values[name]:.4g}' for name in sorted(others))])


def finish(console: Console, config: ConfigDict, setup: TrainerSetup, workdir: Workdir) -> None:
    """Writes summary.json, and prints a table and the paths of the files that the run left."""
    cost = model_cost(setup.model, setup.eval_size)
    images = config.batch_size // (setup.mesh.size * config.micro_batches)
    tails = count_tails(setup.model, setup.image_size, images)
    summary: dict[str, Any] = write_summary(workdir, cost, tails)
    columns = {
        f'{name} (step {summary[name]["step"]})': summary[name] for name in ('final', 'best')
    }
    rows = cost_rows(cost, setup.eval_size, summary['images_per_second'])
    if sum(tails.values()):
        rows['folded tails'] = f'{tails["folded"]} of {sum(tails.values())}'
    print_table(console, f'{config.model.name} on {config.dataset.name}', columns, rows)
    paths = (workdir.summary, workdir.metrics, workdir.config, workdir.checkpoints)
    for line in (
        f'Written to {workdir}:',
        *(f'  {path}' for path in paths),
        f'Curves: tensorboard --logdir {shlex.quote(os.fspath(workdir))}',
    ):
        say(console, line)


def write_summary(workdir: Workdir, cost: Cost, tails: Mapping[str, int]) -> dict[str, Any]:
    """Writes summary.json from metrics.jsonl and the model's cost, and returns it.

    `step` is the last evaluated one. `final` and `best` (highest top-1) each hold `step` and its
    evaluation: `top1` and `top5` in percent, `loss` in nats (null where it diverged),
    `num_examples`, and metrics of your own. `tails` counts residual blocks by implementation.

    Raises:
      ConfigError: metrics.jsonl has no evaluation.
      SaveError: the file cannot be written.
    """
    lines = workdir.read_metrics()
    evaluated = [line for line in lines if line['split'] == 'eval']
    if not evaluated:
        raise ConfigError(f'{workdir.metrics} holds no evaluation of this run.')
    best = max(evaluated, key=lambda line: (quality(line), line['step']))
    throughputs = [x for line in lines if (x := line.get('images_per_second'))]
    summary = {
        'step': evaluated[-1]['step'],
        'final': _evaluation(evaluated[-1]),
        'best': _evaluation(best),
        'parameters': cost.parameters,
        'macs': cost.macs,
        'tails': dict(tails),
        'images_per_second': statistics.median(throughputs) if throughputs else None,
    }
    write_json(workdir.summary, summary)
    return summary


def _evaluation(line: Mapping[str, Any]) -> dict[str, float | None]:
    return finite({name: value for name, value in line.items() if name != 'split'})


def print_table(
    console: Console,
    title: str,
    columns: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, str],
) -> None:
    """Prints evaluations side by side, then one line for each of `rows`."""
    # Not the table's own title, which would be wrapped at its width.
    console.print(Text(printable(title), style='table.title'), soft_wrap=True)
    table = Table(show_header=len(columns) > 1)
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


def cost_rows(cost: Cost, size: int, throughput: float | None = None) -> dict[str, str]:
    """Rows of a table about the model, below its evaluations at `size` pixels."""
    rows = {'images/s, training': f'{throughput:,.0f}'} if throughput else {}
    return {
        **rows,
        'parameters': f'{cost.parameters:,}',
        'MACs': f'{si_format(cost.macs)} at {size}x{size}',
    }
