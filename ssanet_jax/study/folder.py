"""The files of a study, and the record of one run."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run of one variant and one seed leaves: any statistic can be computed from it.

    Attributes:
      log_probs: log-probabilities of the test images after the last epoch, float16 [N, K].
      steps: training steps at which `train_loss` was logged, int32 [T].
      train_loss: mean loss since the step before, float32 [T].
      predictions: classes of the corrupted test images, uint16 [C, N], C as `corruptions` in
        study.json.
      images_per_second: training throughput, compilation and evaluation aside.
      seconds: of training at that throughput.
    """

    log_probs: np.ndarray
    steps: np.ndarray
    train_loss: np.ndarray
    predictions: np.ndarray
    images_per_second: float
    seconds: float


class StudyFolder:
    """The folder of a study. Other modules take file names from here.

    Attributes:
      path: the folder itself.
      description: study.json: the config, the variants with their cost, seeds, versions, machine.
      labels: labels.npy, the classes of the test images.
      runs: runs/VARIANT/SEED.npz, one `RunRecord` each.
      work: workdirs of runs that have not ended; removed one by one.
      results: results.json, the analysis.
      markdown, page: results.md and results.html, written from the analysis.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.description = self.path / 'study.json'
        self.labels = self.path / 'labels.npy'
        self.runs = self.path / 'runs'
        self.work = self.path / 'work'
        self.results = self.path / 'results.json'
        self.markdown = self.path / 'results.md'
        self.page = self.path / 'results.html'

    def __str__(self) -> str:
        return os.fspath(self.path)

    def read_description(self) -> dict[str, Any]:
        """The content of study.json; raises ConfigError."""
        try:
            return dict(json.loads(self.description.read_text()))
        except FileNotFoundError as error:
            raise ConfigError(
                f'{self} holds no study.json; expected the --out of ssanet study.'
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f'{self.description} cannot be read: {error}.') from error

    def read_labels(self) -> np.ndarray:
        """Classes of the test images, int32 [N]; raises ConfigError."""
        try:
            return np.load(self.labels, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f'{self.labels} cannot be read: {error}.') from error

    def run_path(self, variant: str, seed: int) -> Path:
        """File of a run's record."""
        return self.runs / variant / f'{seed:03d}.npz'

    def workdir(self, variant: str, seed: int) -> Path:
        """Workdir of a run that has not ended."""
        return self.work / f'{variant}_{seed:03d}'

    def figure(self, name: str) -> Path:
        """File of a figure of the results."""
        return self.path / f'{name}.svg'

    def finished(self) -> Iterator[tuple[str, int]]:
        """(variant, seed) of each run that has a record."""
        for path in sorted(self.runs.glob('*/*.npz')):
            yield path.parent.name, int(path.stem)

    def read_run(self, variant: str, seed: int) -> RunRecord:
        """The record of a run; raises ConfigError."""
        path = self.run_path(variant, seed)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values: dict[str, Any] = {name: arrays[name] for name in arrays.files}
            for name in ('images_per_second', 'seconds'):
                values[name] = float(values[name])
            return RunRecord(**values)
        except Exception as error:  # zipfile and NumPy raise many kinds for a damaged file
            raise ConfigError(
                f'{path} cannot be read: {error}. Remove it and run the study again.'
            ) from error

    def write_run(self, variant: str, seed: int, record: RunRecord) -> None:
        """Writes the record of a run, whole or not at all."""
        path = self.run_path(variant, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, temporary.open('wb') as file:
            np.savez_compressed(file, **dataclasses.asdict(record))
