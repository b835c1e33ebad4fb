import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.losses import (
    LOSSES,
    binary_cross_entropy,
    cross_entropy,
    make_loss,
    on_mixed_targets,
)
from tests.helpers import ROOT, float64

# Of timm's losses, see make_timm_recipes.py: six examples, seven classes, mixed with the reverse.
TIMM = json.loads((ROOT / 'tests/golden/recipes.json').read_text())['losses']
LABEL = np.arange(6, dtype=np.int32) % 7
MIXED = LABEL, LABEL[::-1], np.full(6, 0.3)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_cross_entropy_equals_a_loop(smoothing):
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    label = np.array([0, 1, 2, 3, 4, 0], np.int32)
    expected = []
    for row, target in zip(logits, label, strict=True):
        log_probabilities = row - np.log(np.exp(row).sum())
        weights = [smoothing / 5 + (1 - smoothing) * (k == target) for k in range(5)]
        expected.append(-sum(w * p for w, p in zip(weights, log_probabilities, strict=True)))
    found = cross_entropy(jnp.asarray(logits), jnp.asarray(label), label_smoothing=smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def evaluate(loss, *targets):
    with float64():
        logits = 2 * np.random.default_rng(0).normal(size=(6, 7))
        return loss(jnp.asarray(logits), *map(jnp.asarray, targets))


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_cross_entropy_of_mixed_targets_equals_that_of_timm(smoothing):
    loss = on_mixed_targets(make_loss('cross_entropy', label_smoothing=smoothing))
    np.testing.assert_allclose(
        evaluate(loss, *MIXED), TIMM[f'mixed cross-entropy {smoothing}'], rtol=1e-12
    )


@pytest.mark.parametrize('threshold', [None, 0.2, 0.5])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize(('name', 'targets'), [('hard', (LABEL,)), ('mixed', MIXED)])
def test_binary_cross_entropy_equals_that_of_timm(name, targets, smoothing, threshold):
    loss = make_loss('binary_cross_entropy', label_smoothing=smoothing, target_threshold=threshold)
    expected = TIMM[f'{name} binary cross-entropy {smoothing} {threshold}']
    np.testing.assert_allclose(evaluate(loss, *targets), expected, rtol=1e-12)


def test_a_threshold_gives_an_image_of_two_both_labels_and_one_of_the_same_no_more():
    """With weights 0.3 and 0.7 above and below thresholds of 0.2 and 0.5."""
    logits = jnp.array([[1.0, -2.0, 0.5]])
    targets = jnp.array([0]), jnp.array([2]), jnp.array([0.3])

    def expected(*q):
        p = 1 / (1 + np.exp(-np.asarray(logits[0], np.float64)))
        return -np.mean([np.log(x if t else 1 - x) for x, t in zip(p, q, strict=True)])

    for threshold, q in ((0.2, (1, 0, 1)), (0.5, (0, 0, 1))):
        found = binary_cross_entropy(logits, *targets, target_threshold=threshold)
        np.testing.assert_allclose(found, [expected(*q)], rtol=1e-6)
    same = binary_cross_entropy(logits, targets[0], targets[0], targets[2], target_threshold=0.2)
    np.testing.assert_allclose(same, [expected(1, 0, 0)], rtol=1e-6)


def test_a_loss_of_ones_own_is_interpolated_between_the_two_labels():
    def squared(logits, label):
        return jnp.sum((logits - jax.nn.one_hot(label, logits.shape[1])) ** 2, axis=1)

    logits = jnp.array([[0.5, 0.5], [1.0, 0.0]])
    mixed = on_mixed_targets(squared)
    found = mixed(logits, jnp.array([0, 0]), jnp.array([0, 1]), jnp.array([0.2, 0.75]))
    np.testing.assert_allclose(found, [0.5, 0.25 * 2])
    assert on_mixed_targets(binary_cross_entropy) is binary_cross_entropy


def test_a_registered_loss_is_found_and_an_unknown_one_lists_the_choices(monkeypatch):
    def squared(logits, label):
        return jnp.sum((logits - jax.nn.one_hot(label, logits.shape[1])) ** 2, axis=1)

    monkeypatch.setitem(LOSSES, 'squared', squared)
    assert make_loss('squared') is squared
    with pytest.raises(ConfigError, match=r"label_smoothing=0.1 has no effect .*'squared'; set"):
        make_loss('squared', label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"threshold=0.2 has no effect .*'cross_entropy'; leave"):
        make_loss('cross_entropy', target_threshold=0.2)
    with pytest.raises(
        ConfigError, match=r"loss='hinge' .* one of cross_entropy, binary_\w+, squared, or add"
    ):
        make_loss('hinge')
