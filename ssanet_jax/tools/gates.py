r"""Says what the gates of a trained network do, and what each of them is worth.

    python -m ssanet_jax.tools.gates --workdir=runs/digits
    python -m ssanet_jax.tools.gates --workdir=runs/digits --knockout --out=gates.png
    python -m ssanet_jax.tools.gates --workdir=runs/x --split='test[:10%]' --images=1000 \
        --format=markdown

Statistics are over the images of the split that the run evaluates on, or another. With --knockout
each gate in turn, and all at once, are set to 1, to their mean, and shuffled, and the images are
evaluated again each time. docs/gates.md says what the numbers mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from ssanet_jax.analysis.gates import GateShape, GateStatistics, find_gates, gate_statistics
from ssanet_jax.analysis.knockout import KINDS, KnockOut, knock_out
from ssanet_jax.config import ConfigError
from ssanet_jax.render import FORMATS, Column, Table, show
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('split', None, "Of the run's data; unset: the one that it evaluates on.")
    flags.DEFINE_integer('images', None, 'At most so many, spread over the split.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 64, 'Images at a time.', lower_bound=1)
    flags.DEFINE_bool('knockout', False, 'Say what each gate is worth, too.')
    flags.DEFINE_string('out', None, 'Picture to write, .png, .svg or .pdf.')
    flags.DEFINE_enum('format', 'table', FORMATS, 'How to print.')


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    if FLAGS.out:
        _check_out(Path(FLAGS.out))
    from ssanet_jax.training.saved import load_run

    run = load_run(FLAGS.workdir, FLAGS.checkpoint)  # A mistake is found before TensorFlow.
    config = run.config
    try:
        find_gates(run.model, config.dataset.image_size)
    except ValueError as error:
        raise ConfigError(
            f'{config.model.name} has no gates; name the run of a network with attention.'
        ) from error
    cli.start_tensorflow()
    config.dataset.eval_split = FLAGS.split or config.dataset.eval_split
    config.eval_batch_size = FLAGS.batch_size
    statistics, knockout = look(run, images=FLAGS.images, with_knockout=FLAGS.knockout)
    count = next(iter(statistics.values())).images
    title = (
        f'{config.model.name}, step {run.step}, on {count:,} images of {config.dataset.name} '
        f'{config.dataset.eval_split}'
    )
    tables = [statistics_table(statistics, title)]
    show(tables if knockout is None else [*tables, knockout_table(knockout)], FLAGS.format)
    if FLAGS.out:
        _draw(statistics, title, knockout, FLAGS.out)


def look(
    run: Any, *, images: int | None = None, with_knockout: bool = False
) -> tuple[dict[str, GateStatistics], KnockOut | None]:
    """Statistics, with histograms, and the knock-out, if it is asked for, of a run's gates.

    On all devices of this host, with a bar on stderr where that is a terminal.

    Args:
      run: from `ssanet_jax.load`, of a network with gates; its config says of which images.
      images: at most so many, evenly spread; None: all.
      with_knockout: also evaluates the network without its gates.
    """
    import jax

    from ssanet_jax.analysis.gate_figures import BINS
    from ssanet_jax.inference import for_inference
    from ssanet_jax.training.parallel import local_mesh, replicated, to_devices

    mesh, preprocess = local_mesh(), run.preprocess
    model, variables = for_inference(run.model, run.variables)
    variables = jax.device_put(dict(variables), replicated(mesh))
    batches = _batches(run.config, images)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task('statistics', total=None)

        def counted() -> Iterator[Mapping[str, np.ndarray]]:
            for batch in batches():
                yield batch
                progress.advance(bar)

        statistics = gate_statistics(
            model, variables, to_devices(counted(), mesh), preprocess=preprocess, bins=BINS
        )
        number = progress.tasks[0].completed
        progress.update(bar, total=number)
        if not with_knockout:
            return statistics, None
        trials = 1 + len(KINDS) * (1 + len(statistics))
        bar = progress.add_task('knock-out', total=number * trials)
        found = knock_out(
            model,
            variables,
            to_devices(batches(), mesh),
            statistics,
            preprocess=preprocess,
            advance=lambda: progress.advance(bar),
        )
    return statistics, found


def _batches(config: ConfigDict, images: int | None) -> Callable[[], Iterable[Mapping[str, Any]]]:
    from ssanet_jax import data

    split = config.dataset.eval_split
    if images is None:
        return lambda: data.eval_batches(config, split)
    total = data.dataset_info(config).num_eval
    chosen = evenly(data.eval_batches(config, split), images, total)
    return lambda: chosen


def evenly(
    batches: Iterable[Mapping[str, np.ndarray]], count: int, total: int
) -> list[Mapping[str, np.ndarray]]:
    """At most `count` of the `total` images of padded batches, evenly spread, in such batches."""
    found, size, start = [], 0, 0
    for batch in batches:
        size = len(batch['mask'])
        places = start + np.cumsum(batch['mask'])  # from 1
        start = places[-1]
        share = min(count, total)
        keep = batch['mask'] & (places * share // total > (places - 1) * share // total)
        found.append({name: array[keep] for name, array in batch.items()})
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    missing = -len(whole['mask']) % size
    padded = {
        name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        for name, array in whole.items()
    }
    return [
        {name: array[first : first + size] for name, array in padded.items()}
        for first in range(0, len(padded['mask']), size)
    ]


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'


def _size(shape: GateShape) -> str:
    """'8 x 8', '8 x 8, 4 maps' or '64 channels'."""
    if shape.height * shape.width == 1:
        return f'{shape.maps} channels' if shape.maps > 1 else '1 x 1'
    maps = f', {shape.maps} maps' if shape.maps > 1 else ''
    return f'{shape.height} x {shape.width}{maps}'


_NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {  # fields of GateStatistics
    'mean': ('mean', '{:.3f}'.format),
    'std': ('std', '{:.3f}'.format),
    'spatial_std': ('std within images', '{:.3f}'.format),
    'image_std': ('std between images', '{:.3f}'.format),
    'low': ('low', _percent),
    'high': ('high', _percent),
    'entropy': ('entropy', '{:.4f}'.format),
}


def statistics_table(statistics: Mapping[str, GateStatistics], title: str) -> Table:
    """A row for each gate; see `GateStatistics` for the columns."""
    numbers = [Column(*heading) for heading in _NUMBERS.values()]
    columns = [Column('gate', left=True), Column('size', left=True), *numbers]
    rows = [
        (name, _size(gate.shape), *(getattr(gate, field) for field in _NUMBERS), gate.dead)
        for name, gate in statistics.items()
    ]
    return Table(title, [*columns, Column('dead', left=True)], rows)


_HEADINGS = {'one': 'set to 1', 'mean': 'set to its mean', 'shuffled': 'shuffled'}


def knockout_table(knockout: KnockOut) -> Table:
    """A row for all gates at once, then one for each; see `knock_out` for the columns."""
    columns = [Column('gate', left=True)]
    for kind in knockout.changes:
        columns += [
            Column(f'top-1, {_HEADINGS[kind]}', '{:+.2f}'.format),
            Column(f'loss, {_HEADINGS[kind]}', '{:+.4f}'.format),
        ]
    names = list(next(iter(knockout.changes.values())))
    rows = [
        (name, *(value for changes in knockout.changes.values() for value in changes[name]))
        for name in names
    ]
    title = (
        f'Changes from top-1 {knockout.top1:.2f} %, in percentage points, and from loss '
        f'{knockout.loss:.4f}'
    )
    return Table(title, columns, rows, [f'One image is {100 / knockout.images:.2g} points.'])


def _check_out(path: Path) -> None:
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise ConfigError(f'--out={path} must end in .png, .svg or .pdf.')
    if not path.parent.is_dir():
        raise ConfigError(f'--out={path}: there is no folder {path.parent}; make it first.')


def _draw(
    statistics: Mapping[str, GateStatistics], title: str, knockout: KnockOut | None, out: str
) -> None:
    from ssanet_jax.analysis.gate_figures import draw

    try:
        draw(statistics, title, knockout).savefig(out, dpi=150)
    except OSError as error:
        raise ConfigError(f'--out={out} cannot be written: {error}.') from error
    Console(stderr=True).print(f'Written to {out}', soft_wrap=True, highlight=False)


if __name__ == '__main__':
    define_flags()
    cli.run(main)
