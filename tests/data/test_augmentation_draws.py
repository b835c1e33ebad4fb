"""Augmentations draw from the published ranges."""

import numpy as np
import pytest

from ssanet_jax.data.augmentation.erasing import Cutout, RandomErasing
from ssanet_jax.data.augmentation.operations import OPERATIONS
from ssanet_jax.data.augmentation.policies import (
    BICUBIC,
    BILINEAR,
    RAND_VALUES,
    WIDE_VALUES,
    ColorJitter,
    RandAugment,
    trivial_augment_wide,
)

FILL = (124, 116, 104)


@pytest.fixture
def drawn(monkeypatch):
    """(value, sampling) of each call of an operation, in place of its work."""
    calls = {name: [] for name in OPERATIONS}

    def recorded(name):
        def operate(image, value, sampling):
            calls[name].append((value, sampling))
            return image

        return operate

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, recorded(name))
    return calls


def test_color_jitter_draws_from_the_stated_ranges(drawn):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        ColorJitter(0.4, 1.0, 0.0, 0.1)(None, rng)
    expected = {'brightness': (0.6, 1.4), 'contrast': (0, 2), 'hue': (-0.1, 0.1)}
    assert {name for name, calls in drawn.items() if calls} == expected.keys()
    for name, (low, high) in expected.items():
        values = [value for value, _ in drawn[name]]
        np.testing.assert_allclose([min(values), max(values)], [low, high], atol=0.01)
        assert low <= min(values) <= max(values) <= high


@pytest.mark.parametrize(
    ('policy', 'names', 'expected'),
    [
        (RandAugment(7, 0.5, FILL), RAND_VALUES, 6000 / 15),  # two, skipped half of the time
        (trivial_augment_wide, WIDE_VALUES, 6000 / 14),
    ],
    ids=['rand', 'trivial'],
)
def test_policies_choose_all_operations_equally_often(policy, names, expected, drawn):
    rng = np.random.default_rng(1)
    for _ in range(6000):
        policy(None, rng)
    found = np.array([len(drawn[name]) for name in names])
    assert sum(map(len, drawn.values())) == found.sum()
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)


def test_rand_augment_draws_magnitudes_signs_and_interpolation(drawn):
    """At magnitude 7 of 10, timm turns images by 21 degrees in either direction."""
    rng = np.random.default_rng(2)
    for _ in range(30_000):
        RandAugment(7, 0.5, FILL)(None, rng)
    degrees = np.array([value for value, _ in drawn['rotate']])
    assert len(degrees) > 1500
    assert np.abs(degrees).mean() == pytest.approx(30 * 0.7, abs=0.2)
    assert np.abs(degrees).std() == pytest.approx(30 * 0.05, abs=0.1)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.06)
    bicubic = [sampling.resample == BICUBIC for _, sampling in drawn['rotate']]
    assert np.mean(bicubic) == pytest.approx(0.5, abs=0.06)
    assert {sampling.resample for _, sampling in drawn['rotate']} == {BILINEAR, BICUBIC}


def test_magnitudes_of_rand_augment_are_clipped(drawn):
    rng = np.random.default_rng(3)
    for _ in range(2000):
        RandAugment(7, 100, FILL)(None, rng)
    assert {abs(value) for value, _ in drawn['rotate']} >= {0.0, 30.0}
    assert max(abs(value) for value, _ in drawn['rotate']) == 30


def test_trivial_augment_draws_every_value(drawn):
    rng = np.random.default_rng(4)
    for _ in range(14_000):
        trivial_augment_wide(None, rng)
    for name, values in WIDE_VALUES.items():
        assert {value for value, _ in drawn[name]} == set(values), name


def test_random_erasing_draws_areas_shapes_and_places():
    """0.02 to 0.33 of the image, heights 0.3 to 3.3 widths, at all its borders."""
    rng, boxes = np.random.default_rng(5), []
    for _ in range(4000):
        image = np.zeros((100, 100, 3), np.uint8)
        RandomErasing(1.0, np.array([9, 9, 9], np.uint8))(image, rng)
        rows, columns = np.nonzero(image[..., 0])
        boxes.append((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
    top, left, bottom, right = np.array(boxes).T
    height, width = bottom - top, right - left
    area, ratio = height * width / 100**2, np.log(height / width)
    np.testing.assert_allclose([area.min(), area.max()], [0.02, 0.33], atol=0.01)
    np.testing.assert_allclose([ratio.min(), ratio.max()], np.log([0.3, 3.3]), atol=0.1)
    np.testing.assert_allclose(np.quantile(area, [0.25, 0.5, 0.75]), [0.1, 0.17, 0.25], atol=0.015)
    assert np.median(ratio) == pytest.approx(0, abs=0.05)
    assert (top.min(), left.min(), bottom.max(), right.max()) == (0, 0, 100, 100)
    assert np.mean(top / (100 - height)) == pytest.approx(0.5, abs=0.02)
    assert np.mean(left / (100 - width)) == pytest.approx(0.5, abs=0.02)


def test_cutout_draws_every_pixel_equally_often():
    rng, counts = np.random.default_rng(6), np.zeros((12, 10))
    for _ in range(12_000):
        image = np.zeros((12, 10, 3), np.uint8)
        Cutout(2, np.array([1, 1, 1], np.uint8))(image, rng)
        rows, columns = np.nonzero(image[..., 0])
        counts[rows.max(), columns.max()] += 1
    assert np.abs(counts - 100).max() < 50
