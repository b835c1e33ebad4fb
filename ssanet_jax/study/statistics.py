"""Statistics of paired runs.

A pair is one seed; a difference is variant minus baseline. Intervals and tests treat pairs as
independent draws of everything that a seed determines. They hold for these test images; for new
ones intervals are wider (`binomial_standard_error`).
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from ssanet_jax.analysis.calibration import reliability
from ssanet_jax.study.results import Estimate, McNemar, Proportion

CONFIDENCE = 0.95
RESAMPLES = 9_999
ECE_BINS = 15
_EXACT_BELOW = 25  # discordant images


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """The mean of independent values with its 95% BCa bootstrap interval (Efron 1987).

    With few values the interval is too narrow: it holds the true mean of 10 normal values in 90%
    of cases, of 20 in 93%. Of equal values BCa is undefined; low and high are then the mean.

    Args:
      values: float [runs], at least 1.

    >>> estimate(np.array([0.5, 0.5, 0.5])).note
    'All 3 values are equal, so they do not show how much others would vary.'
    """
    values = np.asarray(values, np.float64)
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Estimate((mean,), mean, None, None, None, 'One value has no interval.')
    if np.ptp(values) == 0:
        equal = float(values[0])  # the mean may differ by rounding
        note = f'All {count} values are equal, so they do not show how much others would vary.'
        return Estimate(tuple(values.tolist()), equal, 0.0, equal, equal, note)
    interval = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method='BCa',
        rng=np.random.default_rng(0),
    ).confidence_interval
    spread = float(values.std(ddof=1))
    low, high = float(interval.low), float(interval.high)
    return Estimate(tuple(values.tolist()), mean, spread, low, high)


def probability_better(differences: np.ndarray) -> Proportion:
    """P(variant > baseline) on a new seed, ties counted half (Bouthillier et al. 2021).

    The 95% interval is Clopper and Pearson's, in place of their percentile bootstrap, which has no
    width if one side always wins. With ties it is wider than needed.

    Args:
      differences: float [pairs], at least 1.

    >>> probability_better(np.array([0.1, 0.2, 0.0, -0.1])).value
    0.625
    """
    pairs = len(differences)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    ties = pairs - wins - losses
    score = wins + ties / 2
    low, high = proportion_confint(score, pairs, alpha=1 - CONFIDENCE, method='beta')
    return Proportion(score / pairs, float(low), float(high), wins, ties, losses)


def wilcoxon(differences: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test that differences are symmetric about 0.

    Zeros are ranked, then dropped with their ranks (Pratt 1959). Dropping them before would hide
    that pairs agree; splitting their ranks between the signs ('zsplit') leaves the normal
    approximation the variance of signs that zeros do not have. Exact without zeros and ties up to
    50 pairs, and by permutation with them up to 13; otherwise the normal approximation.

    Args:
      differences: float [pairs]; differences that should tie must be equal bit for bit.
    """
    if not np.any(differences):
        return 1.0
    return float(scipy.stats.wilcoxon(differences, zero_method='pratt').pvalue)


def lowest_p(pairs: int) -> float:
    """The lowest p-value that `wilcoxon` can give up to 13 pairs: two of 2^pairs sign patterns."""
    return 2.0 ** (1 - pairs)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm 1979): [p]; some true null < 0.05 in 5% at most."""
    return np.asarray(multipletests(p_values, method='holm')[1]) if len(p_values) else np.empty(0)


def mcnemar(variant: np.ndarray, baseline: np.ndarray) -> McNemar:
    """McNemar's test of the images that exactly one of two networks classifies correctly.

    Exact below 25 such images, otherwise chi-squared with continuity correction. Over several
    pairs the p-value is descriptive only, and usually too small: the same images recur in each
    pair, so the counts are not independent.

    Args:
      variant, baseline: whether each image of each pair is correct, bool of equal shape.
    """
    only_variant = int(np.sum(variant & ~baseline))
    only_baseline = int(np.sum(baseline & ~variant))
    discordant = only_variant + only_baseline
    result = statsmodels_mcnemar(
        [[0, only_variant], [only_baseline, 0]], exact=discordant < _EXACT_BELOW
    )
    return McNemar(only_variant, only_baseline, float(result.pvalue))


def negative_log_likelihood(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p[label] in nats; log_probs float [N, K], labels int [N]."""
    own = np.take_along_axis(log_probs, labels[:, None], axis=1)
    return float(-own.mean(dtype=np.float64))


def calibration_error(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error with 15 bins, from 0 to 1; arguments as above."""
    return reliability(np.exp(log_probs, dtype=np.float64), labels, ECE_BINS).ece


def pairs_needed(sd: float, effect: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """The number of pairs with which a two-sided paired t-test detects a mean difference.

    About 7.85 (sd / effect)^2 + 2 by default. Wilcoxon's test of normal differences needs 5% more.

    Args:
      sd: standard deviation of paired differences, from a pilot.
      effect: true mean difference, in the unit of sd; above 0.
      power: probability of p < alpha.
      alpha: level of the test; 0.05 / m for m comparisons (Bonferroni).

    >>> pairs_needed(sd=1.0, effect=0.5)
    34
    """
    if effect <= 0:
        raise ValueError(f'effect={effect} must be above 0, the smallest difference that matters.')
    quantiles = scipy.stats.norm.ppf([1 - alpha / 2, power])
    pairs = max(2, math.ceil((quantiles.sum() * sd / effect) ** 2))  # if sd were known
    while sd and TTestPower().power(effect / sd, pairs, alpha) < power:
        pairs += 1
    return pairs


def binomial_standard_error(accuracy: float, num_images: int) -> float:
    """Standard deviation of an accuracy due to the sampling of its test images alone::

        100 sqrt(p (1 - p) / N),  p = accuracy / 100

    Args:
      accuracy: in percent.
      num_images: N.

    Returns:
      In percentage points.

    >>> round(binomial_standard_error(98.0, 1079), 2)
    0.43
    """
    return 100 * math.sqrt(accuracy / 100 * (1 - accuracy / 100) / num_images)
