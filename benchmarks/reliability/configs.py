r"""Gives main.py malformed and inconsistent configs and command lines; each must be refused.

    python benchmarks/reliability/configs.py --out=benchmarks/results/reliability/configs.json

Refused is: exit code 2, one line on stderr, no traceback, no run started and no file changed.
Every other mistake is made in a new workdir, the rest in that of a finished run, all of whose
files are hashed before and after.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import ROOT, machine, write
from malformed import START, Case, cases

PATIENCE = 300  # seconds


class Bench:
    """Runs cases, each in a folder of its own.

    Args:
      folder: for everything; it gets prepared digits and a finished run.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._finished = folder / 'finished'
        finish = Case('', [*START, '--config.num_train_steps=2'])
        made = self._start(finish, folder, self._finished)
        if made.returncode:
            raise SystemExit(f'The run that cases are tried on failed:\n{made.stderr}')

    def run(self, number: int, case: Case) -> dict[str, Any]:
        """What main.py made of a case."""
        folder = self._folder / str(number)
        workdir = folder / 'run'
        folder.mkdir()
        (folder / 'configs').symlink_to(ROOT / 'configs')
        if case.recipe is not None:
            (folder / 'recipe.py').write_text(case.recipe)
        if number % 2:
            shutil.copytree(self._finished, workdir)
        before = hashes(folder)
        start = time.perf_counter()
        result = self._start(case, folder, workdir)
        seconds = time.perf_counter() - start
        after = hashes(folder)
        changed = [f for f in sorted(before | after) if before.get(f) != after.get(f)]
        shutil.rmtree(folder)
        return {
            'name': case.name,
            'workdir': 'of a finished run' if number % 2 else 'new',
            'exit_code': result.returncode,
            'stderr_lines': len(result.stderr.splitlines()),
            'traceback': 'Traceback (most recent' in result.stderr,
            'started': ' steps of ' in result.stdout,
            'changed_files': changed,
            'seconds': round(seconds, 1),
            'message': self._portable(result.stderr[-500:], folder),
        }

    def _portable(self, text: str, folder: Path) -> str:
        """Without the folders of this machine."""
        for path in (folder, self._folder, ROOT):
            text = text.replace(str(path), '.')
        return text

    def _start(self, case: Case, folder: Path, workdir: Path) -> subprocess.CompletedProcess[str]:
        recipe = ROOT / 'configs' / 'digits_ssa20.py' if case.recipe is None else 'recipe.py'
        flags = case.flags
        places = {'{config}': recipe, '{workdir}': workdir, '{data}': self._folder / 'data'}
        for name, path in places.items():
            flags = [flag.replace(name, str(path)) for flag in flags]
        command = [sys.executable, str(ROOT / 'main.py'), *flags]
        environment = {
            **os.environ,
            'JAX_PLATFORMS': 'cpu',
            'XLA_FLAGS': '',
            'NO_GCE_CHECK': 'true',  # TFDS asks Google's storage for sets that it does not know
        }
        try:
            return subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, -9, '', 'It did not end.')


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below, and '' of every folder."""

    def found() -> Iterator[tuple[str, str]]:
        for path in folder.rglob('*'):
            name = path.relative_to(folder).as_posix()
            yield name, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''

    return dict(found())


def refused(result: dict[str, Any]) -> bool:
    return (
        (result['exit_code'], result['stderr_lines']) == (2, 1)
        and not result['traceback']
        and not result['started']
        and not result['changed_files']
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('--limit', type=int, help='so many cases, evenly spread; all by default')
    parser.add_argument('--jobs', type=int, default=2, help='processes at a time')
    arguments = parser.parse_args()

    chosen = list(enumerate(cases()))
    if arguments.limit and arguments.limit < len(chosen):
        count = arguments.limit
        chosen = [chosen[i * len(chosen) // count] for i in range(count)]
    console = Console()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        bench = Bench(Path(folder))
        results = pool.map(lambda numbered: bench.run(*numbered), chosen)
        results = list(track(results, 'cases', total=len(chosen), console=console))
    failed = [result for result in results if not refused(result)]
    for result in failed:
        console.print(result, markup=False)
    seconds = [result['seconds'] for result in results]
    summary = {
        'cases': len(results),
        'refused': len(results) - len(failed),
        'tracebacks': sum(result['traceback'] for result in results),
        'started': sum(result['started'] for result in results),
        'changed_files': sum(bool(result['changed_files']) for result in results),
        'median_seconds': statistics.median(seconds),
    }
    console.print(summary)
    write(arguments.out, {'machine': machine('jax', 'ml_collections'), **summary, 'runs': results})
    raise SystemExit(1 if failed else 0)


if __name__ == '__main__':
    main()
