"""Writes metrics.jsonl and TensorBoard events."""

import os
import socket
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from etils import epath
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ssanet_jax.training.monitoring.dispensable import or_warn
from ssanet_jax.training.storage.atomic_io import AtomicAppender
from ssanet_jax.training.storage.workdir import Workdir, metrics_line

_EVENTS = 'Events for TensorBoard'  # metrics.jsonl has all of their values


class MetricsLog:
    """Appends to metrics.jsonl, one object per line, and to TensorBoard events.

    Every line has `step`, `split` ('train', 'eval' or 'gates') and values. Names of timings end in
    `_seconds` or `_per_second`; everything else is reproducible. Non-finite values are stored as
    null. Only the first host writes.

    Args:
      workdir: of the run.
      start_step: lines of later steps are removed; training is about to write them again.
    """

    def __init__(self, workdir: Workdir, start_step: int):
        self._primary = jax.process_index() == 0
        if not self._primary:
            return
        self._workdir = workdir
        self._file = AtomicAppender(workdir.metrics, workdir.metrics_up_to(start_step))
        self._events = or_warn(_EVENTS, partial(EventFile, workdir.path, start_step))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one line; raises SaveError, also where the workdir is another run's now."""
        if not self._primary:
            return
        self._workdir.check_lock()
        self._file.append(metrics_line(step, split, **values))
        scalars = {f'{split}/{name}': value for name, value in values.items()}
        if self._events:
            or_warn(_EVENTS, partial(self._events.write_scalars, step, scalars))


class EventFile:
    """A new file of scalars for TensorBoard in `folder`, which no longer shows later steps.

    Raises:
      OSError: it cannot be written.
    """

    def __init__(self, folder: epath.Path, start_step: int):
        name = f'{time.time():.0f}.{socket.gethostname()}.{os.getpid()}'
        self._path = folder / f'events.out.tfevents.{name}'
        self._write(file_version='brain.Event:2')
        # TensorBoard then drops what other files have from that step on.
        self._write(step=start_step + 1, session_log=SessionLog(status=SessionLog.START))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes values by tag, all of one step."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._write(step=step, summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:
        event = Event(wall_time=time.time(), **fields)
        with self._path.open('ab') as file:  # object stores show a file once it is closed
            RecordWriter(file).write(event.SerializeToString())
