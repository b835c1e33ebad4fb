"""Mixup and cutmix equal timm's, and never mix in padding."""

import json
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ssanet_jax.training import mixing
from ssanet_jax.training.objective import mixing_key
from tests.golden import rule
from tests.helpers import ROOT, float64

TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())['mixing']


@pytest.mark.parametrize('case', TIMM, ids=lambda case: f'{case["weight"]} {case["center"]}')
def test_mixed_images_and_weights_equal_those_of_timm(case):
    height, width = case['size']
    images = np.random.default_rng(1).normal(size=(4, height, width, 3))
    with float64():
        weight = jnp.asarray(case['weight'])
        share = jnp.full((height, width), weight)
        if case['center']:
            share = 1.0 - mixing.box(weight, *case['center'], height, width)
            weight = share.mean()
        mixed, weights = mixing.mix(share, weight, images, images[::-1], np.ones(4, bool))
    np.testing.assert_allclose(weights, [case['label_weight']] * 4, rtol=1e-12)
    np.testing.assert_allclose(rule.digest(mixed), case['images'], rtol=1e-9, atol=1e-12)


@cache
def draws():
    """Shares [4000, 6, 8] and weights of as many steps, three tenths of which cut."""
    draw = partial(mixing.draw, mixup_alpha=0.5, cutmix_alpha=1.0, switch_prob=0.3)
    keys = jax.vmap(partial(mixing_key, 3))(jnp.arange(4000))
    return jax.device_get(jax.jit(jax.vmap(lambda key: draw(key, 6, 8)))(keys))


def cuts():
    """Whether each step cuts; shares of mixup are neither 0 nor 1."""
    return np.isin(draws()[0], [0, 1]).all(axis=(1, 2))


def test_a_step_cuts_with_the_probability_asked_for_and_blends_otherwise():
    share, weight = draws()
    assert np.mean(cuts()) == pytest.approx(0.3, abs=0.03)
    assert (np.ptp(share[~cuts()], axis=(1, 2)) == 0).all()
    np.testing.assert_allclose(weight, share.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_weights_of_mixup_follow_the_beta_distribution():
    weight = draws()[1][~cuts()].astype(np.float64)
    assert scipy.stats.kstest(weight, scipy.stats.beta(0.5, 0.5).cdf).pvalue > 0.01


def test_boxes_lie_everywhere_and_are_as_large_as_one_minus_the_weight():
    covered = 1 - draws()[0][cuts()].mean(axis=0)  # [6, 8]
    assert covered.min() > 0.1
    inside = mixing.box(jnp.float32(0.75), 3, 4, 6, 8)  # half of each side
    np.testing.assert_array_equal(inside.any(axis=1), np.isin(np.arange(6), [2, 3, 4]))
    np.testing.assert_array_equal(inside.any(axis=0), np.isin(np.arange(8), [2, 3, 4, 5]))


def test_each_step_and_each_seed_has_a_key_of_its_own():
    def key(seed, step):
        return tuple(jax.random.key_data(mixing_key(seed, jnp.int32(step))).tolist())

    assert key(1, 5) == key(1, 5)
    assert len({key(1, 5), key(1, 6), key(2, 5)}) == 3
    assert len(np.unique(draws()[1][~cuts()])) > 2000


def test_padding_is_not_mixed_into_others():
    images = np.stack([np.full((2, 2, 1), v, np.float32) for v in (1, 2, 3, 0)])
    mask = np.array([True, True, True, False])
    share = jnp.array([[0.25, 0.25], [1.0, 0.25]])
    mixed, weight = mixing.mix(share, jnp.float32(0.4), images, images[::-1], mask[::-1])
    np.testing.assert_allclose(weight, [1, 0.4, 0.4, 0.4])
    np.testing.assert_array_equal(mixed[0], images[0])
    np.testing.assert_allclose(mixed[1, :, :, 0], [[2.75, 2.75], [2, 2.75]])


def test_the_dominant_label_is_that_of_the_larger_weight():
    targets = mixing.Targets(jnp.array([1, 1]), jnp.array([2, 2]), jnp.array([0.3, 0.5]))
    np.testing.assert_array_equal(targets.dominant_label, [2, 1])
