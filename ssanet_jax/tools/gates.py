r"""Prints statistics of a trained network's gates and, with --ablation, the effect of each.

    ssanet gates --workdir=runs/digits
    ssanet gates --workdir=runs/digits --ablation --out=gates.png
    ssanet gates --workdir=runs/x --split='test[:10%]' --images=1000 \
        --format=markdown

Statistics are over the run's evaluation split, or --split. --ablation evaluates the images again
with each gate in turn, and all at once, set to 1, to their mean, and shuffled. Undecodable images
are excluded from statistics and count as incorrect in evaluations. docs/gates.md explains the
numbers.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from ssanet_jax import runtime
from ssanet_jax.analysis.gates import GateStatistics, find_gates
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import FORMATS, show
from ssanet_jax.tools import cli

if TYPE_CHECKING:
    from ssanet_jax.trained.ablation import Ablation
    from ssanet_jax.trained.gates import Batch
    from ssanet_jax.trained.load import TrainedModel

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('split', None, "Split of the run's dataset; unset: its evaluation split.")
    flags.DEFINE_integer(
        'images', None, 'Number of images, at most, evenly spaced over the split.', lower_bound=1
    )
    flags.DEFINE_integer('batch_size', 64, 'Images per batch.', lower_bound=1)
    flags.DEFINE_bool('ablation', False, 'Also measure the effect of each gate.')
    flags.DEFINE_string('out', None, 'Figure to write, .png, .svg or .pdf.')
    flags.DEFINE_enum('format', 'table', FORMATS, 'How to print.')


def main() -> None:
    if FLAGS.out:
        _check_out(Path(FLAGS.out))
    from ssanet_jax.trained.gate_display import ablation_table, statistics_table
    from ssanet_jax.trained.load import load_trained

    trained = load_trained(FLAGS.workdir, FLAGS.checkpoint)
    name, dataset = trained.config.model.name, trained.config.dataset
    try:
        find_gates(trained.model, eval_size(dataset))
    except ValueError as error:
        raise ConfigError(f'{name} has no gates; choose a run of a network with attention.') from (
            error
        )
    runtime.enable_compilation_cache()
    split = FLAGS.split or dataset.eval_split
    statistics, ablation = _analyze(trained, _batches(trained.config, split))
    count = next(iter(statistics.values())).images
    title = f'{name}, step {trained.step}, on {count:,} images of {dataset.name} {split}'
    tables = [statistics_table(statistics, title)]
    show(tables if ablation is None else [*tables, ablation_table(ablation)], FLAGS.format)
    if FLAGS.out:
        _draw(statistics, title, ablation, FLAGS.out)


def _analyze(
    trained: 'TrainedModel', batches: Callable[[], Iterable['Batch']]
) -> tuple[dict[str, GateStatistics], 'Ablation | None']:
    """Statistics and, with --ablation, the ablation; shows progress if stderr is a terminal."""
    from ssanet_jax.trained.ablation import evaluations
    from ssanet_jax.trained.gates import ablation_of, statistics_of

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task('statistics', total=None)

        def counted() -> Iterator['Batch']:
            for batch in batches():
                yield batch
                progress.advance(bar)

        statistics = statistics_of(trained, counted())
        number = progress.tasks[0].completed
        progress.update(bar, total=number)
        if not FLAGS.ablation:
            return statistics, None
        trials = progress.add_task('ablation', total=number * evaluations(statistics))
        return statistics, ablation_of(
            trained, batches(), statistics, advance=lambda: progress.advance(trials)
        )


def _batches(config: ConfigDict, split: str) -> Callable[[], Iterable['Batch']]:
    """Batches of a split, at most --images of them; `config` is left as it is."""
    from ssanet_jax import data
    from ssanet_jax.trained.gates import subsample

    config = config.copy_and_resolve_references()
    config.dataset.eval_split, config.eval_batch_size = split, FLAGS.batch_size
    if FLAGS.images is None:
        return lambda: data.eval_batches(config, split)
    total = data.dataset_info(config).num_eval
    chosen = subsample(data.eval_batches(config, split), FLAGS.images, total)
    return lambda: chosen


def _check_out(path: Path) -> None:
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise ConfigError(f'--out={path} must end in .png, .svg or .pdf.')
    if not path.parent.is_dir():
        raise ConfigError(f'--out={path}: there is no folder {path.parent}; create it first.')


def _draw(
    statistics: Mapping[str, GateStatistics], title: str, ablation: 'Ablation | None', out: str
) -> None:
    from ssanet_jax.trained.gate_display import draw_gates

    with cli.writing_out():
        draw_gates(statistics, title, ablation).savefig(out, dpi=150)
    print(f'Written to {out}', file=sys.stderr)


if __name__ == '__main__':
    cli.run(main, define_flags)
