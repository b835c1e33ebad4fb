r"""Runs a thousand evaluations and checkpoints in one process, and checks for leaks.

    python benchmarks/reliability/soak.py --out=benchmarks/results/reliability/soak.json

A day of training has some hundreds of evaluations and checkpoints; here every step has one of each,
so that leaks show within minutes. Memory, threads and open files are sampled through /proc, and the
size of the folder. In the last tenth of the run, the medians of threads and of open files must not
exceed their maxima between the second tenth and the middle, since thread pools grow and shrink
repeatedly; the median of memory must be less than 5% above that of the second tenth.
"""

import os
import statistics
import time
from pathlib import Path
from typing import Any

from processes import Start
from trials import Trials, arguments, conclude, scratch

FLAGS = (
    '--config.log_every_steps=1',
    '--config.eval_every_steps=1',
    '--config.checkpoint_every_steps=1',
)
EVERY = 2  # seconds
MEMORY_BOUND = 0.05  # relative growth
TIMEOUT_S = 3600


def sample(start: Start) -> dict[str, Any] | None:
    """Samples the resources of the process; None if it has just ended."""
    process = Path(f'/proc/{start.process.pid}')
    try:
        status = dict(line.split(':', 1) for line in (process / 'status').read_text().splitlines())
        return {
            'seconds': start.seconds,
            'step': max((line['step'] for line in start.lines()), default=0),
            'rss_mb': int(status['VmRSS'].split()[0]) / 1024,
            'threads': int(status['Threads']),
            'open_files': len(os.listdir(process / 'fd')),
            'folder_mb': size(start.workdir) / 1e6,
        }
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None


def size(folder: Path) -> int:
    """Size of a folder in bytes; tolerates files that are deleted meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(parent, name))
            except FileNotFoundError:
                continue
    return total


def growth(samples: list[dict[str, Any]], name: str, steps: int) -> dict[str, float]:
    """Compares the second and last tenth of the run; fits a slope from the second tenth on."""
    early, late = (
        [s[name] for s in samples if low * steps < s['step'] <= high * steps]
        for low, high in ((0.1, 0.2), (0.9, 1))
    )
    settled = [s for s in samples if s['step'] > 0.1 * steps]
    half = [s[name] for s in settled if s['step'] <= 0.5 * steps]
    slope = statistics.linear_regression(
        [s['step'] for s in settled], [s[name] for s in settled]
    ).slope
    return {
        'start': statistics.median(early),
        'half_highest': max(half),
        'end': statistics.median(late),
        'highest': max(s[name] for s in settled),
        'slope_per_1000_steps': 1000 * slope,
    }


def main() -> None:
    args, began = arguments(__doc__, 1000, 'checkpoints'), time.perf_counter()
    samples: list[dict[str, Any]] = []
    with scratch(args.folder) as folder, Trials('checkpoints', args.count) as trials:
        flags = (f'--config.num_train_steps={args.count}', *FLAGS)
        with Start(folder / 'soak', *flags) as start:
            while start.pause(EVERY) and start.seconds < TIMEOUT_S:
                if taken := sample(start):
                    samples.append(taken)
                    trials.reached(taken['step'])
            code = start.finish(0)
        problems = [f'exit code {code}: {start.last_words}'] if code else []
    names = ('rss_mb', 'threads', 'open_files', 'folder_mb')
    measured = {} if problems else {name: growth(samples, name, args.count) for name in names}
    for name in ('threads', 'open_files'):
        if measured and measured[name]['end'] > measured[name]['half_highest']:
            problems.append(f'{name} grew: {measured[name]}')
    memory = measured.get('rss_mb')
    if memory and memory['end'] > (1 + MEMORY_BOUND) * memory['start']:
        problems.append(f'memory grew: {memory}')
    conclude(
        args, began, [{'problems': problems, 'growth': measured}], flags=flags,
        run_seconds=start.seconds, samples=samples,
    )  # fmt: skip


if __name__ == '__main__':
    main()
