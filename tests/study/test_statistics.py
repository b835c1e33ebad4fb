import itertools

import numpy as np
import pytest
import scipy.stats

from ssanet_jax.study import statistics

DIFFERENCES = np.array([0.3, -0.1, 0.5, 0.2, 0.0, 0.9, 0.4, -0.2, 0.1, 1.8])


def test_the_interval_is_efrons_bca():
    """Efron and Tibshirani 1993, equations 14.9 to 14.15."""
    x, rng = DIFFERENCES, np.random.default_rng(1)
    means = np.sort([rng.choice(x, len(x)).mean() for _ in range(20_000)])
    left_out = np.array([np.delete(x, i).mean() for i in range(len(x))])
    gap = left_out.mean() - left_out
    acceleration = np.sum(gap**3) / (6 * np.sum(gap**2) ** 1.5)
    bias = scipy.stats.norm.ppf(np.mean(means < x.mean()) / 2 + np.mean(means <= x.mean()) / 2)
    ends = []
    for z in (-1.959964, 1.959964):
        level = scipy.stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(np.quantile(means, level))

    result = statistics.estimate(x)
    assert (result.low, result.high) == pytest.approx(ends, abs=0.02)
    plain = np.quantile(means, [0.025, 0.975])
    assert abs(result.high - plain[1]) > 0.05  # which is not the percentile interval
    assert result.mean == pytest.approx(sum(x) / 10)
    assert result.sd == pytest.approx(np.sqrt(sum((x - result.mean) ** 2) / 9))
    assert statistics.estimate(x) == result


def test_values_without_spread_have_no_bootstrap_and_say_so():
    one = statistics.estimate(np.array([0.3]))
    assert (one.mean, one.sd, one.low, one.high) == (0.3, None, None, None)
    assert one.note == 'One value has no interval.'
    equal = statistics.estimate(np.full(7, 0.1))
    assert (equal.mean, equal.sd, equal.low, equal.high) == (0.1, 0, 0.1, 0.1)
    assert equal.note.startswith('All 7 values are equal')


def test_probability_better_is_clopper_and_pearsons_with_half_ties():
    result = statistics.probability_better(np.array([1.0, 2, 3, -1, 4, 5, 6]))
    interval = scipy.stats.binomtest(6, 7).proportion_ci(0.95, method='exact')
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert (result.wins, result.ties, result.losses, result.pairs) == (6, 0, 1, 7)
    assert statistics.probability_better(DIFFERENCES).value == 0.75  # 7 + 1/2 of 10
    always = statistics.probability_better(np.ones(20))
    assert (always.value, always.high) == (1, 1)
    assert always.low == pytest.approx(0.025 ** (1 / 20))


def test_wilcoxons_p_agrees_with_the_published_one():
    """Darwin's Zea mays, in the documentation of scipy.stats.wilcoxon and R's wilcox.test."""
    plants = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    assert statistics.wilcoxon(np.array(plants)) == pytest.approx(0.041259765625)


def signed_ranks(values, signs):
    ranks = scipy.stats.rankdata(np.abs(values)) * (np.asarray(values) != 0)
    return np.asarray(signs) @ ranks


@pytest.mark.parametrize(
    'values', [[3, 3, -1, 0, 2, 2, 5, 0, 1, 3], [-2, 0, -1, -1, -4, 1, 0]], ids=str
)
def test_wilcoxons_p_counts_sign_patterns_when_few_pairs_tie(values):
    observed = abs(signed_ranks(values, np.sign(values)))
    patterns = itertools.product([-1, 1], repeat=len(values))
    extreme = [abs(signed_ranks(values, signs)) >= observed for signs in patterns]
    assert statistics.wilcoxon(np.array(values, float)) == pytest.approx(np.mean(extreme))


def test_wilcoxons_p_approximates_sign_patterns_when_many_pairs_tie():
    rng = np.random.default_rng(2)
    for high in (4, 5, 6, 7):
        values = rng.integers(-2, high, 20)
        signs = rng.choice([-1, 1], size=(40_000, 20))
        observed = abs(signed_ranks(values, np.sign(values)))
        expected = np.mean(np.abs(signed_ranks(values, signs)) >= observed)
        assert statistics.wilcoxon(values.astype(float)) == pytest.approx(expected, abs=0.02)


