"""What the pages of a study show: sections of tables, figures and notes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ssanet_jax.study import tables
from ssanet_jax.study.results import Analysis
from ssanet_jax.tables import Table


class Figure(NamedTuple):
    """A figure in a page.

    Attributes:
      name: of the figure, as in `draw_figures`.
      alt: what it shows, for readers who cannot see it.
      caption: how to read it.
    """

    name: str
    alt: str
    caption: str


class Section(NamedTuple):
    """A section of a page, in the order shown."""

    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def make_sections(
    analysis: Analysis, description: Mapping[str, Any], figures: Collection[str]
) -> list[Section]:
    """The sections of the pages.

    Args:
      analysis: of the study.
      description: content of study.json.
      figures: names of the figures that exist.
    """
    sections = [
        _comparisons(analysis),
        _variants(analysis),
        Section('Learning curves', [_curves_figure(analysis)]),
        _robustness(analysis),
        Section('Notes', notes=_notes(analysis, description)),
    ]
    shown = [
        section._replace(figures=[figure for figure in section.figures if figure.name in figures])
        for section in sections
    ]
    return [section for section in shown if section.figures or section.tables or section.notes]


def _comparisons(analysis: Analysis) -> Section:
    baseline = analysis.baseline
    figure = Figure(
        'differences',
        f'Differences of accuracy between each variant and {baseline}, per pair and on average',
        'Per variant, the difference of each pair (dots), their mean (diamond) and its 95% '
        'interval. Blue: helps; orange: hurts.',
    )
    if not analysis.comparisons:
        return Section(f'Differences from {baseline}')
    return Section(
        f'Differences from {baseline}',
        [figure],
        [tables.accuracy_table(analysis), tables.calibration_table(analysis)],
        [comparison.accuracy.sentence for comparison in analysis.comparisons],
    )


def _variants(analysis: Analysis) -> Section:
    figure = Figure(
        'cost',
        'Test accuracy of each variant by its cost',
        f'Mean accuracy by cost, with 95% intervals. Square: {analysis.baseline}.',
    )
    return Section('Variants', [figure], [tables.variants_table(analysis)])


def _curves_figure(analysis: Analysis) -> Figure:
    return Figure(
        'curves',
        f'Training loss by step of each variant and of {analysis.baseline}',
        'Mean training loss (line) and standard deviation over runs (band), each variant in blue '
        f'with {analysis.baseline} in black, or white on a dark page.',
    )


def _robustness(analysis: Analysis) -> Section:
    tests = [c.corrupted for c in analysis.comparisons if c.corrupted is not None]
    shown = [tables.corrupted_table(analysis)] if tests else []
    if any(variant.corruptions for variant in analysis.variants):
        shown.append(tables.corruptions_table(analysis))
    sentences = [test.sentence for test in tests]
    return Section('Corrupted test images', tables=shown, notes=sentences)


def _notes(analysis: Analysis, description: Mapping[str, Any]) -> list[str]:
    dataset, config, code = (description[name] for name in ('dataset', 'config', 'code'))
    versions = ', '.join(f'{name} {code[name]}' for name in code if name not in ('commit', 'study'))
    notes = [
        f'Dataset: {dataset["name"]}, {dataset["num_train"]:,} training images '
        f'({dataset["train_split"]}) and {dataset["num_test"]:,} test images '
        f'({dataset["eval_split"]}). {config["num_epochs"]:g} epochs of batches of '
        f'{config["batch_size"]:,} images; tested after the last step.',
        'Pairs: for one seed, all variants have the same batches, augmentation and initial values '
        'of the parameters that they share. Differences are variant minus '
        f'{analysis.baseline} with the same seed.',
        'Brackets hold 95% intervals, of means by BCa bootstrap over pairs, which are somewhat too '
        'narrow for few pairs. P(better) is the share of pairs in which the variant is more '
        'accurate, ties counted half, with the interval of Clopper and Pearson. Wilcoxon: '
        'signed-rank test, two-sided; Holm: corrected over all variants. McNemar: number of '
        'images, over all pairs, that only the variant and that only '
        f'{analysis.baseline} classifies correctly. Its p is descriptive, because the same images '
        'recur in every pair.',
        'Verdicts: helps or hurts if the interval excludes 0 and Holm p < 0.05; no difference that '
        f'matters if the interval lies within ±{analysis.smallest_effect:g} points; undecided '
        'otherwise, and if no p below 0.05 is possible with so few pairs.',
        'MACs are multiply-accumulates of inference on one image. Memory is that of a training '
        'step as compiled. Throughput depends on the machine and on what else runs on it.',
        _missing(analysis),
        f'Code: {versions}, commit {code["commit"] or "unknown"}.',
    ]
    notes += [_machine(machine) for machine in description['machines']]
    return notes + _estimate_notes(analysis)


def _missing(analysis: Analysis) -> str:
    total = analysis.runs + analysis.missing
    text = f'Runs: {analysis.runs:,} of {total:,}, {analysis.missing:,} missing'
    pairs = ', '.join(f'{name} {missing}' for name, missing in analysis.missing_pairs.items())
    return f'{text}. Missing pairs: {pairs}.' if pairs else f'{text}.'


def _machine(machine: Mapping[str, Any]) -> str:
    device = '' if machine['device'] == 'cpu' else f'{machine["device"]}, '
    return (
        f'Machine: {device}{machine["cpu"]}, {machine["cores"]} cores, Python {machine["python"]}.'
    )


def _estimate_notes(analysis: Analysis) -> list[str]:
    """Why intervals of accuracy are missing or unusual."""
    found: dict[str, list[str]] = {}
    for comparison in analysis.comparisons:
        if note := comparison.accuracy.difference.note:
            found.setdefault(note, []).append(comparison.variant)
    return [f'{", ".join(names)}: {note}' for note, names in found.items()]
