r"""A thousand evaluations and checkpoints in one process: does it grow?

    python benchmarks/reliability/soak.py --out=benchmarks/results/reliability/soak.json

A day's training has some hundreds of evaluations and checkpoints; here there is one of each after
every step, so that what leaks with them shows within minutes. From outside, through /proc, the
run's memory, threads and open files are read, and the size of its folder. In the last tenth of the
run the median of threads and that of open files must not be above the most that there were from
the second tenth to the middle, since pools of threads fill for a while and then empty and fill
again; the median of memory must be less than 5% above that of the second tenth.
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
MEMORY_BOUND = 0.05  # of what it was
PATIENCE = 3600


def sample(start: Start) -> dict[str, Any] | None:
    """What the process has now; None if it has just ended."""
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
    """Bytes in all files of a folder in which others are being deleted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(parent, name))
            except FileNotFoundError:
                continue
    return total


def growth(samples: list[dict[str, Any]], name: str, steps: int) -> dict[str, float]:
    """Of the second and the last tenth of the run; and the slope of a line through all after."""
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
    given, began = arguments(__doc__, 1000, 'checkpoints'), time.perf_counter()
    samples: list[dict[str, Any]] = []
    with scratch(given.folder) as folder, Trials('checkpoints', given.count) as trials:
        flags = (f'--config.num_train_steps={given.count}', *FLAGS)
        with Start(folder / 'soak', *flags) as start:
            while start.pause(EVERY) and start.seconds < PATIENCE:
                if taken := sample(start):
                    samples.append(taken)
                    trials.reached(taken['step'])
            code = start.finish(0)
        problems = [f'exit code {code}: {start.last_words}'] if code else []
    names = ('rss_mb', 'threads', 'open_files', 'folder_mb')
    measured = {} if problems else {name: growth(samples, name, given.count) for name in names}
    for name in ('threads', 'open_files'):
        if measured and measured[name]['end'] > measured[name]['half_highest']:
            problems.append(f'{name} grew: {measured[name]}')
    memory = measured.get('rss_mb')
    if memory and memory['end'] > (1 + MEMORY_BOUND) * memory['start']:
        problems.append(f'memory grew: {memory}')
    conclude(
        given, began, [{'problems': problems, 'growth': measured}], flags=flags,
        run_seconds=start.seconds, samples=samples,
    )  # fmt: skip


if __name__ == '__main__':
    main()
