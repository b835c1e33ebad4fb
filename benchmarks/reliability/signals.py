r"""Stops runs with SIGTERM and SIGINT at random moments, resumes them, and compares the results.

    python benchmarks/reliability/signals.py --out=benchmarks/results/reliability/signals.json

After the first step, a signal must end a run within 30 seconds with exit code 75. The newest step
must be saved and named in the last line, and the next start must resume from it. A second signal
must end the run within 2 seconds with 143 (SIGTERM) or 130 (SIGINT). Before the first step there is
nothing to save, and the run must end within 30 seconds. In the end, the results must equal those
of an uninterrupted run.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

from outcomes import differences, outcome
from processes import RECIPE, Start, never_broken, newest_step
from trials import Trials, arguments, conclude, scratch

FLAGS = (*RECIPE, '--config.log_every_steps=1')  # so that the newest step is known from outside
BOUND, SECOND_BOUND = 30, 2  # seconds
SIGNALS_A_RUN = 6
SECONDS = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT),
           (signal.SIGTERM, signal.SIGINT)]  # fmt: skip


def stop(start: Start, chosen: signal.Signals, wait: float) -> dict[str, Any]:
    """Sends one signal `wait` seconds after the first step."""
    start.wait_until(lambda: bool(start.lines()))
    start.pause(wait)
    phase = start.phase()
    start.process.send_signal(chosen)
    sent = time.perf_counter()
    code = start.finish()
    seconds = time.perf_counter() - sent
    lines, newest = start.lines(), newest_step(start.workdir)
    problems = []
    if code != 75:
        problems.append(f'exit code {code}: {start.last_words}')
    if seconds > BOUND:
        problems.append(f'it took more than {BOUND} s')
    if not lines or newest != lines[-1]['step']:
        problems.append(f'step {newest} is saved, the newest is {lines[-1:]}')
    if f'step {newest:,}' not in start.last_words:
        problems.append(f'it does not name step {newest}: {start.last_words}')
    return record(start, 'once', chosen.name, phase, seconds, newest, problems)


def stop_twice(start: Start, first: signal.Signals, second: signal.Signals) -> dict[str, Any]:
    """Sends two signals, the second during the save."""
    start.wait_until(lambda: bool(start.lines()))
    phase = start.phase()
    start.process.send_signal(first)
    start.pause(0.15)
    start.process.send_signal(second)
    sent = time.perf_counter()
    code = start.finish()
    seconds = time.perf_counter() - sent
    problems = []
    if code != 128 + second:
        problems.append(f'exit code {code}: {start.last_words}')
    if seconds > SECOND_BOUND:
        problems.append(f'it took more than {SECOND_BOUND} s')
    names = f'{first.name}, {second.name}'
    return record(start, 'twice', names, phase, seconds, newest_step(start.workdir), problems)


def stop_early(start: Start, chosen: signal.Signals, wait: float) -> dict[str, Any]:
    """Sends one signal before the first step, or soon after it."""
    start.pause(wait)
    phase = start.phase()
    start.process.send_signal(chosen)
    sent = time.perf_counter()
    code = start.finish()
    seconds = time.perf_counter() - sent
    problems = [] if code == 75 else [f'exit code {code}: {start.last_words}']
    if seconds > BOUND:
        problems.append(f'it took more than {BOUND} s')
    saved = newest_step(start.workdir)
    return record(start, 'early', chosen.name, phase, seconds, saved, problems)


def record(
    start: Start, kind: str, name: str, phase: str, seconds: float, saved: int, problems: list[str]
) -> dict[str, Any]:
    return {
        'run': start.workdir.name,
        'kind': kind,
        'signal': name,
        'phase': phase,
        'seconds_to_exit': round(seconds, 2),
        'exit_code': start.code,
        'newest_checkpoint': saved,
        'resumed_from': None,
        'said': start.last_words,
        'problems': problems,
    }


def stopped_run(
    workdir: Path, attempts: list[Any], trials: Trials, reference: dict[str, Any]
) -> dict[str, Any]:
    """Stops one run with each of `attempts`, lets it finish, and compares."""
    stopped: list[dict[str, Any]] = []
    for attempt in [*attempts, None]:
        trials.note(workdir.name)
        with Start(workdir, *FLAGS) as start:
            if attempt is not None:
                trial = attempt(start)
            code = start.finish()
        if stopped and (start.lines() or attempt is None):
            stopped[-1]['resumed_from'] = start.resumed_from
            if start.resumed_from != stopped[-1]['newest_checkpoint']:
                stopped[-1]['problems'].append(f'it resumed from step {start.resumed_from}')
        if attempt is not None:
            stopped.append(trial)
            trials.add(trial)
    problems = [f'exit code {code}: {start.last_words}'] if code else []
    problems += differences(workdir, reference)
    return {
        'run': workdir.name,
        'stops': len(stopped),
        'identical': not problems,
        'problems': problems,
    }


def plan(count: int, seed: int, run_seconds: float) -> list[Any]:
    """Plans `count` stops in training, and one double and one early signal per seven of them."""
    moments = random.Random(seed)
    attempts: list[Any] = []
    for index in range(count):
        chosen = (signal.SIGTERM, signal.SIGINT)[index % 2]
        wait = moments.uniform(0, run_seconds / 10)
        attempts.append(lambda start, chosen=chosen, wait=wait: stop(start, chosen, wait))
        if index % 7 == 0:
            pair = SECONDS[index // 7 % len(SECONDS)]
            attempts.append(lambda start, pair=pair: stop_twice(start, *pair))
            wait = moments.uniform(0, run_seconds / 3)
            attempts.append(lambda start, chosen=chosen, wait=wait: stop_early(start, chosen, wait))
    return attempts


def main() -> None:
    args = arguments(__doc__, 40, 'signals in training, half of them SIGTERM')
    began = time.perf_counter()
    with scratch(args.folder) as folder:
        never_broken(folder / 'reference', *FLAGS)
        reference = outcome(folder / 'reference')
        second = never_broken(folder / 'again', *FLAGS)  # with a warm cache, as in the other runs
        attempts = plan(args.count, args.seed, second.seconds)
        runs = []
        with Trials('signals', len(attempts)) as trials:
            for first in range(0, len(attempts), SIGNALS_A_RUN):
                some = attempts[first : first + SIGNALS_A_RUN]
                runs.append(stopped_run(folder / f'run{len(runs)}', some, trials, reference))
    conclude(
        args, began, trials.records, flags=FLAGS, bound_seconds=BOUND,
        second_bound_seconds=SECOND_BOUND, runs=runs,
    )  # fmt: skip


if __name__ == '__main__':
    main()
