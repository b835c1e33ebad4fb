"""What a run leaves and shows while it goes: metrics.jsonl, TensorBoard, traces, progress."""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import tensorflow as tf
from absl import logging
from clu import metric_writers
from etils import epath
from ml_collections import ConfigDict
from rich import progress as bars
from rich.console import Console

from ssanet_jax.training.atomic_io import AppendedFile
from ssanet_jax.training.metrics_file import line, lines_up_to


class MetricsLog:
    """Appends to metrics.jsonl, one object a line, and to TensorBoard events.

    Every line has `step`, `split` ('train' or 'eval') and values. Names of timings end in
    `_seconds` or `_per_second`; everything else is reproducible. A value that is not finite
    is null. Only the first host writes.

    Args:
      workdir: folder of metrics.jsonl and the events.
      start_step: lines of later steps are removed: training is about to write them again.
    """

    def __init__(self, workdir: epath.Path, start_step: int):
        self._primary = jax.process_index() == 0
        if not self._primary:
            return
        self._file = AppendedFile(workdir / 'metrics.jsonl', lines_up_to(workdir, start_step))
        self._events = metric_writers.SummaryWriter(os.fspath(workdir))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        if not self._primary:
            return
        self._file.append(line(step, split, **values))
        scalars = {f'{split}/{name}': value for name, value in values.items()}
        _or_warn(partial(self._events.write_scalars, step, scalars))

    def __enter__(self) -> 'MetricsLog':
        return self

    def __exit__(self, *exception: object) -> None:
        if self._primary:
            _or_warn(self._events.close)


def _or_warn(write: Callable[[], None]) -> None:
    """Writes events, which hold nothing that metrics.jsonl does not, if it can be done."""
    try:
        write()
    except tf.errors.OpError as error:
        reason = ' '.join(str(error.message).split())[:300]
        logging.warning('Events for TensorBoard could not be written: %s', reason)


class Trace:
    """Records a profiler trace of the steps that `config` names, for TensorBoard or Perfetto."""

    def __init__(self, config: ConfigDict, workdir: epath.Path):
        self._first = config.profile_start_step
        self._end = self._first + config.profile_num_steps - 1
        self._folder = os.fspath(workdir / 'profile')
        self._running = False

    def before(self, step: int) -> None:
        """Call before training step `step`."""
        if step == self._first:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Call after that step, with what it returned."""
        if self._running and step >= self._end:
            jax.block_until_ready(result)
            self.__exit__()

    def __enter__(self) -> 'Trace':
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:
            jax.profiler.stop_trace()
        self._running = False


class Stopwatch:
    """Images trained per second, without compilation, evaluation and saving.

    It stands until the first `resume`, at the end of the first step. Both `pause` and
    `resume` wait for `after`, since steps are still running when their call returns.
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._since: float | None = None

    def add(self, images: int) -> None:
        """Counts images, unless it stands."""
        if self._since is not None:
            self._images += images

    def pause(self, after: Any) -> None:
        if self._since is not None:
            jax.block_until_ready(after)
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def resume(self, after: Any) -> None:
        if self._since is None:
            jax.block_until_ready(after)
            self._since = time.perf_counter()

    def lap(self) -> float:
        """Images per second since the last lap, or 0 if none was timed."""
        self.pause(after=None)
        rate = self._images / self._seconds if self._images else 0.0
        self._images, self._seconds = 0, 0.0
        return rate


class Progress:
    """A bar with rate, time left, loss and learning rate on a terminal; plain lines elsewhere."""

    def __init__(self, console: Console, *, total: int, start: int, batch_size: int):
        self._console = console
        self._total = total
        self._batch_size = batch_size
        self._bar = bars.Progress(
            bars.TextColumn('step'),
            bars.MofNCompleteColumn(),
            bars.BarColumn(bar_width=20),
            bars.TextColumn('{task.fields[rate]}'),
            bars.TimeRemainingColumn(),
            bars.TextColumn('{task.fields[note]}'),
            console=console,
            disable=not console.is_terminal or console.quiet,
        )
        self._task = self._bar.add_task('', total=total, completed=start, rate='', note='compiling')

    def __enter__(self) -> 'Progress':
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        speed = self._bar.tasks[0].speed
        rate = f'{speed * self._batch_size:,.0f} images/s' if speed else ''
        self._bar.update(self._task, completed=step, rate=rate)

    def report(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Shows a line of metrics."""
        if split == 'train' and self._console.is_terminal:
            shown = {name: values[name] for name in ('loss', 'learning_rate')}
            self._bar.update(self._task, note=describe(shown))
        else:
            text = f'step {step}/{self._total}  {split:5}  {describe(values)}'
            self._console.print(text, soft_wrap=True, highlight=False)


_FORMATS = {
    'loss': 'loss {:.4f}',
    'top1': 'top-1 {:.2f}%',
    'learning_rate': 'learning rate {:.4g}',
    'images_per_second': '{:,.0f} images/s',
    'num_examples': '{:,} images',
}


def describe(values: Mapping[str, float]) -> str:
    """One short line of metrics.

    >>> describe({'loss': 0.03124, 'top1': 99.1667, 'num_examples': 360})
    'loss 0.0312  top-1 99.17%  360 images'
    """
    return '  '.join(text.format(values[name]) for name, text in _FORMATS.items() if name in values)
