r"""Kills one of two hosts, or makes them disagree, and checks that all exit and say why.

    python benchmarks/reliability/hosts.py --out=benchmarks/results/reliability/hosts.json

Two processes on this machine act as two hosts with one CPU device each, connected by gloo. The
first and the second are alternately killed with SIGKILL during training. Within 60 seconds the
other must exit with code 69, or be aborted by JAX's runtime, with a reason on stderr. Then both are
restarted with the same commands, and the run must end exactly as an uninterrupted run of two
processes.

First, disagreements.py starts two hosts that disagree, or one of which is stopped or cannot write.
Both must exit within 60 seconds with the same code and reason. --count=0 runs only these cases.
"""

import random
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from disagreements import BOUND_S as BOUND
from disagreements import CASES, ENVIRONMENT, disagree
from outcomes import differences, outcome
from processes import RECIPE, Start, newest_step
from trials import Trials, arguments, conclude, scratch

# The message of JAX's runtime when it aborts (134), or crashes while aborting (135, 139).
ABORTED = 'Terminating process because the JAX distributed service detected fatal errors'
KILLS_A_RUN = 5


class Pair(ExitStack):
    """Two processes of one run."""

    def __init__(self, workdir: Path):
        super().__init__()
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        self.hosts = [
            self.enter_context(
                Start(
                    workdir, *RECIPE, f'--coordinator_address=127.0.0.1:{port}',
                    '--num_processes=2', f'--process_id={index}', environment=ENVIRONMENT,
                )
            )
            for index in range(2)
        ]  # fmt: skip

    def finish(self) -> list[str]:
        """Waits for both; returns a message for each that failed."""
        return [
            f'host {index} ended with {host.code}: {host.last_words}'
            for index, host in enumerate(self.hosts)
            if host.finish() != 0
        ]


def kill_one(pair: Pair, victim: int, wait: float) -> dict[str, Any]:
    """Kills host `victim`, `wait` seconds after the first metrics line."""
    first, killed, other = pair.hosts[0], pair.hosts[victim], pair.hosts[1 - victim]
    problems = []
    if not (first.wait_until(lambda: bool(first.lines())) and first.pause(wait)):
        problems.append(f'it had ended with {first.code}: {first.last_words}')
    lines = first.lines()
    killed.kill()
    lost = time.perf_counter()
    code = other.finish()
    seconds = time.perf_counter() - lost
    if code != 69 and not (code >= 128 and ABORTED in other.last_words):
        problems.append(f'the other host ended with {code}: {other.last_words}')
    if seconds > BOUND:
        problems.append(f'the other host took more than {BOUND} s')
    if not other.last_words:
        problems.append('the other host gave no reason')
    return {
        'run': first.workdir.name,
        'killed_host': victim,
        'last_logged_step': lines[-1]['step'] if lines else None,
        'newest_checkpoint': newest_step(first.workdir),
        'resumed_from': None,
        'seconds_to_exit': round(seconds, 1),
        'exit_code': code,
        'said': other.last_words,
        'problems': problems,
    }


def killed_run(
    workdir: Path, victims: list[int], moments: random.Random, trials: Trials,
    reference: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Kills the hosts of a run one after the other, lets it finish, and compares."""
    kills: list[dict[str, Any]] = []
    for victim in [*victims, None]:
        trials.note(workdir.name)
        with Pair(workdir) as pair:
            if victim is None:
                problems = pair.finish()
            else:
                trial = kill_one(pair, victim, moments.uniform(0, 3))
        if kills:
            kills[-1]['resumed_from'] = pair.hosts[0].resumed_from
        if victim is not None:
            kills.append(trial)
            trials.add(trial)
    problems += differences(workdir, reference)
    return {
        'run': workdir.name,
        'kills': len(kills),
        'identical': not problems,
        'problems': problems,
    }


def disagreements(folder: Path) -> list[dict[str, Any]]:
    """Starts two hosts for each case of `CASES`; returns the records."""
    folder.mkdir()
    with Trials('disagreements', len(CASES)) as trials:
        for name in CASES:
            trials.note(name)
            trials.add(disagree(name, folder))
    return trials.records


def kills(folder: Path, count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Kills hosts `count` times; returns the records of kills and of runs."""
    moments = random.Random(seed)
    runs: list[dict[str, Any]] = []
    with Trials('kills', count) as trials:
        trials.note('a run that is not killed')
        with Pair(folder / 'reference') as pair:
            if problems := pair.finish():
                raise SystemExit('\n'.join(problems))
        reference = outcome(folder / 'reference')
        victims = [index % 2 for index in range(count)]
        for first in range(0, count, KILLS_A_RUN):
            some = victims[first : first + KILLS_A_RUN]
            runs.append(killed_run(folder / f'run{len(runs)}', some, moments, trials, reference))
    return trials.records, runs


def main() -> None:
    args, began = arguments(__doc__, 10, 'kills'), time.perf_counter()
    with scratch(args.folder) as folder:
        differing = disagreements(folder / 'disagreements')
        killed, runs = kills(folder, args.count, args.seed) if args.count else ([], [])
    conclude(
        args, began, killed, recipe=RECIPE, environment=ENVIRONMENT, bound_seconds=BOUND,
        runs=runs, disagreements=differing,
    )  # fmt: skip


if __name__ == '__main__':
    main()
