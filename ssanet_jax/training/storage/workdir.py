"""The files of a run: their names, and reading, writing and locking them."""

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from ssanet_jax.errors import ConfigError, file_errors, one_line, reason_of
from ssanet_jax.output import printable
from ssanet_jax.training.storage.atomic_io import write_text
from ssanet_jax.training.storage.file_reading import list_names, read_text
from ssanet_jax.training.storage.lock import Lock


class Workdir:
    """The folder of a run. Other modules take file names from here.

    Attributes:
      path: the folder itself; a Workdir is accepted wherever a path is.
      config: the fields of the config, and the order of the examples.
      classes: the names of the classes, by label.
      parameters: a table of the names, shapes and types of the parameters.
      data_files: one line per file of the data.
      starts: one line per start: machines, versions, data.
      metrics: one line per evaluation and per interval of training.
      summary: the final and the best evaluation, and the cost of the model.
      evaluation: of the last `ssanet train --mode=eval`.
      report: a page about the run.
      checkpoints, damaged, profile: folders; damaged checkpoints are moved out of `checkpoints`.
      pruned: checkpoints about to be deleted.
      run_lock: held by the process that trains.
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(os.fspath(path))
        self.config = self.path / 'config.json'
        self.classes = self.path / 'classes.json'
        self.parameters = self.path / 'parameters.txt'
        self.data_files = self.path / 'data_files.jsonl'
        self.starts = self.path / 'starts.jsonl'
        self.metrics = self.path / 'metrics.jsonl'
        self.summary = self.path / 'summary.json'
        self.evaluation = self.path / 'evaluation.json'
        self.report = self.path / 'report.html'
        self.checkpoints = self.path / 'checkpoints'
        self.pruned = self.checkpoints / 'pruned'
        self.damaged = self.path / 'damaged'
        self.profile = self.path / 'profile'
        self.run_lock = self.path / 'run.lock'
        self._lock = Lock(self.run_lock)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    __str__ = __fspath__

    def check_name(self) -> None:
        """Raises ConfigError for a name that garbles messages or that libraries misread."""
        name = os.path.abspath(self)
        problem = ''
        if printable(name) != name:
            problem = 'control characters, or bytes that are not UTF-8'
        elif 'gs:/' in name and '://' not in str(self):
            problem = "a folder whose name ends with 'gs:', which Orbax takes for a bucket"
        elif '\\' in name:
            problem = 'a backslash, which TensorStore does not find again'
        if problem:
            raise ConfigError(f'{printable(name)} has {problem}; choose another name.')

    def make(self) -> bool:
        """Creates the folder unless it exists; returns whether it did. Raises ConfigError."""
        self.check_name()
        try:
            missing = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            return missing
        except file_errors() as error:
            raise ConfigError(f'--workdir={self} cannot be created: {reason_of(error)}.') from error

    def remove_if_empty(self) -> None:
        """Removes the folder if it is empty, as after a mistake that was found before training."""
        if '://' not in str(self):
            with contextlib.suppress(OSError):
                os.rmdir(self)

    def remove_partial_files(self) -> None:
        """Removes what killed processes left unfinished; call it while holding the lock."""
        for path in self.path.iterdir():
            if path.name.endswith('.partial') and path.is_file():
                path.unlink()

    def lock(self) -> Lock:
        """The lock of the folder for one process: a context manager."""
        return self._lock

    def check_lock(self) -> None:
        """Raises SaveError if this object holds the lock and the folder is another one now."""
        self._lock.check()

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, damaged or not, ascending; raises RunError."""
        names = [name for name in list_names(self.checkpoints) or [] if name.isdigit()]
        if '://' in str(self):  # where Orbax writes in place, and a marker last
            from orbax.checkpoint.utils import is_checkpoint_finalized

            names = [name for name in names if is_checkpoint_finalized(self.checkpoints / name)]
        return sorted(map(int, names))

    def read_config(self) -> dict[str, Any]:
        """The fields of config.json.

        Raises:
          ConfigError: the folder is not that of a run, or the file is damaged.
          RunError: it cannot be read now; so for all files.
        """
        if list_names(self.checkpoints) is None:
            raise ConfigError(f'{self} holds no checkpoints/; name the workdir of a run.')
        text = read_text(self.config)
        if text is None:
            raise ConfigError(
                f'{self} holds checkpoints/ but no config.json; wait until its run has started, or '
                'use a new workdir.'
            )
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise _damaged(self.config, error, 'use a new workdir') from error

    def read_classes(self) -> tuple[str, ...]:
        """The names of the classes, by label; () if the file is missing. Raises ConfigError."""
        try:
            names = json.loads(read_text(self.classes) or '[]')
            if not isinstance(names, list):
                raise TypeError(f'expected a list of names, got {type(names).__name__}')
            return tuple(map(str, names))
        except (ValueError, TypeError) as error:
            raise _damaged(self.classes, error, 'remove it') from error

    def read_starts(self) -> list[dict[str, Any]]:
        """The lines of starts.jsonl, up to one that is cut off."""
        starts = []
        for line in (read_text(self.starts) or '').splitlines():
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
            lines = (read_text(self.metrics) or '').split('\n')
            parsed = [dict(json.loads(line)) for line in lines[:-1]]
            for line in parsed:
                int(line['step']), str(line['split'])
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(self.metrics, error, 'use a new workdir') from error
        return [{k: math.nan if v is None else v for k, v in line.items()} for line in parsed]

    def read_evaluation(self) -> dict[str, Any]:
        """The content of evaluation.json; {} if the file is missing. Raises ConfigError."""
        try:
            content = dict(json.loads(read_text(self.evaluation) or '{}'))
        except (ValueError, TypeError) as error:
            raise _damaged(self.evaluation, error, 'remove it') from error
        return {k: math.nan if v is None else v for k, v in content.items()}

    def metrics_up_to(self, step: int) -> str:
        """The text of metrics.jsonl without the lines of later steps."""
        return ''.join(metrics_line(**x) for x in self.read_metrics() if x['step'] <= step)

    def write_starts(self, starts: Sequence[Mapping[str, Any]]) -> None:
        """Replaces starts.jsonl; raises SaveError."""
        write_text(self.starts, ''.join(json.dumps(start) + '\n' for start in starts))


def _damaged(path: epath.Path, error: Exception, otherwise: str) -> ConfigError:
    reason = f'it has no {error}' if isinstance(error, KeyError) else one_line(error)
    return ConfigError(f'{path} is damaged: {reason}. Restore a copy, or {otherwise}.')


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values with None in place of NaN and infinities, which JSON does not have."""
    return {name: v if math.isfinite(v) else None for name, v in values.items()}


def metrics_line(step: int, split: str, **values: float) -> str:
    """One line of metrics.jsonl; non-finite values are stored as null."""
    return json.dumps({'step': step, 'split': split, **finite(values)}) + '\n'
