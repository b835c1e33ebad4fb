"""Writes the tables of docs/reliability.md from the results in benchmarks/results/reliability.

    python benchmarks/reliability/report.py

Replaces the text between `<!-- table: NAME -->` and `<!-- end -->`; leaves tables without a result
unchanged.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import ROOT, fill, format_machine, markdown, rates, spread

RESULTS = ROOT / 'benchmarks/results/reliability'
DOCUMENT = ROOT / 'docs/reliability.md'


def kills(result: dict[str, Any]) -> str:
    trials = result['trials']
    phases = [
        (phase, [t for t in trials if t['phase'] == phase])
        for phase in ('starting', 'training', 'evaluating', 'ending')
    ]
    rows = [
        (phase, f'{len(group)}', f'{sum(t["saving"] for t in group)}')
        for phase, group in [*phases, ('total', trials)]
    ]
    table = markdown(['killed while', 'kills', 'during a checkpoint write'], rows)
    known = [t for t in trials if t['resumed_from'] is not None]
    newest = sum(t['resumed_from'] == t['newest_checkpoint'] for t in known)
    lost = [
        t['last_logged_step'] - t['newest_checkpoint']
        for t in trials
        if t['last_logged_step'] is not None
    ]
    killed = [run for run in result['runs'] if run['kills']]
    return (
        f'{table}\n\n{identical(killed)} A run has {result["arrays"]} arrays and '
        f'{result["metrics_lines"]} lines of metrics. {newest} of {len(known)} starts that got '
        f'that far resumed from the newest checkpoint; at most {max(lost, default=0)} steps '
        f'were repeated. Checkpoints found damaged after a kill: '
        f'{sum(run["checkpoints_set_aside"] for run in killed)}.'
    )


def identical(runs: list[dict[str, Any]]) -> str:
    same = sum(run['identical'] for run in runs)
    return f'{same} of {len(runs)} runs ended exactly like an uninterrupted run.'


def corruption(result: dict[str, Any]) -> str:
    rows = [
        (t['way'], t['verdict'], '-' if t['resumed_from'] is None else f'{t["resumed_from"]}')
        for t in result['trials']
    ]
    counts = Counter(t['verdict'] for t in result['trials'])
    table = markdown(['damage', 'result', 'resumed from step'], rows)
    return f'{table}\n\n{", ".join(f"{count} {verdict}" for verdict, count in counts.items())}.'


def signals(result: dict[str, Any]) -> str:
    rows = [
        (f'{kind}, {name}', f'{len(group)}', codes(group), times(group))
        for (kind, name), group in grouped(result['trials'], 'kind', 'signal')
    ]
    table = markdown(['signal', 'trials', 'exit codes', 'seconds to exit'], rows)
    return f'{table}\n\n{identical(result["runs"])}'


def hosts(result: dict[str, Any]) -> str:
    rows = [
        (('first', 'second')[host], f'{len(group)}', codes(group), times(group))
        for (host,), group in grouped(result['trials'], 'killed_host')
    ]
    table = markdown(['host killed', 'kills', "survivor's exit codes", 'seconds to exit'], rows)
    return f'{table}\n\n{identical(result["runs"])}{disagreements(result)}'


def disagreements(result: dict[str, Any]) -> str:
    """The table of hosts that disagree; '' for a result from before they were tried."""
    if not (tried := result.get('disagreements')):
        return ''
    rows = [
        (t['tried'], ', '.join(map(str, t['exit_codes'])), f'{max(t["seconds"]):.0f}', t['said'])
        for t in tried
    ]
    table = markdown(['different on the second host', 'exit codes', 'seconds', 'said'], rows)
    passed = sum(not t['problems'] for t in tried)
    return f'\n\n{table}\n\n{passed} of {len(tried)} ended in time with one reason.'


def faults(result: dict[str, Any]) -> str:
    rows = []
    for (kind,), group in grouped(result['trials'], 'kind'):
        passed, skipped = (sum(t['outcome'] == o for t in group) for o in ('passed', 'skipped'))
        rows.append((kind, f'{len(group) - skipped}', f'{passed}'))
    tried, passed = (sum(int(row[i]) for row in rows) for i in (1, 2))
    table = markdown(['kind', 'tries', 'passed'], [*rows, ('total', f'{tried}', f'{passed}')])
    return f'{table}\n\nTests of packages that were not installed are left out.'


def soak(result: dict[str, Any]) -> str:
    names = {
        'rss_mb': 'memory (RSS), MiB',
        'threads': 'threads',
        'open_files': 'open files',
        'folder_mb': 'size of the workdir, MB',
    }
    measured = result['trials'][0]['growth']
    columns = ('start', 'half_highest', 'end', 'highest', 'slope_per_1000_steps')
    rows = [
        (text, *(f'{measured[name][column]:.1f}' for column in columns))
        for name, text in names.items()
    ]
    header = [
        '',
        'second tenth, median',
        'maximum up to the middle',
        'last tenth, median',
        'overall maximum',
    ]
    header += ['growth per 1,000 checkpoints']
    return f'{markdown(header, rows)}\n\nOne process, {result["run_seconds"] / 60:.0f} minutes.'


def grouped(
    trials: Iterable[dict[str, Any]], *names: str
) -> list[tuple[tuple[Any, ...], list[dict[str, Any]]]]:
    """Groups trials by the values of `names`, in order of first occurrence."""
    groups = defaultdict(list)
    for trial in trials:
        groups[tuple(trial[name] for name in names)].append(trial)
    return list(groups.items())


def codes(trials: list[dict[str, Any]]) -> str:
    counts = Counter(trial['exit_code'] for trial in trials)
    return ', '.join(f'{code} ({count})' for code, count in sorted(counts.items()))


def times(trials: list[dict[str, Any]]) -> str:
    return rates(spread([trial['seconds_to_exit'] for trial in trials]), 1)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    'kills': kills,
    'corruption': corruption,
    'signals': signals,
    'hosts': hosts,
    'soak': soak,
    'faults': faults,
}


def main() -> None:
    blocks = {}
    for name, make in TABLES.items():
        path = RESULTS / f'{name}.json'
        if not path.exists():
            print(f'No {path}; run benchmarks/reliability/{name}.py')
            continue
        result = json.loads(path.read_text())
        source = f'[{name}.json](../benchmarks/results/reliability/{name}.json)'
        minutes = f', {result["seconds"] / 60:.0f} minutes' if 'seconds' in result else ''
        blocks[name] = f'{make(result)}\n\n{source}: {format_machine(result["machine"])}{minutes}.'
    fill(DOCUMENT, blocks)


if __name__ == '__main__':
    main()
