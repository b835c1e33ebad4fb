r"""Says what the gates of a trained network do, and what each of them is worth.

    python -m ssanet_jax.tools.gates --workdir=runs/digits
    python -m ssanet_jax.tools.gates --workdir=runs/digits --ablation --out=gates.png
    python -m ssanet_jax.tools.gates --workdir=runs/x --split='test[:10%]' --images=1000 \
        --format=markdown

Statistics are over the images of the split that the run evaluates on, or another. With --ablation
each gate in turn, and all at once, are set to 1, to their mean, and shuffled, and the images are
evaluated again each time. Images that cannot be decoded are in no statistic, and wrong in every
evaluation. docs/gates.md says what the numbers mean.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from ssanet_jax import runtime
from ssanet_jax.analysis.gates import GateStatistics, find_gates
from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import FORMATS, show
from ssanet_jax.tools import cli
from ssanet_jax.trained import gates
from ssanet_jax.trained.ablation import Ablation, evaluations
from ssanet_jax.trained.gate_tables import ablation_table, statistics_table

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('split', None, "Of the run's data; unset: the one that it evaluates on.")
    flags.DEFINE_integer('images', None, 'At most so many, spread over the split.', lower_bound=1)
    flags.DEFINE_integer('batch_size', 64, 'Images at a time.', lower_bound=1)
    flags.DEFINE_bool('ablation', False, 'Say what each gate is worth, too.')
    flags.DEFINE_string('out', None, 'Picture to write, .png, .svg or .pdf.')
    flags.DEFINE_enum('format', 'table', FORMATS, 'How to print.')


def main() -> None:
    if FLAGS.out:
        _check_out(Path(FLAGS.out))
    from ssanet_jax.trained.load import load_trained

    run = load_trained(FLAGS.workdir, FLAGS.checkpoint)  # A mistake is found before TensorFlow.
    config = run.config
    try:
        find_gates(run.model, config.dataset.image_size)
    except ValueError as error:
        raise ConfigError(
            f'{config.model.name} has no gates; name the run of a network with attention.'
        ) from error
    runtime.start_tensorflow()
    config.dataset.eval_split = FLAGS.split or config.dataset.eval_split
    config.eval_batch_size = FLAGS.batch_size
    statistics, ablation = _look(run, _batches(config))
    count = next(iter(statistics.values())).images
    title = (
        f'{config.model.name}, step {run.step}, on {count:,} images of {config.dataset.name} '
        f'{config.dataset.eval_split}'
    )
    tables = [statistics_table(statistics, title)]
    show(tables if ablation is None else [*tables, ablation_table(ablation)], FLAGS.format)
    if FLAGS.out:
        _draw(statistics, title, ablation, FLAGS.out)


def _look(
    run: Any, batches: Callable[[], Iterable[gates.Batch]]
) -> tuple[dict[str, GateStatistics], Ablation | None]:
    """Statistics and, if it is asked for, the knock-out, with a bar where stderr is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task('statistics', total=None)

        def counted() -> Iterator[gates.Batch]:
            for batch in batches():
                yield batch
                progress.advance(bar)

        statistics = gates.statistics_of(run, counted())
        number = progress.tasks[0].completed
        progress.update(bar, total=number)
        if not FLAGS.ablation:
            return statistics, None
        trials = progress.add_task('knock-out', total=number * evaluations(statistics))
        return statistics, gates.knock_out_of(
            run, batches(), statistics, advance=lambda: progress.advance(trials)
        )


def _batches(config: ConfigDict) -> Callable[[], Iterable[gates.Batch]]:
    from ssanet_jax import data

    split = config.dataset.eval_split
    if FLAGS.images is None:
        return lambda: data.eval_batches(config, split)
    total = data.dataset_info(config).num_eval
    chosen = gates.evenly(data.eval_batches(config, split), FLAGS.images, total)
    return lambda: chosen


def _check_out(path: Path) -> None:
    if path.suffix not in ('.png', '.svg', '.pdf'):
        raise ConfigError(f'--out={path} must end in .png, .svg or .pdf.')
    if not path.parent.is_dir():
        raise ConfigError(f'--out={path}: there is no folder {path.parent}; make it first.')


def _draw(
    statistics: Mapping[str, GateStatistics], title: str, ablation: Ablation | None, out: str
) -> None:
    from ssanet_jax.trained.gate_figures import draw

    try:
        draw(statistics, title, ablation).savefig(out, dpi=150)
    except OSError as error:
        raise ConfigError(f'--out={out} cannot be written: {error}.') from error
    Console(stderr=True).print(f'Written to {out}', soft_wrap=True, highlight=False)


if __name__ == '__main__':
    cli.run(main, define_flags)
