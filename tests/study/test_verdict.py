import numpy as np
import pytest

from ssanet_jax.study import verdict
from ssanet_jax.study.results import Analysis, Estimate
from ssanet_jax.study.verdict import compare, decide


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
    assert decide(Estimate((), 0.0, None, low, high), p, smallest_effect=0.3) == expected


STEADY = np.linspace(-0.1, 0.1, 10)


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
            'about 38 pairs would detect 0.3 points with 80% power',
        ),
        (
            STEADY[:5] + 0.9,
            'It is undecided whether ssa differs from none: ',
            '5 pairs are too few for any p below 0.05, and their interval is too narrow',
        ),
        (STEADY[:1], 'It is undecided whether ssa differs from none: ', 'one pair has no interval'),
        (
            np.array([0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, -0.5, -0.6, 0.1]),
            'It is undecided whether ssa differs from none: ',
            'about 18 pairs would detect 0.3 points with 80% power',
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
    test = one(np.array([0.5, 0.6, 0.7, 0.0, 0.8, -0.1, 0.9, 0.6, 0.5, 0.7]))
    low, high = test.difference.low, test.difference.high
    assert (
        test.sentence
        == (
            f'ssa helps: its accuracy on the test images differs by +0.52 points (95% interval '
            f'{low:+.2f} to {high:+.2f}) on average over 10 pairs, higher in 8, equal in 1, lower in '
            f'1; Holm-corrected p = {test.wilcoxon_p:.3g}; the interval includes differences smaller '
            'and larger than the 0.3 points that matter.'
        )
        or low > 0.3
    )


def test_each_comparison_of_a_family_raises_the_bar():
    alone, family = one(STEADY[:7] + 0.9), {f'v{i}': STEADY[:7] + 0.9 for i in range(4)}
    assert (alone.holm_p, alone.verdict) == (2 / 2**7, 'helps')
    for test in compare(family, 'none', 0.3, 'on the test images').values():
        assert (test.holm_p, test.verdict) == (4 * 2 / 2**7, 'undecided')
        assert test.sentence.endswith(
            '7 pairs are too few for any p below 0.05, and their interval is too narrow.'
        )
