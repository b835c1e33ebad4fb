"""The statistics on data whose truth is known."""

import numpy as np
import pytest
import scipy.stats

from ssanet_jax.study import statistics
from ssanet_jax.study.verdict import compare

pytestmark = pytest.mark.usefixtures('frozen_heap')

SMALLEST = 0.3


def one_sided_error(pairs):
    """How often an interval of the bootstrap's width lies above the mean of normal values.

    The bootstrap takes the normal quantile and divides by n, not Student's and by n - 1.
    """
    return scipy.stats.t(pairs - 1).cdf(-1.96 * np.sqrt((pairs - 1) / pairs))


def level(rate, count):
    """The interval that holds the share of `count` draws at a true rate with 99.9%."""
    return scipy.stats.binom(count, rate).ppf([0.0005, 0.9995]) / count


@pytest.mark.parametrize(
    ('pairs', 'datasets'),
    [
        (20, 250),
        pytest.param(10, 4000, marks=pytest.mark.slow),
        pytest.param(20, 4000, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_the_true_mean_as_often_as_documented(pairs, datasets):
    rng, truth = np.random.default_rng(0), 0.2
    covered = 0
    for values in rng.normal(truth, 0.4, size=(datasets, pairs)):
        interval = statistics.estimate(values)
        covered += interval.low <= truth <= interval.high
    documented = {10: 0.90, 20: 0.93}[pairs]
    assert 1 - 2 * one_sided_error(pairs) == pytest.approx(documented, abs=0.005)
    low, high = level(documented, datasets)
    assert low <= covered / datasets <= high


def test_intervals_of_p_better_cover_it_despite_ties():
    rng = np.random.default_rng(1)
    values = np.rint(rng.normal(0.4, 1, size=(1000, 10)))
    many = np.rint(rng.normal(0.4, 1, size=1_000_000))
    truth = np.mean(many > 0) + np.mean(many == 0) / 2
    results = map(statistics.probability_better, values)
    assert np.mean([r.low <= truth <= r.high for r in results]) > 0.95


def test_the_pairs_needed_have_the_power_asked_for():
    sd, effect = 0.5, 0.3
    pairs = statistics.pairs_needed(sd, effect, power=0.8)
    differences = np.random.default_rng(2).normal(effect, sd, size=(20_000, pairs))
    low, high = level(0.8, 20_000)
    power = np.mean(scipy.stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05)
    assert low <= power < high + 0.02  # pairs are rounded up
    fewer = scipy.stats.ttest_1samp(differences[:, :-1], 0, axis=1).pvalue
    assert np.mean(fewer < 0.05) < high


@pytest.mark.parametrize(
    ('variants', 'studies'), [(2, 500), pytest.param(11, 3000, marks=pytest.mark.slow)]
)
def test_verdicts_on_equal_variants_are_wrong_in_5_percent_of_studies_at_most(variants, studies):
    """All networks have the same accuracy; comparisons share the runs of the baseline."""
    rng, images, pairs = np.random.default_rng(3), 1079, 20
    wrong = 0
    for _ in range(studies):
        correct = rng.binomial(images, 0.98, size=(1 + variants, pairs))
        differences = {
            str(i): 100 * (row - correct[0]) / images for i, row in enumerate(correct[1:])
        }
        p_values = [statistics.wilcoxon(values) for values in differences.values()]
        if variants * min(p_values) < 0.05:  # Holm's first step; without it there is no verdict
            tests = compare(differences, 'none', SMALLEST, '').values()
            wrong += any(test.verdict in ('helps', 'hurts') for test in tests)
    assert 0 < wrong / studies <= level(0.05, studies)[1]


@pytest.mark.parametrize(
    ('pairs', 'studies'),
    [
        (20, 200),
        pytest.param(20, 4000, marks=pytest.mark.slow),
        pytest.param(10, 4000, marks=pytest.mark.slow),
    ],
)
def test_a_difference_that_matters_is_rarely_said_not_to(pairs, studies):
    """The true difference is the smallest that matters."""
    rng, missed = np.random.default_rng(4), 0
    for values in rng.normal(SMALLEST, 0.2, size=(studies, pairs)):
        test = compare({'ssa': values}, 'none', SMALLEST, '')['ssa']
        missed += test.verdict == 'no difference that matters'
    assert missed / studies <= level(one_sided_error(pairs), studies)[1]
