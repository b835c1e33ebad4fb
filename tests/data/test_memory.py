import numpy as np
import pytest
from PIL import Image
from ssanet_jax.data.digits import Digits

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.memory import _epoch_randomness, crop, load_split


def test_crop_equals_a_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, size=(9, 5, 5, 3), dtype=np.uint8)
    rows, offsets = rng.integers(0, 9, size=12), rng.integers(0, 5, size=(12, 2))
    flips = rng.random(12) < 0.5
    expected = np.zeros((12, 5, 5, 3), np.uint8)
    for n, h, w in np.ndindex(12, 5, 5):
        source_h = h + offsets[n, 0] - 2
        source_w = (4 - w if flips[n] else w) + offsets[n, 1] - 2
        if 0 <= source_h < 5 and 0 <= source_w < 5:
            expected[n, h, w] = images[rows[n], source_h, source_w]
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_array_equal(crop(padded, rows, offsets, flips, size=5), expected)


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


def test_an_array_record_set_is_read_into_memory_too(digits, tmp_path):
    """A 'memory' recipe on a set that was prepared in the other format."""
    Digits(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    images, labels = load_split(open_builder(digits.dataset), 'test', 8)
    digits.dataset.data_dir = str(tmp_path)
    builder = open_builder(digits.dataset)
    assert builder.info.file_format.value == 'array_record'
    others, other_labels = load_split(builder, 'test', 8)
    assert sorted(zip(map(bytes, others), other_labels.tolist(), strict=True)) == sorted(
        zip(map(bytes, images), labels.tolist(), strict=True)
    )
