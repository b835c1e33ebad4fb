"""Scans of datasets, and what is said of them."""

import os
import re
import shutil
from math import sqrt

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssanet_jax import data
from ssanet_jax.data.checks import findings
from ssanet_jax.data.checks.scan import scan_split
from ssanet_jax.data.decoding.formats import SUFFIXES
from ssanet_jax.errors import ConfigError
from tests import fabricate, stored_digits
from tests.helpers import load_config

CLASSES = ['ash', 'beech', 'cedar']


@pytest.fixture
def trees(tmp_path):
    config = load_config('folder')
    config.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees', per_class=3))
    return config.dataset


def test_a_scan_measures_every_image(trees, tmp_path):
    Image.new('RGB', (70, 20)).save(tmp_path / 'trees' / 'train' / 'ash' / 'wide.png')
    done = []
    scan = scan_split(trees, 'train', done.append)
    assert sum(done) == len(scan.number) == 10
    assert sorted(scan.number) == list(range(10))
    assert np.bincount(scan.label).tolist() == [4, 3, 3]
    assert sorted(map(tuple, scan.sides.tolist())) == [(20, 70), *[(48, 56)] * 9]
    files = {scan.source.name(n): size for n, size in zip(scan.number, scan.num_bytes, strict=True)}
    assert files == {name: os.path.getsize(name) for name in files}
    table = findings.size_table([scan])
    assert table.rows[0] == ('train', 'width', 56, 56, 70)
    assert table.rows[2] == ('train', 'pixels', 70 * 20, 48 * 56, 48 * 56)


def test_all_bad_files_are_found_at_once(trees, tmp_path):
    folder = tmp_path / 'trees' / 'train' / 'beech'
    for name, content in fabricate.bad_files().items():
        (folder / f'{name}.jpg').write_bytes(content)
    table = findings.bad_table(CLASSES, [scan_split(trees, s) for s in ('train', 'validation')])
    assert [row[2] for row in table.rows] == [
        str(folder / f'{name}.jpg') for name in sorted(fabricate.bad_files())
    ]
    assert {row[:2] for row in table.rows} == {('train', 'beech')}
    assert all(row[3] and '\n' not in row[3] for row in table.rows)


def test_a_file_that_cannot_be_read_is_one_of_them(trees, tmp_path):
    path = tmp_path / 'trees' / 'train' / 'ash' / '1.jpg'
    data.builders.open_builder(trees)
    path.unlink()
    (row,) = findings.bad_table(CLASSES, [scan_split(trees, 'train')]).rows
    assert row[2:] == (str(path), 'It cannot be read: No such file or directory.')


def test_every_format_that_is_listed_can_be_decoded(trees, tmp_path):
    folder, image = tmp_path / 'trees' / 'train' / 'ash', Image.new('RGB', (20, 10), 'red')
    for suffix in SUFFIXES:
        image.save(folder / f'{suffix[1:]}{suffix}', {'.jfif': 'JPEG', '.jpe': 'JPEG'}.get(suffix))
    scan = scan_split(trees, 'train')
    assert scan.bad == {}
    assert (scan.sides == (10, 20)).all(axis=1).sum() == len(SUFFIXES)


def test_files_of_the_same_content_are_found_by_harm(trees, tmp_path):
    root = tmp_path / 'trees'
    shutil.copy(root / 'train/ash/0.jpg', root / 'train/ash/again.jpg')
    shutil.copy(root / 'train/ash/1.jpg', root / 'train/cedar/moved.jpg')
    shutil.copy(root / 'train/beech/2.jpg', root / 'validation/beech/seen.jpg')
    scans = [scan_split(trees, split) for split in ('train', 'validation')]
    table = findings.duplicate_table(CLASSES, scans)
    found = [(problem, set(files.split(', '))) for problem, files in table.rows]
    assert found == [
        (
            'in training and evaluation',
            {str(root / 'train/beech/2.jpg'), str(root / 'validation/beech/seen.jpg')},
        ),
        (
            'of different classes: ash, cedar',
            {str(root / 'train/ash/1.jpg'), str(root / 'train/cedar/moved.jpg')},
        ),
        ('twice', {str(root / 'train/ash/0.jpg'), str(root / 'train/ash/again.jpg')}),
    ]
    text = ' '.join(findings.image_warnings(findings.bad_table(CLASSES, scans), table))
    assert 'Leakage: 1 images' in text
    assert '1 images are in several classes' in text


