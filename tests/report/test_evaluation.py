"""What one pass over the images finds, against scikit-learn and the training loop."""

import json

import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.report.evaluation import evaluate_run
from tests.report.runs import random_images


@pytest.fixture(scope='module')
def found(digits_run):
    return evaluate_run(ssanet_jax.load_trained(str(digits_run)), hardest=10, sample=100)


def test_the_means_are_those_of_the_loop(digits_run, found):
    best = json.loads((digits_run / 'summary.json').read_text())['best']
    means = found.means()
    assert means['num_examples'] == best['num_examples'] == 360
    for name in ('top1', 'top5'):
        assert means[name] == pytest.approx(best[name], abs=1e-9)
    assert means['loss'] == pytest.approx(best['loss'], rel=1e-5)
    assert 1 < means['top1'] < 50  # of a network that was not trained; else ranks are not tested


def test_the_means_are_those_of_scikit_learn(found):
    labels, means = np.arange(10), found.means()
    top1 = sklearn.metrics.accuracy_score(found.label, found.logits.argmax(axis=1))
    top5 = sklearn.metrics.top_k_accuracy_score(found.label, found.logits, k=5, labels=labels)
    probabilities = scipy.special.softmax(found.logits.astype(np.float64), axis=1)
    loss = sklearn.metrics.log_loss(found.label, probabilities, labels=labels)
    assert (means['top1'], means['top5']) == (pytest.approx(100 * top1), pytest.approx(100 * top5))
    assert means['loss'] == pytest.approx(loss, rel=1e-6)


def test_the_hardest_images_are_those_of_the_highest_losses(digits_run, found):
    order = sorted(range(360), key=lambda i: (-found.loss[i], i))
    assert found.hardest.number.tolist() == order[:10]
    config = ssanet_jax.load_trained(str(digits_run)).config
    (batch,) = data.eval_batches(config, 'test', share=data.HostShard(0, 1))
    images = batch['image'][batch['mask']]
    np.testing.assert_array_equal(found.hardest.image, images[order[:10]])
    np.testing.assert_array_equal(found.sample.image, images[::3])
    np.testing.assert_array_equal(found.sample.number, np.arange(0, 360, 3))


@pytest.mark.parametrize('batch', [7, 60, 64])
def test_batches_make_no_difference(batch, fabricated):
    image, label = random_images(60), np.arange(60) % 4
    label[[0, 6, 7, 30]] = -1
    _, run = fabricated(image, label, 'abcd', batch=batch)
    found = evaluate_run(run, hardest=9, sample=20)
    np.testing.assert_array_equal(found.label, label)
    assert found.sample.number.tolist() == np.flatnonzero(label >= 0)[::3].tolist()
    loss = np.where(label < 0, -np.inf, found.loss)
    assert found.hardest.number.tolist() == np.argsort(-loss, kind='stable')[:9].tolist()
    np.testing.assert_array_equal(found.hardest.image, image[found.hardest.number])
    np.testing.assert_allclose(found.loss[label < 0], np.log(4), rtol=1e-6)
    assert (found.rank[label < 0] >= 4).all()


def test_fewer_images_than_are_kept(fabricated):
    _, run = fabricated(random_images(3), np.array([0, -1, 1]), 'ab')
    found = evaluate_run(run, hardest=24, sample=512)
    assert sorted(found.hardest.number) == [0, 2]
    assert found.sample.number.tolist() == [0, 2]
