r"""Draws where a trained network looks in images: the map of each stage, and Grad-CAM.

    ssanet saliency --workdir=runs/digits --out=looks seven.png photos/
    ssanet saliency --workdir=runs/ssa50 --out=looks --raw 'photos/*.jpg'
    ssanet saliency --workdir=runs/ssa50 --out=looks --boxes=boxes.json photos/

Images are given as for ssanet predict. Writes a PNG per image to --out, and index.html, which shows
them all; --raw adds the maps as .npz. Images that cannot be read are reported and skipped, and the
exit code is 1. --boxes, {"photos/cat.jpg": [[top, left, bottom, right], ...], ...} in pixels, by
path or name, prints how well each map localizes the boxes. docs/saliency.md explains the maps.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.progress import track
from rich.text import Text

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable
from ssanet_jax.tables import FORMATS, Column, Table, show
from ssanet_jax.tools import cli, input_files, sources

if TYPE_CHECKING:
    from ssanet_jax.analysis.saliency_scores import Score
    from ssanet_jax.trained.saliency import Saliency
    from ssanet_jax.trained.sources import AnyModel

FLAGS = flags.FLAGS


def define_flags() -> None:
    sources.define_flags()
    flags.DEFINE_string('out', None, 'Folder to write; new or empty.', required=True)
    flags.DEFINE_float(
        'alpha', 0.6, "Weight of a map's colors over the image.", lower_bound=0, upper_bound=1
    )
    flags.DEFINE_bool('raw', False, 'Also write the maps, as .npz.')
    flags.DEFINE_integer('batch_size', 16, 'Images per batch.', lower_bound=1)
    flags.DEFINE_string('boxes', None, 'JSON file of bounding boxes of the objects.')
    flags.DEFINE_float(
        'tolerance', 0, '--boxes: distance in pixels that still counts as a hit.', lower_bound=0
    )
    flags.DEFINE_enum('format', 'table', FORMATS, '--boxes: how to print.')


def main(arguments: list[str]) -> None:
    files = input_files.find(arguments)
    boxes = _boxes(files)
    out = Path(FLAGS.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f'--out={out} exists and is not an empty folder; choose another.')
    trained = sources.load()
    runtime.enable_compilation_cache()
    with cli.writing_out():
        bad, scores = _write(trained, files, boxes, out)
    good = len(files) - len(bad)
    print(f'{_images(good)}, shown in {out / "index.html"}', file=sys.stderr)
    if boxes is not None:
        _show_scores(scores, good)
    if bad:
        print(f'{len(bad):,} of {_images(len(files))} could not be read.', file=sys.stderr)
    sys.exit(1 if bad else 0)


def _boxes(files: Sequence[Path | bytes]) -> list[np.ndarray | None] | None:
    """The boxes of each file; raises ConfigError for flags without effect."""
    from ssanet_jax.trained.saliency_boxes import boxes_by_file, read_boxes

    if FLAGS.boxes:
        return boxes_by_file(read_boxes(FLAGS.boxes), files)
    for name in ('tolerance', 'format'):
        if FLAGS[name].present:
            raise ConfigError(f'--{name} has no effect without --boxes; leave it out.')
    return None


def explanations(
    trained: 'AnyModel', files: Sequence[Path | bytes], masks: Mapping[int, Any]
) -> Iterator[tuple[str, 'Saliency | str']]:
    """Yields the name of each file and its `Saliency`, or the reason why it cannot be read."""
    from ssanet_jax import data
    from ssanet_jax.trained.saliency import explain

    numbers = itertools.count()
    for batch in data.file_batches(files, trained.dataset, FLAGS.batch_size):
        try:
            saliencies = explain(trained, batch.image)
        except ValueError as error:  # no spatial gate
            raise ConfigError(str(error)) from error
        for row, (file, number) in enumerate(zip(batch.files, numbers, strict=False)):
            mask = masks.get(number)
            result = mask if isinstance(mask, str) else saliencies[row]
            yield input_files.name(file), batch.bad.get(row, result)


def _write(
    trained: 'AnyModel',
    files: Sequence[Path | bytes],
    boxes: Sequence[np.ndarray | None] | None,
    out: Path,
) -> tuple[list[tuple[str, str]], list['dict[str, Score] | None']]:
    """Writes figures and page; returns the unreadable files with the reasons, and the scores."""
    from ssanet_jax.analysis.saliency_scores import localization
    from ssanet_jax.trained.saliency_boxes import regions
    from ssanet_jax.trained.saliency_display import write_figure, write_page

    masks = regions(boxes, files, trained.dataset) if boxes else {}
    cards, bad, scores = [], [], []
    results = _progress(explanations(trained, files, masks), len(files))
    for number, (name, result) in enumerate(results):
        if isinstance(result, str):
            bad.append((name, result))
            continue
        out.mkdir(parents=True, exist_ok=True)
        cards.append(write_figure(out, number + 1, name, result, alpha=FLAGS.alpha, raw=FLAGS.raw))
        if number in masks:
            mask: Any = masks[number]
            localized = None if mask is None else localization(result.maps, mask, FLAGS.tolerance)
            scores.append(localized)
    out.mkdir(parents=True, exist_ok=True)
    title = f'Where {trained.name} looks'
    write_page(out, title, _introduction(trained, len(cards)), cards, bad)
    return bad, scores


def _progress(
    results: Iterator[tuple[str, 'Saliency | str']], count: int
) -> Iterator[tuple[str, 'Saliency | str']]:
    """Shows progress on a terminal, and reports unreadable images as they come."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    for name, result in track(results, 'drawing', total=count, console=console, disable=hidden):
        if isinstance(result, str):
            console.print(Text(printable(f'{name}: {result}')), soft_wrap=True)
        yield name, result


def _introduction(trained: 'AnyModel', count: int) -> list[str]:
    return [
        f'{_images(count)}; {sources.described(trained)}.',
        "A stage's map is the mean of the gates of its attention blocks; mean is that of all "
        'stages, at the size of the image. Grad-CAM shows where the last feature map supports the '
        'class that is named. Colors span the range of each map, which is printed below it with '
        'its size.',
    ]


def _images(count: int) -> str:
    return '1 image' if count == 1 else f'{count:,} images'


def _show_scores(scores: Sequence['dict[str, Score] | None'], good: int) -> None:
    from ssanet_jax.analysis.saliency_scores import mean_scores

    seen = [score for score in scores if score is not None]
    percent = '{:.1f} %'.format
    columns = [
        Column('map', left=True),
        Column('pointing game', lambda share: percent(100 * share)),
        Column('energy in the boxes', lambda share: percent(100 * share)),
    ]
    notes = [
        f'{len(seen):,} of {_images(good)}. Excluded: {good - len(scores):,} without boxes, '
        f"{len(scores) - len(seen):,} whose boxes evaluation's crop cuts away.",
        'Grad-CAM is that of the most probable class, center the middle of the image, uniform a '
        "constant map: the boxes' share of the area.",
    ]
    rows = [(name, *score) for name, score in mean_scores(seen).items()]
    title = f'{FLAGS.boxes}, {FLAGS.workdir or FLAGS.model}'
    show([Table(title, columns, rows, notes)], FLAGS.format)


if __name__ == '__main__':
    cli.run(main, define_flags)
