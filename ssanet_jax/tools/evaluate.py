r"""Evaluates a trained network on other test sets: ImageNet ReaL, V2, A, R, Sketch, C, ...

    ssanet evaluate --workdir=runs/x --on=imagenet_real,imagenet_v2
    ssanet evaluate --workdir=runs/y --on=cifar10_1,cifar10_c --format=json

Each is a TFDS dataset, which ssanet prepare prepares. Images are resized, cropped and normalized as
in the run's evaluation, and every one counts once. docs/evaluation.md has the sets and the rules.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean as mean
from typing import TYPE_CHECKING, Any

from absl import flags
from rich.console import Console
from rich.progress import Progress

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError, nearest
from ssanet_jax.tables import FORMATS, Column, Table, show, thousands
from ssanet_jax.tools import cli
from ssanet_jax.trained.benchmarks import BENCHMARKS, SEVERITIES, Benchmark

if TYPE_CHECKING:
    from ssanet_jax.trained.benchmark_scores import Score
    from ssanet_jax.trained.load import TrainedModel

    Scores = Mapping[tuple[str, int], Score]  # by corruption and severity

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run.', required=True)
    flags.DEFINE_list(
        'on', None, f'Test sets, one or more of {", ".join(BENCHMARKS)}.', required=True
    )
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('data_dir', None, "Folder of prepared datasets; unset: the run's.")
    flags.DEFINE_integer('batch_size', 64, 'Images per batch.', lower_bound=1)
    flags.DEFINE_enum('format', 'table', FORMATS, 'How to print.')


def main() -> None:
    chosen = choose(FLAGS.on)
    from ssanet_jax.trained.load import load_trained

    trained = load_trained(FLAGS.workdir, FLAGS.checkpoint)
    runtime.enable_compilation_cache()
    scores = evaluate(trained, chosen)
    dataset = trained.config.dataset
    title = f'{trained.config.model.name}, step {trained.step}, trained on {dataset.name}'
    corrupted = [name for name, benchmark in chosen.items() if len(benchmark.parts) > 1]
    tables = [corruption_table(name, chosen[name], scores[name]) for name in corrupted]
    show([summary(title, scores), *tables], FLAGS.format)


def choose(names: Sequence[str]) -> dict[str, Benchmark]:
    """The benchmarks of --on; raises ConfigError for an unknown one."""
    for name in names:
        if name not in BENCHMARKS:
            raise ConfigError(
                f'--on={name} is not known; nearest: {nearest(name, BENCHMARKS)}. All are '
                f'{", ".join(BENCHMARKS)}.'
            )
    if not names:
        raise ConfigError(f'--on has no value; name some of {", ".join(BENCHMARKS)}.')
    return {name: BENCHMARKS[name] for name in names}


def evaluate(
    trained: 'TrainedModel', benchmarks: Mapping[str, Benchmark]
) -> dict[str, dict[tuple[str, int], 'Score']]:
    """Scores of all parts of each benchmark; opens all of them before it evaluates any."""
    from ssanet_jax.trained.benchmark_scores import evaluate_part, open_part
    from ssanet_jax.trained.prediction import Predictor

    opened = {
        name: {
            key: open_part(trained, benchmark, dataset, FLAGS.data_dir)
            for key, dataset in benchmark.parts.items()
        }
        for name, benchmark in benchmarks.items()
    }
    predictor = Predictor(trained, FLAGS.batch_size)
    scores: dict[str, dict[tuple[str, int], Score]] = {}
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        for name, parts in opened.items():
            bar = progress.add_task(name, total=sum(part.size for part in parts.values()))
            scores[name] = {
                key: evaluate_part(
                    predictor,
                    benchmarks[name],
                    part,
                    batch_size=FLAGS.batch_size,
                    advance=partial(progress.advance, bar),
                )
                for key, part in parts.items()
            }
    return scores


def summary(title: str, scores: Mapping[str, 'Scores']) -> Table:
    """One row for each benchmark."""
    from ssanet_jax.trained.benchmark_scores import add

    columns = [
        Column('test set', left=True),
        Column('top-1, %', _percent),
        Column('top-5, %', _percent),
        Column('images', thousands),
        Column('without a label', thousands),
    ]
    rows: list[tuple[Any, ...]] = []
    undecodable = 0
    for name, parts in scores.items():
        total = add(parts.values())
        shares = (100 * count / total.images for count in (total.top1, total.top5))
        rows.append((name, *shares, total.images, total.unlabelled))
        undecodable += total.undecodable
    notes = ['Images without a label are left out.'] if any(row[-1] for row in rows) else []
    if undecodable:
        notes.append(f'Undecodable images, counted as incorrect: {undecodable:,}.')
    return Table(title, columns, rows, notes)


def corruption_table(name: str, benchmark: Benchmark, scores: 'Scores') -> Table:
    """The top-1 errors at each severity, their means and, with a reference, CE and mCE."""
    from ssanet_jax.trained.benchmark_scores import corruption_errors, top1_errors

    errors = top1_errors(scores)
    errors['mean'] = [mean(column) for column in zip(*errors.values(), strict=True)]
    rows: list[tuple[Any, ...]] = [(c, *each, mean(each)) for c, each in errors.items()]
    columns = [Column('error by severity, %', left=True)]
    columns += [Column(str(severity), _percent) for severity in SEVERITIES]
    columns.append(Column('mean', _percent))
    if benchmark.reference:
        relative = corruption_errors(errors, benchmark.reference)
        rows = [(*row, relative[row[0]]) for row in rows]
        columns.append(Column('CE, %', _percent))
    return Table(name, columns, rows)


def _percent(value: float) -> str:
    return f'{value:.2f}'


if __name__ == '__main__':
    cli.run(main, define_flags)
