"""Tables of a study, for its pages and for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssanet_jax.study.results import Analysis, Estimate, McNemar, PairedTest, Proportion
from ssanet_jax.tables import Column, Table, si_format, thousands

_VARIANT = Column('variant', left=True)


def terminal_table(analysis: Analysis) -> Table:
    """The main results, narrow enough for a terminal."""
    tests = {comparison.variant: comparison.accuracy for comparison in analysis.comparisons}
    rows = []
    for variant in analysis.variants:
        test = tests.get(variant.name)
        tested = (test.difference, test.holm_p, test.verdict) if test else (None, None, None)
        rows.append((variant.name, len(variant.seeds), variant.accuracy, *tested))
    columns = [
        _VARIANT,
        Column('runs'),
        Column('accuracy (%)', _mean_sd(2)),
        Column(f'minus {analysis.baseline}', _interval(2)),
        Column('Holm p', _p_value),
        Column('verdict', left=True),
    ]
    return Table(analysis.name, columns, rows)


def accuracy_table(analysis: Analysis) -> Table:
    """The tests of accuracy."""
    tests = {comparison.variant: comparison.accuracy for comparison in analysis.comparisons}
    counts = [[comparison.mcnemar] for comparison in analysis.comparisons]
    return _tests_table('Accuracy', tests, [Column('McNemar', _mcnemar)], counts)


def calibration_table(analysis: Analysis) -> Table:
    """Differences of NLL and ECE."""
    columns = [_VARIANT, Column('NLL', _interval(4)), Column('ECE (points)', _interval(2, 100))]
    rows = [(pairs.variant, pairs.nll, pairs.ece) for pairs in analysis.comparisons]
    return Table('Likelihood and calibration; below 0 is better', columns, rows)


def corrupted_table(analysis: Analysis) -> Table:
    """The tests of accuracy averaged over all corruptions."""
    tests = {c.variant: c.corrupted for c in analysis.comparisons if c.corrupted is not None}
    return _tests_table('Accuracy averaged over all corruptions', tests)


def corruptions_table(analysis: Analysis) -> Table:
    """Mean accuracy by corruption and variant; of variants tested on corruptions."""
    variants = [variant for variant in analysis.variants if variant.corruptions]
    kinds = variants[0].corruptions if variants else {}
    rows: list[Sequence[Any]] = [
        (kind, *(variant.corruptions[kind] for variant in variants)) for kind in kinds
    ]
    rows.append(('mean', *(variant.corrupted for variant in variants)))
    columns = [Column('corruption', left=True)]
    columns += [Column(variant.name, _mean(1)) for variant in variants]
    return Table('Mean accuracy by corruption (%)', columns, rows)


def _tests_table(
    title: str,
    tests: Mapping[str, PairedTest],
    more: Sequence[Column] = (),
    values: Sequence[Sequence[Any]] = (),
) -> Table:
    """Tests by variant, with columns `more` of `values` before the verdict."""
    columns = [
        _VARIANT,
        Column('pairs'),
        Column('difference (points)', _interval(2)),
        Column('P(better)', _proportion),
        Column('Wilcoxon p', _p_value),
        Column('Holm p', _p_value),
        *more,
        Column('verdict', left=True),
    ]
    rows = [
        (
            name,
            len(test.difference.values),
            test.difference,
            test.better,
            test.wilcoxon_p,
            test.holm_p,
            *extra,
            test.verdict,
        )
        for (name, test), extra in zip(tests.items(), values or [()] * len(tests), strict=True)
    ]
    return Table(title, columns, rows)


def variants_table(analysis: Analysis) -> Table:
    """What the runs of each variant reached, and what it costs."""
    columns = [
        _VARIANT,
        Column('runs'),
        Column('accuracy (%)', _mean_sd_range(2)),
        Column('NLL', _mean_sd_range(3)),
        Column('ECE (%)', _mean_sd_range(2, 100)),
        Column('parameters', thousands),
        Column('MACs', si_format),
        Column('memory (MiB)', lambda size: f'{size / 2**20:,.1f}'),
        Column('images/s', lambda rate: f'{rate:,.0f}'),
        Column('training (s)', lambda seconds: f'{seconds:,.0f}'),
    ]
    rows = [
        (
            variant.name,
            len(variant.seeds),
            variant.accuracy,
            variant.nll,
            variant.ece,
            variant.parameters,
            variant.macs,
            variant.memory_bytes,
            variant.images_per_second,
            variant.seconds,
        )
        for variant in analysis.variants
    ]
    return Table('Mean ± standard deviation (range) over runs, and cost', columns, rows)


Formatter = Callable[[Any], str]


def _mean(digits: int) -> Formatter:
    def text(estimate: Estimate) -> str:
        return f'{estimate.mean:.{digits}f}'

    return text


def _mean_sd(digits: int, scale: float = 1) -> Formatter:
    def text(estimate: Estimate) -> str:
        mean = f'{scale * estimate.mean:.{digits}f}'
        return mean if estimate.sd is None else f'{mean} ± {scale * estimate.sd:.{digits}f}'

    return text


def _mean_sd_range(digits: int, scale: float = 1) -> Formatter:
    mean_sd = _mean_sd(digits, scale)

    def text(estimate: Estimate) -> str:
        if estimate.sd is None:
            return mean_sd(estimate)
        low, high = (scale * value for value in (min(estimate.values), max(estimate.values)))
        return f'{mean_sd(estimate)} ({low:.{digits}f} to {high:.{digits}f})'

    return text


def _interval(digits: int, scale: float = 1) -> Formatter:
    def text(estimate: Estimate) -> str:
        mean = f'{scale * estimate.mean:+z.{digits}f}'
        if estimate.low is None or estimate.high is None:
            return mean
        low, high = scale * estimate.low, scale * estimate.high
        return f'{mean} [{low:+z.{digits}f}, {high:+z.{digits}f}]'

    return text


def _proportion(better: Proportion) -> str:
    return f'{better.value:.2f} [{better.low:.2f}, {better.high:.2f}]'


def _p_value(p: float) -> str:
    return '< 0.001' if p < 0.001 else f'{p:.3f}'


def _mcnemar(test: McNemar) -> str:
    p = f'= {test.p:.3f}' if test.p >= 0.001 else _p_value(test.p)
    return f'{test.only_variant:,} : {test.only_baseline:,}, p {p}'
