"""Layouts, classes and held-out images of folders of images."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.data.datasets import folder_files
from ssanet_jax.data.datasets.folder_files import image_files
from ssanet_jax.data.datasets.image_folder import ImageFile, hold_out
from ssanet_jax.errors import ConfigError
from tests import fabricate
from tests.data.folders import classes, listed, make, names


@pytest.mark.parametrize(
    ('train', 'validation'),
    [
        ('train', 'validation'),
        ('train', 'val'),
        ('Train', 'Valid'),
        ('training', 'dev'),
        ('train', 'test'),
    ],
)
def test_folders_of_splits_are_found_under_the_names_people_use(train, validation, tmp_path):
    make(tmp_path, f'{train}/a/0.jpg', f'{train}/b/sub/1.jpg', f'{validation}/a/2.jpg')
    folder = listed(tmp_path)
    assert names(folder, 'train') == {f'{train}/a/0.jpg', f'{train}/b/sub/1.jpg'}
    assert names(folder, 'validation') == {f'{validation}/a/2.jpg'}
    assert classes(folder) == ['a', 'b']
    evaluated = [f'No folder of validation images: {validation}/ is evaluated.']
    assert folder.notes == (evaluated if validation == 'test' else [])


def test_a_validation_folder_is_preferred_to_a_test_folder(tmp_path):
    make(tmp_path, 'train/a/0.jpg', 'test/a/1.jpg', 'val/a/2.jpg')
    folder = listed(tmp_path)
    assert names(folder, 'validation') == {'val/a/2.jpg'}
    assert names(folder, 'test') == {'test/a/1.jpg'}
    assert names(listed(tmp_path, evaluation='test'), 'test') == {'test/a/1.jpg'}


def test_folders_of_classes_alone_are_enough(tmp_path):
    make(tmp_path, *(f'{name}/{i}.jpg' for name in ('ash', 'oak') for i in range(10)))
    folder = listed(tmp_path)
    assert classes(folder) == ['ash', 'oak']
    for split, each in (('train', 8), ('validation', 2)):
        assert Counter(f.class_name for f in folder.files[split]) == {'ash': each, 'oak': each}
    assert not names(folder, 'train') & names(folder, 'validation')
    assert '4 of 20 are held out, 20 % of each class' in folder.notes[0]


def test_a_class_called_train_is_a_class(tmp_path):
    make(tmp_path, *(f'{name}/{i}.jpg' for name in ('bus', 'car', 'train') for i in range(5)))
    assert classes(listed(tmp_path)) == ['bus', 'car', 'train']


@pytest.mark.parametrize('evaluation', ['validation', 'val', 'test'])
def test_images_are_held_out_of_a_lone_training_folder(evaluation, tmp_path):
    make(tmp_path, *(f'train/{name}/{i}.jpg' for name in 'ab' for i in range(5)))
    folder = listed(tmp_path, evaluation=evaluation, share=0.4)
    assert Counter(f.class_name for f in folder.files[evaluation]) == {'a': 2, 'b': 2}


def test_slices_of_a_training_folder_hold_nothing_out(tmp_path):
    make(tmp_path, *(f'train/a/{i}.jpg' for i in range(10)))
    folder = listed(tmp_path, train='train[:90%]', evaluation='train[90%:]')
    assert len(folder.select('train[:90%]')) == 9
    assert len(folder.files['train']) == 10
    assert folder.notes == []


def test_images_are_held_out_of_a_training_folder_of_another_name(tmp_path):
    make(tmp_path, *(f'mine/a/{i}.jpg' for i in range(10)), 'other/b/0.jpg')
    folder = listed(tmp_path, train='mine')
    assert len(folder.select('mine')) == 8
    assert not names(folder, 'mine') & names(folder, 'validation')
    assert classes(folder) == ['a']


def test_a_sum_of_splits_has_the_classes_of_all(tmp_path):
    make(tmp_path, 'train/a/0.jpg', 'more/b/0.jpg', 'val/a/1.jpg')
    folder = listed(tmp_path, train='train+more')
    assert classes(folder) == ['a', 'b']
    assert len(folder.select('train+more')) == 2


@pytest.mark.parametrize(
    ('number', 'share', 'expected'),
    [(1, 0.2, 0), (2, 0.2, 1), (2, 0.9, 1), (7, 0.2, 1), (8, 0.2, 2), (100, 0.2, 20), (9, 0.99, 8)],
)
def test_each_class_keeps_its_share_and_a_training_image(number, share, expected):
    files = [ImageFile(f'a/{i}.jpg', '', 'a') for i in range(number)]
    train, validation = hold_out(files, share, 0)
    assert (len(train), len(validation)) == (number - expected, expected)
    assert {*train, *validation} == {*files}


def test_held_out_images_depend_on_names_and_the_seed_alone(tmp_path):
    files = [ImageFile(f'{c}/{i}.jpg', '', c) for c in 'abc' for i in range(40)]
    whole = {file.name for file in hold_out(files, 0.2, 0)[1]}
    elsewhere = [file._replace(path=f'/elsewhere/{file.name}') for file in reversed(files)]
    assert {file.name for file in hold_out(elsewhere, 0.2, 0)[1]} == whole
    assert {file.name for file in hold_out(files, 0.2, 1)[1]} != whole
    for removed in files[::9]:  # others move by one at most
        rest = [file for file in files if file != removed]
        assert len(whole ^ {file.name for file in hold_out(rest, 0.2, 0)[1]}) <= 2


def test_held_out_images_are_the_same_in_every_version():
    files = [ImageFile(f'a/{i}.jpg', '', 'a') for i in range(10)]
    assert sorted(file.name for file in hold_out(files, 0.3, 0)[1]) == [
        'a/2.jpg',
        'a/7.jpg',
        'a/8.jpg',
    ]


def test_a_split_that_is_not_used_adds_no_class(tmp_path):
    make(tmp_path, 'train/a/0.jpg', 'validation/a/1.jpg', 'test/unknown/2.jpg', 'more/x/3.jpg')
    assert classes(listed(tmp_path)) == ['a']


def test_names_that_are_not_utf8_work(trees, tmp_path):
    root = os.fsencode(tmp_path / 'trees')
    os.rename(root + b'/train/ash/0.jpg', root + b'/train/ash/caf\xe9.jpg')
    for split in (b'train', b'validation'):
        os.rename(root + b'/' + split + b'/cedar', root + b'/' + split + b'/c\xe9dre')
    info = data.dataset_info(trees)
    assert (info.num_train, info.class_names) == (27, ('ash', 'beech', r'c\xe9dre'))
    batch = next(data.train_batches(trees))
    brightest = batch['image'].mean(axis=(1, 2)).argmax(axis=1)
    np.testing.assert_array_equal(brightest, batch['label'])


def test_a_folder_around_the_folder_of_classes_is_noticed(tmp_path):
    make(tmp_path, *(f'PetImages/{name}/{i}.jpg' for name in ('cat', 'dog') for i in range(3)))
    folder = listed(tmp_path)
    assert f'use --config.dataset.data_dir={tmp_path}/PetImages' in folder.notes[-1]
    assert classes(listed(tmp_path / 'PetImages')) == ['cat', 'dog']


def test_images_without_folders_of_classes_have_an_error_that_counts_them(tmp_path):
    make(tmp_path, '0.jpg', '1.jpg', '2.heic')
    with pytest.raises(ConfigError, match=r'CLASS/NAME\.jpg.* in no folder of a class, 2 \(0\.jpg'):
        listed(tmp_path)


def test_a_split_with_other_classes_is_refused(trees, tmp_path):
    fabricate.image_folder(tmp_path / 'trees', splits=('test',))
    (tmp_path / 'trees' / 'test' / 'ash').rename(tmp_path / 'trees' / 'test' / 'yew')
    with pytest.raises(ConfigError, match=r"Split 'test' has classes that .* yew"):
        next(data.eval_batches(trees, 'test'))


def test_object_stores_are_listed_too(tmp_path, monkeypatch):
    paths = ['train/a/0.jpg', 'train/b/sub/1.jpg', 'val/a/2.jpg']
    make(tmp_path, *paths)

    def local(path):  # in place of a bucket
        return Path(path.replace('gs://bucket', str(tmp_path)))

    asked, is_dir = [], Path.is_dir
    monkeypatch.setattr(folder_files.epath, 'Path', local)
    monkeypatch.setattr(Path, 'is_dir', lambda path: asked.append(path.name) or is_dir(path))
    images, _ = image_files('gs://bucket')
    assert [file.name for file in images] == paths
    assert not [name for name in asked if name.endswith('.jpg')]  # a request each
