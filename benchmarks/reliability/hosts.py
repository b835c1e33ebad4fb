r"""Kills one of two hosts at random moments: does the other end, and does it say why?

    python benchmarks/reliability/hosts.py --out=benchmarks/results/reliability/hosts.json

Two processes on this machine stand for two hosts, with one CPU device each, joined by gloo. One
of them, in turn the first and the second, is killed with SIGKILL while they train. The other must
end by itself within 60 seconds, with exit code 69, or be ended by JAX's runtime, and a reason on
stderr. Then both are started again by the same commands, and the run must in the end leave what one
of two processes that were never killed leaves.
"""

import random
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from outcomes import differences, outcome
from processes import RECIPE, Start, newest_step
from trials import Trials, arguments, conclude, scratch

BOUND = 60  # seconds
# What JAX's runtime says when it aborts (134), or crashes at that (135, 139).
ABORTED = 'Terminating process because the JAX distributed service detected fatal errors'
KILLS_A_RUN = 5
ENVIRONMENT = {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
}


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
        """Waits for both; in words, what went wrong."""
        return [
            f'host {index} ended with {host.code}: {host.last_words}'
            for index, host in enumerate(self.hosts)
            if host.finish() != 0
        ]


def kill_one(pair: Pair, victim: int, wait: float) -> dict[str, Any]:
    """Kills host `victim` so many seconds after the first lines of metrics."""
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
        'went_on_from': None,
        'seconds_to_exit': round(seconds, 1),
        'exit_code': code,
        'said': other.last_words,
        'problems': problems,
    }


def killed_run(
    workdir: Path, victims: list[int], moments: random.Random, trials: Trials,
    reference: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Kills one host of a run after the other, lets it finish, and compares."""
    kills: list[dict[str, Any]] = []
    for victim in [*victims, None]:
        trials.note(workdir.name)
        with Pair(workdir) as pair:
            if victim is None:
                problems = pair.finish()
            else:
                trial = kill_one(pair, victim, moments.uniform(0, 3))
        if kills:
            kills[-1]['went_on_from'] = pair.hosts[0].resumed_from
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


def main() -> None:
    given, began = arguments(__doc__, 10, 'kills'), time.perf_counter()
    moments = random.Random(given.seed)
    with scratch(given.folder) as folder, Trials('kills', given.count) as trials:
        trials.note('a run that is not killed')
        with Pair(folder / 'reference') as pair:
            if problems := pair.finish():
                raise SystemExit('\n'.join(problems))
        reference = outcome(folder / 'reference')
        victims = [index % 2 for index in range(given.count)]
        runs = []
        for first in range(0, len(victims), KILLS_A_RUN):
            some = victims[first : first + KILLS_A_RUN]
            workdir = folder / f'run{len(runs)}'
            runs.append(killed_run(workdir, some, moments, trials, reference))
    conclude(
        given, began, trials.records, recipe=RECIPE, environment=ENVIRONMENT,
        bound_seconds=BOUND, runs=runs,
    )  # fmt: skip


if __name__ == '__main__':
    main()
