"""Writes report.html: what a run is, how well it went, and where it goes wrong."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jinja2
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import layer_costs
from ssanet_jax.errors import ConfigError
from ssanet_jax.report import classes, curves, headline, sections, tables
from ssanet_jax.report.charts import curve_charts
from ssanet_jax.report.evaluation import Evaluation, evaluate_run
from ssanet_jax.trained.load import TrainedModel, load_trained, with_defaults
from ssanet_jax.training.metrics_file import read_metrics
from ssanet_jax.training.run_history import has_checkpoints, read_starts
from ssanet_jax.training.workdir import saved_config
from ssanet_jax.version import __version__

_HARDEST = 24  # images
_SAMPLE = 512  # images whose gates are looked at, at least if there are as many


def write_report(
    workdir: epath.PathLike, checkpoint: str = 'best', out: epath.PathLike | None = None
) -> epath.Path:
    """Evaluates a checkpoint of a run and writes a page about it, which needs no other file.

    It has the numbers, learning curves, confusions, the worst and best classes, the hardest
    images, calibration, gates, cost, config, versions and machines. What a run lacks, because it
    is old, has not come far or its data are not at hand, is left out, and the page says so.

    Args:
      workdir: of a run of main.py, which may be going on.
      checkpoint: 'best', 'latest' or a step.
      out: the file; report.html in `workdir` by default.

    Returns:
      The path of the page.

    Raises:
      ConfigError: there is no run, no such checkpoint, or `out` cannot be written.
    """
    folder = epath.Path(workdir)
    path = folder / 'report.html' if out is None else epath.Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f'{path} cannot be written; name a file in a folder that exists.')
    text = _page(folder, checkpoint)
    try:
        temporary = path.parent / f'{path.name}.tmp'
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f'{path} cannot be written: {error}.') from error
    return path


def report_at_end(workdir: epath.PathLike) -> None:
    """Writes the report of a run that has just ended, and prints where it is, or why there is none.

    On several hosts the first prints the command that writes it.
    """
    if jax.process_count() > 1:
        if jax.process_index() == 0:
            print(f'Report: python -m ssanet_jax.tools.report --workdir={workdir}')
        return
    try:
        print(f'Report: {write_report(workdir)}')
    except Exception as error:  # The run is done all the same.
        reason = ' '.join(str(error).split())[:300] or type(error).__name__
        print(f'No report: {reason} Write it with tools.report --workdir={workdir}')


def _page(folder: epath.Path, checkpoint: str) -> str:
    config = with_defaults(saved_config(folder))
    lines, starts = read_metrics(folder), read_starts(folder)
    run, evaluation, notes = None, None, []
    if has_checkpoints(folder):
        run = load_trained(folder, checkpoint)
        try:
            evaluation = evaluate_run(run, hardest=_HARDEST, sample=_SAMPLE)
        except ConfigError as error:
            notes.append(f'What needs the evaluation images is left out: {error}')
    else:
        notes.append('There is no checkpoint yet, so that there is nothing to evaluate.')
    epoch = evaluation.num_train / config.batch_size if evaluation else None
    epoch = epoch or curves.steps_per_epoch(config, lines)
    layers = layer_costs(run.model, config.dataset.image_size) if run else []
    content = {
        'headline': headline.headline(config, run, evaluation, lines, layers, starts, epoch),
        'curves': _curves(config, lines, epoch),
        'images': _of_images(run, evaluation, notes) if run and evaluation else {},
        'cost': tables.cost_table(layers, config.dataset.image_size) if layers else None,
        'config': tables.config_tables(config),
        'starts': tables.starts_table(starts) if starts else None,
        'notes': notes,
        'version': __version__,
    }
    return _template().render(content)


def _curves(
    config: ConfigDict, lines: Sequence[Mapping[str, Any]], epoch: float | None
) -> dict[str, Any]:
    found = curves.read_curves(lines, epoch)
    reference = curves.published(config.model.name, config.dataset.name) if epoch else None
    in_steps = config.optimizer.schedule == 'step'
    return {
        'charts': curve_charts(found, reference, decays_in_steps=in_steps),
        'not_finite': found.not_finite,
        'published': reference,
        'unit': found.unit,
    }


def _of_images(run: TrainedModel, evaluation: Evaluation, notes: list[str]) -> dict[str, Any]:
    """The parts that look at single images; a reason why there are none is added to `notes`."""
    good = evaluation.good()
    if bad := len(evaluation.label) - len(good):
        notes.append(
            f'{bad:,} of {len(evaluation.label):,} evaluation images cannot be decoded. They count '
            'as wrong in the numbers above, as in training, and are in no other part.'
        )
    if not len(good):
        return {}
    logits, label = evaluation.logits[good], evaluation.label[good]
    if wrong := evaluation.not_finite():
        notes.append(
            f'The outputs for {wrong:,} of {len(good):,} images are not finite: the network has '
            'diverged. What needs them is left out.'
        )
        return {}
    counts = classes.confusion(label, logits.argmax(axis=1), logits.shape[1])
    few = logits.shape[1] <= classes.MATRIX_CLASSES
    return {
        'count': len(good),
        'long_names': max(map(len, run.classes)) > 3,
        'pixelated': evaluation.hardest.image.shape[1] < 64,
        'matrix': classes.matrix_rows(counts, run.classes) if few else None,
        'pairs': classes.pairs_table(counts, run.classes, 10 if few else 20),
        'classes': classes.class_tables(counts, run.classes),
        'hardest': sections.hardest_images(evaluation, run.classes),
        'calibration': sections.calibration_section(logits, label),
        'gates': sections.gates_section(run, evaluation),
    }


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('ssanet_jax.report'),
        autoescape=True,  # names of classes and values of the config are anybody's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('report.html')
