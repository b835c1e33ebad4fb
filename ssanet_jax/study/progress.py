"""Terminal output of a study: a bar with the time left, and a line per finished run."""

import time

from rich import progress as bars
from rich.console import Console

from ssanet_jax.config import make_plan
from ssanet_jax.study.definition import Study
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.training.storage.workdir import Workdir


class Progress:
    """A bar of training steps on a terminal, and a line for each run that ends.

    Args:
      study: to run.
      folder: of its results; runs of other hosts count too.
      num_train_examples: of the training split.
    """

    def __init__(self, study: Study, folder: StudyFolder, num_train_examples: int):
        self.folder = folder
        self._runs = list(study.runs())
        self._steps = make_plan(study.config, num_train_examples).num_train_steps
        self._console = Console(markup=False, emoji=False)
        self._bar = bars.Progress(
            bars.TextColumn('{task.fields[runs]} runs'),
            bars.BarColumn(bar_width=30),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._before, self._began = self._steps_done(), time.monotonic()
        total = self._steps * len(self._runs)
        self._task = self._bar.add_task('', total=total, completed=self._before, runs='')
        self._console.print(
            f'{study.question} {len(study.variants)} variants x {len(study.seeds)} seeds; '
            f'{self._finished()} of {len(self._runs)} runs are complete.'
        )

    def __enter__(self) -> 'Progress':
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self) -> None:
        """Moves the bar."""
        runs = f'{self._finished()}/{len(self._runs)}'
        self._bar.update(self._task, completed=self._steps_done(), runs=runs)

    def report(self, variant: str, seed: int, accuracy: float | None, error: str) -> None:
        """Prints how a run ended, and the time left."""
        done = self._steps_done()
        rate = (done - self._before) / (time.monotonic() - self._began)
        left = (self._steps * len(self._runs) - done) / rate / 60 if rate > 0 else None
        result = f'top-1 {accuracy:.2f}%' if accuracy is not None else f'failed: {error}'
        self._console.print(
            f'{self._finished()}/{len(self._runs)}  {variant}, seed {seed}: {result}'
            + ('' if left is None else f'; {left:,.0f} minutes left'),
            highlight=False,
            soft_wrap=True,
        )

    def _finished(self) -> int:
        return len(set(self._runs) & set(self.folder.finished()))

    def _steps_done(self) -> int:
        """Steps of complete runs, and those logged of the others."""
        finished = set(self.folder.finished())
        steps = 0
        for variant, seed in self._runs:
            if (variant, seed) in finished:
                steps += self._steps
            elif (workdir := Workdir(self.folder.workdir(variant, seed))).metrics.exists():
                steps += max((line['step'] for line in workdir.read_metrics()), default=0)
        return steps