def test_pairs_that_all_agree_have_p_1():
    assert statistics.wilcoxon(np.zeros(10)) == 1


@pytest.mark.parametrize('pairs', [1, 2, 5, 10, 13])
def test_no_p_is_below_the_lowest(pairs):
    assert statistics.wilcoxon(np.arange(1.0, pairs + 1)) == statistics.lowest_p(pairs)


def test_holms_p_is_the_step_down_bonferroni():
    p_values = [0.04, 0.001, 0.03, 0.2]
    expected, largest = [0.0] * 4, 0.0
    for rank, i in enumerate(np.argsort(p_values)):
        largest = max(largest, min(1.0, (4 - rank) * p_values[i]))
        expected[i] = largest
    np.testing.assert_allclose(statistics.holm(p_values), expected)
    assert statistics.holm([]).shape == (0,)


@pytest.mark.parametrize(('b', 'c'), [(3, 9), (0, 24), (0, 1)])
def test_mcnemar_of_few_images_is_a_sign_test(b, c):
    result = statistics.mcnemar(*images(b, c))
    assert (result.only_variant, result.only_baseline) == (b, c)
    assert result.p == pytest.approx(scipy.stats.binomtest(b, b + c).pvalue)


@pytest.mark.parametrize(('b', 'c'), [(10, 15), (86, 150)])
def test_mcnemar_of_many_images_is_chi_squared_with_correction(b, c):
    chi2 = (abs(b - c) - 1) ** 2 / (b + c)
    assert statistics.mcnemar(*images(b, c)).p == pytest.approx(scipy.stats.chi2.sf(chi2, df=1))


def test_mcnemar_of_equal_networks_has_p_1():
    assert statistics.mcnemar(*images(0, 0)).p == 1


def images(b, c):
    """Images that only the first (b) or the second network classifies (c), and 7 others."""
    first = np.repeat([True, False, True, False], [b, c, 4, 3])
    second = np.repeat([False, True, True, False], [b, c, 4, 3])
    return first, second


def test_nll_and_ece_of_float16_agree_with_loops():
    rng = np.random.default_rng(3)
    log_probs = scipy.special.log_softmax(3 * rng.normal(size=(200, 5)), axis=1).astype(np.float16)
    labels = np.where(rng.random(200) < 0.7, log_probs.argmax(1), rng.integers(0, 5, 200))
    nll, bins = 0.0, [[] for _ in range(15)]
    for row, label in zip(log_probs.astype(float), labels, strict=True):
        nll -= row[label] / 200
        confidence = np.exp(row.max())
        bins[int(np.ceil(confidence * 15)) - 1].append((confidence, row.argmax() == label))
    ece = sum(abs(sum(c - hit for c, hit in b)) / 200 for b in bins)
    assert statistics.negative_log_likelihood(log_probs, labels) == pytest.approx(nll, rel=1e-9)
    assert statistics.calibration_error(log_probs, labels) == pytest.approx(ece, rel=1e-9)


@pytest.mark.parametrize(('effect', 'pairs'), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_needed_agree_with_g_power(effect, pairs):
    """G*Power 3.1, difference between two dependent means, two-sided 5%, power 80%."""
    assert statistics.pairs_needed(1, effect) == pairs
    assert statistics.pairs_needed(0.37, 0.37 * effect) == pairs


def test_pairs_needed_without_spread_are_two():
    assert statistics.pairs_needed(0, 0.3) == 2
    with pytest.raises(ValueError, match='effect=0 must be above 0'):
        statistics.pairs_needed(1, 0)


def test_binomial_standard_error_is_the_spread_of_a_binomial_share():
    expected = 100 * scipy.stats.binom(1079, 0.981).std() / 1079
    assert statistics.binomial_standard_error(98.1, 1079) == pytest.approx(expected)
