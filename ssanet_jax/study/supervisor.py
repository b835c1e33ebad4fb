"""Runs a study in worker processes, each on its own device or processor cores."""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssanet_jax import runtime
from ssanet_jax.data.sources import num_cores
from ssanet_jax.errors import ConfigError, RunError, StoppedError, WorkdirInUseError, one_line
from ssanet_jax.study import description, runner
from ssanet_jax.study.definition import Study, load_study
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.study.progress import Progress

_SPAWN = multiprocessing.get_context('spawn')  # forked processes cannot use JAX
_POLL_SECONDS = 1.0


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      accuracy: on the evaluation split, in percent; None if the run failed.
      error: why it failed.
    """

    variant: str
    seed: int
    accuracy: float | None
    error: str = ''


def run_study(
    path: Path, folder: StudyFolder, *, workers: int | None, allow_code_change: bool
) -> None:
    """Trains all runs of a study that have no record yet.

    Several hosts may call it with one folder: each run is locked by the worker that trains it.

    Args:
      path: of the study.
      folder: of its results.
      workers: processes; by default one per GPU, one per processor core, or one for all TPUs.
      allow_code_change: continue runs of another commit or other versions of libraries.

    Raises:
      ConfigError: the study is invalid, `folder` holds another one, or devices are too few.
      RunError: runs failed, or other processes still train some.
    """
    study = load_study(path)
    saved = folder.read_description() if folder.description.exists() else {}
    with ProcessPoolExecutor(1, mp_context=_SPAWN) as pool:  # which gives the devices back
        print(f'Counting parameters and MACs of {len(study.variants)} variants ...', flush=True)
        count, platform = pool.submit(_default_workers).result()
        now = pool.submit(description.describe, path, saved).result()
    if workers and workers > count and platform != 'cpu':
        raise ConfigError(f'--workers={workers} exceeds {count}, one per device; omit it.')
    make_folder(folder)
    description.record(folder, now, allow_code_change=allow_code_change)
    progress = Progress(study, folder, now['dataset']['num_train'])
    failed: list[Outcome] = []
    with _workers(path, folder, study, workers or count) as (processes, outcomes), progress:
        for outcome in _collect(processes, outcomes, progress):
            progress.report(*outcome)
            failed += [outcome] if outcome.error else []
    _raise_failures(study, folder, failed)


def make_folder(folder: StudyFolder) -> None:
    """Creates the folder; raises ConfigError."""
    try:
        folder.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--out={folder} cannot be created: {error}.') from error


def _default_workers() -> tuple[int, str]:
    """The number of workers that have a device of their own, and the platform."""
    platform = jax.default_backend()
    if platform == 'cpu':
        return num_cores(), platform
    return 1 if platform == 'tpu' else jax.local_device_count(), platform


@contextlib.contextmanager
def _workers(
    path: Path, folder: StudyFolder, study: Study, count: int
) -> Iterator[tuple[list[Any], Any]]:
    """Starts the workers; stops them, which saves their runs, if the caller leaves early."""
    outcomes = _SPAWN.Queue()
    failed = _SPAWN.Array('b', len(list(study.runs())))
    processes = [
        _SPAWN.Process(target=_work, args=(path, folder, index, count, outcomes, failed))
        for index in range(count)
    ]
    for process in processes:
        process.start()
    try:
        yield processes, outcomes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _collect(processes: list[Any], outcomes: Any, progress: Progress) -> Iterator[Outcome]:
    """Yields the outcomes of runs until all workers have ended.

    Raises:
      RunError: a worker was killed.
    """
    running = True
    while running:
        running = any(process.is_alive() for process in processes)
        with contextlib.suppress(queue.Empty):
            while True:
                yield outcomes.get(timeout=_POLL_SECONDS if running else 0.1)
        progress.update()
        for index, process in enumerate(processes):
            if process.exitcode:
                raise RunError(
                    f'Worker {index} ended with exit code {process.exitcode}, see its log in '
                    f'{progress.folder.work}. The same command continues the study.'
                )


def _raise_failures(study: Study, folder: StudyFolder, failed: list[Outcome]) -> None:
    if failed:
        runs = '; '.join(f'{run.variant}, seed {run.seed}: {run.error}' for run in failed)
        raise RunError(
            f'{len(failed)} of {len(list(study.runs()))} runs failed: {runs}. Fix the cause and '
            'run the same command again, or analyze the others with --analyze_only.'
        )
    missing = len(set(study.runs()) - set(folder.finished()))
    if missing:
        raise RunError(
            f'{missing} runs are being trained by other processes; when they have ended, '
            'the same command writes the results.'
        )


def _work(
    path: Path, folder: StudyFolder, index: int, count: int, outcomes: Any, failed: Any
) -> None:
    """Trains one run after the other, until each has a record, has failed or has another worker."""
    _redirect_output(folder.work / f'worker_{os.uname().nodename}_{index}.log')
    _choose_devices(index, count)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    runtime.enable_compilation_cache()
    study = load_study(path)
    for number, (variant, seed) in enumerate(study.runs()):
        if failed[number] or folder.run_path(variant, seed).exists():
            continue
        try:
            record = runner.run(study, variant, seed, folder)
        except WorkdirInUseError:
            continue
        except StoppedError as error:
            sys.exit(error.exit_code)
        except (ConfigError, RunError) as error:
            failed[number] = True
            outcomes.put(Outcome(variant, seed, None, one_line(error).rstrip('.')))
            continue
        if record:
            labels = folder.read_labels()
            accuracy = 100 * float(np.mean(record.log_probs.argmax(-1) == labels))
            outcomes.put(Outcome(variant, seed, accuracy))
        jax.clear_caches()  # compiled programs of this run


def _stop_with_parent() -> None:
    """Waits until the parent process ends, even by kill -9, then stops this one as it would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _redirect_output(path: Path) -> None:
    file = path.open('a')
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())


def _choose_devices(index: int, count: int) -> None:
    """Gives a worker its GPU, or its share of the processor cores."""
    os.environ['CUDA_VISIBLE_DEVICES'] = nth_gpu(os.environ.get('CUDA_VISIBLE_DEVICES'), index)
    if hasattr(os, 'sched_setaffinity') and count > 1:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[index % len(cores) :: count])


def nth_gpu(visible: str | None, index: int) -> str:
    """The GPU of worker `index` among those that are visible; all are by default."""
    if visible is None:
        return str(index)
    gpus = visible.split(',')
    return gpus[index % len(gpus)]
