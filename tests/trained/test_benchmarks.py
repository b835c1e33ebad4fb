"""Benchmark scores against NumPy, AlexNet's published errors and the published subsets."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssanet_jax import data
from ssanet_jax.tools import evaluate as module
from ssanet_jax.trained.benchmark_scores import Score, score
from ssanet_jax.trained.benchmarks import BENCHMARKS
from tests.helpers import ROOT

WORDNET = tfds.core.tfds_path('datasets/imagenet2012/labels.txt').read_text().split()

# Top-1 errors of AlexNet by severity, from timm's validation of ImageNet-C.
ALEXNET = {
    'gaussian_noise': (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    'shot_noise': (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    'impulse_noise': (0.78374, 0.89808, 0.9487, 0.9872, 0.99548),
    'defocus_blur': (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    'glass_blur': (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    'motion_blur': (0.5843, 0.70048, 0.82108, 0.8975, 0.92638),
    'zoom_blur': (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    'snow': (0.71726, 0.88392, 0.86468, 0.9187, 0.94952),
    'frost': (0.6139, 0.79734, 0.8879, 0.89942, 0.9343),
    'fog': (0.67474, 0.7605, 0.84378, 0.8726, 0.945),
    'brightness': (0.4514, 0.48502, 0.54048, 0.62166, 0.7244),
    'contrast': (0.64548, 0.7615, 0.88874, 0.9776, 0.9927),
    'elastic_transform': (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    'pixelate': (0.52218, 0.5462, 0.73728, 0.87092, 0.91262),
    'jpeg_compression': (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}


def test_alexnet_has_an_mce_of_100():
    scores = {
        (name, severity): Score(images=100_000, top1=round(100_000 * (1 - error)))
        for name, errors in ALEXNET.items()
        for severity, error in enumerate(errors, start=1)
    }
    benchmark = BENCHMARKS['imagenet_c']
    assert scores.keys() == benchmark.parts.keys()
    *rows, mean = module.corruption_table('imagenet_c', benchmark, scores).rows
    assert [row[0] for row in rows] == list(ALEXNET)
    assert rows[0][1:6] == pytest.approx([100 * error for error in ALEXNET['gaussian_noise']])
    for row in [*rows, mean]:
        assert row[-1] == pytest.approx(100, abs=1e-3)
    assert mean[1] == pytest.approx(100 * np.mean([errors[0] for errors in ALEXNET.values()]))


def test_the_counts_are_those_of_numpy_with_ties_nans_and_undecodable_images():
    rng = np.random.default_rng(4)
    logits = rng.integers(0, 6, (200, 12)).astype(np.float32)
    logits[7, 3] = np.nan
    correct = rng.random((200, 12)) < 0.15
    undecodable = [0, 5, 9]
    top1 = top5 = images = 0
    for row, (values, labels) in enumerate(zip(logits, correct, strict=True)):
        if not labels.any():
            continue
        images += 1
        if row in undecodable or np.isnan(values).any():
            continue
        order = sorted(range(12), key=lambda k: (-values[k], k))
        top1 += bool(labels[order[0]])
        top5 += bool(labels[order[:5]].any())
    found = score(logits, correct, undecodable)
    assert (found.images, found.top1) == (images, top1)
    assert found.top5 == top5 + 1  # the row with a NaN, which outranks all: its fifth is correct
    assert found.unlabelled == 200 - images
    assert found.undecodable == int(correct[undecodable].any(axis=1).sum())


def test_subsets_are_the_published_ones():
    """200 classes each; 107 are in both: https://arxiv.org/abs/2006.16241 does not say how many."""
    files = {}
    for name in 'ar':
        with open(f'{data.__path__[0]}/imagenet_{name}_classes.txt') as lines:
            files[name] = [line.strip() for line in lines]
        assert len(set(files[name])) == 200
        assert set(files[name]) <= set(WORDNET)
    indices = {name: [WORDNET.index(wordnet_id) for wordnet_id in files[name]] for name in 'ar'}
    # The first and last of `thousand_k_to_200` in hendrycks/natural-adv-examples, and of
    # `imagenet_r_indices` in hendrycks/imagenet-r, and the sums of all.
    assert indices['a'][:6] == [6, 11, 13, 15, 17, 22]
    assert indices['a'][-4:] == [984, 986, 987, 988]
    assert indices['r'][:6] == [1, 2, 4, 6, 8, 9]
    assert indices['r'][-4:] == [980, 981, 983, 988]
    assert (sum(indices['a']), sum(indices['r'])) == (102_178, 86_135)


@pytest.mark.parametrize('name', sorted(BENCHMARKS))
def test_tfds_and_the_page_have_every_set(name):
    assert f'`{name}`' in (ROOT / 'docs/evaluation.md').read_text()
    for dataset in BENCHMARKS[name].parts.values():
        builder, _, config = dataset.partition('/')
        known = tfds.builder_cls(builder).builder_configs
        assert not config or config in known
