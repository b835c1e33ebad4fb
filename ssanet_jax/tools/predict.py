r"""Prints the most probable classes of images, by a trained network.

    ssanet predict --workdir=runs/digits seven.png photos/ 'more/*.jpg'
    ssanet predict --model=timm://resnet50.a1_in1k photos/
    find photos -name '*.jpg' | ssanet predict --workdir=runs/x --format=csv -
    curl -s https://... | ssanet predict --workdir=runs/x -

Images are files, folders, globs, or standard input: one image, or one path per line. Formats are
listed in docs/data.md, "Image formats". Images are decoded, resized and normalized exactly as in
evaluation. Images that cannot be read are reported, both in the output and to stderr, and the exit
code is 1.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console
from rich.progress import track

from ssanet_jax import runtime
from ssanet_jax.output import printable
from ssanet_jax.tables import Column, Table, csv_cell, show
from ssanet_jax.tools import cli, input_files, sources

if TYPE_CHECKING:
    from ssanet_jax.trained.sources import AnyModel

FLAGS = flags.FLAGS


def define_flags() -> None:
    sources.define_flags()
    flags.DEFINE_enum('format', 'table', ['table', 'jsonl', 'csv'], 'How to print.')
    flags.DEFINE_integer('top', 5, 'Number of most probable classes to print.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 64, 'Images per batch.', lower_bound=1)


def main(arguments: list[str]) -> None:
    files = input_files.find(arguments)
    trained = sources.load()
    runtime.enable_compilation_cache()
    bad = 0

    def results() -> Iterator[dict[str, Any]]:
        nonlocal bad
        for result in predictions(trained, files):
            if 'error' in result:
                bad += 1
                print(printable(f'{result["file"]}: {result["error"]}'), file=sys.stderr)
            yield result

    _PRINT[FLAGS.format](results(), len(files))
    if bad:
        print(f'{bad:,} of {len(files):,} images could not be read.', file=sys.stderr)
    sys.exit(1 if bad else 0)


def predictions(trained: 'AnyModel', files: Sequence[Path | bytes]) -> Iterator[dict[str, Any]]:
    """Yields {'file', 'top': [{'class', 'probability'}, ...]} or {'file', 'error'} per file."""
    from ssanet_jax import data
    from ssanet_jax.trained.prediction import Predictor

    predictor = Predictor(trained, FLAGS.batch_size)
    for batch in data.file_batches(files, trained.dataset, FLAGS.batch_size):
        tops = iter(predictor.top(batch.image[batch.good()], FLAGS.top))
        for row, file in enumerate(batch.files):
            result: dict[str, Any] = {'file': input_files.name(file)}
            if row in batch.bad:
                yield {**result, 'error': batch.bad[row]}
            else:
                top = [{'class': g.name, 'probability': g.probability} for g in next(tops)]
                yield {**result, 'top': top}


def _jsonl(results: Iterator[dict[str, Any]], count: int) -> None:
    out = sys.stdout  # before rich replaces it while the progress bar is shown
    for result in _progress(results, count):
        print(json.dumps(result), file=out, flush=True)


def _csv(results: Iterator[dict[str, Any]], count: int) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(['file', 'rank', 'class', 'probability', 'error'])
    for result in _progress(results, count):
        if 'error' in result:
            writer.writerow(map(csv_cell, [result['file'], '', '', '', result['error']]))
        for rank, guess in enumerate(result.get('top', []), start=1):
            cells = [result['file'], rank, guess['class'], guess['probability'], '']
            writer.writerow(map(csv_cell, cells))


def _table(results: Iterator[dict[str, Any]], count: int) -> None:
    rows: list[tuple[str, str]] = []
    for result in _progress(results, count):
        guesses = [f'{g["class"]} {100 * g["probability"]:.1f} %' for g in result.get('top', [])]
        rows.append((result['file'], ', '.join(guesses) or f'not read: {result["error"]}'))
    columns = [Column('image', left=True), Column('most probable first', left=True)]
    title = FLAGS.model or f'{FLAGS.workdir}, checkpoint {FLAGS.checkpoint}'
    show([Table(title, columns, rows)], 'table')


def _progress(results: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    console = Console(stderr=True)
    hidden = not console.is_terminal or (sys.stdout.isatty() and FLAGS.format != 'table')
    yield from track(results, 'predicting', total=count, console=console, disable=hidden)


_PRINT = {'table': _table, 'jsonl': _jsonl, 'csv': _csv}


if __name__ == '__main__':
    cli.run(main, define_flags)