def test_labels_outside_the_classes_are_shown_as_numbers(trees, tmp_path):
    root = tmp_path / 'trees' / 'train'
    shutil.copy(root / 'ash' / '1.jpg', root / 'cedar' / 'moved.jpg')
    scan = scan_split(trees, 'train')
    scan.label[scan.label == 2] = 7
    (row,) = findings.duplicate_table(CLASSES, [scan]).rows
    assert row[0] == 'of different classes: ash, 7'


def test_nothing_is_said_of_a_good_dataset(trees):
    scans = [scan_split(trees, split) for split in ('train', 'validation')]
    bad, duplicates = findings.bad_table(CLASSES, scans), findings.duplicate_table(CLASSES, scans)
    assert (bad.rows, duplicates.rows) == ([], [])
    assert findings.image_warnings(bad, duplicates) == []
    assert findings.count_warnings(CLASSES, np.full(3, 900), np.full(3, 200)) == []


@pytest.mark.parametrize(
    ('train', 'evaluated', 'message'),
    [
        ([900], [500], 'one class, ash, with 900 training images'),
        ([0, 900], [7, 500], 'Without a training image, so never learned: ash with 7 evaluation'),
        ([900, 40, 900], [500, 0, 500], 'never measured: beech with 40 training images'),
        ([900, 900], [500, 3], '1 of 2 classes have fewer than 10 evaluation images; beech has 3'),
        ([100, 1000], [500, 1500], 'beech has 10 times as many .* ash, 1,000 and 100.* 75.0 %'),
    ],
)
def test_classes_that_limit_the_results_are_named_with_numbers(train, evaluated, message):
    text = findings.count_warnings(CLASSES[: len(train)], np.array(train), np.array(evaluated))
    assert re.search(message, ' '.join(text))


def test_many_classes_are_counted_rather_than_named():
    names = [f'c{i}' for i in range(100)]
    (text, *_) = findings.count_warnings(names, np.full(100, 50), np.zeros(100, int))
    assert 'c4 with 50, 95 more classes with 4,750 training images' in text


@pytest.mark.parametrize('images', [1, 60, 400])
def test_the_standard_error_is_that_of_a_binomial_share(images):
    """Oracle: the standard deviation of shares drawn at random."""
    draws = np.random.default_rng(0).binomial(images, 0.5, size=20_000) / images
    assert findings.standard_error(images) == pytest.approx(100 * draws.std(), rel=0.02)
    assert findings.standard_error(images) == pytest.approx(50 / sqrt(images))


def test_spellings_of_one_class_are_noticed():
    names = ['Cat', 'cat', 'dog', 'sea_lion', 'sea lion']
    text = findings.count_warnings(names, np.full(5, 900), np.full(5, 200))
    assert [line.partition(' differ')[0] for line in text] == [
        "Classes 'Cat' and 'cat'",
        "Classes 'sea_lion' and 'sea lion'",
    ]


def relabel(folder, split: str, label: int) -> None:
    """Gives the first example of a split in tfrecord files another label."""
    path = next(iter(sorted(folder.rglob(f'*{split}.tfrecord*'))))
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    example = tf.train.Example.FromString(records[0])
    example.features.feature['label'].int64_list.value[0] = label
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in [example.SerializeToString(), *records[1:]]:
            writer.write(record)


@pytest.mark.parametrize('in_memory', [False, True])
@pytest.mark.parametrize('label', [-1, 10])
@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_label_outside_the_classes_is_an_error(split, label, in_memory, digits, tmp_path):
    stored_digits.use(digits, stored_digits.prepare(tmp_path, 'tfrecord', 1))
    relabel(tmp_path, split, label)
    digits.dataset.in_memory = in_memory
    digits.dataset.num_threads = 1
    message = (
        rf'stored_digits-{split}\.tfrecord\S+__0 has label {label}; the dataset has classes 0 to 9'
    )
    with pytest.raises(ConfigError, match=message):
        list(data.eval_batches(digits, split))
    if split == 'train':
        digits.batch_size = 1437
        with pytest.raises(ConfigError, match=message):
            next(data.train_batches(digits))


def test_a_scan_of_a_prepared_dataset_lists_labels_outside_the_classes(digits, tmp_path):
    stored_digits.use(digits, stored_digits.prepare(tmp_path, 'tfrecord', 1))
    relabel(tmp_path, 'test', 10)
    scan = scan_split(digits.dataset, 'test')
    assert list(scan.bad.values()) == ['Label 10 is none of 0 to 9.']
    assert findings.class_counts(scan, 10).sum() == 359
    assert (scan.sides == 8).all()
