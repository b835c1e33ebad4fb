import hashlib

import numpy as np
import pytest
from PIL import Image

from ssanet_jax import data
from ssanet_jax.data import HostShard
from ssanet_jax.data.decoding.crops import draw_padded
from tests import stored_digits


def first(config, number, **kwargs):
    batches = data.train_batches(config, **kwargs)
    return [next(batches) for _ in range(number)]


def assert_equal(actual, expected):
    for left, right in zip(actual, expected, strict=True):
        for name in ('image', 'label', 'mask'):
            np.testing.assert_array_equal(left[name], right[name])


@pytest.fixture(scope='session')
def digits_array_record(tmp_path_factory):
    """The digits in three array_record files."""
    return stored_digits.prepare(tmp_path_factory.mktemp('digits'), 'array_record', 3)


@pytest.fixture
def small_folder(imagenet, tmp_path):
    """A folder of PNGs of 32 pixels, and of a few other sizes."""
    rng = np.random.default_rng(3)
    for split in ('train', 'validation'):
        for name in 'ab':
            folder = tmp_path / 'small' / split / name
            folder.mkdir(parents=True)
            for number in range(9):
                size = (32, 32) if number else (41, 36)
                image = rng.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(image).save(folder / f'{number}.png')
    imagenet.dataset.name = 'folder'
    imagenet.dataset.data_dir = str(tmp_path / 'small')
    imagenet.batch_size = 8
    return imagenet


@pytest.mark.parametrize('eval_crop', ['center', 'whole'])
@pytest.mark.parametrize('train_crop', ['resized', 'padded'])
@pytest.mark.parametrize('name', ['digits', 'small_folder'])
def test_batches_are_the_same_from_disk_and_from_memory(
    name, train_crop, eval_crop, request, digits_array_record
):
    """Both decode PNGs exactly, so all four pairs of crops agree bit for bit."""
    config = request.getfixturevalue(name)
    if name == 'digits':
        stored_digits.use(config, digits_array_record)
    config.dataset.train_crop, config.dataset.eval_crop = train_crop, eval_crop
    found = {}
    for config.dataset.in_memory in (False, True):
        shard = HostShard(1, 2)
        far = first(config, 2, start_step=10**6, shard=shard)
        split = config.dataset.eval_split
        evaluation = list(data.eval_batches(config, split, shard=shard))
        found[config.dataset.in_memory] = [*first(config, 6), *far, *evaluation]
    assert_equal(found[True], found[False])


@pytest.mark.parametrize('train_crop', ['resized', 'padded'])
def test_jpegs_differ_in_memory_by_their_faster_decoding_alone(imagenet, train_crop):
    """Resized crops are decoded faster from disk, at the same positions."""
    imagenet.dataset.train_crop = train_crop
    imagenet.dataset.crop_area = (0.5, 1.0)
    (from_disk,) = first(imagenet, 1)
    imagenet.dataset.in_memory = True
    (from_memory,) = first(imagenet, 1)
    np.testing.assert_array_equal(from_disk['label'], from_memory['label'])
    difference = np.abs(from_disk['image'].astype(int) - from_memory['image'])
    if train_crop == 'padded':
        assert not difference.any()
    assert difference.mean() < 12  # of 255; random other crops differ by 60 and more
    others = np.abs(from_disk['image'].astype(int) - np.roll(from_memory['image'], 1, axis=0))
    assert others.mean() > 3 * difference.mean()


def test_a_folder_of_small_images_has_cifars_crop(small_folder):
    """Every training image is an image of the folder, shifted, mirrored or not, on black."""
    small_folder.dataset.train_crop, small_folder.dataset.eval_crop = 'padded', 'whole'
    small_folder.dataset.crop_padding = 2
    whole = np.concatenate([b['image'] for b in data.eval_batches(small_folder, 'train')])[:18]
    padded = np.pad(whole, ((0, 0), (2, 2), (2, 2), (0, 0)))
    padded = np.concatenate([padded, padded[:, :, ::-1]])
    allowed = {
        bytes(image[top : top + 32, left : left + 32])
        for image in padded
        for top in range(5)
        for left in range(5)
    }
    for batch in first(small_folder, 4):
        assert all(bytes(image) in allowed for image in batch['image'])


def digest(batches):
    content = [batch[name].tobytes() for batch in batches for name in ('image', 'label')]
    return hashlib.sha256(b''.join(content)).hexdigest()[:16]


def test_batches_of_the_digits_stay_as_they_were(digits):
    """Checksums of the first version of these crops: its runs must resume with the same batches.

    But for the last but one, whose crops are drawn by NumPy's Philox since.
    """
    assert digest(first(digits, 3)) == 'ef58a7cbdb583ba3'
    assert digest(first(digits, 3, start_step=1000)) == '2b460cf4267baf35'
    assert digest(data.eval_batches(digits, 'test')) == '613272aa2f9d03ea'
    digits.dataset.in_memory = False
    digits.dataset.train_crop, digits.dataset.eval_crop = 'resized', 'center'
    assert digest(first(digits, 3)) == '444339f8cc659f56'
    assert digest(data.eval_batches(digits, 'test')) == 'ff506131fc05265b'


@pytest.mark.parametrize('padding', [1, 4])
def test_padded_crops_and_flips_are_uniform(padding):
    keys = np.stack([np.zeros(50_000, np.int64), np.arange(50_000)], axis=1)
    draws = draw_padded(keys, 0, 50_000, padding)
    positions = (2 * padding + 1) ** 2
    counts = np.bincount(draws[:, :2] @ (2 * padding + 1, 1), minlength=positions)
    expected = 50_000 / positions
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < positions + 5 * np.sqrt(2 * positions)
    assert abs(draws[:, 2].mean() - 0.5) < 0.01


def test_images_of_another_size_are_resized(digits):
    small, large = [], []
    for images, digits.dataset.image_size in ((small, 8), (large, 16)):
        images.extend(next(data.eval_batches(digits, 'test'))['image'][:20])
    for before, after in zip(small, large, strict=True):
        expected = Image.fromarray(before).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.abs(after.astype(int) - np.asarray(expected, int)).max() <= 1


def test_the_file_format_does_not_matter_in_memory(imagenet, imagenet_tfrecord):
    """The order and the decoding are the same, also over several files."""
    for config in (imagenet, imagenet_tfrecord):
        config.dataset.in_memory = True
        config.dataset.train_crop, config.dataset.eval_crop = 'padded', 'whole'
    assert_equal(first(imagenet, 3), first(imagenet_tfrecord, 3))
    one, other = (data.eval_batches(c, 'validation') for c in (imagenet, imagenet_tfrecord))
    assert_equal(list(one), list(other))
