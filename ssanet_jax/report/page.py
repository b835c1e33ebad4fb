"""Writes report.html, a self-contained page about a run: results, errors, cost and config."""

import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jinja2
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import layer_costs
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.config import with_defaults
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError, file_errors, one_line, reason_of
from ssanet_jax.output import printable, timestamp
from ssanet_jax.report import classes, curves, sections, tables
from ssanet_jax.report.charts import curve_charts
from ssanet_jax.report.evaluation import Evaluation, evaluate_trained
from ssanet_jax.report.header import make_header
from ssanet_jax.trained.load import TrainedModel, load_trained
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.version import __version__

_HARDEST = 24  # images shown
_NAMED = 24  # undecodable images listed
_SAMPLE = 512  # images for gate statistics


def write_report(
    workdir: epath.PathLike, checkpoint: str = 'best', out: epath.PathLike | None = None
) -> epath.Path:
    """Evaluates a checkpoint of a run and writes a self-contained page about it.

    The page has results, learning curves, confusions, the worst and best classes, the hardest
    images, calibration, gates, cost, config, versions and machines. It notes which sections it
    omits, because the run is old or has just begun, or its dataset is missing.

    Args:
      workdir: of a run of `ssanet train`, which may still be training.
      checkpoint: 'best', 'latest' or a step.
      out: path of the page; defaults to report.html in `workdir`.

    Returns:
      The path of the page.

    Raises:
      ConfigError: the run or the checkpoint does not exist, or `out` cannot be written.
    """
    folder = Workdir(workdir)
    path = folder.report if out is None else epath.Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f'{path} cannot be written; choose a file in an existing folder.')
    text = _page(folder, checkpoint)
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text)
    except file_errors() as error:
        raise ConfigError(f'{path} cannot be written: {reason_of(error)}.') from error
    return path


def report_at_end(workdir: epath.PathLike) -> None:
    """Writes the report of a finished run and prints its path, or the reason for its failure.

    With several hosts it prints the command to run instead, since evaluation uses one host.
    """
    command = shlex.join(['ssanet', 'report', f'--workdir={workdir}'])
    if jax.process_count() > 1:
        if jax.process_index() == 0:
            print(printable(f'Report: {command}'))
        return
    try:
        print(printable(f'Report: {write_report(workdir)}'))
    except Exception as error:  # of the report, not of the run
        reason = one_line(error) or type(error).__name__
        print(printable(f'No report: {reason} Write it with: {command}'))


def _page(folder: Workdir, checkpoint: str) -> str:
    config = with_defaults(folder.read_config())
    lines, starts = folder.read_metrics(), folder.read_starts()
    trained, evaluation, notes = None, None, []
    if folder.checkpoint_steps():
        trained = load_trained(folder, checkpoint)
        try:
            evaluation = evaluate_trained(trained, hardest=_HARDEST, sample=_SAMPLE)
            notes += _left_out(config)
        except ConfigError as error:
            notes.append(f'Sections that need the evaluation images are omitted: {error}')
    else:
        notes.append('There is no checkpoint to evaluate yet.')
    epoch = evaluation.num_train / config.batch_size if evaluation else None
    epoch = epoch or curves.steps_per_epoch(config, lines)
    layers = layer_costs(trained.model, eval_size(config.dataset)) if trained else []
    raw = checkpoint.endswith(':raw')
    content = {
        'header': make_header(config, trained, evaluation, lines, layers, starts, epoch, raw=raw),
        'curves': _curves(config, lines, epoch),
        'images': _image_sections(trained, evaluation, notes) if trained and evaluation else {},
        'cost': tables.cost_table(layers, eval_size(config.dataset)) if layers else None,
        'config': tables.config_tables(config),
        'starts': tables.starts_table(starts) if starts else None,
        'notes': notes,
        'version': __version__,
    }
    return load_template('report.html').render(content)


def _curves(
    config: ConfigDict, lines: Sequence[Mapping[str, Any]], epoch: float | None
) -> dict[str, Any]:
    ours = curves.read_curves(lines, epoch)
    reference = curves.published(config.model.name, config.dataset.name) if epoch else None
    in_steps = config.optimizer.schedule == 'step'
    return {
        'charts': curve_charts(ours, reference, decays_in_steps=in_steps),
        'nonfinite': ours.nonfinite,
        'published': reference,
        'unit': ours.unit,
    }


def _image_sections(
    trained: TrainedModel, evaluation: Evaluation, notes: list[str]
) -> dict[str, Any]:
    """The sections about single images; appends to `notes` why any are missing."""
    good = evaluation.decodable()
    if bad := len(evaluation.label) - len(good):
        notes.append(
            f'{bad:,} of {len(evaluation.label):,} evaluation images cannot be decoded. They count '
            'as incorrect in the results below, as in training, and are omitted elsewhere: '
            f'{_bad_names(evaluation)}.'
        )
    if not len(good):
        return {}
    logits, label = evaluation.logits[good], evaluation.label[good]
    if nonfinite := evaluation.num_nonfinite():
        notes.append(
            f'The logits of {nonfinite:,} of {len(good):,} images are not finite: the network has '
            'diverged. Sections that need them are omitted.'
        )
        return {}
    counts = classes.confusion(label, logits.argmax(axis=1), logits.shape[1])
    few = logits.shape[1] <= classes.MATRIX_CLASSES
    return {
        'count': len(good),
        'long_names': max(map(len, trained.classes)) > 3,
        'pixelated': evaluation.hardest.image.shape[1] < 64,
        'matrix': classes.matrix_rows(counts, trained.classes) if few else None,
        'confusions': classes.confusions_table(counts, trained.classes, 10 if few else 20),
        'classes': classes.class_tables(counts, trained.classes),
        'hardest': sections.hard_examples(evaluation, trained.classes),
        'calibration': sections.calibration_section(logits, label),
        'gates': sections.gates_section(trained, evaluation),
    }


def _left_out(config: ConfigDict) -> list[str]:
    """What a folder of images holds that is no example."""
    if config.dataset.name != 'folder':
        return []
    from ssanet_jax.data import builders
    from ssanet_jax.data.checks import findings

    return findings.left_out_sentence(builders.open_builder(config.dataset).left_out)


def _bad_names(evaluation: Evaluation) -> str:
    bad = np.flatnonzero(evaluation.label < 0)
    more = [f'and {len(bad) - _NAMED:,} more'] if len(bad) > _NAMED else []
    return ', '.join([*(evaluation.names[position] for position in bad[:_NAMED]), *more])


@functools.cache
def load_template(name: str, package: str = 'ssanet_jax.report') -> jinja2.Template:
    """Loads a template of a package, which may include those of this one."""
    packages = dict.fromkeys([package, 'ssanet_jax.report'])
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
        autoescape=True,  # class names and config values are untrusted
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {'version': __version__, 'timestamp': timestamp}
    return environment.get_template(name)
