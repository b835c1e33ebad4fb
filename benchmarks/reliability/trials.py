"""Helpers of the reliability tests: command line, folders, progress and results."""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import ROOT, machine, write


def arguments(
    doc: str, count: int, what: str, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parses the command line that these scripts share."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--count', type=int, default=count, help=f'{what} ({count})')
    parser.add_argument('--seed', type=int, default=0, help='of the random moments')
    parser.add_argument('--folder', type=Path, help='for the runs; a temporary one if not given')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    if more:
        more(parser)
    return parser.parse_args()


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """Yields `folder`, which must be empty, or a temporary one.

    Runs use the CPU as one device and keep their compilation cache in the folder.
    """
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ.pop('XLA_FLAGS', None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (folder or Path(temporary)).resolve()
        if folder.exists() and any(folder.iterdir()):
            raise SystemExit(f'--folder={folder} is not empty.')
        folder.mkdir(parents=True, exist_ok=True)
        os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder / 'compiled')
        yield folder


class Trials:
    """Collects records of trials, with a progress bar; `problems` is [] if a trial passed."""

    def __init__(self, title: str, count: int):
        self.records: list[dict[str, Any]] = []
        self._bar = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn('{task.description}'), console=Console(),
        )  # fmt: skip
        self._task = self._bar.add_task('', total=count)

    def __enter__(self) -> 'Trials':
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Shows the current activity next to the bar."""
        self._bar.update(self._task, description=text)

    def reached(self, number: int) -> None:
        """Sets the bar, where progress is not the number of records."""
        self._bar.update(self._task, completed=number)

    def add(self, record: dict[str, Any], *, advance: int = 1) -> None:
        self.records.append(record)
        self._bar.advance(self._task, advance)
        text = '  '.join(f'{k}={v}' for k, v in record.items() if v not in ([], '', None))
        self._bar.console.print(text, soft_wrap=True, highlight=False, markup=False)


def conclude(
    args: argparse.Namespace, began: float, records: list[dict[str, Any]], **fields: Any
) -> None:
    """Writes the result; exits with 1 if any record has problems."""
    others = [*fields.get('runs', []), *fields.get('disagreements', [])]
    failed = [r for r in [*records, *others] if r['problems']]
    result = {
        'command': ' '.join(
            ['python', str(Path(sys.argv[0]).resolve().relative_to(ROOT))]
            + [f'--{name}={getattr(args, name)}' for name in ('count', 'seed')]
        ),
        'machine': machine('jax', 'jaxlib', 'flax', 'orbax-checkpoint'),
        'seconds': round(time.perf_counter() - began),
        'failed': len(failed),
        **fields,
        'trials': records,
    }
    write(args.out, result)
    if failed:
        counts = Counter(problem for record in failed for problem in record['problems'])
        sys.exit('\n'.join(f'{count} x {problem}' for problem, count in counts.items()))
