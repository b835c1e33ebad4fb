import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from ssanet_jax.training import parallel, steps
from ssanet_jax.training.metrics import METRICS, Metrics, label_rank
from ssanet_jax.training.steps import TrainState
from tests.helpers import mesh_of


@pytest.mark.parametrize('k', [1, 5])
def test_accuracies_equal_those_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 10)).astype(np.float32)
    label = rng.integers(0, 10, size=200).astype(np.int32)
    metrics = Metrics.of(logits, label, jnp.ones(200), np.ones(200, bool)).means()
    expected = 100 * top_k_accuracy_score(label, logits, k=k, labels=range(10))
    assert metrics[f'top{k}'] == pytest.approx(expected)


def test_of_equal_logits_the_lower_class_is_predicted_as_by_argmax():
    logits = jnp.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(label_rank(logits, jnp.array([0, 1, 2])), [0, 1, 2])


def test_a_diverged_network_is_never_correct():
    logits = jnp.full((2, 10), jnp.nan).at[1, 3].set(5.0)
    np.testing.assert_array_equal(label_rank(logits, jnp.array([0, 3])) > 0, [True, True])


def test_masked_examples_count_for_nothing():
    logits = jnp.eye(4) * 9
    label = jnp.arange(4)
    loss = jnp.array([1.0, 2.0, jnp.nan, 4.0])
    means = Metrics.of(logits, label, loss, jnp.array([True, True, False, False])).means()
    assert means == {'loss': 1.5, 'top1': 100.0, 'top5': 100.0, 'num_examples': 2}


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 10)).astype(np.float32)
    label, mask = rng.integers(0, 10, 30).astype(np.int32), rng.random(30) < 0.7
    loss = np.arange(30, dtype=np.float32)
    parts = [Metrics.of(logits[s], label[s], loss[s], mask[s]) for s in (slice(7), slice(7, 30))]
    assert (parts[0] + parts[1]).means() == Metrics.of(logits, label, loss, mask).means()


def test_no_prediction_is_correct_for_a_negative_label():
    logits = jnp.array([[0.0, 1.0], [3.0, 2.0]])
    rank = label_rank(logits, jnp.array([-1, 0]))
    assert rank[0] >= 5  # not even of the first five, of two classes
    assert rank[1] == 0


def test_an_image_that_could_not_be_decoded_counts_as_an_incorrect_uniform_guess():
    """It replaces one of three images; the others count as without it."""
    model = nn.Dense(4)
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4)))

    def evaluate(label, mask):
        class Model:
            def apply(self, variables, x, train):
                return model.apply(variables, x)

        step = partial(
            steps.eval_step, model=Model(), preprocess=lambda image: image.astype(jnp.float32)
        )
        mapped = parallel.parallel_eval_step(step, mesh_of(1))
        batch = {'image': image, 'label': np.array(label, np.int32), 'mask': np.array(mask)}
        state = TrainState(np.int32(0), variables['params'], {}, {})
        return mapped(state, batch, Metrics.zero())

    with_bad = evaluate([1, -1, 2], [True, True, True])
    without = evaluate([1, 0, 2], [True, False, True])
    assert (with_bad.num_examples, without.num_examples) == (3, 2)
    for name in ('top1', 'top5'):
        assert with_bad.sums[name] == without.sums[name]
    np.testing.assert_allclose(with_bad.loss, without.loss + np.log(4), rtol=1e-6)


def test_a_metric_of_ones_own_is_a_mean_and_one_of_booleans_a_percentage():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 10)).astype(np.float32)
    label, mask = rng.integers(0, 10, 30).astype(np.int32), rng.random(30) < 0.7
    metrics = {
        **METRICS,
        'confidence': lambda logits, label: jnp.max(logits, axis=1),
        'class0': lambda logits, label: jnp.argmax(logits, axis=1) == 0,
    }
    batch = logits, label, jnp.ones(30), mask
    total = Metrics.zero(metrics) + Metrics.of(*batch, metrics) + Metrics.of(*batch, metrics)
    means = total.means()
    assert means['confidence'] == pytest.approx(logits.max(axis=1)[mask].mean())
    assert means['class0'] == pytest.approx(100 * (logits.argmax(axis=1) == 0)[mask].mean())
    assert means.keys() == {'loss', 'num_examples', *metrics}


def test_a_step_number_that_float32_does_not_hold_is_kept():
    step = 2**24 + 1
    bad = dataclasses.replace(Metrics.zero(), bad_step=jnp.asarray(step))
    assert int((Metrics.zero() + bad).bad_step) == step
    assert Metrics.zero().bad_step.dtype == jnp.int32
