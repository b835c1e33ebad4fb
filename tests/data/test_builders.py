import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssanet_jax import data
from ssanet_jax.data.datasets.digits import Digits
from ssanet_jax.data.datasets.fashion_mnist import read_idx
from ssanet_jax.errors import ConfigError
from tests import fabricate, stored_digits


def test_digits_are_scikit_learns_once_each():
    images, labels = load_digits(return_X_y=True)
    expected = sorted(
        (*np.round(x * 255 / 16).astype(int), y) for x, y in zip(images, labels, strict=True)
    )
    found = [
        (*image[..., 0].ravel().astype(int), label)
        for split in ('train', 'test')
        for image, label in zip(*Digits().select(split), strict=True)
    ]
    assert sorted(found) == expected


def test_digits_split_is_stratified_and_fixed(digits):
    info = data.dataset_info(digits)
    assert (info.num_train, info.num_eval, info.num_classes) == (1437, 360, 10)
    assert info.fingerprint == 'digits/1.0.0 bb7f111b569f'  # of the runs when TFDS prepared it
    images, labels = Digits().select('test')
    assert np.bincount(labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    assert images[..., 0].astype(int).sum() == 1790819


def test_the_order_in_memory_is_that_of_tfds(tmp_path):
    folder = stored_digits.prepare(tmp_path, 'array_record', 1)
    stored = stored_digits.StoredDigits(data_dir=folder).as_data_source('train[3:500]')
    images, labels = Digits().select('train[3:500]')
    assert labels.tolist() == [example['label'] for example in stored]
    np.testing.assert_array_equal(images[..., :1], [example['image'] for example in stored])


def test_fashion_mnist_is_read_from_its_four_files(digits, tmp_path):
    content = fabricate.fashion_mnist_files(tmp_path / 'files')
    config = digits
    config.dataset.name = 'fashion_mnist_idx'
    config.dataset.data_dir = str(tmp_path / 'data')
    config.dataset.manual_dir = str(tmp_path / 'files')
    config.dataset.image_size = 28
    info = data.dataset_info(config)
    assert (info.num_train, info.num_eval, info.class_names[-1]) == (40, 10, 'Ankle boot')
    images, labels = content['test']
    expected = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    found = []
    for batch in data.eval_batches(config, 'test'):
        assert (batch['image'] == batch['image'][..., :1]).all()  # gray in three channels
        rows = zip(
            batch['image'][batch['mask'], ..., 0], batch['label'][batch['mask']], strict=True
        )
        found += [(image.tobytes(), label) for image, label in rows]
    assert sorted(found) == expected


def test_missing_fashion_mnist_files_are_named(digits, tmp_path):
    digits.dataset.name = 'fashion_mnist_idx'
    digits.dataset.data_dir = str(tmp_path)
    digits.dataset.manual_dir = str(tmp_path / 'nowhere')
    with pytest.raises(ConfigError, match=r't10k-labels-idx1-ubyte\.gz in .*nowhere'):
        data.dataset_info(digits)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (fabricate.idx_gz(np.zeros((2, 3), np.uint8))[:-9], 'Compressed file ended'),
        (b'', 'is not an idx file'),
    ],
)
def test_a_damaged_idx_file_is_refused(content, message, tmp_path):
    path = tmp_path / 'images.gz'
    path.write_bytes(content)
    with pytest.raises((ValueError, EOFError), match=message):
        read_idx(path)


def test_an_idx_file_shorter_than_its_header_says_is_refused(tmp_path):
    import gzip

    path = tmp_path / 'images.gz'
    path.write_bytes(gzip.compress(b'\0\0\x08\x01\0\0\0\x05abc'))
    with pytest.raises(ValueError, match='should hold 5 bytes for shape'):
        read_idx(path)


def test_damaged_fashion_mnist_files_have_an_error_on_one_line(digits, tmp_path):
    fabricate.fashion_mnist_files(tmp_path)
    (tmp_path / 't10k-labels-idx1-ubyte.gz').write_bytes(b'damaged')
    digits.dataset.name, digits.dataset.manual_dir = 'fashion_mnist_idx', str(tmp_path)
    with pytest.raises(ConfigError, match=r'manual_dir, cannot be read: Not a gzipped') as raised:
        data.dataset_info(digits)
    assert '\n' not in str(raised.value)


PREPARE = r'Prepare it once with: ssanet prepare '


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('cifar10', rf'cifar10/\S+ is not prepared in .*{PREPARE}--dataset=cifar10 --data_dir'),
        ('cifar100', rf'{PREPARE}--dataset=cifar100 --data_dir'),
        (
            'imagenet2012:5.*.*',
            rf"ILSVRC2012_img_train\.tar and .*{PREPARE}'--dataset=imagenet2012:5\.\*\S+' --data",
        ),
        ('ciafr10', r'nearest: .*cifar10'),
        ('cifar10:99.0.0', r'cannot be loaded at version 99\.0\.0'),
    ],
)
def test_a_dataset_that_is_not_there_has_an_error_with_the_command(name, message, digits, tmp_path):
    digits.dataset.name = name
    digits.dataset.data_dir = str(tmp_path)
    with pytest.raises(ConfigError, match=message):
        data.dataset_info(digits)


def test_an_unknown_split_has_an_error_with_the_known_ones(digits):
    digits.dataset.eval_split = 'validation'
    with pytest.raises(ConfigError, match='nearest: train, test'):
        data.dataset_info(digits)
