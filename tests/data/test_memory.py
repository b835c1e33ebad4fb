import numpy as np
import pytest
from PIL import Image

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.memory import _epoch_randomness, crop, load_split


def test_crop_equals_a_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, size=(9, 4, 5, 3), dtype=np.uint8)
    offsets, flips = rng.integers(0, 5, size=(9, 2)), rng.random(9) < 0.5
    expected = np.zeros_like(images)
    for n, h, w in np.ndindex(9, 4, 5):
        source_h = h + offsets[n, 0] - 2
        source_w = (4 - w if flips[n] else w) + offsets[n, 1] - 2
        if 0 <= source_h < 4 and 0 <= source_w < 5:
            expected[n, h, w] = images[n, source_h, source_w]
    np.testing.assert_array_equal(crop(images, offsets, flips, padding=2), expected)


@pytest.mark.parametrize('padding', [1, 4])
def test_crops_and_flips_are_uniform(padding):
    order, offsets, flips = _epoch_randomness(0, 0, 50_000, padding)
    positions = (2 * padding + 1) ** 2
    counts = np.bincount(offsets @ (2 * padding + 1, 1), minlength=positions)
    expected = 50_000 / positions
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < positions + 5 * np.sqrt(2 * positions)
    assert abs(flips.mean() - 0.5) < 0.01
    assert sorted(order) == list(range(50_000))


def test_images_of_another_size_are_resized(digits):
    builder = open_builder(digits.dataset)
    small, _ = load_split(builder, 'test', 8)
    large, _ = load_split(builder, 'test', 16)
    for before, after in zip(small[:20], large[:20], strict=True):
        expected = Image.fromarray(before).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(after.astype(int) - np.asarray(expected, int)).max() <= 1
