"""Evaluation for a report, against scikit-learn and the training loop."""

import json

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.report.evaluation import evaluate_trained
from tests.report.runs import random_images


def test_means_equal_those_of_the_training_loop(digits_run, evaluated):
    best = json.loads((digits_run / 'summary.json').read_text())['best']
    means = evaluated.means()
    assert means['num_examples'] == best['num_examples'] == 360
    for name in ('top1', 'top5'):
        assert means[name] == pytest.approx(best[name], abs=1e-9)
    assert means['loss'] == pytest.approx(best['loss'], rel=1e-5)
    assert 1 < means['top1'] < 50  # untrained, so ranks vary


def test_means_equal_those_of_scikit_learn(evaluated):
    labels, means = np.arange(10), evaluated.means()
    top1 = sklearn.metrics.accuracy_score(evaluated.label, evaluated.logits.argmax(axis=1))
    top5 = sklearn.metrics.top_k_accuracy_score(
        evaluated.label, evaluated.logits, k=5, labels=labels
    )
    probabilities = scipy.special.softmax(evaluated.logits.astype(np.float64), axis=1)
    loss = sklearn.metrics.log_loss(evaluated.label, probabilities, labels=labels)
    assert (means['top1'], means['top5']) == (pytest.approx(100 * top1), pytest.approx(100 * top5))
    assert means['loss'] == pytest.approx(loss, rel=1e-6)


def test_the_hardest_images_have_the_highest_losses(digits_run, evaluated):
    order = sorted(range(360), key=lambda i: (-evaluated.loss[i], i))
    assert evaluated.hardest.position.tolist() == order[:10]
    config = ssanet_jax.load(str(digits_run)).config
    (batch,) = data.eval_batches(config, 'test', shard=data.HostShard(0, 1))
    images = batch['image'][batch['mask']]
    np.testing.assert_array_equal(evaluated.hardest.image, images[order[:10]])
    np.testing.assert_array_equal(evaluated.sample.image, images[::3])
    np.testing.assert_array_equal(evaluated.sample.position, np.arange(0, 360, 3))


@pytest.mark.parametrize('batch', [7, 60, 64])
def test_results_do_not_depend_on_the_batch_size(batch, fabricated):
    image, label = random_images(60), np.arange(60) % 4
    label[[0, 6, 7, 30]] = -1
    _, trained = fabricated(image, label, 'abcd', batch=batch)
    found = evaluate_trained(trained, hardest=9, sample=20)
    np.testing.assert_array_equal(found.label, label)
    assert found.sample.position.tolist() == np.flatnonzero(label >= 0)[::3].tolist()
    loss = np.where(label < 0, -np.inf, found.loss)
    assert found.hardest.position.tolist() == np.argsort(-loss, kind='stable')[:9].tolist()
    np.testing.assert_array_equal(found.hardest.image, image[found.hardest.position])
    np.testing.assert_allclose(found.loss[label < 0], np.log(4), rtol=1e-6)
    assert (found.rank[label < 0] >= 4).all()


def test_fewer_images_than_requested(fabricated):
    _, trained = fabricated(random_images(3), np.array([0, -1, 1]), 'ab')
    found = evaluate_trained(trained, hardest=24, sample=512)
    assert sorted(found.hardest.position) == [0, 2]
    assert found.sample.position.tolist() == [0, 2]
