"""What counts as an example in a folder of images."""

import os
import socket
import unicodedata

import pytest

from ssanet_jax import data
from ssanet_jax.data.datasets import folder_files
from ssanet_jax.data.datasets.folder_files import image_files
from ssanet_jax.errors import ConfigError
from tests.data.folders import classes, listed, make

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
    suffixes = 'jpg JPG jpeg JPE jfif png webp gif bmp tif TIFF avif'
    make(tmp_path, *(f'a/{i}.{suffix}' for i, suffix in enumerate(suffixes.split())))
    images, left_out = image_files(str(tmp_path))
    assert (len(images), left_out) == (12, {})


def test_one_class_spelled_by_macos_and_by_linux_is_one(tmp_path):
    make(
        tmp_path, *(f'train/{unicodedata.normalize(form, "café")}/0.jpg' for form in ('NFC', 'NFD'))
    )
    make(tmp_path, 'validation/caf\u00e9/0.jpg')
    folder = listed(tmp_path)
    assert (classes(folder), len(folder.files['train'])) == (['café'], 2)


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


def test_a_file_that_turns_into_a_pipe_ends_the_run_with_its_name(trees, tmp_path):
    data.dataset_info(trees)
    path = tmp_path / 'trees' / 'validation' / 'ash' / '3.jpg'
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r'ash/3\.jpg cannot be read: .*not a regular file'):
        list(data.eval_batches(trees, 'validation'))
