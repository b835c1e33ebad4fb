"""Verdicts on a family of comparisons, by rule, and their plain words."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import get_args

import numpy as np

from ssanet_jax.study import statistics
from ssanet_jax.study.results import Analysis, Estimate, PairedTest, Verdict

LEVEL = 0.05


def decide(difference: Estimate, holm_p: float, lowest_p: float, smallest_effect: float) -> Verdict:
    """The verdict on one comparison.

    Args:
      difference: paired differences of accuracy, in points.
      holm_p: p-value of Wilcoxon's test, corrected for the number of comparisons.
      lowest_p: the least holm_p that the number of pairs allows.
      smallest_effect: difference that would matter, in points.

    Returns:
      'helps' if the interval of the mean lies above 0 and holm_p < 0.05, 'hurts' if below 0
      likewise; else 'no difference that matters' if it lies within +-smallest_effect; else
      'undecided', as are pairs too few for lowest_p < 0.05. Since intervals of few pairs are too
      narrow, a true difference of smallest_effect is said not to matter in up to 4% of studies
      with 20 pairs, 5% with 10 and 8% with 5, if differences are normal.
    """
    significant = holm_p < LEVEL
    if significant and difference.low is not None and difference.low > 0:
        return 'helps'
    if significant and difference.high is not None and difference.high < 0:
        return 'hurts'
    if lowest_p < LEVEL and _within(difference, smallest_effect):
        return 'no difference that matters'
    return 'undecided'


def compare(
    differences: Mapping[str, np.ndarray], baseline: str, smallest_effect: float, of: str
) -> dict[str, PairedTest]:
    """Tests a family of comparisons with one baseline.

    Args:
      differences: of accuracy in points, [pairs], by variant; at least 1 pair each. Holm's
        correction counts these variants only.
      baseline: its name.
      smallest_effect: difference that would matter, in points.
      of: what is classified, as 'on the test images'.
    """
    p_values = [statistics.wilcoxon(values) for values in differences.values()]
    holm_p = statistics.holm(p_values)
    # Holm's p never falls as any p of the family rises: this is the least that the pairs allow.
    lowest_p = statistics.holm([statistics.lowest_p(len(v)) for v in differences.values()])
    tests = {}
    for i, (variant, values) in enumerate(differences.items()):
        difference = statistics.estimate(values)
        test = PairedTest(
            difference=difference,
            better=statistics.probability_better(values),
            wilcoxon_p=p_values[i],
            holm_p=float(holm_p[i]),
            pairs_needed=None
            if difference.sd is None
            else statistics.pairs_needed(
                difference.sd, smallest_effect, alpha=LEVEL / len(differences)
            ),
            verdict=decide(difference, holm_p[i], lowest_p[i], smallest_effect),
            sentence='',
        )
        p = 'p' if len(differences) == 1 else 'Holm-corrected p'
        remark = _remark(test, smallest_effect, lowest_p[i])
        sentence = f'{_claim(variant, baseline, test, of)}; {p} = {holm_p[i]:.3g}; {remark}.'
        tests[variant] = dataclasses.replace(test, sentence=sentence)
    return tests


def summarize(analysis: Analysis) -> str:
    """The variants of each verdict, and what is missing, in a paragraph."""
    tests = {comparison.variant: comparison.accuracy for comparison in analysis.comparisons}
    sentences: list[str] = []
    small = analysis.smallest_effect
    for verdict, within in itertools.product(get_args(Verdict), (False, True)):
        named = [
            f'{variant} ({test.difference.mean:+z.2f})'
            for variant, test in tests.items()
            if test.verdict == verdict and _within(test.difference, small) == within
        ]
        less = f', by less than the {small:g} points that matter'
        suffix = less if within and verdict in ('helps', 'hurts') else ''
        sentences += [f'{verdict.capitalize()}{suffix}: {", ".join(named)}.'] if named else []
    if tests:
        pairs = sorted({test.better.pairs for test in tests.values()})
        sentences.append(
            f'In parentheses, the mean difference from {analysis.baseline} in points of accuracy, '
            f'over {" to ".join(map(str, dict.fromkeys([pairs[0], pairs[-1]])))} '
            f'pair{"s" if pairs[-1] > 1 else ""}.'
        )
    else:
        sentences.append(f'No variant has a pair with {analysis.baseline} yet.')
    if analysis.binomial_standard_error is not None:
        sentences.append(
            f'The sampling of {analysis.num_test:,} test images alone gives the accuracy of '
            f'{analysis.baseline} a standard deviation of '
            f'{analysis.binomial_standard_error:.2f} points.'
        )
    if analysis.missing:
        total = analysis.runs + analysis.missing
        sentences.append(f'{analysis.missing} of {total} runs are missing.')
    return ' '.join(sentences)


def _claim(variant: str, baseline: str, test: PairedTest, of: str) -> str:
    """The verdict and the differences in plain words."""
    difference, better = test.difference, test.better
    claim = {
        'helps': f'{variant} helps',
        'hurts': f'{variant} hurts',
        'no difference that matters': f'{variant} makes no difference that matters',
        'undecided': f'It is undecided whether {variant} differs from {baseline}',
    }[test.verdict]
    interval = ''
    if difference.low is not None:
        interval = f' (95% interval {difference.low:+z.2f} to {difference.high:+z.2f})'
    return (
        f'{claim}: the mean difference in accuracy {of} is {difference.mean:+z.2f} points'
        f'{interval} over {better.pairs} pair{"s" if better.pairs > 1 else ""}, higher in '
        f'{better.wins}, equal in {better.ties}, lower in {better.losses}'
    )


def _remark(test: PairedTest, smallest_effect: float, lowest_p: float) -> str:
    """What the verdict leaves open, or what decides it."""
    pairs, effect = test.better.pairs, f'{smallest_effect:g} points'
    low, high = test.difference.low, test.difference.high
    if low is None or high is None:
        return 'one pair has no interval'
    if lowest_p >= LEVEL:
        return (
            f'{pairs} pairs are too few for any p below {LEVEL}, and their interval is too narrow'
        )
    if test.verdict in ('helps', 'hurts'):
        if _within(test.difference, smallest_effect):
            return f'the difference is smaller than the {effect} that matter'
        if low > smallest_effect or high < -smallest_effect:
            return f'the difference is larger than the {effect} that matter'
        return f'the interval includes differences smaller and larger than the {effect} that matter'
    if test.verdict == 'no difference that matters':
        return f'the interval lies within {effect} of 0'
    if (test.holm_p < LEVEL) != (low > 0 or high < 0):
        return 'the interval and the test disagree on whether it differs from 0'
    if test.pairs_needed is not None and test.pairs_needed > pairs:
        return f'about {test.pairs_needed} pairs would detect {effect} with 80% power'
    return f'the interval includes differences of {effect} and more, which matter'


def _within(difference: Estimate, smallest_effect: float) -> bool:
    """Whether the whole interval lies within +-smallest_effect."""
    if difference.low is None or difference.high is None:
        return False
    return -smallest_effect <= difference.low and difference.high <= smallest_effect
