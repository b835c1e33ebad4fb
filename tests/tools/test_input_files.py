import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import input_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ('b.PNG', 'a.jpg', 'deep/c.jpeg', 'deep/d.webp', 'notes.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments):
    return [Path(file).as_posix() for file in input_files.find(arguments)]


def test_a_folder_is_searched_to_its_depths_for_images(folder):
    assert names('.') == ['a.jpg', 'b.PNG', 'deep/c.jpeg', 'deep/d.webp']


def test_a_folder_is_listed_as_training_lists_it(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('cats')
    (elsewhere / 'e.jpg').touch()
    (folder / 'linked').symlink_to(elsewhere)
    (folder / 'deep/around').symlink_to(folder)
    for left_out in ('._b.PNG', '.hidden/a.jpg', '@eaDir/a.jpg'):
        (folder / left_out).parent.mkdir(exist_ok=True)
        (folder / left_out).touch()
    (folder / 'z.jpg').symlink_to('nowhere')
    (folder / 'y.heic').touch()
    assert names('.') == [
        'a.jpg', 'b.PNG', 'deep/c.jpeg', 'deep/d.webp', 'linked/e.jpg', 'y.heic', 'z.jpg',
    ]  # fmt: skip


def test_a_glob_takes_what_it_matches_and_a_name_is_taken_as_it_is(folder):
    assert names('*.txt', '**/*.jpeg', 'none.jpg') == ['notes.txt', 'deep/c.jpeg', 'none.jpg']


def test_a_name_with_the_signs_of_a_glob_is_a_name_where_it_exists(folder):
    (folder / 'x[1].png').touch()
    assert names('x[1].png') == ['x[1].png']


def test_folders_are_no_images_whatever_their_names(folder):
    (folder / 'empty' / 'in.png').mkdir(parents=True)
    (folder / 'x.png').mkdir()
    assert 'x.png' not in names('.')
    for argument in ('emp*', 'empty'):
        with pytest.raises(ConfigError, match=r'matches no file|holds no image'):
            input_files.find([argument])


def test_names_that_no_file_can_have_are_left_to_whoever_reads(folder):
    assert names('n' * 300) == ['n' * 300]


def test_names_that_are_not_utf8_can_be_printed(folder):
    (folder / os.fsdecode(b'\xff.png')).touch()
    (file,) = input_files.find([os.fsdecode(b'\xff.png')])
    assert input_files.name(file) == '\\xff.png'


def standard_input(monkeypatch, data):
    monkeypatch.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BytesIO(data)))


def test_standard_input_is_one_image_or_paths(monkeypatch):
    for image in (b'\xff\xd8\xff\xe0...', b'\x89PNG\r\n...'):
        standard_input(monkeypatch, image)
        assert input_files.find(['-']) == [image]
    standard_input(monkeypatch, b'a.jpg\nb c.png\n\n')
    assert names('-') == ['a.jpg', 'b c.png']
    standard_input(monkeypatch, b'a.jpg\0two\nlines.png\0')
    assert names('-') == ['a.jpg', 'two\nlines.png']
    standard_input(monkeypatch, b'')
    with pytest.raises(ConfigError, match='Standard input is empty'):
        input_files.find(['-'])
