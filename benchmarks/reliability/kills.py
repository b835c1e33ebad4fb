r"""Kills runs with SIGKILL at random moments, restarts them, and compares their results.

    python benchmarks/reliability/kills.py --out=benchmarks/results/reliability/kills.json

One run on the digits is never killed. Others are killed ten times each, and restarted each time
with the same command until they finish: at any moment, while a checkpoint is being written, during
startup and compilation, during an evaluation, and at the very end. Apart from timings, each must
end with the same arrays bit for bit, the same lines of metrics.jsonl and the same summary.json as
the run that was never killed.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

from outcomes import differences, outcome
from processes import RECIPE, STEPS, Start, never_broken, newest_step
from trials import Trials, arguments, conclude, scratch

KILLS_A_RUN = 10
AIMS = (
    'saving', 'any', 'starting', 'evaluating', 'saving',
    'any', 'saving', 'ending', 'saving', 'any',
)  # fmt: skip


class Killer:
    """Kills runs at random moments; a third of `run_seconds` is before the first step."""

    def __init__(self, seed: int, run_seconds: float):
        self._random = random.Random(seed)
        self._start_seconds = run_seconds / 3
        self._train_seconds = run_seconds - self._start_seconds

    def aims(self, count: int) -> list[str]:
        """The aims of `count` kills in random order, 'ending' last."""
        aims = list(AIMS[:count])
        self._random.shuffle(aims)
        return sorted(aims, key=lambda aim: aim == 'ending')

    def strike(self, start: Start, aim: str) -> bool:
        """Waits for the moment and kills the run; returns False if it ended before."""
        chosen = getattr(self, f'_{aim}')(start)
        if not chosen or start.process.poll() is not None:
            return False
        start.kill()
        return start.code == 128 + signal.SIGKILL

    def _starting(self, start: Start) -> bool:
        return start.pause(self._random.uniform(0, self._start_seconds))

    def _any(self, start: Start) -> bool:
        share = 1 - newest_step(start.workdir) / STEPS
        left = share * self._train_seconds
        return start.pause(self._random.uniform(0, self._start_seconds + left / 3))

    def _saving(self, start: Start) -> bool:
        skip, seen = self._random.randrange(3), set[str]()
        delay = self._random.choice([0, 0.005, self._random.uniform(0, 0.4)])

        def moment() -> bool:
            if start.lines():
                seen.update(start.saving())
            return len(seen) > skip

        return start.wait_until(moment) and start.pause(delay)

    def _evaluating(self, start: Start) -> bool:
        return start.wait_until(lambda: start.phase() == 'evaluating') and start.pause(
            self._random.uniform(0, 0.05)
        )

    def _ending(self, start: Start) -> bool:
        def moment() -> bool:
            lines = start.lines()
            return bool(lines) and (lines[-1]['step'], lines[-1]['split']) == (STEPS, 'eval')

        return start.wait_until(moment) and start.pause(self._random.uniform(0, 1.5))


def killed_run(
    workdir: Path, killer: Killer, count: int, trials: Trials, reference: dict[str, Any]
) -> dict[str, Any]:
    """Kills one run `count` times, lets it finish, and compares; each kill is a trial."""
    problems: list[str] = []
    kills: list[dict[str, Any]] = []
    for aim in [*killer.aims(count), 'nothing']:
        trials.note(f'{workdir.name}, {aim}')
        with Start(workdir, *RECIPE) as start:
            killed = aim != 'nothing' and killer.strike(start, aim)
            code = start.finish()
        if kills and (start.lines() or (not killed and code == 0)):
            kills[-1]['resumed_from'] = start.resumed_from
            if start.resumed_from != kills[-1]['newest_checkpoint']:
                kills[-1]['problems'].append(f'it resumed from step {start.resumed_from}')
        if not killed:
            if code != 0:
                problems.append(f'a start ended with {code}: {start.last_words}')
            break
        kills.append(kill_record(start, aim))
        trials.add(kills[-1])
    problems += differences(workdir, reference)
    damaged = workdir / 'damaged'
    return {
        'run': workdir.name,
        'kills': len(kills),
        'identical': not problems,
        'exit_code': code,
        'checkpoints_set_aside': len(list(damaged.iterdir())) if damaged.exists() else 0,
        'problems': problems,
    }


def kill_record(start: Start, aim: str) -> dict[str, Any]:
    """The record of a kill; `resumed_from` is filled in by the next start that gets that far."""
    lines = start.lines()
    return {
        'run': start.workdir.name,
        'aim': aim,
        'seconds': start.seconds,
        'phase': start.phase(),
        'saving': bool(start.saving()),
        'last_logged_step': lines[-1]['step'] if lines else None,
        'newest_checkpoint': newest_step(start.workdir),
        'resumed_from': None,
        'problems': [],
    }


def main() -> None:
    args, began = arguments(__doc__, 50, 'kills'), time.perf_counter()
    with scratch(args.folder) as folder, Trials('kills', args.count) as trials:
        trials.note('a run that is not killed')
        first = never_broken(folder / 'reference', *RECIPE)
        reference = outcome(folder / 'reference')
        trials.note('another one')
        second = never_broken(folder / 'again', *RECIPE)  # with a warm cache, as in the other runs
        runs = [
            {
                'run': 'again',
                'kills': 0,
                'exit_code': 0,
                'problems': differences(folder / 'again', reference),
            }
        ]
        killer = Killer(args.seed, second.seconds)
        while len(trials.records) < args.count and not any(run['exit_code'] for run in runs):
            count = min(KILLS_A_RUN, args.count - len(trials.records))
            workdir = folder / f'run{len(runs)}'
            runs.append(killed_run(workdir, killer, count, trials, reference))
    conclude(
        args, began, trials.records, recipe=RECIPE, arrays=len(reference['arrays']),
        metrics_lines=len(reference['metrics']), cold_run_seconds=first.seconds,
        run_seconds=second.seconds, runs=runs,
    )  # fmt: skip


if __name__ == '__main__':
    main()
