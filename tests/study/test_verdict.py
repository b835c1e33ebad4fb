import numpy as np
import pytest
import scipy.stats

from ssanet_jax.study.results import Estimate
from ssanet_jax.study.verdict import compare, decide

pytestmark = pytest.mark.usefixtures('frozen_heap')


@pytest.mark.parametrize(
    ('low', 'high', 'p', 'expected'),
    [
        (0.1, 0.6, 0.049, 'helps'),
        (0.1, 0.2, 0.049, 'helps'),  # although within the smallest effect
        (0.1, 0.6, 0.05, 'undecided'),
        (0.0, 0.6, 0.01, 'undecided'),
        (-0.6, -0.1, 0.049, 'hurts'),
        (-0.6, -0.1, 0.05, 'undecided'),
        (-0.6, 0.0, 0.01, 'undecided'),
        (-0.3, 0.3, 1.0, 'no difference that matters'),
        (0.1, 0.2, 0.05, 'no difference that matters'),
        (-0.31, 0.3, 1.0, 'undecided'),
        (-0.3, 0.31, 1.0, 'undecided'),
        (0.0, 0.0, 1.0, 'no difference that matters'),
        (None, None, 1.0, 'undecided'),
    ],
)
def test_verdicts_follow_the_rule(low, high, p, expected):
    difference = Estimate((), 0.0, None, low, high)
    assert decide(difference, p, lowest_p=0.01, smallest_effect=0.3) == expected


def test_few_equal_pairs_are_undecided():
    difference = Estimate((), 0.0, 0.0, 0.0, 0.0)
    assert decide(difference, 1.0, lowest_p=0.05, smallest_effect=0.3) == 'undecided'


STEADY = np.linspace(-0.1, 0.11, 10)  # no two of equal size, for which p-values take longer


@pytest.mark.parametrize(
    ('differences', 'claim', 'remark'),
    [
        (STEADY + 0.9, 'ssa helps: ', 'the difference is larger than the 0.3 points that matter'),
        (STEADY - 0.9, 'ssa hurts: ', 'the difference is larger than the 0.3 points that matter'),
        (STEADY + 0.15, 'ssa helps: ', 'the difference is smaller than the 0.3 points that matter'),
        (
            STEADY + 0.3,
            'ssa helps: ',
            'the interval includes differences smaller and larger than the 0.3 points that matter',
        ),
        (
            STEADY,
            'ssa makes no difference that matters: ',
            'the interval lies within 0.3 points of 0',
        ),
        (
            10 * STEADY,
            'It is undecided whether ssa differs from none: ',
            'about 46 pairs would detect 0.3 points with 80% power',
        ),
        (
            STEADY[:5] + 0.9,
            'It is undecided whether ssa differs from none: ',
            '5 pairs are too few for any p below 0.05, and their interval is too narrow',
        ),
        (STEADY[:1], 'It is undecided whether ssa differs from none: ', 'one pair has no interval'),
        (
            np.linspace(-0.55, 0.85, 20),
            'It is undecided whether ssa differs from none: ',
            'the interval includes differences of 0.3 points and more, which matter',
        ),
        (
            np.array([0.5, 0.6, 0.7, 0.8, 0.9, -0.1]),
            'It is undecided whether ssa differs from none: ',
            'the interval and the test disagree on whether it differs from 0',
        ),
    ],
)
def test_sentences_say_the_verdict_and_what_it_leaves_open(differences, claim, remark):
    sentence = one(differences).sentence
    assert sentence.startswith(claim)
    assert sentence.endswith(f'; {remark}.')


def one(differences):
    return compare({'ssa': differences}, 'none', 0.3, 'on the test images')['ssa']


def test_a_sentence_has_the_numbers():
    test = one(np.array([0.5, 0.61, 0.7, 0.0, 0.8, -0.1, 0.9, 0.62, 0.51, 0.72]))
    low, high = test.difference.low, test.difference.high
    assert 0.2 < low < 0.4 < 0.6 < high < 0.8
    assert test.sentence.startswith(
        'ssa helps: the mean difference in accuracy on the test images is +0.53 points (95% '
        f'interval {low:+.2f} to {high:+.2f}) over 10 pairs, higher in 8, equal in 1, lower in 1; '
        'p = 0.00781; '
    )


def test_each_comparison_of_a_family_raises_the_bar():
    alone, family = one(STEADY[:7] + 0.9), {f'v{i}': STEADY[:7] + 0.9 for i in range(4)}
    assert (alone.holm_p, alone.verdict) == (2 / 2**7, 'helps')
    for test in compare(family, 'none', 0.3, 'on the test images').values():
        assert (test.holm_p, test.verdict) == (4 * 2 / 2**7, 'undecided')
        assert 'Holm-corrected p = 0.0625; ' in test.sentence
        assert test.sentence.endswith(
            '7 pairs are too few for any p below 0.05, and their interval is too narrow.'
        )


def test_the_pairs_needed_take_the_family_into_account():
    family = compare({f'v{i}': 10 * STEADY for i in range(11)}, 'none', 0.3, 'on the test images')
    quantiles = scipy.stats.norm.ppf([1 - 0.05 / 11 / 2, 0.8]).sum()
    with_known_sd = (quantiles * (10 * STEADY).std(ddof=1) / 0.3) ** 2
    for test in family.values():
        assert with_known_sd < test.pairs_needed < with_known_sd + 6
