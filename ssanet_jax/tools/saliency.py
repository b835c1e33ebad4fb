r"""Draws where a trained network looks in images: the map of each stage, and Grad-CAM beside them.

    python -m ssanet_jax.tools.saliency --workdir=runs/digits --out=looks seven.png photos/
    python -m ssanet_jax.tools.saliency --workdir=runs/ssa50 --out=looks --raw 'photos/*.jpg'
    python -m ssanet_jax.tools.saliency --workdir=runs/ssa50 --out=looks --boxes=boxes.json photos/

Images are named as for tools.predict. --out gets a PNG for each and index.html, which shows them
all; --raw adds the maps as .npz. One that cannot be read is reported, the others go on, and the
exit code is 1. With boxes around what is in the images, {"photos/cat.jpg": [[top, left, bottom,
right], ...], ...} in their pixels, by path or name, it prints how well each map points at them.
docs/saliency.md says what the maps are.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console
from rich.progress import track

from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import FORMATS, Column, Table, show
from ssanet_jax.tools import cli, input_files

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('out', None, 'Folder to write; new or empty.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_float(
        'alpha', 0.6, "Weight of a map's colours over the image.", lower_bound=0, upper_bound=1
    )
    flags.DEFINE_bool('raw', False, 'Write the maps too, as .npz.')
    flags.DEFINE_integer('batch_size', 16, 'Images at a time.', lower_bound=1)
    flags.DEFINE_string('boxes', None, 'JSON file of boxes around what is in the images.')
    flags.DEFINE_float(
        'tolerance', 0, 'boxes: pixels by which the pointing game may miss.', lower_bound=0
    )
    flags.DEFINE_enum('format', 'table', FORMATS, 'boxes: how to print.')


def main(argv: list[str]) -> None:
    files = input_files.find(argv[1:])
    boxes = _boxes(files)
    out = Path(FLAGS.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f'--out={out} is there already; name a new folder, or an empty one.')
    from ssanet_jax.trained.load import load_trained

    run = load_trained(FLAGS.workdir, FLAGS.checkpoint)  # A mistake is found before TensorFlow.
    cli.start_tensorflow()
    try:
        bad, scores = _write(run, files, boxes, out)
    except OSError as error:
        raise ConfigError(f'--out={out} cannot be written: {error}.') from error
    good = len(files) - len(bad)
    print(f'{_images(good)}, shown in {out / "index.html"}', file=sys.stderr)
    if boxes is not None:
        _show_scores(scores, good)
    if bad:
        print(f'{len(bad):,} of {_images(len(files))} could not be read.', file=sys.stderr)
    sys.exit(1 if bad else 0)


def _boxes(files: Sequence[Path | bytes]) -> list[Any] | None:
    """Those of each file; raises ConfigError for flags that would have no effect."""
    from ssanet_jax.trained.saliency_boxes import boxes_by_file, read_boxes

    if FLAGS.boxes:
        return boxes_by_file(read_boxes(FLAGS.boxes), files)
    for name in ('tolerance', 'format'):
        if FLAGS[name].present:
            raise ConfigError(f'--{name} has no effect without --boxes; leave it out.')
    return None


def looks(
    run: Any, files: Sequence[Path | bytes], regions: Mapping[int, Any]
) -> Iterator[tuple[str, Any]]:
    """The name of each file and its `Look`, or the reason why it cannot be read, in order."""
    from ssanet_jax import data
    from ssanet_jax.trained.saliency import look

    numbers = itertools.count()
    for batch in data.file_batches(files, run.config.dataset, FLAGS.batch_size):
        try:
            found = look(run, batch.image)
        except ValueError as error:  # It has no maps.
            raise ConfigError(str(error)) from error
        for row, (file, number) in enumerate(zip(batch.files, numbers, strict=False)):
            region = regions.get(number)
            one = region if isinstance(region, str) else found[row]
            yield input_files.name(file), batch.bad.get(row, one)


def _write(
    run: Any, files: Sequence[Path | bytes], boxes: Sequence[Any] | None, out: Path
) -> tuple[list[tuple[str, str]], list[Any]]:
    """Writes figures and page; returns what could not be read and why, and the scores."""
    from ssanet_jax.analysis.saliency_scores import localization
    from ssanet_jax.trained import saliency_boxes
    from ssanet_jax.trained.saliency_sheet import write_figure, write_page

    regions = saliency_boxes.regions(boxes, files, run.config.dataset) if boxes else {}
    cards, bad, scores = [], [], []
    for number, (name, one) in enumerate(_progress(looks(run, files, regions), len(files))):
        if isinstance(one, str):
            bad.append((name, one))
            continue
        out.mkdir(parents=True, exist_ok=True)
        cards.append(write_figure(out, number + 1, name, one, alpha=FLAGS.alpha, raw=FLAGS.raw))
        if number in regions:
            mask: Any = regions[number]
            scores.append(None if mask is None else localization(one.maps, mask, FLAGS.tolerance))
    out.mkdir(parents=True, exist_ok=True)
    title = f'Where {run.config.model.name} looks'
    write_page(out, title, [*_about(run, len(cards))], cards, bad)
    return bad, scores


def _progress(results: Iterator[tuple[str, Any]], count: int) -> Iterator[tuple[str, Any]]:
    """A bar on a terminal, above which what could not be read is told at once."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    for name, one in track(results, 'drawing', total=count, console=console, disable=hidden):
        if isinstance(one, str):
            console.print(f'{name}: {one}', soft_wrap=True, highlight=False, markup=False)
        yield name, one


def _about(run: Any, count: int) -> Iterator[str]:
    yield f'{_images(count)}; step {run.step:,} of {FLAGS.workdir}.'
    yield (
        'The map of a stage is the mean of the gates that its attention blocks multiply pixels by; '
        'mean is that of all stages, at the size of the image. Grad-CAM shows where the last '
        'feature map speaks for the class that is named. Colours run from the lowest to the '
        'highest value of each map, which stand below it with the number of its values.'
    )


def _images(count: int) -> str:
    return '1 image' if count == 1 else f'{count:,} images'


def _show_scores(scores: Sequence[Any], good: int) -> None:
    from ssanet_jax.analysis.saliency_scores import mean_scores

    seen = [score for score in scores if score is not None]
    percent = '{:.1f} %'.format
    columns = [
        Column('map', left=True),
        Column('pointing game', lambda share: percent(100 * share)),
        Column('energy in the boxes', lambda share: percent(100 * share)),
    ]
    notes = [
        f'{len(seen):,} of {_images(good)}. {good - len(scores):,} without boxes and '
        f"{len(scores) - len(seen):,} of whose boxes evaluation's crop shows too little are left "
        'out.',
        'Grad-CAM is that of the likeliest class, centre the middle of the image, uniform a map '
        "that is the same everywhere: the boxes' share of the area.",
    ]
    rows = [(name, *score) for name, score in mean_scores(seen).items()]
    show([Table(f'{FLAGS.boxes}, {FLAGS.workdir}', columns, rows, notes)], FLAGS.format)


if __name__ == '__main__':
    define_flags()
    cli.run(main)
