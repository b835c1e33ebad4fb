import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.training.losses import LOSSES, cross_entropy, make_loss


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


def test_a_registered_loss_is_found_and_an_unknown_one_lists_the_choices(monkeypatch):
    def squared(logits, label):
        return jnp.sum((logits - jax.nn.one_hot(label, logits.shape[1])) ** 2, axis=1)

    monkeypatch.setitem(LOSSES, 'squared', squared)
    assert make_loss('squared') is squared
    with pytest.raises(ConfigError, match=r"label_smoothing=0.1 has no effect .*'squared'"):
        make_loss('squared', label_smoothing=0.1)
    with pytest.raises(ConfigError, match=r"loss='hinge' .* one of cross_entropy, squared, or add"):
        make_loss('hinge')
