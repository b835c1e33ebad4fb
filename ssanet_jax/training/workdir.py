"""The files of a run: their names, and reading, writing and locking them."""

import contextlib
import errno
import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from ssanet_jax.errors import ConfigError, WorkdirInUseError
from ssanet_jax.training.atomic_io import write_text


class Workdir:
    """The folder of a run. Other modules take file names from here.

    Attributes:
      path: the folder itself; a Workdir is accepted wherever a path is.
      config: the fields of the config, and the order of the examples.
      classes: the names of the classes, by label.
      data_files: one line per file of the data.
      starts: one line per start: machines, versions, data.
      metrics: one line per evaluation and per interval of training.
      summary: the final and the best evaluation, and the cost of the model.
      evaluation: of the last `main.py --mode=eval`.
      report: a page about the run.
      checkpoints, damaged, profile: folders; damaged checkpoints are moved out of `checkpoints`.
      run_lock: held by the process that trains.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(os.fspath(path))
        self.config = self.path / 'config.json'
        self.classes = self.path / 'classes.json'
        self.data_files = self.path / 'data_files.jsonl'
        self.starts = self.path / 'starts.jsonl'
        self.metrics = self.path / 'metrics.jsonl'
        self.summary = self.path / 'summary.json'
        self.evaluation = self.path / 'evaluation.json'
        self.report = self.path / 'report.html'
        self.checkpoints = self.path / 'checkpoints'
        self.damaged = self.path / 'damaged'
        self.profile = self.path / 'profile'
        self.run_lock = self.path / 'run.lock'

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    __str__ = __fspath__

    def make(self) -> None:
        """Creates the folder if it is missing; raises ConfigError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f'--workdir={self} cannot be created: {error}.') from error

    def remove_partial_files(self) -> None:
        """Removes what killed processes left unfinished; call it while holding the lock."""
        for path in self.path.iterdir():
            if path.name.endswith('.partial') and path.is_file():
                path.unlink()

    def lock(self) -> 'Lock':
        """Locks the folder for one process: a context manager."""
        return Lock(self.run_lock)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, damaged or not, ascending."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(p.name) for p in self.checkpoints.iterdir() if p.name.isdigit())

    def read_config(self) -> dict[str, Any]:
        """The fields of config.json; raises ConfigError if the folder is not that of a run."""
        if not self.checkpoints.is_dir():
            raise ConfigError(f'{self} holds no checkpoints/; name the workdir of a run.')
        if not self.config.exists():
            raise ConfigError(f'{self} holds checkpoints but no config.json; use a new workdir.')
        try:
            return dict(json.loads(self.config.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(self.config, error, 'use a new workdir') from error

    def read_classes(self) -> tuple[str, ...]:
        """The names of the classes, by label; () if the file is missing. Raises ConfigError."""
        try:
            names = json.loads(self.classes.read_text()) if self.classes.exists() else []
            if not isinstance(names, list):
                raise TypeError(f'expected a list of names, got {type(names).__name__}')
            return tuple(map(str, names))
        except (OSError, ValueError, TypeError) as error:
            raise _unreadable(self.classes, error, 'remove it') from error

    def read_starts(self) -> list[dict[str, Any]]:
        """The lines of starts.jsonl, up to one that is cut off."""
        starts = []
        for line in self.starts.read_text().splitlines() if self.starts.exists() else []:
            try:
                starts.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                break
        return starts

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without a last one that is cut off; null is read as NaN.

        Raises:
          ConfigError: another line is damaged.
        """
        try:
            lines = self.metrics.read_text().split('\n') if self.metrics.exists() else ['']
            parsed = [dict(json.loads(line)) for line in lines[:-1]]
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f'{self.metrics} is damaged: {error}. Restore a copy, or use a new workdir.'
            ) from error
        return [{k: math.nan if v is None else v for k, v in line.items()} for line in parsed]

    def metrics_up_to(self, step: int) -> str:
        """The text of metrics.jsonl without the lines of later steps."""
        return ''.join(metrics_line(**x) for x in self.read_metrics() if x['step'] <= step)

    def write_starts(self, starts: Sequence[Mapping[str, Any]]) -> None:
        """Replaces starts.jsonl; raises SaveError."""
        write_text(self.starts, ''.join(json.dumps(start) + '\n' for start in starts))


def _unreadable(path: epath.Path, error: Exception, otherwise: str) -> ConfigError:
    reason = ' '.join(str(error).split())
    return ConfigError(f'{path} cannot be read: {reason}. Restore a copy, or {otherwise}.')


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values with None in place of NaN and infinities, which JSON does not have."""
    return {name: v if math.isfinite(v) else None for name, v in values.items()}


def metrics_line(step: int, split: str, **values: float) -> str:
    """One line of metrics.jsonl; non-finite values are stored as null."""
    return json.dumps({'step': step, 'split': split, **finite(values)}) + '\n'


# Errors of file systems that do not support locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Lock:
    """An exclusive lock: a file that names the host, process and time of its holder.

    The system releases it when the process ends, however it ends, so a killed run leaves nothing
    in the way. Shared file systems pass locks between hosts; object stores such as gs:// have no
    locks, and nothing is locked there.

    Raises:
      WorkdirInUseError: another process holds it.
      ConfigError: the file cannot be written.
    """

    def __init__(self, path: epath.Path):
        self._path = os.fspath(path)

    def __enter__(self) -> 'Lock':
        if '://' in self._path:
            return self
        try:
            self._acquire()
            self._file.truncate(0)
            holder = {'host': socket.gethostname(), 'pid': os.getpid(), 'since': time.time()}
            self._file.write(json.dumps(holder))
            self._file.flush()
        except BlockingIOError as error:
            with self._file:
                self._file.seek(0)
                raise WorkdirInUseError(_held(self._path, self._file.read())) from error
        except OSError as error:
            raise ConfigError(
                f'{self._path} cannot be written: {error.strerror}. Free some space or grant '
                'permission, or choose another --workdir.'
            ) from error
        return self

    def _acquire(self) -> None:
        while True:
            self._file = open(self._path, 'a+')  # noqa: SIM115
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logging.warning(
                    '%s: no locks on this file system; do not start two runs here.', self._path
                )
            # Its holder may have removed the file between `open` and `flock`.
            if os.path.exists(self._path) and os.path.samestat(
                os.fstat(self._file.fileno()), os.stat(self._path)
            ):
                return
            self._file.close()

    def __exit__(self, *exception: object) -> None:
        if '://' not in self._path:
            with contextlib.suppress(OSError):
                os.remove(self._path)
            self._file.close()


def _held(path: str, text: str) -> str:
    holder = 'Another process'
    try:
        fields = json.loads(text)
        minutes = (time.time() - fields['since']) / 60
        holder = f'Process {fields["pid"]} on {fields["host"]}, for {minutes:.0f} minutes,'
    except (ValueError, KeyError, TypeError):
        pass  # It has just taken the lock and not written its name yet.
    return f'{holder} runs in this workdir and holds {path}; wait for it, stop it, or use another.'
