"""Profiler traces and training throughput."""

import os
import time
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.training.monitoring.dispensable import or_warn

_WHAT = 'The profiler trace'


class Trace:
    """Records a profiler trace of the steps that `config` names, for TensorBoard or Perfetto.

    A trace that cannot be written, or whose first step is not after `start`, is only reported.
    """

    def __init__(self, config: ConfigDict, folder: epath.Path, start: int):
        self._first = config.profile_start_step
        self._end = self._first + config.profile_num_steps - 1
        # JAX names a trace after the machine, which several processes may share.
        several = jax.process_count() > 1
        self._folder = folder / f'process{jax.process_index()}' if several else folder
        self._running = False
        if 0 < self._first <= start:
            logging.warning(
                'config.profile_start_step=%d has passed: the run resumes from step %d. No trace '
                'is recorded; choose a later step.', self._first, start,
            )  # fmt: skip

    def before(self, step: int) -> None:
        """Call before training step `step`."""
        if step == self._first:
            self._running = bool(or_warn(_WHAT, self._start))

    def after(self, step: int, result: Any) -> None:
        """Call after that step, with what it returned."""
        if self._running and step >= self._end:
            jax.block_until_ready(result)
            self.__exit__()

    def _start(self) -> bool:
        # First, since a trace that JAX cannot write stays open, and no other can be started.
        self._folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(os.fspath(self._folder))
        return True

    def __enter__(self) -> 'Trace':
        return self

    def __exit__(self, *exception: object) -> None:
        if self._running:
            or_warn(_WHAT, jax.profiler.stop_trace)
        self._running = False


class Stopwatch:
    """Measures training throughput without compilation, evaluation and checkpoints.

    It is paused until the first `resume`, at the end of the first step. `pause` and `resume` wait
    for `after`, since steps are still running when their call returns.
    """

    def __init__(self) -> None:
        self._images = 0
        self._seconds = 0.0
        self._since: float | None = None

    def add(self, images: int) -> None:
        """Counts images, unless paused."""
        if self._since is not None:
            self._images += images

    def pause(self, after: Any) -> None:
        """Stops counting once `after` is computed."""
        if self._since is not None:
            jax.block_until_ready(after)
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def resume(self, after: Any) -> None:
        """Counts again once `after` is computed."""
        if self._since is None:
            jax.block_until_ready(after)
            self._since = time.perf_counter()

    def lap(self, after: Any) -> float:
        """Images per second since the last lap, or 0 if none was timed; pauses."""
        self.pause(after)
        throughput = self._images / self._seconds if self._images else 0.0
        self._images, self._seconds = 0, 0.0
        return throughput
