"""Layouts, held-out images, and what is no example, in folders of images."""

import os
import socket
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.data.datasets import folder_files
from ssanet_jax.data.datasets.folder_files import image_files
from ssanet_jax.data.datasets.image_folder import FolderSpec, ImageFile, ImageFolder, hold_out
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable
from tests import fabricate
from tests.helpers import load_config


def make(root: Path, *names: str) -> Path:
    """Empty files, which are enough for a listing."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def listed(root, *, train='train', evaluation='validation', share=0.2, seed=0) -> ImageFolder:
    return ImageFolder(FolderSpec(str(root), train, evaluation, share, seed))


def names(folder: ImageFolder, split: str) -> set[str]:
    return {file.name for file in folder.files[split]}


def classes(folder: ImageFolder) -> list[str]:
    return folder.info.features['label'].names


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


HIDDEN = [
    '.ipynb_checkpoints', '.git', '__MACOSX', '@eaDir', '$RECYCLE.BIN', '__pycache__',
    'System Volume Information',
]  # fmt: skip


@pytest.mark.parametrize('with_images', [False, True])
def test_hidden_and_system_names_are_never_classes(with_images, tmp_path):
    make(tmp_path, 'cat/0.jpg', 'dog/0.jpg', 'cat/Thumbs.db', 'cat/._0.jpg', '.DS_Store')
    for name in HIDDEN:
        (tmp_path / name).mkdir()
        (tmp_path / 'dog' / name).mkdir()
        if with_images:
            make(tmp_path, f'{name}/0.jpg', f'dog/{name}/0.jpg')
    folder = listed(tmp_path)
    assert classes(folder) == ['cat', 'dog']
    assert len(folder.files['train']) + len(folder.files['validation']) == 2
    assert len(folder.left_out['hidden or system file']) == 2 * len(HIDDEN) + 3


def test_an_empty_folder_is_no_class_and_is_named(tmp_path):
    make(tmp_path, 'train/b/0.jpg', 'validation/b/1.jpg')
    (tmp_path / 'train' / 'a').mkdir()
    folder = listed(tmp_path)
    assert classes(folder) == ['b']
    assert folder.left_out == {'empty folder': ['train/a']}


def test_a_split_that_is_not_used_adds_no_class(tmp_path):
    make(tmp_path, 'train/a/0.jpg', 'validation/a/1.jpg', 'test/unknown/2.jpg', 'more/x/3.jpg')
    assert classes(listed(tmp_path)) == ['a']


def test_all_that_is_no_image_is_named_with_the_reason(tmp_path, monkeypatch):
    make(tmp_path, 'a/0.jpg', 'a/1.HEIC', 'a/notes.txt', 'a/none', 'root.png')
    os.mkfifo(tmp_path / 'a' / 'pipe.jpg')
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # paths of sockets are short
        server.bind('a/socket.jpg')
    (tmp_path / 'a' / 'lost.jpg').symlink_to('nowhere.jpg')
    (tmp_path / 'a' / 'self.jpg').symlink_to('self.jpg')
    (tmp_path / 'a' / 'up').symlink_to('..')
    folder = listed(tmp_path)
    assert {reason: sorted(files) for reason, files in folder.left_out.items()} == {
        '.heic, which cannot be decoded: convert to JPEG': ['a/1.HEIC'],
        'not named like an image': ['a/none', 'a/notes.txt'],
        'in no folder of a class': ['root.png'],
        'pipe, socket or device': ['a/pipe.jpg', 'a/socket.jpg'],
        'broken link': ['a/lost.jpg', 'a/self.jpg'],
        'link to a folder around it': ['a/up'],
    }


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    make(tmp_path, 'photos/a/0.jpg', 'disk/b/1.jpg')
    (tmp_path / 'photos' / 'b').symlink_to(tmp_path / 'disk' / 'b')
    assert classes(listed(tmp_path / 'photos')) == ['a', 'b']


def test_every_suffix_is_read_in_any_case(tmp_path):
    suffixes = [
        'jpg',
        'JPG',
        'jpeg',
        'JPE',
        'jfif',
        'png',
        'webp',
        'gif',
        'bmp',
        'tif',
        'TIFF',
        'avif',
    ]
    make(tmp_path, *(f'a/{i}.{suffix}' for i, suffix in enumerate(suffixes)))
    images, left_out = image_files(str(tmp_path))
    assert (len(images), left_out) == (len(suffixes), {})


def test_one_class_spelled_by_macos_and_by_linux_is_one(tmp_path):
    make(
        tmp_path, *(f'train/{unicodedata.normalize(form, "café")}/0.jpg' for form in ('NFC', 'NFD'))
    )
    make(tmp_path, 'validation/caf\u00e9/0.jpg')
    folder = listed(tmp_path)
    assert (classes(folder), len(folder.files['train'])) == (['café'], 2)


@pytest.fixture
def trees(tmp_path):
    """The recipe at 32 pixels on a small folder of three classes."""
    config = load_config('folder')
    config.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees'))
    config.dataset.image_size = 32
    config.dataset.train_crop = 'padded'
    return config


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


def test_printable_escapes_what_a_terminal_would_obey():
    assert printable(os.fsdecode(b'caf\xe9\x1b[31m\n.jpg')) == r'caf\xe9\x1b[31m\n.jpg'
    assert printable('Übung 1 [a].jpg') == 'Übung 1 [a].jpg'


def test_a_folder_around_the_folder_of_classes_is_noticed(tmp_path):
    make(tmp_path, *(f'PetImages/{name}/{i}.jpg' for name in ('cat', 'dog') for i in range(3)))
    folder = listed(tmp_path)
    assert f'use --config.dataset.data_dir={tmp_path}/PetImages' in folder.notes[-1]
    assert classes(listed(tmp_path / 'PetImages')) == ['cat', 'dog']


def test_images_without_folders_of_classes_have_an_error_that_counts_them(tmp_path):
    make(tmp_path, '0.jpg', '1.jpg', '2.heic')
    with pytest.raises(ConfigError, match=r'CLASS/NAME\.jpg.* in no folder of a class, 2 \(0\.jpg'):
        listed(tmp_path)


def test_a_folder_that_cannot_be_listed_is_not_skipped(tmp_path, monkeypatch):
    make(tmp_path, 'a/0.jpg', 'b/0.jpg')
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith('b'):
            raise PermissionError(13, 'Permission denied', folder)
        return scandir(folder)

    monkeypatch.setattr(folder_files.os, 'scandir', refuse)
    with pytest.raises(ConfigError, match=r'/b cannot be listed: Permission denied\. Grant'):
        listed(tmp_path)


def test_a_split_with_other_classes_is_refused(trees, tmp_path):
    fabricate.image_folder(tmp_path / 'trees', splits=('test',))
    (tmp_path / 'trees' / 'test' / 'ash').rename(tmp_path / 'trees' / 'test' / 'yew')
    with pytest.raises(ConfigError, match=r"Split 'test' has classes that .* yew"):
        next(data.eval_batches(trees, 'test'))


def test_a_file_that_turns_into_a_pipe_ends_the_run_with_its_name(trees, tmp_path):
    data.dataset_info(trees)
    path = tmp_path / 'trees' / 'validation' / 'ash' / '3.jpg'
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r'ash/3\.jpg cannot be read: .*not a regular file'):
        list(data.eval_batches(trees, 'validation'))


def test_object_stores_are_listed_too(tmp_path, monkeypatch):
    for name in ('train/a/0.jpg', 'train/b/sub/1.jpg', 'val/a/2.jpg'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def local(path):  # in place of a bucket
        return Path(path.replace('gs://bucket', str(tmp_path)))

    monkeypatch.setattr(folder_files.epath, 'Path', local)
    images, _ = image_files('gs://bucket')
    assert [file.name for file in images] == ['train/a/0.jpg', 'train/b/sub/1.jpg', 'val/a/2.jpg']
