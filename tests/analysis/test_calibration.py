import math

import numpy as np
import pytest
import scipy.optimize

from ssanet_jax.analysis.calibration import TEMPERATURES, cross_fitted, fit_temperature, reliability


def overconfident(n=400, k=7, factor=3.0, seed=0):
    """Logits [n, k], with labels drawn at temperature `factor`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 4
    labels = [rng.choice(k, p=softmax(row / factor)) for row in logits]
    return logits, np.array(labels)


def softmax(row):
    e = [math.exp(value - max(row)) for value in row]
    return np.array([value / sum(e) for value in e])


def ece(probabilities, labels, bins=15):
    return reliability(probabilities, labels, bins).ece


def loop_ece(probabilities, labels, bins):
    """Naeini's sum, image by image and bin by bin."""
    members = [[] for _ in range(bins)]
    for row, label in zip(probabilities, labels, strict=True):
        best = max(range(len(row)), key=lambda k: row[k])
        (home,) = [b for b in range(bins) if b / bins < row[best] <= (b + 1) / bins]
        members[home].append((row[best], best == label))
    error = 0.0
    for inside in members:
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(correct for _, correct in inside) / len(inside)
            error += len(inside) / len(labels) * abs(accuracy - confidence)
    return error


def test_the_error_of_four_images_computed_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.35, 0.65], [0.55, 0.45]])
    labels = np.array([0, 1, 1, 1])
    # Ten bins: (0.9, 1]: confidence 0.935, accuracy 1/2; (0.6, 0.7]: 0.65, 1; (0.5, 0.6]: 0.55, 0.
    expected = 2 / 4 * 0.435 + 1 / 4 * 0.35 + 1 / 4 * 0.55
    assert ece(probabilities, labels, bins=10) == pytest.approx(expected)
    found = reliability(probabilities, labels, bins=10)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 0, 2]
    np.testing.assert_allclose(found.confidence[[5, 6, 9]], [0.55, 0.65, 0.935])
    np.testing.assert_allclose(found.accuracy[[5, 6, 9]], [0, 1, 0.5])
    assert np.isnan(found.accuracy[:5]).all()


@pytest.mark.parametrize('bins', [1, 4, 15])
def test_the_error_matches_a_loop_over_images(bins):
    logits, labels = overconfident()
    probabilities = np.array([softmax(row) for row in logits])
    error = ece(probabilities, labels, bins)
    assert error == pytest.approx(loop_ece(probabilities, labels, bins), rel=1e-12)
    assert error > 0.1


def test_an_upper_edge_is_in_its_bin():
    probabilities = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    assert reliability(probabilities, np.array([0, 0, 1]), bins=4).counts.tolist() == [0, 2, 0, 1]


def test_the_temperature_is_the_minimum_that_scipy_finds():
    logits, labels = overconfident()

    def loss(temperature):
        rows = (-np.log(softmax(row / temperature)[label]) for row, label in both)
        return sum(rows) / len(labels)

    both = list(zip(logits, labels, strict=True))
    found = scipy.optimize.minimize_scalar(
        loss, bounds=TEMPERATURES, method='bounded', options={'xatol': 1e-7}
    )
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(found.x, rel=1e-4)
    assert 2.5 < temperature < 3.5  # the labels were drawn at 3
    assert fit_temperature(logits.astype(np.float32), labels) == pytest.approx(found.x, rel=1e-3)


def test_temperatures_scale_with_the_logits():
    logits, labels = overconfident()
    twice = fit_temperature(2 * logits, labels)
    assert twice == pytest.approx(2 * fit_temperature(logits, labels), rel=1e-4)


@pytest.mark.parametrize(
    ('logits', 'expected'),
    [
        ([[2.0, 0, 0], [0, 1, 0]], TEMPERATURES[0]),  # all correct
        ([[0.0, 5, 5], [5, 0, 5]], TEMPERATURES[1]),  # worse than guessing
        ([[1.0, 1, 1], [2, 2, 2]], 1.0),
    ],
    ids=['all correct', 'all incorrect', 'all equal'],
)
def test_extreme_temperatures_are_clipped(logits, expected):
    assert fit_temperature(np.array(logits), np.array([0, 1])) == expected


def test_a_single_class_has_temperature_1():
    assert fit_temperature(np.array([[3.0], [-1.0]]), np.array([0, 0])) == 1.0
    assert ece(np.ones((2, 1)), np.array([0, 0])) == 0


def test_no_image_uses_a_temperature_fitted_to_it():
    logits, labels = overconfident(n=101)
    probabilities, temperatures = cross_fitted(logits, labels)
    whole = fit_temperature(logits, labels)
    assert min(temperatures) < whole < max(temperatures)
    of_half = {t: [] for t in temperatures}
    for index, row in enumerate(logits):
        (near,) = [
            t
            for t in temperatures
            if np.allclose(softmax(row / t), probabilities[index], atol=1e-9)
        ]
        of_half[near].append(index)
    for temperature, members in of_half.items():
        others = np.setdiff1d(np.arange(101), members)
        assert 50 <= len(others) <= 51
        assert fit_temperature(logits[others], labels[others]) == pytest.approx(temperature)


def test_cross_fitting_removes_most_of_the_error():
    logits, labels = overconfident(n=2000)
    before = ece(np.array([softmax(row) for row in logits]), labels)
    after = ece(cross_fitted(logits, labels)[0], labels)
    assert after < before / 3


@pytest.mark.parametrize(
    ('values', 'labels', 'message'),
    [
        (np.zeros((0, 3)), [], 'at least 1 image'),
        (np.ones((2, 3)) / 3, [0, 3], 'from 0 to 3, but there are 3 classes'),
        (np.ones((2, 3)) / 3, [-1, 0], 'exclude images without a label'),
        (np.ones((2, 3)) / 3, [0], r'got \(2, 3\) and \(1,\)'),
        (np.full((1, 3), np.nan), [0], 'not finite'),
    ],
    ids=['none', 'label too high', 'bad image', 'lengths', 'nan'],
)
def test_invalid_arguments_are_refused(values, labels, message):
    for function in (ece, fit_temperature):
        with pytest.raises(ValueError, match=message):
            function(values, np.array(labels, int))


def test_logits_and_labels_of_another_type_are_refused():
    with pytest.raises(ValueError, match='apply softmax to logits'):
        ece(np.array([[2.0, 0.5]]), np.array([0]))
    with pytest.raises(ValueError, match='integer labels, got float64'):
        fit_temperature(np.array([[2.0, 0.5]]), np.array([0.0]))


def test_two_halves_need_two_images():
    with pytest.raises(ValueError, match='at least 2 images, got 1'):
        cross_fitted(np.ones((1, 3)), np.array([0]))
