"""Starts main.py and observes its output and files from outside, as a user would."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300  # a run takes 40 s on an idle machine

# The digits recipe for 20 epochs, writing files more often.
STEPS, LOG, SAVE, EVALUATE = 450, 5, 20, 50
RECIPE = (
    f'--config.num_train_steps={STEPS}',
    f'--config.log_every_steps={LOG}',
    f'--config.checkpoint_every_steps={SAVE}',
    f'--config.eval_every_steps={EVALUATE}',
)

_ABSENT = (0, 0)


class Start:
    """One start of main.py: its process, output and files.

    A context manager that kills the process on exit.

    Args:
      workdir: of the run.
      flags: of main.py.
      environment: variables to set.
      limit: called in the new process, to limit its resources.
      root: the folder with main.py.
    """

    def __init__(
        self,
        workdir: Path,
        *flags: str,
        environment: dict[str, str] | None = None,
        limit: Callable[[], None] | None = None,
        root: Path = ROOT,
    ):
        self.workdir = workdir
        self._stale = {path.name: _identity(path) for path in unfinished_saves(workdir)}
        self._metrics_before = _identity(workdir / 'metrics.jsonl')
        count = len(list(workdir.parent.glob(f'{workdir.name}.*.out')))
        self._out, self._err = (
            workdir.parent / f'{workdir.name}.{count}.{stream}' for stream in ('out', 'err')
        )
        self.began = time.perf_counter()
        self._ended: float | None = None
        with self._out.open('w') as out, self._err.open('w') as err:
            self.process = subprocess.Popen(
                [
                    sys.executable, 'main.py', '--config=configs/digits_ssa20.py',
                    f'--workdir={workdir}', '--noreport', *flags,
                ],
                cwd=root, env={**os.environ, **(environment or {})}, stdout=out, stderr=err,
                preexec_fn=limit,
            )  # fmt: skip

    def __enter__(self) -> 'Start':
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kills the process with SIGKILL if it is running."""
        self.process.kill()
        self.finish()

    def finish(self, seconds: float = TIMEOUT_S) -> int | None:
        """Waits for the process and returns its exit code; kills it after `seconds` (137)."""
        if self.pause(seconds):
            self.kill()
        return self.code

    def wait_until(self, moment: Callable[[], bool], seconds: float = TIMEOUT_S) -> bool:
        """Polls until `moment()` is true; returns False if the process ends first."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if moment():
                return True
            if not self.pause(0.002):
                return False
        return False

    def pause(self, seconds: float) -> bool:
        """Sleeps for `seconds`; returns whether the process is still running."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return True
        self._ended = self._ended or time.perf_counter()
        return False

    @property
    def seconds(self) -> float:
        """Seconds from the start to the end of the process, or until now."""
        return round((self._ended or time.perf_counter()) - self.began, 3)

    @property
    def code(self) -> int | None:
        """The exit code as in a shell, 128 + N for signal N; None while running."""
        code = self.process.returncode
        return 128 - code if code is not None and code < 0 else code

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    @property
    def last_words(self) -> str:
        """The error message of main.py, or of JAX's runtime if it aborts, or the last line."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        reasons = [line for line in lines if re.match(r'main\.py: |F\d{4} ', line)]
        if not lines:
            return ''
        return self.short(re.sub(r'^F\d{4} [^]]*\] ', '', (reasons or lines)[-1]))

    def short(self, line: str) -> str:
        """Shortens a message for a result: drops the folder and truncates to 400 characters."""
        return line.strip().replace(f'{self.workdir.parent}/', '')[:400]

    @property
    def resumed_from(self) -> int:
        """The step that the run reports to resume from; 0 if none."""
        found = re.search(r'[Rr]esuming from the checkpoint of step ([\d,]+)', self.output)
        return int(found[1].replace(',', '')) if found else 0

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that this start has written."""
        if _identity(self.workdir / 'metrics.jsonl') == self._metrics_before:
            return []
        text = read(self.workdir / 'metrics.jsonl').rpartition('\n')[0]
        lines = [json.loads(line) for line in text.splitlines()]
        resumed = self.resumed_from
        if resumed == STEPS:  # There is nothing left to train.
            return lines
        return [line for line in lines if line['step'] > resumed]

    def saving(self) -> set[str]:
        """Checkpoints that this start has begun but not finished to write."""
        paths = unfinished_saves(self.workdir)
        return {path.name for path in paths if _identity(path) != self._stale.get(path.name)}

    def phase(self) -> str:
        """The phase of the run, or that in which it was killed, inferred from its files."""
        lines = self.lines()
        if not lines:
            return 'starting'
        step, split = lines[-1]['step'], lines[-1]['split']
        if split == 'eval':
            return 'ending' if step == STEPS else 'training'
        return 'evaluating' if step % EVALUATE == 0 or step == STEPS else 'training'


def read(path: Path) -> str:
    """The text of a file; '' if it does not exist."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ''


def _identity(path: Path) -> tuple[int, int]:
    """Identifies the current version of a file: changes when it is replaced or written to."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return _ABSENT
    return stat.st_ino, stat.st_ctime_ns


def saved_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints, in ascending order."""
    folder = workdir / 'checkpoints'
    names = os.listdir(folder) if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def newest_step(workdir: Path) -> int:
    return max(saved_steps(workdir), default=0)


def unfinished_saves(workdir: Path) -> list[Path]:
    return list((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))


def never_broken(workdir: Path, *flags: str) -> Start:
    """Runs main.py without interruption; exits this script if it fails."""
    with Start(workdir, *flags) as start:
        if start.finish() != 0:
            raise SystemExit(f'The undisturbed run failed:\n{start.output}{start.errors}')
    return start
